"""RadFinder's pipeline: sizes calculated by hand, and the same result however a scan is stored."""

from pathlib import Path

import pytest
import torch
from monai.data import MetaTensor

from bundle.ctfindings.published.radfinder.preprocessing import CroppedToWindows, radfinder_pipeline
from tests.published.conftest import assert_same_in_orientation, run


@pytest.mark.parametrize("codes", ["RAS", "SPL", "AIR"])
def test_a_scan_gives_the_same_in_every_orientation(scan: tuple[Path, Path], tmp_path: Path, codes: str) -> None:
    assert_same_in_orientation(radfinder_pipeline(), scan, codes, tmp_path)


def test_a_scan_is_cropped_to_whole_windows(scan: tuple[Path, Path]) -> None:
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
