"""Synthetic chest CTs with known anatomy, findings, masks, reports and slice references."""

from bundle.ctfindings.data.sources.phantom.case import Case, Site
from bundle.ctfindings.data.sources.phantom.dataset import make_case, make_dataset

__all__ = ["Case", "Site", "make_case", "make_dataset"]
