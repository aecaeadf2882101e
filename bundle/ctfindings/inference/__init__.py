"""From one scan to its findings record: encode, answer, place."""

from bundle.ctfindings.inference.bundle_workflow import (
    FindingsInferer,
    FindingsWriter,
    check_request,
    one_scan,
    prepare_study,
    scan_records,
)
from bundle.ctfindings.inference.encoding import TimedPreprocessing
from bundle.ctfindings.inference.service import FindingsService

__all__ = [
    "FindingsInferer",
    "FindingsService",
    "FindingsWriter",
    "TimedPreprocessing",
    "check_request",
    "one_scan",
    "prepare_study",
    "scan_records",
]
