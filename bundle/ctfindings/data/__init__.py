"""From a study record to tensors: datalist, transforms, cache and loaders."""

from bundle.ctfindings.data.batches import prepare_batch, prepare_image_batch, prepare_report_batch
from bundle.ctfindings.data.datalist import label_balance, load_datalist
from bundle.ctfindings.data.finding_masks import ResampleFindingMaskd
from bundle.ctfindings.data.geometry import KeepGeometryd
from bundle.ctfindings.data.loaders import cached_dataset, study_loader
from bundle.ctfindings.data.snippet_targets import SnippetTargetsd
from bundle.ctfindings.data.transforms import RandTranslated, image_pipeline

__all__ = [
    "KeepGeometryd",
    "RandTranslated",
    "ResampleFindingMaskd",
    "SnippetTargetsd",
    "cached_dataset",
    "image_pipeline",
    "label_balance",
    "load_datalist",
    "prepare_batch",
    "prepare_image_batch",
    "prepare_report_batch",
    "study_loader",
]
