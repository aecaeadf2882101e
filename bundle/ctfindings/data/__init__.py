"""What a study is, and how it becomes tensors."""

from bundle.ctfindings.data.anatomy_mask import MASK_MAPPINGS, load_anatomy_mask
from bundle.ctfindings.data.datalist import MASK_KEYS, collate_studies, label_balance, load_datalist
from bundle.ctfindings.data.finding_voxels import FindingVoxelsd
from bundle.ctfindings.data.scan import ScanError, load_scan
from bundle.ctfindings.data.transforms import AveragePoold, BodyForeground, LoadScand, RandTranslated, image_pipeline

__all__ = [
    "MASK_KEYS",
    "MASK_MAPPINGS",
    "AveragePoold",
    "BodyForeground",
    "FindingVoxelsd",
    "LoadScand",
    "RandTranslated",
    "ScanError",
    "collate_studies",
    "image_pipeline",
    "label_balance",
    "load_anatomy_mask",
    "load_datalist",
    "load_scan",
]
