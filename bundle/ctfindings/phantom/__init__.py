"""Synthetic chest CTs with known anatomy, findings, masks, reports and slice references."""

from bundle.ctfindings.phantom.dataset import make_dataset

__all__ = ["make_dataset"]
