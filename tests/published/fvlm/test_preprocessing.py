"""fVLM's pipeline: sizes and positions calculated by hand, and the same result however a scan is stored."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from bundle.ctfindings.published.fvlm.preprocessing import CroppedToOrgans, ResizedToSpacing, fvlm_pipeline
from tests.published.conftest import SHAPE, SPACING, assert_same_in_orientation, run


@pytest.mark.parametrize("codes", ["RAS", "SPL", "AIR"])
def test_a_scan_gives_the_same_in_every_orientation(scan: tuple[Path, Path], tmp_path: Path, codes: str) -> None:
    assert_same_in_orientation(fvlm_pipeline(), scan, codes, tmp_path)


def test_a_scan_is_cropped_to_the_organs_and_padded_to_the_least_size(scan: tuple[Path, Path]) -> None:
    study = run(fvlm_pipeline(spacing=(2, 2, 3), margin=(3, 3, 2), least=(64, 32, 48)), *scan)
    # Organs span 40 x 30 x 24 voxels; 3 + 2 of margin in plane and 2 + 1 along z, then the least size.
    assert study["image"].shape == (1, 64, 35, 48) and study["anatomy"].shape == (1, 64, 35, 48)
    lung = torch.nonzero(study["anatomy"].as_tensor()[0] > 0)
    # 64 - 45 = 19 of padding: 9 in front; 3 of margin: the organs begin at 12. Along z 48 - 27 = 21: 10 in front, and
    # 2.
    assert lung.min(0).values.tolist() == [12, 3, 12] and lung.max(0).values.tolist() == [51, 32, 35]
    assert study["image"].min() == 0 and study["image"].max() <= 1


def test_millimetres_are_kept(scan: tuple[Path, Path]) -> None:
    study = run(fvlm_pipeline(), *scan)
    image: MetaTensor = study["image"]
    assert tuple(image.shape[1:]) == (352, 256, 112)
    inside = torch.nonzero(study["anatomy"].as_tensor()[0] == 2).double()
    centre = (image.affine @ torch.tensor([*inside.mean(0).tolist(), 1.0], dtype=torch.float64))[:3]
    stored = nib.load(scan[1])
    expected = stored.affine @ [*np.argwhere(np.asarray(stored.dataobj) == 2).mean(0), 1.0]
    np.testing.assert_allclose(centre, expected[:3], atol=0.6)


def test_the_hu_window_is_mapped_to_0_and_1(scan: tuple[Path, Path]) -> None:
    study = run(fvlm_pipeline(spacing=SPACING, margin=(60, 60, 60), least=(1, 1, 1)), *scan)
    # -1000 HU is 150 of 1500 above the lower end; 40 + 3 * 20 + 2 * 20 + 10 = 150 HU at voxel (20, 20, 10), in front of
    # it nothing was cut.
    assert study["image"][0, 0, 0, 0] == pytest.approx(0.1) and study["image"][0, 20, 20, 10] == pytest.approx(
        1300 / 1500
    )


def test_a_scan_without_a_mask_is_not_cropped(scan: tuple[Path, Path]) -> None:
    study = run(fvlm_pipeline(spacing=SPACING, least=(1, 1, 1)), scan[0])
    assert tuple(study["image"].shape[1:]) == SHAPE and "anatomy" not in study


def test_sizes_are_rounded_down() -> None:
    volume = MetaTensor(
        torch.zeros(1, 7, 10, 3), affine=torch.diag(torch.tensor([1.0, 0.5, 3.0, 1.0], dtype=torch.float64))
    )
    assert ResizedToSpacing(["image"], (2.0, 1.0, 3.0))({"image": volume})["image"].shape == (1, 3, 5, 3)


def test_a_mask_without_the_organs_crops_nothing() -> None:
    study = {"image": MetaTensor(torch.zeros(1, 4, 4, 4)), "anatomy": MetaTensor(torch.full((1, 4, 4, 4), 6))}
    assert CroppedToOrgans(["image", "anatomy"], (1, 1, 1))(study)["image"].shape == (1, 4, 4, 4)
