"""Synthetic chest CTs with known anatomy, findings, masks, reports and slice references."""

from bundle.ctfindings.phantom.training_datalist import datalist_or_synthetic

__all__ = ["datalist_or_synthetic"]
