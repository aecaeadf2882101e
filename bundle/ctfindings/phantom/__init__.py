"""Synthetic chest CTs with known anatomy, findings, masks, reports and slice references."""

from bundle.ctfindings.phantom.dataset import datalist_or_synthetic

__all__ = ["datalist_or_synthetic"]
