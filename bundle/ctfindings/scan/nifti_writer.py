"""Writes a large integer NIfTI plane by plane, with little memory and time."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from isal import isal_zlib
from numpy.typing import DTypeLike, NDArray

from bundle.ctfindings.files.atomic_write import atomic_path


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
    """Write a volume. The file, ``.nii.gz``, appears only when it is complete.

    Args:
        planes: ``[Y, X]`` along the third axis, channel after channel.
        shape: ``(X, Y, Z)`` or ``(X, Y, Z, F)``.
        affine: ``(4, 4)``, voxel index to RAS mm.
        description: free text of the NIfTI header, at most 79 bytes of ASCII.
        scale: factor by which readers multiply the stored values.
        largest: value that viewers display brightest; 0 lets them choose.
        dtype: type of the planes, uint8 or little-endian int16.
    """
    header = nib.Nifti1Header(endianness="little")
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1)
    header.set_xyzt_units("mm")
    header.set_slope_inter(scale, 0)
    header["descrip"] = description.encode("ascii", "replace")[:79]
    header["cal_max"] = largest
    header["magic"] = b"n+1"
    header["vox_offset"] = 352
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        # Compression was most of the time of an answer; ISA-L takes a fifth of zlib's for the same size.
        packer = isal_zlib.compressobj(level=1, wbits=31)  # 31: a gzip stream.
        file.write(packer.compress(header.binaryblock + b"\0\0\0\0"))
        for plane in planes:
            file.write(packer.compress(np.ascontiguousarray(plane)))
        file.write(packer.flush())
