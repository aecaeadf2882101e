"""From scans to their findings records: encode, answer, place."""

from bundle.ctfindings.inference.batch.scan_list import scan_records
from bundle.ctfindings.inference.bundle_workflow import (
    FindingsInferer,
    FindingsWriter,
    ReadAhead,
    check_request,
    prepare_study,
)
from bundle.ctfindings.inference.encoding import TimedPreprocessing
from bundle.ctfindings.inference.service import FindingsService

__all__ = [
    "FindingsInferer",
    "FindingsService",
    "FindingsWriter",
    "ReadAhead",
    "TimedPreprocessing",
    "check_request",
    "prepare_study",
    "scan_records",
]
