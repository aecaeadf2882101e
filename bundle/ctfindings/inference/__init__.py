"""Inference: from a scan's answers to the findings record, evidence maps and the readable report."""

from bundle.ctfindings.inference.anatomy_map import write_anatomy
from bundle.ctfindings.inference.bundle_predictor import BundlePredictor
from bundle.ctfindings.inference.console import format_findings
from bundle.ctfindings.inference.coordinates import (
    orientation_code,
    ras_to_lps,
    voxel_spacing,
    voxel_to_world,
    world_to_voxel,
)
from bundle.ctfindings.inference.encoded_scan import EncodedScan, EvidenceAnswer
from bundle.ctfindings.inference.evidence import locate, sample_evidence, write_evidence
from bundle.ctfindings.inference.findings import Answers, FindingsPredictor, token_affine
from bundle.ctfindings.inference.markups import write_markups
from bundle.ctfindings.inference.record import (
    Evidence,
    FindingAnswer,
    FindingsRecord,
    ModelInfo,
    NearestFinding,
    QueryAnswer,
    ScanInfo,
    describe_scan,
    template_spread,
)
from bundle.ctfindings.inference.report_html import write_report
from bundle.ctfindings.inference.workflow import (
    FindingsInferer,
    FindingsWeights,
    FindingsWriter,
    TimedPreprocessing,
    check_request,
    one_scan,
    scan_records,
)
from bundle.ctfindings.inference.writer import scan_stem, write_findings

__all__ = [
    "Answers",
    "BundlePredictor",
    "EncodedScan",
    "Evidence",
    "EvidenceAnswer",
    "FindingAnswer",
    "FindingsInferer",
    "FindingsPredictor",
    "FindingsRecord",
    "FindingsWeights",
    "FindingsWriter",
    "ModelInfo",
    "NearestFinding",
    "QueryAnswer",
    "ScanInfo",
    "TimedPreprocessing",
    "check_request",
    "describe_scan",
    "format_findings",
    "locate",
    "one_scan",
    "orientation_code",
    "ras_to_lps",
    "sample_evidence",
    "scan_records",
    "scan_stem",
    "template_spread",
    "token_affine",
    "voxel_spacing",
    "voxel_to_world",
    "world_to_voxel",
    "write_anatomy",
    "write_evidence",
    "write_findings",
    "write_markups",
    "write_report",
]
