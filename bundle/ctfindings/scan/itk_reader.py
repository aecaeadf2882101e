"""Reads NRRD and MetaImage with ITK: the header is checked against the size of the file before ITK reads the voxels."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from isal import isal_zlib

from bundle.ctfindings.files.errors import ScanError, coded, library_errors
from bundle.ctfindings.scan.coordinates import LPS_TO_RAS
from bundle.ctfindings.scan.file_format import MAX_PACKING
from bundle.ctfindings.scan.storage import Volume, check_shape, check_size

MAX_HEADER_BYTES = 1 << 16
_NRRD_SPACES = {
    "left-posterior-superior", "right-anterior-superior", "left-anterior-superior", "lps", "ras", "las"
}  # fmt: skip
_ITK_TYPES = {
    "unsigned_char": "UC", "short": "SS", "unsigned_short": "US", "int": "SI", "unsigned_int": "UI", "float": "F"
}  # fmt: skip


def read_nrrd(source: Path, path: str | Path) -> Volume:
    """An NRRD file, or a .nhdr header with its data file; for errors see ``_read``."""
    fields = _header(source, path, b"\n\n", rb"^([\w ]+?):=?\s*(.*?)\s*$")
    header = {key.lower(): value for key, value in fields.items()}
    if not {"space directions", "space origin"} <= header.keys() or header.get("space", "").lower() not in _NRRD_SPACES:
        problem = "has no affine (space, space directions and space origin are needed); convert it from DICOM again"
        raise ScanError(path, problem, "no-affine")
    detached = header.get("data file", header.get("datafile"))
    _check_data_file(source, path, detached)
    raw = header.get("encoding", "").lower() == "raw" and detached is None and "line skip" not in header
    with _with_kinds(source, header) as readable:
        data = readable if detached is None else source.parent / detached
        start = header["header bytes"] if raw else None
        return _read(readable, path, "nrrd", data, start, header.get("byte skip", "0"))


def read_metaimage(source: Path, path: str | Path) -> Volume:
    """A MetaImage file, or a .mhd header with its .raw file; for errors see ``_read``."""
    header = _header(source, path, b"ElementDataFile", rb"^(\w+)\s*=\s*(.*?)\s*$")
    if "ElementDataFile" not in header:
        problem = "its header does not say where the voxels are (ElementDataFile = ...); convert it from DICOM again"
        raise ScanError(path, problem, "no-data-file")
    is_raw = header.get("BinaryData", "").lower() == "true" and header.get("CompressedData", "").lower() != "true"
    local = header["ElementDataFile"].upper() == "LOCAL"
    _check_data_file(source, path, None if local else header["ElementDataFile"])
    data = source if local else source.parent / header["ElementDataFile"]
    raw = header["header bytes"] if is_raw and local else None
    packed = None
    if header.get("CompressedData", "").lower() == "true":
        size = header.get("CompressedDataSize", "" if not local else "0")
        first = header["header bytes"] if local else "0"
        packed = data, int(first), int(size) if size.isdecimal() else data.stat().st_size
    volume = _read(source, path, "metaimage", data, raw, header.get("HeaderSize", "0"), packed)
    if not {"TransformMatrix", "Rotation", "Orientation"} & header.keys():
        problem = "has no TransformMatrix, so left and right, top and bottom may be wrong; convert it from DICOM again"
        volume.warnings.append(coded(path, problem, "no-own-geometry"))
    return volume


def _header(source: Path, path: str | Path, end: bytes, line: bytes) -> dict[str, str]:
    """The fields of a text header, and as ``header bytes`` its length."""
    with source.open("rb") as file:
        head, rest = file.read(MAX_HEADER_BYTES), file.read(1)
    head = head.replace(b"\r\n", b"\n") if end == b"\n\n" and b"\r\n\r\n" in head else head
    at = head.find(end)
    stop = at + len(end) if at < 0 or end.isspace() else head.find(b"\n", at) + 1
    if at < 0 or stop == 0:
        if rest:
            problem = f"its header has more than {MAX_HEADER_BYTES:,} bytes; convert it from DICOM again"
            raise ScanError(path, problem, "damaged-file")
        stop = len(head)
    found = {key.decode("latin-1"): value.decode("latin-1") for key, value in re.findall(line, head[:stop], re.M)}
    return {**found, "header bytes": str(stop)}


def _check_data_file(source: Path, path: str | Path, name: str | None) -> None:
    """Reject a header whose voxels are in a file that is not below its folder: it could be any file of this machine."""
    if name is None:
        return
    if Path(name).is_absolute() or ".." in Path(name).parts or not (source.parent / name).is_file():
        problem = f"its voxels are in the file {name!r}, which is not beside it; put both into one folder"
        raise ScanError(path, problem, "no-data-file")


@contextmanager
def _with_kinds(source: Path, header: dict[str, str]) -> Iterator[Path]:
    """An NRRD that ITK reads: for shape (X, Y, Z, 1) without ``kinds``, a copy that names its last axis a list."""
    if "kinds" in header or not re.fullmatch(r"(\d+\s+){3}1", header.get("sizes", "")):
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="ctfindings_") as folder:
        copy = Path(folder) / "copy.nrrd"
        copy.write_bytes(source.read_bytes().replace(b"\n\n", b"\nkinds: domain domain domain list\n\n", 1))
        yield copy


def _read(
    source: Path,
    path: str | Path,
    source_format: str,
    data: Path,
    start: str | None,
    skip: str,
    packed: tuple[Path, int, int] | None = None,
) -> Volume:
    """The voxels as stored, in LPS converted to RAS.

    Args:
        data: the file with the voxels.
        start: byte at which the voxels start, for a file whose voxels are neither packed nor in a file of their own.
        skip: bytes that the header skips there.
        packed: the file with packed voxels, the byte at which they start, and their number of bytes. ITK takes damaged
            ones without an error.

    Raises:
        ScanError: if ITK cannot read the file, it is not one 3D image of numbers, or its header does not fit its size.
    """
    problem = f"cannot be read as {source_format}: it is truncated, damaged or packed with bzip2; copy or download it "
    problem += "again (a .mhd with its .raw file), or save it with gzip"
    with library_errors(path, problem, "damaged-file"):
        import itk

        itk.Object.SetGlobalWarningDisplay(False)
        image_io = (itk.NrrdImageIO if source_format == "nrrd" else itk.MetaImageIO).New()
        image_io.SetFileName(str(source))
        image_io.ReadImageInformation()
        sizes = [int(image_io.GetDimensions(axis)) for axis in range(image_io.GetNumberOfDimensions())]
        channels, itemsize = int(image_io.GetNumberOfComponents()), int(image_io.GetComponentSize())
        component = image_io.GetComponentTypeAsString(image_io.GetComponentType())
    shape = check_shape(path, sizes if channels == 1 else (channels, *sizes))
    held = data.stat().st_size * (MAX_PACKING if start is None else 1)
    if start is not None:
        _check_rest(path, held - int(start), int(np.prod(shape)) * itemsize, skip)
    check_size(path, shape, itemsize, 0, 0, held)
    if packed is not None:
        with library_errors(path, problem, "damaged-file"):
            rest = _unpacked_size(*packed, int(np.prod(shape)) * itemsize)
        _check_rest(path, rest, int(np.prod(shape)) * itemsize, "0")
    with library_errors(path, problem, "damaged-file"):
        # ITK is not built for images of 8-bit signed or 64-bit integers; float64 holds their values.
        image_type = itk.Image[getattr(itk, _ITK_TYPES.get(component, "D")), 3]
        reader = itk.ImageFileReader[image_type].New(FileName=str(source), ImageIO=image_io)
        reader.Update()
        image = reader.GetOutput()
        affine = np.eye(4)
        affine[:3, :3] = itk.array_from_matrix(image.GetDirection()) * np.asarray(image.GetSpacing())
        affine[:3, 3] = np.asarray(image.GetOrigin())
        array: Any = itk.array_from_image(image).T
    return Volume(array, LPS_TO_RAS @ affine, source_format, [])


def _unpacked_size(file: Path, start: int, length: int, wanted: int) -> int:
    """Bytes that a zlib stream in a file unpacks to; an error if it is damaged, or has fewer than are wanted."""
    size, stream = 0, isal_zlib.decompressobj(wbits=15)
    with file.open("rb") as packed:
        packed.seek(start)
        while not stream.eof:
            piece = stream.unconsumed_tail or packed.read(min(length, 1 << 16))
            length -= 0 if stream.unconsumed_tail else len(piece)
            if not piece:
                raise EOFError("its packed voxels end early")
            size += len(stream.decompress(piece, 1 << 24))
    if size < wanted:
        raise EOFError("its packed voxels end early")
    return size


def _check_rest(path: str | Path, rest: int, wanted: int, skip: str) -> None:
    """Reject voxels that would be read from a wrong place: more bytes follow than the header explains."""
    skipped = int(skip) if re.fullmatch(r"-?\d+", skip) else 0
    if skipped == -1:  # The voxels are the last bytes of the file.
        skipped = rest - wanted
        if skipped <= 4096:
            return
    if skipped < 0 or skipped > 4096 or rest - skipped - wanted > 4096:
        problem = f"{rest:,} bytes follow its header, which explains {wanted:,} of them"
        raise ScanError(path, f"{problem}; convert it from DICOM again", "header-contradicts-file")
