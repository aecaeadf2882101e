"""Anatomy masks of anyone's making come onto the scan's grid with our ids."""

import nibabel as nib
import numpy as np
import pytest

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.scan.anatomy_mask import load_anatomy_mask
from bundle.ctfindings.scan.load_scan import load_scan


@pytest.fixture
def scan(nifti):
    return load_scan(nifti)


@pytest.fixture
def write(tmp_path, affine):
    def save(labels: np.ndarray, matrix: np.ndarray = affine):
        nib.save(nib.Nifti1Image(labels, matrix), tmp_path / "mask.nii.gz")
        return tmp_path / "mask.nii.gz"

    return save


@pytest.fixture
def lungs(hu) -> np.ndarray:
    """1 right lung, 2 left lung, 4 everything else in the body (which no mapping here names)."""
    labels = np.where(hu > -300, 4, 0).astype(np.uint8)
    air = (hu < -800) & (hu > -900)
    labels[:32][air[:32]] = 1
    labels[32:][air[32:]] = 2
    return labels


@pytest.mark.parametrize("mapping", [{1: "lung", 2: "lung"}, {"1": "lung", "2": "lung"}])
def test_mapped_ids_become_ours_and_the_others_are_ignored_with_their_count(scan, write, lungs, mapping):
    mask, known = load_anatomy_mask(write(lungs), mapping, scan)
    np.testing.assert_array_equal(mask[0].numpy(), np.isin(lungs, (1, 2)))
    assert known == ("lung",) and "1 label ids" in mask.meta["warnings"][0]
    assert mask.shape == scan.shape and str(mask.dtype) == "torch.uint8"


def test_lung_takes_every_id(scan, write, lungs):
    mask, known = load_anatomy_mask(
        write(np.where(lungs == 2, 700, lungs * (lungs == 1)).astype(np.int16)), "lung", scan
    )
    np.testing.assert_array_equal(mask[0].numpy(), np.isin(lungs, (1, 2)))
    assert known == ("lung",) and mask.meta["warnings"] == []


def test_totalsegmentator_ids_are_known_and_thorax_is_not_among_them(scan, write, lungs):
    labels = np.zeros_like(lungs)
    labels[10:20, 10:20, 10:20], labels[30:40, 10:20, 10:20], labels[50:55, 10:20, 10:20] = 13, 51, 1
    mask, known = load_anatomy_mask(write(labels), "totalsegmentator", scan)
    assert known == ("lung", "heart", "esophagus", "aorta", "mediastinum")
    np.testing.assert_array_equal(mask[0].numpy(), np.select([labels == 13, labels == 51], [1, 2]))


def test_our_own_ids_pass_unchanged_and_all_anatomies_are_known(scan, write, lungs):
    labels = (np.arange(lungs.size).reshape(lungs.shape) % 7).astype(np.uint8)
    mask, known = load_anatomy_mask(write(labels), "ctfindings", scan)
    np.testing.assert_array_equal(mask[0].numpy(), labels)
    assert known == ANATOMY_NAMES


def test_a_mask_on_a_flipped_and_permuted_grid_returns_to_the_same_voxels(scan, write, lungs, affine):
    image = nib.Nifti1Image(lungs, affine).as_reoriented([[2, 1], [0, -1], [1, -1]])
    mask, _ = load_anatomy_mask(write(np.asarray(image.dataobj), image.affine), "lung", scan)
    np.testing.assert_array_equal(mask[0].numpy(), lungs > 0)


def test_a_larger_finer_mask_is_sampled_at_the_nearest_voxel(scan, write, lungs, affine):
    fine = np.pad(lungs.repeat(2, 0).repeat(2, 1).repeat(2, 2), 8)
    matrix = affine @ np.diag([0.5, 0.5, 0.5, 1])
    matrix[:3, 3] = (affine @ [-0.25 - 4, -0.25 - 4, -0.25 - 4, 1])[:3]
    # A quarter voxel off a tie, so that "nearest" has one answer.
    matrix[:3, 3] += 0.1
    mask, _ = load_anatomy_mask(write(fine, matrix), {1: "lung", 2: "lung"}, scan)
    np.testing.assert_array_equal(mask[0].numpy(), np.isin(lungs, (1, 2)))


def test_the_part_of_the_scan_outside_the_mask_stays_empty(scan, write, lungs, affine):
    matrix = affine.copy()
    matrix[:3, 3] = (affine @ [0, 0, 20, 1])[:3]
    mask, _ = load_anatomy_mask(write(lungs[:, :, 20:], matrix), "lung", scan)
    assert not mask[0, :, :, :20].any()
    np.testing.assert_array_equal(mask[0, :, :, 20:].numpy(), lungs[:, :, 20:] > 0)


def test_integers_stored_as_floats_are_accepted(scan, write, lungs):
    mask, _ = load_anatomy_mask(write(lungs.astype(np.float32)), "lung", scan)
    np.testing.assert_array_equal(mask[0].numpy(), lungs > 0)


def test_a_mask_that_does_not_overlap_the_scan_is_refused(scan, write, lungs, affine):
    moved = affine.copy()
    moved[2, 3] += 1000
    with pytest.raises(ScanError, match="does not overlap the scan"):
        load_anatomy_mask(write(lungs, moved), "lung", scan)


def test_probabilities_are_refused(scan, write, lungs):
    with pytest.raises(ScanError, match="not integers"):
        load_anatomy_mask(write(lungs / np.float32(3)), "lung", scan)


@pytest.mark.parametrize("mapping", ["ctfindings", "lung"])
def test_a_scan_in_place_of_a_mask_is_refused(scan, nifti, mapping):
    with pytest.raises(ScanError, match=r"contains the negative id .*; give the anatomy mask, not a scan"):
        load_anatomy_mask(nifti, mapping, scan)


def test_a_negative_id_that_the_mapping_names_is_taken(scan, write, lungs):
    mask, _ = load_anatomy_mask(write(-lungs.astype(np.int16)), {-1: "lung", -2: "lung", -4: "heart"}, scan)
    np.testing.assert_array_equal(mask[0].numpy() == 1, np.isin(lungs, (1, 2)))


def test_a_mask_without_any_mapped_id_is_refused(scan, write, lungs):
    with pytest.raises(ScanError, match=r"none of the mapped ids \[9\]"):
        load_anatomy_mask(write(lungs), {9: "heart"}, scan)


@pytest.mark.parametrize(
    ("mapping", "message"), [("total", "choose from ctfindings"), ({1: "liver"}, "anatomy 'liver' is unknown")]
)
def test_an_unknown_mapping_or_anatomy_is_refused_with_the_known_ones(scan, write, lungs, mapping, message):
    with pytest.raises(ValueError, match=message):
        load_anatomy_mask(write(lungs), mapping, scan)


def test_a_real_heart_mask_on_a_larger_grid_lies_on_the_heart(shared_data):
    scan = load_scan(shared_data / "ct" / "ts_cardiac_cta_crop_1p5.nii.gz")
    mask, known = load_anatomy_mask(shared_data / "ct" / "ts_cardiac_heart_seg.nii.gz", {1: "heart"}, scan)
    assert known == ("heart",) and mask.shape == scan.shape
    assert float(scan[mask == 2].median()) > 100  # contrast-filled chambers


def test_a_real_totalsegmentator_mask_finds_the_lung_bases_and_the_aorta(shared_data):
    scan = load_scan(shared_data / "ct" / "ts_example_ct_3mm.nii.gz")
    path = shared_data / "ct" / "ts_example_seg117_3mm.nii.gz"
    mask, _ = load_anatomy_mask(path, "totalsegmentator", scan)
    assert float(scan[mask == 1].median()) < -600 and int((mask == 4).sum()) > 0  # and the abdominal aorta
