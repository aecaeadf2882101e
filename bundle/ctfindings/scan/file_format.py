"""The format of a scan file, by its first bytes: names are often wrong, and a wrong name makes a misleading error."""

import re
import struct
import zipfile
from pathlib import Path

from isal import igzip, isal_zlib

from bundle.ctfindings.files.errors import ScanError

SCAN_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".zip")
"""Names of scan files in a folder, compared in lower case. Folders of DICOM are scans too."""

MAX_PACKING = 1100
"""Largest ratio of unpacked to packed size that deflate reaches, about 1030, with a margin."""

_STEM_ENDS = re.compile(rf"({'|'.join(map(re.escape, (*SCAN_SUFFIXES, '.dcm')))})$", re.IGNORECASE)

_PACKED = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"7z\xbc\xaf": "7-Zip", b"Rar!": "RAR"}
_HEADER_SIZES = {348, 540}


def is_scan_name(name: str) -> bool:
    """Whether a file name has the suffix of a scan."""
    return name.lower().endswith(SCAN_SUFFIXES)


def scan_stem(scan: str | Path) -> str:
    """Name of a scan's folder of results: its file name without the suffix of its format."""
    name = _STEM_ENDS.sub("", Path(scan).name)
    # Dots alone would be a path.
    return name if name.strip(". ") else "scan"


def file_format(source: Path, path: str | Path) -> str:
    """``dicom`` (a file or zip of it), ``npz``, ``nifti``, ``nrrd`` or ``metaimage``, whatever the name of the file is.

    ScanError if the file is empty, unreadable or none of these; the message says what it is instead.
    """
    if not source.is_file():
        raise ScanError(path, "is a pipe or device, not a file; write it to a file first", "unreadable-file")
    try:
        with source.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        problem = f"cannot be opened ({error.strerror or error}); check the permissions of the file"
        raise ScanError(path, problem, "unreadable-file") from error
    if head.startswith(b"\x1f\x8b"):
        inner = _unpacked_start(source)
        if inner is None or is_nifti(inner) or not _named_format(inner):
            return "nifti"  # Its reader says what is wrong with a damaged one.
        raise ScanError(path, f"is a gzip of a {_named_format(inner)} file; unpack it with gunzip", "packed")
    if found := "nifti" if is_nifti(head) else _named_format(head):
        return found
    if is_dicom(head):
        return "dicom"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "npz" if source.suffix.lower() == ".npz" or _holds_arrays(source) else "dicom"
    raise _not_a_scan(source, path, head)


def _holds_arrays(source: Path) -> bool:
    try:
        with zipfile.ZipFile(source) as archive:
            return "ct.npy" in archive.namelist()
    except zipfile.BadZipFile:
        return False


def is_nifti(head: bytes) -> bool:
    """Whether bytes start with the size of a NIfTI header, in either byte order."""
    return len(head) >= 4 and bool({struct.unpack(f"{order}i", head[:4])[0] for order in "<>"} & _HEADER_SIZES)


def is_dicom(head: bytes) -> bool:
    """Whether bytes start like DICOM: with a preamble or, as some archives write it, an element of group 2 or 8."""
    return head[128:132] == b"DICM" or head[:2] in (b"\x02\x00", b"\x08\x00")


def _named_format(head: bytes) -> str:
    if head.startswith(b"NRRD0"):
        return "nrrd"
    if head.lstrip()[:512].startswith((b"ObjectType", b"NDims", b"Comment")) and b"DimSize" in head:
        return "metaimage"
    return ""


def _unpacked_start(source: Path) -> bytes | None:
    try:
        with igzip.open(source) as file:
            return bytes(file.read(4096))
    except (EOFError, OSError, isal_zlib.error):  # type: ignore[misc]
        return None


def _not_a_scan(source: Path, path: str | Path, head: bytes) -> ScanError:
    """What a file is that starts like no scan."""
    if not head:
        return ScanError(path, "is empty (0 bytes); copy or download it again", "wrong-content")
    if packing := next((name for start, name in _PACKED.items() if head.startswith(start)), ""):
        return ScanError(path, f"is packed with {packing}; unpack it first", "packed")
    if not is_scan_name(source.name) and source.suffix.lower() != ".npz":
        formats = ".nii, .nii.gz, .nrrd, .mha, .mhd, or a folder or .zip of DICOM"
        return ScanError(path, f"unknown format; give {formats}", "unknown-format")
    if head.startswith(b"version https://git-lfs"):
        return ScanError(path, "is a Git LFS pointer, not the scan; run git lfs pull", "wrong-content")
    if all(byte >= 32 or byte in b"\t\n\r\f" for byte in head):
        kind = "a web page" if head.lstrip()[:1] == b"<" else "a text file"
        problem = f"is {kind}, not a scan, although its name ends like one; give the scan itself"
        return ScanError(path, problem, "wrong-content")
    problem = f"has the name of a {source.suffix} scan, but its first bytes are of no format that can be read"
    return ScanError(path, f"{problem}; export or download it again", "wrong-content")
