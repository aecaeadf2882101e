"""From report text to sentences, assertions, labels and captions."""

from bundle.ctfindings.reports.caption_augmentation import RandCaptionsd

__all__ = ["RandCaptionsd"]
