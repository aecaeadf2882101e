"""Writing a large integer NIfTI plane by plane: little memory, two cores, and a file that appears only when complete."""

from __future__ import annotations

import struct
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np
from numpy.typing import DTypeLike, NDArray

from bundle.ctfindings.data.atomic import atomic_path

_DESCRIPTION = 80
"""Bytes of the NIfTI-1 ``descrip`` field."""

_CHUNK = 4_000_000
"""Bytes that are compressed at a time. Each chunk starts without the memory of the one before, which costs a few hundred bytes."""

_THREADS = 2
_AHEAD = 4
"""Chunks that are made before the first of them is written."""

_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"


def write_planes(
    path: str | Path,
    planes: Iterable[NDArray[np.integer]],
    shape: Sequence[int],
    affine: NDArray[np.float64],
    description: str,
    scale: float = 1.0,
    largest: float = 0.0,
    dtype: DTypeLike = np.uint8,
) -> None:
    """Writes a volume.

    Args:
        path: ends in ``.nii.gz``.
        planes: ``[Y, X]`` in the order of the third axis, channel after channel.
        shape: of the volume, ``(X, Y, Z)`` or ``(X, Y, Z, F)``.
        affine: ``(4, 4)``, voxel index to RAS mm.
        description: free text of the NIfTI header, at most 79 bytes.
        scale: by which readers multiply the stored values.
        largest: value that viewers show brightest; 0 leaves it to them.
        dtype: of the planes, uint8 or little-endian int16.
    """
    header = nib.Nifti1Header(endianness="little")
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1)
    header.set_xyzt_units("mm")
    header.set_slope_inter(scale, 0)
    header["descrip"] = description.encode("ascii", "replace")[: _DESCRIPTION - 1]
    header["cal_max"] = largest
    header["magic"] = b"n+1"
    header["vox_offset"] = 352
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        _write_gzip(file, _chunks(header.binaryblock + b"\0\0\0\0", planes))


def _chunks(head: bytes, planes: Iterable[NDArray[np.integer]]) -> Iterator[bytes]:
    """The bytes of the file in pieces of ``_CHUNK`` or somewhat more."""
    parts, size = [head], len(head)
    for plane in planes:
        parts.append(plane.tobytes())
        size += plane.nbytes
        if size >= _CHUNK:
            yield b"".join(parts)
            parts, size = [], 0
    yield b"".join(parts)


def _write_gzip(file: BinaryIO, chunks: Iterable[bytes]) -> None:
    """One gzip stream of chunks that are compressed side by side, as pigz does: each but the last ends on a byte, and they are joined."""
    file.write(_GZIP_HEADER)
    checksum, size = 0, 0
    waiting: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(_THREADS) as pool:
        for chunk in chunks:
            waiting.append(pool.submit(_deflate, chunk))
            checksum, size = zlib.crc32(chunk, checksum), size + len(chunk)
            if len(waiting) > _AHEAD:
                file.write(waiting.popleft().result())
        for compressed in waiting:
            file.write(compressed.result())
    file.write(zlib.compressobj(1, wbits=-15).flush())  # an empty last block
    file.write(struct.pack("<II", checksum, size & 0xFFFFFFFF))


def _deflate(chunk: bytes) -> bytes:
    compressor = zlib.compressobj(level=1, wbits=-15)
    return compressor.compress(chunk) + compressor.flush(zlib.Z_SYNC_FLUSH)
