"""What a study is, and how it becomes tensors."""

from bundle.ctfindings.data.anatomy_mask import MASK_MAPPINGS, load_anatomy_mask
from bundle.ctfindings.data.datalist import MASK_KEYS, collate_studies, label_balance, load_datalist, report_text, text_id
from bundle.ctfindings.data.finding_voxels import FindingVoxelsd
from bundle.ctfindings.data.kept_geometry import KeepGeometryd
from bundle.ctfindings.data.published import fvlm_pipeline, radfinder_pipeline
from bundle.ctfindings.data.reports import read_report
from bundle.ctfindings.data.scan import load_scan
from bundle.ctfindings.data.snippet_targets import SnippetTargetsd
from bundle.ctfindings.data.text_augmentation import RandCaptionsd
from bundle.ctfindings.data.transforms import AveragePoold, BodyForeground, LoadScand, RandTranslated, image_pipeline
from bundle.ctfindings.data.volume import ScanError

__all__ = [
    "MASK_KEYS",
    "MASK_MAPPINGS",
    "AveragePoold",
    "BodyForeground",
    "FindingVoxelsd",
    "KeepGeometryd",
    "LoadScand",
    "RandCaptionsd",
    "RandTranslated",
    "ScanError",
    "SnippetTargetsd",
    "collate_studies",
    "fvlm_pipeline",
    "image_pipeline",
    "label_balance",
    "load_anatomy_mask",
    "load_datalist",
    "load_scan",
    "radfinder_pipeline",
    "read_report",
    "report_text",
    "text_id",
]
