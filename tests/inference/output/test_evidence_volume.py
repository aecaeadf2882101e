"""The volume of evidence: its grid is the scan's, and resampling agrees with SciPy."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from bundle.ctfindings.inference.output.evidence_volume import (
    map_on_scan,
    planes_on_scan,
    sample_evidence,
    write_evidence,
)
from bundle.ctfindings.scan.coordinates import voxel_to_world, world_to_voxel
from tests.inference.scan_grids import GRID, ORIENTATIONS, SCAN, SHAPE, TARGET, TOKENS, blob, scan_grid


def on_scan(scores: np.ndarray, affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A token map on the grid of a scan, as the file holds it."""
    return np.stack(list(planes_on_scan(scores.astype(np.float32), TOKENS, affine, shape)), axis=-1).transpose(1, 0, 2)


@pytest.mark.parametrize("code", ORIENTATIONS)
def test_the_volume_is_strongest_where_the_map_is_in_any_orientation_of_the_scan(code: str, tmp_path: Path) -> None:
    affine, shape = scan_grid(code)
    write_evidence(tmp_path / "e.nii.gz", [blob(TARGET)], TOKENS, affine, shape)
    image = nib.load(tmp_path / "e.nii.gz")
    volume = image.get_fdata()
    assert volume.shape == tuple(shape)
    np.testing.assert_allclose(image.affine, affine, atol=1e-4)
    bright = np.argwhere(volume > 0.8 * volume.max())
    assert np.abs(voxel_to_world(bright, image.affine).mean(axis=0) - TARGET).max() < 6.0
    # The strongest token's centre is where the volume is strongest, within a voxel.
    token = voxel_to_world(np.unravel_index(blob(TARGET).argmax(), GRID), TOKENS)
    strongest = np.unravel_index(volume.argmax(), volume.shape)
    assert np.abs(strongest - world_to_voxel(token, affine)).max() <= 1.0


@pytest.mark.parametrize("code", ORIENTATIONS)
def test_resampling_agrees_with_scipy(code: str) -> None:
    affine, shape = scan_grid(code)
    maps = np.random.default_rng(0).random((2, *GRID))
    to_tokens = np.linalg.inv(TOKENS) @ affine
    expected = np.stack(
        [
            ndimage.affine_transform(
                m, to_tokens[:3, :3], to_tokens[:3, 3], output_shape=shape, order=1, mode="nearest"
            )
            for m in maps
        ],
        axis=-1,
    )
    token = voxel_to_world(np.moveaxis(np.indices(shape), 0, -1), to_tokens)
    expected[((token < -0.5 - 1e-4) | (token > np.array(GRID) - 0.5 + 1e-4)).any(axis=-1)] = 0
    result = np.stack([on_scan(scores, affine, shape) for scores in maps], axis=-1)
    np.testing.assert_allclose(result, expected, atol=1e-4)


def test_outside_the_token_grid_the_evidence_is_zero() -> None:
    points = voxel_to_world([[-0.6, 4, 4], [-0.4, 4, 4], [9.4, 4, 4], [9.6, 4, 4]], TOKENS)
    np.testing.assert_array_equal(sample_evidence(np.ones(GRID), TOKENS, points), [0, 1, 1, 0])


def test_the_file_holds_one_channel_per_map_in_order(tmp_path: Path) -> None:
    affine, shape = scan_grid("LPS")
    maps = [np.full(GRID, 0.2), np.full(GRID, 1.0), blob(TARGET)]
    write_evidence(tmp_path / "e.nii.gz", maps, TOKENS, affine, shape)
    image = nib.load(tmp_path / "e.nii.gz")
    assert image.shape == (*shape, 3) and image.get_data_dtype() == np.uint8
    assert image.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_allclose(image.dataobj[..., 0], 0.2, atol=1e-6)
    np.testing.assert_allclose(image.dataobj[..., 1], 1.0, atol=1e-6)
    np.testing.assert_allclose(image.dataobj[..., 2], on_scan(maps[2], affine, shape), atol=0.6 / 255)


def test_a_failure_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bundle.ctfindings.inference.output.evidence_volume.planes_on_scan", lambda *maps: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_evidence(tmp_path / "e.nii.gz", [blob(TARGET)], TOKENS, SCAN, SHAPE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", ORIENTATIONS)
def test_the_whole_map_is_that_of_its_planes(code: str) -> None:
    affine, shape = scan_grid(code)
    scores = np.random.default_rng(0).random(GRID, np.float32)
    whole = map_on_scan(scores, TOKENS, affine, shape)
    np.testing.assert_allclose(whole, on_scan(scores, affine, shape), atol=1e-6)
