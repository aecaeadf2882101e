"""A scan with organs, and how a pipeline reads it."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose

SHAPE, SPACING = (60, 50, 40), (2.0, 2.0, 3.0)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A block of tissue in air with one organ of every kind, stored to left, posterior, superior."""
    folder = tmp_path_factory.mktemp("scan")
    affine = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])
    affine[:3, 3] = [60.0, 50.0, -40.0]
    hu = np.full(SHAPE, -1000, np.int16)
    i, j, k = np.indices(SHAPE)
    hu[5:55, 5:45, :] = (40 + 3 * i + 2 * j + k)[5:55, 5:45, :]
    mask = np.zeros(SHAPE, np.uint8)
    mask[10:50, 10:40, 6:30] = 1
    mask[25:35, 20:30, 10:20] = 2
    mask[30:32, 32:34, 6:30] = 3
    mask[36:40, 30:34, 6:30] = 4
    nib.save(nib.Nifti1Image(hu, affine), folder / "scan.nii.gz")
    nib.save(nib.Nifti1Image(mask, affine), folder / "mask.nii.gz")
    return folder / "scan.nii.gz", folder / "mask.nii.gz"


def reoriented(path: Path, codes: str, folder: Path) -> Path:
    image = nib.load(path)
    turn = nib.orientations.ornt_transform(nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(codes))
    out = folder / f"{codes}_{path.name}"
    nib.save(image.as_reoriented(turn), out)
    return out


def run(steps: Any, scan: Path, mask: Path | None = None) -> dict[str, Any]:
    study = {"image": str(scan)} if mask is None else {"image": str(scan), "anatomy": str(mask)}
    return dict(Compose(steps)(study))


def assert_same_in_orientation(pipeline: Any, scan: tuple[Path, Path], codes: str, folder: Path) -> None:
    """A pipeline gives the same image and mask when both files are stored in another orientation."""
    expected = run(pipeline, *scan)
    turned = run(pipeline, *(reoriented(path, codes, folder) for path in scan))
    torch.testing.assert_close(turned["image"].as_tensor(), expected["image"].as_tensor(), atol=1e-3, rtol=0)
    assert (turned["anatomy"].as_tensor() != expected["anatomy"].as_tensor()).float().mean() < 1e-3
    np.testing.assert_allclose(turned["image"].affine, expected["image"].affine, atol=1e-3)
