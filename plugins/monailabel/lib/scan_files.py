"""Which files are scans here, by their names."""

SCAN_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".zip")
"""Of the files that are listed and may be uploaded. A zip holds one DICOM series; a series may also come as its files.
"""


def scan_suffix(name: str) -> str | None:
    """The suffix that says how to read a scan, in lower case; None when the name is not that of a scan."""
    return next((suffix for suffix in SCAN_SUFFIXES if name.lower().endswith(suffix)), None)
