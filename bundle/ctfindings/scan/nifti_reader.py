"""Reads NIfTI 1 and 2: checks the header against the size of the file, and places the scan as ITK and Slicer do."""

import io
import logging
import os
import struct
from pathlib import Path
from typing import Any, BinaryIO, cast

import nibabel as nib
import numpy as np
from isal import igzip

from bundle.ctfindings.files.errors import ScanError, coded, library_errors
from bundle.ctfindings.scan.coordinates import box_corners, orientation_code, voxel_to_world
from bundle.ctfindings.scan.file_format import MAX_PACKING, is_nifti
from bundle.ctfindings.scan.storage import Volume, check_shape, check_size

SCANNER = 1
"""NIFTI_XFORM_SCANNER_ANAT, the code of a transform to the scanner's coordinates."""

PLACEMENT_TOLERANCE_MM = 0.5
_MM_PER_UNIT = {1: 1000.0, 3: 0.001}  # metre and micrometre; anything else counts as mm
_DAMAGED = "cannot be read as NIfTI: it is truncated or damaged ({error}); copy or download it again"

# nibabel prints what it then raises; the error has it.
nib.imageglobals.logger.setLevel(logging.CRITICAL)


def read_nifti(source: Path, path: str | Path) -> Volume:
    """A NIfTI file, packed with gzip or not, as stored, with the slope and intercept of its header applied.

    ScanError if it is damaged, not one 3D image of numbers, without an affine, or its header does not fit the size of
    the file.
    """
    with source.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        held = os.fstat(raw.fileno()).st_size
        with library_errors(path, _DAMAGED, "damaged-file"):
            file = cast(BinaryIO, igzip.open(raw)) if packed else raw
            head = file.read(540)
            if len(head) < _header_size(head):
                raise EOFError("it ends within its header")
        if not is_nifti(head):
            problem = "is compressed with gzip but is not NIfTI; give the scan itself"
            raise ScanError(path, problem, "wrong-content")
        if head[344:347] == b"ni1" or head[4:7] == b"ni2":
            problem = "is the header of a pair of files (.hdr and .img); convert both to one .nii.gz file"
            raise ScanError(path, problem, "header-of-a-pair")
        with library_errors(
            path, "its NIfTI header is invalid ({error}); convert it from DICOM again", "invalid-header"
        ):
            header = (nib.Nifti2Header if _header_size(head) == 540 else nib.Nifti1Header)(head[: _header_size(head)])
            shape, dtype = header.get_data_shape(), header.get_data_dtype()
            slope, intercept = header.get_slope_inter()
            start, first = float(header["vox_offset"]), header.single_vox_offset
        shape = check_shape(path, shape)
        if dtype.fields or dtype.kind not in "iuf":
            problem = f"expected one number for each voxel, found a colour or complex image ({header['datatype']})"
            raise ScanError(path, f"{problem}; export the CT in HU", "colour-or-complex")
        check_size(path, shape, dtype.itemsize, start, first, held * MAX_PACKING if packed else held)
        with library_errors(path, _DAMAGED, "damaged-file"):
            array, left = _voxels(file, int(start), shape, dtype)
        if left:
            problem = f"has more voxels than its header says ({' x '.join(map(str, shape))})"
            raise ScanError(path, f"{problem}; convert it from DICOM again", "header-contradicts-file")
    if slope is not None and (slope, intercept) != (1.0, 0.0):
        array = array.astype(np.result_type(dtype.newbyteorder("="), np.float32))
        array *= slope
        array += intercept
    affine, warnings = _placement(header, shape, path)
    return Volume(array, affine, "nifti", warnings)


def _header_size(head: bytes) -> int:
    """Bytes of the header: NIfTI 2 starts with 540, NIfTI 1 with 348, in either byte order."""
    return 540 if 540 in struct.unpack("<i", head[:4]) + struct.unpack(">i", head[:4]) else 348


def _voxels(file: BinaryIO, start: int, shape: tuple[int, ...], dtype: np.dtype) -> tuple[np.ndarray, bool]:
    """The voxels from ``start`` in file order, and whether the file goes on behind them."""
    file.seek(start)
    array = np.empty(shape, dtype, order="F")
    target = array.T.reshape(-1).view(np.uint8).data
    filled = 0
    while filled < len(target):
        count = file.readinto(target[filled:])  # type: ignore[attr-defined]
        if not count:
            raise EOFError("it ends before its last voxel")
        filled += count
    return array, len(file.read(io.DEFAULT_BUFFER_SIZE)) > 4096


def _placement(header: Any, shape: tuple[int, ...], path: str | Path) -> tuple[np.ndarray, list[str]]:
    """Voxel index to RAS mm, (4, 4) float64, and a warning if sform and qform contradict each other.

    As in ITK and Slicer, the sform counts if its code is 1 (scanner) or the qform has no code, else the qform.
    """
    places = {}
    for name, told, decode in (
        ("sform", int(header["sform_code"]), header.get_sform),
        ("qform", int(header["qform_code"]), header.get_qform),
    ):
        if told > 0:
            with library_errors(
                path, f"its {name} is invalid ({{error}}); convert it from DICOM again", "invalid-header"
            ):
                matrix = np.asarray(decode(), np.float64)
            matrix[:3] *= _MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
            places[name] = told, matrix
    if not places:
        problem = "has no affine (sform_code and qform_code are 0); convert it from DICOM again, e.g. with dcm2niix"
        raise ScanError(path, problem, "no-affine")
    chosen = "sform" if "sform" in places and ("qform" not in places or places["sform"][0] == SCANNER) else "qform"
    affine = places[chosen][1]
    if len(places) < 2 or not all(_is_usable(matrix) for _, matrix in places.values()):
        return affine, []
    corners = box_corners(np.zeros(3), np.asarray(shape) - 1)
    first, second = (voxel_to_world(corners, matrix) for _, matrix in places.values())
    apart = float(np.linalg.norm(first - second, axis=1).max())
    if apart <= PLACEMENT_TOLERANCE_MM:
        return affine, []
    both = " and ".join(f"{name} (code {code}, {orientation_code(matrix)})" for name, (code, matrix) in places.items())
    problem = f"{both} place the scan {apart:.0f} mm apart; the {chosen} was used, as ITK and 3D Slicer do"
    return affine, [coded(path, f"{problem}. Check left and right, and positions in mm", "sform-and-qform-differ")]


def _is_usable(matrix: np.ndarray) -> bool:
    return bool(np.isfinite(matrix).all()) and abs(np.linalg.det(matrix[:3, :3])) > 1e-9
