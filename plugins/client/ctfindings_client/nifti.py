"""NIfTI-1 to and from arrays, in memory and without Slicer, so that it can run beside the interface's thread.

Arrays are in Slicer's order (K, J, I): the last index is the first axis of the file. The affine takes (i, j, k) to RAS
mm. zlib releases Python's lock while it packs, so Slicer stays responsive; a storage node would have to work in the
main thread.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import dataclass

import numpy as np

_HEADER_BYTES = 348
_VOXELS_FROM = 352
_LEVEL = 1
"""Level of gzip. Higher levels save little of a CT and take several times as long."""

_TYPES = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
}
_CODES = {np.dtype(name): code for code, name in _TYPES.items()}


def encode(array: np.ndarray, affine: np.ndarray) -> bytes:
    """A volume as the bytes of a ``.nii.gz``.

    Args:
        array: ``(K, J, I)``, integer or float voxels.
        affine: ``(4, 4)``, voxel index (i, j, k) to RAS mm.

    Raises:
        ValueError: for another number of dimensions, or a voxel type that NIfTI does not have.
    """
    if array.ndim != 3:
        raise ValueError(f"volume has shape {array.shape}; three dimensions are expected")
    if array.dtype not in _CODES:
        raise ValueError(f"volume has voxels of type {array.dtype}; known are {', '.join(sorted(_TYPES.values()))}")
    code, matrix = _CODES[array.dtype], np.asarray(affine, dtype=np.float64)
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    header = bytearray(_VOXELS_FROM)
    struct.pack_into("<i", header, 0, _HEADER_BYTES)
    struct.pack_into("<8h", header, 40, 3, *reversed(array.shape), 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, code, 8 * array.dtype.itemsize)
    struct.pack_into("<8f", header, 76, 1.0, *spacing, 0, 0, 0, 0)
    struct.pack_into("<3f", header, 108, _VOXELS_FROM, 1.0, 0.0)
    header[123] = 2  # unit: mm
    struct.pack_into("<2h", header, 252, 0, 1)  # no qform, sform to scanner coordinates
    struct.pack_into("<12f", header, 280, *matrix[:3].ravel())
    header[344:348] = b"n+1\0"
    voxels = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, 31)  # 31: a gzip stream
    return packer.compress(bytes(header)) + packer.compress(voxels.data) + packer.flush()


@dataclass(frozen=True)
class Stored:
    """A volume as its file stores it.

    Attributes:
        array: ``(K, J, I)``.
        affine: ``(4, 4)``, to RAS mm.
        slope: what a stored voxel is multiplied with.
        intercept: what is added then.
    """

    array: np.ndarray
    affine: np.ndarray
    slope: float
    intercept: float

    @property
    def scaled(self) -> np.ndarray:
        """Voxels as they are meant: float32 where the header scales them."""
        if (self.slope, self.intercept) == (1.0, 0.0):
            return self.array
        return self.array.astype(np.float32) * np.float32(self.slope) + np.float32(self.intercept)


def decode(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Voxels ``(K, J, I)``, scaled where the header says so (then float32), and the affine to RAS mm, of a ``.nii`` or
    ``.nii.gz``.

    Raises:
        ValueError: when it cannot be read, see ``decode_stored``.
    """
    stored = decode_stored(content)
    return stored.scaled, stored.affine


def decode_stored(content: bytes) -> Stored:
    """The volume of a ``.nii`` or ``.nii.gz``, without scaling it.

    Raises:
        ValueError: when it is not a NIfTI-1 file of one volume, has no orientation, or is cut short.
    """
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"volume cannot be unpacked: {error}") from error
    if len(content) < _VOXELS_FROM or content[344:347] != b"n+1":
        raise ValueError("volume is no NIfTI-1 file")
    order = "<" if struct.unpack_from("<i", content, 0)[0] == _HEADER_BYTES else ">"
    dimensions = struct.unpack_from(order + "8h", content, 40)
    shape = dimensions[1:4]
    if dimensions[0] < 3 or min(shape) < 1 or any(size > 1 for size in dimensions[4 : dimensions[0] + 1]):
        raise ValueError(
            f"volume has dimensions {dimensions[1 : dimensions[0] + 1]}; one volume of three dimensions is expected"
        )
    code = struct.unpack_from(order + "h", content, 70)[0]
    if code not in _TYPES:
        raise ValueError(f"volume has voxels of NIfTI type {code}, which is not known")
    start, slope, intercept = struct.unpack_from(order + "3f", content, 108)
    voxel, count = np.dtype(order + _TYPES[code]), int(np.prod(shape, dtype=np.int64))
    if len(content) < int(start) + count * voxel.itemsize:
        raise ValueError("volume is cut short: the file holds fewer voxels than its header says")
    array = np.frombuffer(content, dtype=voxel, count=count, offset=int(start)).reshape(shape[::-1])
    array = array.astype(voxel.newbyteorder("="))
    # A slope of zero says that nothing is scaled.
    return Stored(array, _affine(content, order), *((slope, intercept) if slope else (1.0, 0.0)))


def _affine(content: bytes, order: str) -> np.ndarray:
    quaternion_code, matrix_code = struct.unpack_from(order + "2h", content, 252)
    affine = np.eye(4)
    if matrix_code > 0:
        affine[:3] = np.array(struct.unpack_from(order + "12f", content, 280)).reshape(3, 4)
        return affine
    if quaternion_code > 0:
        sign, *spacing = struct.unpack_from(order + "4f", content, 76)
        b, c, d, *offset = struct.unpack_from(order + "6f", content, 256)
        a = np.sqrt(max(0.0, 1.0 - b * b - c * c - d * d))
        turn = np.array(
            [
                [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
                [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
                [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
            ]
        )
        affine[:3, :3] = turn * np.array(spacing) * np.array([1.0, 1.0, -1.0 if sign < 0 else 1.0])
        affine[:3, 3] = offset
        return affine
    raise ValueError("volume does not say how it lies in the patient: neither sform nor qform is set")
