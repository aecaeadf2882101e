"""Evidence: the place of a map survives every orientation of the scan; resampling agrees with SciPy."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from bundle.ctfindings.inference.evidence import locate, planes_on_scan, sample_evidence, write_evidence
from bundle.ctfindings.scan.coordinates import voxel_spacing, voxel_to_world, world_to_voxel

SHAPE = (60, 50, 24)
SCAN = np.array([[2.0, 0, 0, -60], [0, 2, 0, -50], [0, 0, 5, 100], [0, 0, 0, 1]])
GRID = (10, 9, 10)
# Token boxes of 12 mm that start at the scan's outer face.
TOKENS = np.array([[12.0, 0, 0, -55], [0, 12, 0, -45], [0, 0, 12, 103.5], [0, 0, 0, 1]])
TARGET = np.array([17.0, -9.0, 151.0])


def on_scan(scores: np.ndarray, affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A token map on the grid of a scan, as the file holds it."""
    return np.stack(list(planes_on_scan(scores.astype(np.float32), TOKENS, affine, shape)), axis=-1).transpose(1, 0, 2)


def blob(centre: np.ndarray, sigma: float = 12.0) -> np.ndarray:
    points = voxel_to_world(np.moveaxis(np.indices(GRID), 0, -1), TOKENS)
    return 0.9 * np.exp(-0.5 * ((points - centre) ** 2).sum(-1) / sigma**2)


def oblique() -> np.ndarray:
    a, b = np.deg2rad(12), np.deg2rad(-8)
    rz = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    rx = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = rz @ rx @ SCAN[:3, :3]
    middle = (np.array(SHAPE) - 1) / 2
    affine[:3, 3] = voxel_to_world(middle, SCAN) - affine[:3, :3] @ middle
    return affine


def scan_grid(code: str) -> tuple[np.ndarray, tuple[int, ...]]:
    if code == "oblique":
        return oblique(), SHAPE
    image = nib.Nifti1Image(np.zeros(SHAPE, np.uint8), SCAN)
    image = image.as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(SCAN), nib.orientations.axcodes2ornt(code))
    )
    return image.affine, image.shape


ORIENTATIONS = ["RAS", "LPS", "RAI", "PIR", "SAL", "oblique"]


@pytest.mark.parametrize("code", ORIENTATIONS)
def test_the_peak_stays_in_place_in_any_orientation_of_the_scan(code: str, tmp_path: Path) -> None:
    affine, shape = scan_grid(code)
    found = locate(blob(TARGET), TOKENS, affine, shape)
    assert found is not None
    np.testing.assert_allclose(found.peak_mm, TARGET, atol=3.0)  # a quarter of a token

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
def test_the_slice_and_the_image_number_are_those_of_the_peak(code: str) -> None:
    affine, shape = scan_grid(code)
    found = locate(blob(TARGET), TOKENS, affine, shape)
    assert found is not None
    assert voxel_spacing(affine)[found.slice_axis] == pytest.approx(5)
    assert abs(found.slice_index - world_to_voxel(TARGET, affine)[found.slice_axis]) <= 1.0
    if code != "oblique":
        # z = 151 mm lies 10.2 slices above the lowest (100 mm); the highest of 24 slices is image 1.
        assert found.z_mm in (pytest.approx(150), pytest.approx(155))
        assert found.image == 24 - round((found.z_mm - 100) / 5)


def test_box_bounds_the_region_above_half_of_the_peak_and_no_other() -> None:
    scores = np.zeros(GRID)
    scores[3:5, 4, 5] = [1.0, 0.6]
    scores[5, 4, 5] = 0.4
    scores[8, 8, 8] = 0.9
    found = locate(scores, TOKENS, SCAN, SHAPE)
    assert found is not None
    # x: tokens 3 and 4, from -55 + 36 - 6 to -55 + 48 + 6
    np.testing.assert_allclose(found.box_mm, [[-25, -3, 157.5], [-1, 9, 169.5]])


def test_peak_and_box_do_not_leave_the_scan() -> None:
    tokens = TOKENS.copy()
    tokens[:3, 3] -= 24  # two tokens of padding at the lower side
    scores = np.zeros(GRID)
    scores[0, 0, 0] = 1.0  # in the padding
    scores[1, 2, 2] = 0.5  # reaches into the scan with its upper x half
    tokens[0, 3] += 6
    found = locate(scores, tokens, SCAN, SHAPE)
    assert found is not None and found.peak_score == 0.5
    voxel = world_to_voxel(found.peak_mm, SCAN)
    assert (voxel >= 0).all() and (voxel <= np.array(SHAPE) - 1).all()
    assert found.box_mm[0][0] == pytest.approx(-61)  # outer face of the first voxel


@pytest.mark.parametrize(("x", "side"), [(30.0, "right"), (-30.0, "left"), (2.0, "midline")])
def test_side_is_that_of_the_patient(x: float, side: str) -> None:
    found = locate(blob(np.array([x, 0, 150])), TOKENS, SCAN, SHAPE, midline_mm=0.0)
    assert found is not None and found.side == side


def test_an_empty_map_has_no_evidence_and_a_broken_one_is_refused() -> None:
    assert locate(np.zeros(GRID), TOKENS, SCAN, SHAPE) is None
    with pytest.raises(ValueError, match="non-finite"):
        locate(np.full(GRID, np.nan), TOKENS, SCAN, SHAPE)
    with pytest.raises(ValueError, match="gx, gy, gz"):
        locate(np.zeros((2, *GRID)), TOKENS, SCAN, SHAPE)


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
    monkeypatch.setattr("bundle.ctfindings.inference.evidence._to_uint8", lambda values: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_evidence(tmp_path / "e.nii.gz", [blob(TARGET)], TOKENS, SCAN, SHAPE)
    assert list(tmp_path.iterdir()) == []
