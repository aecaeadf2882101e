"""Volumes that are written plane by plane: what is read back is what was written, by any reader of gzip."""

import gzip
import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bundle.ctfindings.scan.nifti_writer import write_planes

AFFINE = np.array([[-2.0, 0, 0, 40], [0, -2, 0, 30], [0, 0, 5, -100], [0, 0, 0, 1]])


@pytest.mark.parametrize(("dtype", "lowest", "highest", "scale"), [("u1", 0, 255, 1 / 255), ("<i2", -1024, 3071, 1.0)])
def test_planes_are_read_back(dtype: str, lowest: int, highest: int, scale: float, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(lowest, highest, (7, 5, 40), endpoint=True).astype(dtype)
    planes = (values[:, :, k].T for k in range(40))
    write_planes(tmp_path / "a.nii.gz", planes, values.shape, AFFINE, "test", scale=scale, dtype=dtype)
    image = nib.load(tmp_path / "a.nii.gz")
    assert image.get_data_dtype() == np.dtype(dtype)
    np.testing.assert_allclose(np.asarray(image.dataobj), values * scale, atol=1e-6)
    np.testing.assert_allclose(image.affine, AFFINE)
    # Length and checksum of the stream are right as well, which nibabel does not look at to the end.
    assert len(gzip.decompress((tmp_path / "a.nii.gz").read_bytes())) == 352 + values.nbytes


def test_an_error_while_writing_leaves_no_file(tmp_path: Path) -> None:
    def planes():  # type: ignore[no-untyped-def]
        yield from itertools.repeat(np.zeros((5, 7), np.uint8), 3)
        raise RuntimeError("no more planes")

    with pytest.raises(RuntimeError, match="no more planes"):
        write_planes(tmp_path / "a.nii.gz", planes(), (7, 5, 40), AFFINE, "test")
    assert not list(tmp_path.iterdir())
