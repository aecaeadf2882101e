"""Formats of scan files that the server reads."""

from __future__ import annotations

SCAN_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".zip")
"""A zip holds one DICOM series."""


def scan_suffix(name: str) -> str:
    """The suffix of a scan file, in small letters; empty for a format that the server does not read."""
    return next((suffix for suffix in SCAN_SUFFIXES if name.lower().endswith(suffix)), "")
