"""From report text to sentences, assertions, labels and captions."""

from bundle.ctfindings.reports.augmentation import RandCaptionsd

__all__ = ["RandCaptionsd"]
