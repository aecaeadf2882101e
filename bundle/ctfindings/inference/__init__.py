"""From one scan to its findings record: encode, answer, place."""

from bundle.ctfindings.inference.bundle_workflow import (
    FindingsInferer,
    FindingsWeights,
    FindingsWriter,
    TimedPreprocessing,
    check_request,
    one_scan,
    scan_records,
)

__all__ = [
    "FindingsInferer",
    "FindingsWeights",
    "FindingsWriter",
    "TimedPreprocessing",
    "check_request",
    "one_scan",
    "scan_records",
]
