"""The pipelines of published models: sizes and places by hand, and the same result however a scan is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from bundle.ctfindings.published.fvlm.preprocessing import (
    CroppedToOrgans,
    ResizedToSpacing,
    fvlm_pipeline,
)
from bundle.ctfindings.published.radfinder.preprocessing import CroppedToWindows, radfinder_pipeline

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


@pytest.mark.parametrize("codes", ["RAS", "SPL", "AIR"])
@pytest.mark.parametrize("pipeline", [fvlm_pipeline, radfinder_pipeline])
def test_a_scan_gives_the_same_in_every_orientation(
    scan: tuple[Path, Path], tmp_path: Path, codes: str, pipeline: Any
) -> None:
    expected = run(pipeline(), *scan)
    turned = run(pipeline(), *(reoriented(path, codes, tmp_path) for path in scan))
    torch.testing.assert_close(turned["image"].as_tensor(), expected["image"].as_tensor(), atol=1e-3, rtol=0)
    assert (turned["anatomy"].as_tensor() != expected["anatomy"].as_tensor()).float().mean() < 1e-3
    np.testing.assert_allclose(turned["image"].affine, expected["image"].affine, atol=1e-3)


def test_fvlm_crops_to_the_organs_and_pads_to_its_least_size(scan: tuple[Path, Path]) -> None:
    study = run(fvlm_pipeline(spacing=(2, 2, 3), margin=(3, 3, 2), least=(64, 32, 48)), *scan)
    # Organs span 40 x 30 x 24 voxels; 3 + 2 of margin in plane and 2 + 1 along z, then the least size.
    assert study["image"].shape == (1, 64, 35, 48) and study["anatomy"].shape == (1, 64, 35, 48)
    lung = torch.nonzero(study["anatomy"].as_tensor()[0] > 0)
    # 64 - 45 = 19 of padding: 9 in front; 3 of margin: the organs begin at 12. Along z 48 - 27 = 21: 10 in front, and
    # 2.
    assert lung.min(0).values.tolist() == [12, 3, 12] and lung.max(0).values.tolist() == [51, 32, 35]
    assert study["image"].min() == 0 and study["image"].max() <= 1


def test_fvlm_keeps_millimetres(scan: tuple[Path, Path]) -> None:
    study = run(fvlm_pipeline(), *scan)
    image: MetaTensor = study["image"]
    assert tuple(image.shape[1:]) == (352, 256, 112)
    inside = torch.nonzero(study["anatomy"].as_tensor()[0] == 2).double()
    centre = (image.affine @ torch.tensor([*inside.mean(0).tolist(), 1.0], dtype=torch.float64))[:3]
    stored = nib.load(scan[1])
    expected = stored.affine @ [*np.argwhere(np.asarray(stored.dataobj) == 2).mean(0), 1.0]
    np.testing.assert_allclose(centre, expected[:3], atol=0.6)


def test_fvlm_maps_its_window(scan: tuple[Path, Path]) -> None:
    study = run(fvlm_pipeline(spacing=SPACING, margin=(60, 60, 60), least=(1, 1, 1)), *scan)
    # -1000 HU is 150 of 1500 above the lower end; 40 + 3 * 20 + 2 * 20 + 10 = 150 HU at voxel (20, 20, 10), in front of
    # it nothing was cut.
    assert study["image"][0, 0, 0, 0] == pytest.approx(0.1) and study["image"][0, 20, 20, 10] == pytest.approx(
        1300 / 1500
    )


def test_fvlm_without_a_mask_is_not_cropped(scan: tuple[Path, Path]) -> None:
    study = run(fvlm_pipeline(spacing=SPACING, least=(1, 1, 1)), scan[0])
    assert tuple(study["image"].shape[1:]) == SHAPE and "anatomy" not in study


def test_radfinder_cuts_to_whole_windows(scan: tuple[Path, Path]) -> None:
    study = run(radfinder_pipeline(spacing=(1, 1, 1.5), window=(32, 64, 128)), *scan)
    # 119 x 99 x 79 voxels: three windows, one, and less than one.
    assert tuple(study["image"].shape[1:]) == (96, 64, 128)
    assert study["image"].dtype == torch.float32
    assert torch.equal(study["image"].as_tensor(), study["image"].as_tensor().half().float())


def test_windows_are_cut_about_the_middle() -> None:
    volume = MetaTensor(torch.arange(10.0).view(1, 10, 1, 1).expand(1, 10, 3, 4).clone())
    cut = CroppedToWindows("image", (4, 3, 6))({"image": volume})["image"]
    assert cut.shape == (1, 8, 3, 6)
    assert cut[0, :, 0, 2].tolist() == list(range(1, 9)) and cut[0, 0, 0].tolist() == [0, 1, 1, 1, 1, 0]


def test_sizes_are_rounded_down() -> None:
    volume = MetaTensor(
        torch.zeros(1, 7, 10, 3), affine=torch.diag(torch.tensor([1.0, 0.5, 3.0, 1.0], dtype=torch.float64))
    )
    assert ResizedToSpacing(["image"], (2.0, 1.0, 3.0))({"image": volume})["image"].shape == (1, 3, 5, 3)


def test_a_mask_without_the_organs_crops_nothing() -> None:
    study = {"image": MetaTensor(torch.zeros(1, 4, 4, 4)), "anatomy": MetaTensor(torch.full((1, 4, 4, 4), 6))}
    assert CroppedToOrgans(["image", "anatomy"], (1, 1, 1), (1, 2))(study)["image"].shape == (1, 4, 4, 4)
