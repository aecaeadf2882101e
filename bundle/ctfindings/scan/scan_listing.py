"""The scans in a folder: every scan file, and every folder that holds DICOM images."""

from pathlib import Path

from bundle.ctfindings.files.folders import walk_folder
from bundle.ctfindings.scan.file_format import is_dicom, is_scan_name


def scans_below(folder: Path) -> dict[str, Path]:
    """Scans below a folder by their path inside it: scan files and zips by name, folders of DICOM by content.

    A folder of DICOM counts as one scan together with its subfolders. A ``.raw`` file belongs to its ``.mhd`` header.
    """
    found: dict[str, Path] = {}
    for place, subfolders, files in walk_folder(folder):
        scans = [place / name for name in files if is_scan_name(name)]
        if any(holds_dicom(place / name) for name in files if not is_scan_name(name)):
            scans.append(place)
            subfolders.clear()
        for scan in scans:
            found[scan.name if scan == folder else scan.relative_to(folder).as_posix()] = scan
    return found


def holds_dicom(file: Path) -> bool:
    """Whether a file is a DICOM object other than a DICOMDIR, which only lists others."""
    try:
        with file.open("rb") as opened:
            return file.name.upper() != "DICOMDIR" and is_dicom(opened.read(132))
    except OSError:
        return False
