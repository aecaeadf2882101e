"""One image pipeline: the same scan gives the same tensor however it is stored, and maps come back onto the scan's own
grid.
"""

import pickle

import nibabel as nib
import nrrd
import numpy as np
import pytest
import torch
from monai.data import MetaTensor, list_data_collate
from monai.transforms import Compose, Invertd, Orientationd, Spacingd

from bundle.ctfindings.data.transforms import AveragePoold, BodyForeground, LoadScand, RandTranslated, image_pipeline

SPACING = (5.0, 5.0, 5.0)


def run(path, **options) -> MetaTensor:
    return Compose(image_pipeline(**options))({"image": str(path)})["image"]


@pytest.fixture
def body(hu) -> np.ndarray:
    """Everything but air and the table."""
    solid = hu > -900
    solid[:, :6] = False
    return solid


# --- the same findings whatever the storage ---


@pytest.mark.parametrize(
    "order",
    [[[0, -1], [1, 1], [2, 1]], [[0, -1], [1, -1], [2, 1]], [[2, 1], [0, -1], [1, -1]], [[1, 1], [2, -1], [0, 1]]],
)
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("spacing", [(3.0, 3.0, 3.0), SPACING])
def test_axis_order_and_number_type_do_not_change_the_tensor(tmp_path, nifti, hu, affine, order, dtype, spacing):
    image = nib.Nifti1Image(hu.astype(dtype), affine).as_reoriented(order)
    nib.save(image, tmp_path / "other.nii")
    expected, other = run(nifti, spacing=spacing), run(tmp_path / "other.nii", spacing=spacing)
    np.testing.assert_allclose(other.numpy(), expected.numpy(), atol=1e-3)
    np.testing.assert_allclose(other.affine, expected.affine, atol=1e-3)


def test_nrrd_and_dicom_give_the_tensor_of_the_nifti(tmp_path, nifti, hu, affine, write_dicom):
    header = {"space": "RAS", "space directions": affine[:3, :3].T, "space origin": affine[:3, 3]}
    nrrd.write(str(tmp_path / "a.nrrd"), hu, header, index_order="F")
    expected = run(nifti)
    for other in (tmp_path / "a.nrrd", write_dicom(tmp_path / "series", hu, affine)):
        np.testing.assert_allclose(run(other).numpy(), expected.numpy(), atol=1e-3)
        np.testing.assert_allclose(run(other).affine, expected.affine, atol=1e-3)


# --- what comes out ---


def test_inference_pads_to_a_multiple_and_training_cuts_to_a_size(nifti):
    assert all(size % 16 == 0 for size in run(nifti).shape[1:])
    assert run(nifti, roi_size=(32, 48, 64)).shape == (1, 32, 48, 64)


def test_the_window_maps_air_to_0_and_is_clipped(nifti, hu):
    image = run(nifti, hu_window=(-1000, 500))
    assert float(image.min()) == 0 and float(image.max()) <= 1
    soft = image[(image > 0.6) & (image < 0.8)].median()
    assert float(soft) == pytest.approx(1040 / 1500, abs=0.01)  # the body is 40 HU


def test_a_point_keeps_its_place_in_mm(nifti, affine):
    image = run(nifti)
    index = np.linalg.inv(np.asarray(image.affine)) @ (affine @ [22, 36, 34, 1])
    ball = np.argwhere(image[0].numpy() > 0.7).mean(0)
    np.testing.assert_allclose(index[:3], ball, atol=0.25)


def test_the_table_is_cut_off(nifti, affine, body):
    image = run(nifti, divisible=1)
    back = (np.asarray(image.affine) @ [0, 0, 0, 1])[1]
    first_body_row = int(np.flatnonzero(body.any((0, 2)))[0])
    margin = 12  # 10 mm in whole voxels
    assert (affine @ [0, first_body_row, 0, 1])[1] == pytest.approx(back + margin, abs=4)
    assert np.linalg.norm(np.asarray(image.affine)[:3, :3], axis=0) == pytest.approx([3, 3, 3])


def test_a_body_that_fills_the_scan_is_kept_whole(tmp_path, hu, affine):
    crop = hu[12:52, 14:44]
    nib.save(nib.Nifti1Image(crop, affine), tmp_path / "crop.nii")
    image = MetaTensor(torch.from_numpy(crop[None].astype(np.float32)), affine=affine)
    whole = Spacingd("image", (3.0, 3.0, 3.0))({"image": image})["image"]
    assert run(tmp_path / "crop.nii", divisible=1).shape == whole.shape


def test_the_mask_follows_the_image(tmp_path, nifti, hu, affine):
    nib.save(nib.Nifti1Image(((hu < -800) & (hu > -900)).astype(np.uint8), affine), tmp_path / "mask.nii.gz")
    study = Compose(image_pipeline(roi_size=(48, 48, 48)))(
        {"image": str(nifti), "anatomy": str(tmp_path / "mask.nii.gz")}
    )
    image, mask = study["image"], study["anatomy"]
    assert mask.shape == image.shape and mask.dtype == torch.uint8 and torch.allclose(mask.affine, image.affine)
    lung = image[mask == 1] * 2000 - 1000
    assert float(lung.median()) == pytest.approx(-850, abs=5)
    assert study["anatomy_known"].tolist() == [True] * 6


def test_a_study_without_a_mask_passes(nifti):
    for study in ({"image": str(nifti)}, {"image": str(nifti), "anatomy": None}):
        assert "anatomy" not in Compose(image_pipeline())(study)


def test_warnings_reach_the_meta_at_inference(tmp_path, hu, affine):
    nib.save(nib.Nifti1Image(hu[:, :, 15:35], affine), tmp_path / "short.nii")
    assert "covers only 60 mm" in run(tmp_path / "short.nii").meta["warnings"][0]


def test_warnings_about_a_mask_name_the_scan_and_not_the_file_of_the_mask(tmp_path, nifti, hu, affine):
    (tmp_path / "Doe_Jane").mkdir()
    nib.save(
        nib.Nifti1Image(np.where(hu > -300, 77, 1).astype(np.uint8), affine), tmp_path / "Doe_Jane" / "mask.nii.gz"
    )
    study = LoadScand("image", anatomy_key="anatomy")(
        {"image": str(nifti), "anatomy": str(tmp_path / "Doe_Jane" / "mask.nii.gz")}
    )
    (warning,) = study["image"].meta["warnings"]
    assert warning.startswith(f"the anatomy mask of {nifti}: 1 label ids") and "Doe" not in warning


def test_warnings_are_logged_in_training_and_batches_collate(tmp_path, nifti, hu, affine, caplog):
    nib.save(nib.Nifti1Image(hu[:, :, 15:35], affine), tmp_path / "short.nii")
    pipeline = Compose(image_pipeline(roi_size=(48, 48, 48)))
    batch = list_data_collate([pipeline({"image": str(path)}) for path in (nifti, tmp_path / "short.nii")])
    assert batch["image"].shape == (2, 1, 48, 48, 48)
    assert [record.getMessage() for record in caplog.records] == [
        "short.nii: covers only 60 mm along the body; findings elsewhere cannot be seen [short-cover]"
    ]


def test_a_logged_warning_names_files_without_their_folders(tmp_path, nifti, hu, affine, caplog):
    (tmp_path / "Doe Jane").mkdir()
    nib.save(nib.Nifti1Image(hu, affine), tmp_path / "Doe Jane" / "scan.nii")
    nib.save(nib.Nifti1Image(np.where(hu > -300, 77, 1).astype(np.uint8), affine), tmp_path / "mask.nii.gz")
    study = {"image": str(tmp_path / "Doe Jane" / "scan.nii"), "anatomy": str(tmp_path / "mask.nii.gz")}
    LoadScand("image", anatomy_key="anatomy", log_warnings=True)(study)
    assert "the anatomy mask of scan.nii: 1 label ids" in caplog.text and "Doe" not in caplog.text


def test_the_pipeline_can_go_to_worker_processes():
    assert len(pickle.loads(pickle.dumps(image_pipeline()))) == len(image_pipeline())


# --- back onto the scan's grid ---


@pytest.mark.parametrize("roi_size", [None, (48, 48, 64)])
@pytest.mark.parametrize("spacing", [(3.0, 3.0, 3.0), SPACING])
def test_a_label_map_comes_back_onto_the_scans_own_grid(tmp_path, hu, affine, body, roi_size, spacing):
    stored = nib.Nifti1Image(hu, affine).as_reoriented([[2, 1], [0, -1], [1, -1]])
    nib.save(stored, tmp_path / "scan.nii.gz")
    nib.save(nib.Nifti1Image(body.astype(np.uint8), affine), tmp_path / "body.nii.gz")
    pipeline = Compose(image_pipeline(spacing=spacing, roi_size=roi_size, mapping={1: "lung"}))
    study = pipeline({"image": str(tmp_path / "scan.nii.gz"), "anatomy": str(tmp_path / "body.nii.gz")})
    # A prediction is a tensor with no history of its own.
    study["pred"] = MetaTensor(study["anatomy"].as_tensor().float(), affine=study["image"].affine)
    back = Invertd("pred", pipeline, orig_keys="image", nearest_interp=True, to_tensor=True)(study)["pred"]
    expected = nib.Nifti1Image(body.astype(np.uint8), affine).as_reoriented([[2, 1], [0, -1], [1, -1]])
    assert back.shape[1:] == expected.shape
    np.testing.assert_allclose(back.affine, expected.affine, atol=1e-3)
    found, truth = np.asarray(back[0]) > 0.5, np.asarray(expected.dataobj) > 0
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.9


# --- single transforms ---


def test_average_pooling_is_the_mean_of_blocks_centred_in_mm():
    values = torch.arange(4 * 6 * 2, dtype=torch.float32).reshape(1, 4, 6, 2)
    image = MetaTensor(
        values.permute(0, 3, 2, 1).contiguous().permute(0, 3, 2, 1),
        affine=torch.diag(torch.tensor([1.0, 1.5, 3.0, 1.0])),
    )
    pooled = AveragePoold("image", (3.0, 3.0, 3.0))({"image": image})["image"]
    assert pooled.shape == (1, 1, 3, 2)
    assert float(pooled[0, 0, 1, 0]) == pytest.approx(float(values[0, :3, 2:4, 0].mean()))
    np.testing.assert_allclose(
        np.asarray(pooled.affine) @ [0, 0, 0, 1], [1, 0.75, 0, 1]
    )  # centre of voxels 0-2, 0-1, 0


def test_fine_texture_does_not_alias_into_the_coarse_image():
    # Stripes of one voxel at 1 mm have no business at 3 mm: their mean is 0.
    stripes = torch.ones(1, 90, 30, 30)
    stripes[:, ::2] = -1
    study = {"image": MetaTensor(stripes, affine=torch.eye(4))}
    plain = Compose([Orientationd("image", "RAS", labels=None), Spacingd("image", (3, 3, 3))])(dict(study))["image"]
    pooled = Compose([AveragePoold("image", (3, 3, 3)), Spacingd("image", (3, 3, 3))])(dict(study))["image"]
    assert float(plain.abs().mean()) == pytest.approx(1, abs=0.05)
    assert float(pooled.abs().mean()) < 0.4


def test_the_largest_part_is_the_body():
    image = torch.full((1, 40, 40, 10), -1000.0)
    image[0, 10:30, 10:30] = 0
    image[0, :, 2] = 100
    image[0, 34:40, 34:40] = 500
    found = BodyForeground((3, 3, 3))(image)[0]
    np.testing.assert_array_equal(np.flatnonzero(found.any(0).any(1).numpy()), np.arange(10, 30))
    np.testing.assert_array_equal(np.flatnonzero(found.any(1).any(1).numpy()), np.arange(10, 30))


def test_a_shift_moves_image_and_mask_together_and_keeps_mm_true():
    image = MetaTensor(torch.rand(1, 10, 11, 12) + 1, affine=torch.diag(torch.tensor([3.0, 3.0, 3.0, 1.0])))
    study = {"image": image, "anatomy": MetaTensor((image > 1.5).as_tensor().to(torch.uint8), affine=image.affine)}
    shift = RandTranslated(("image", "anatomy"), (3, 3, 3), prob=1.0)
    seen = set()
    for seed in range(5):
        shifted = shift.set_random_state(seed)(study)
        x, y, z = shift.shift
        seen.add(shift.shift)
        assert torch.equal((shifted["image"] > 1.5).as_tensor(), shifted["anatomy"].as_tensor().bool())
        point = torch.tensor([5, 5, 6])
        moved = point + torch.tensor(shift.shift)
        assert float(shifted["image"][0, *moved]) == float(image[0, *point])
        mm = shifted["image"].affine @ torch.tensor([*moved.tolist(), 1.0], dtype=torch.float64)
        np.testing.assert_allclose(mm[:3], point * 3.0)
        assert int((shifted["image"] == 0).sum()) == 10 * 11 * 12 - (10 - abs(x)) * (11 - abs(y)) * (12 - abs(z))
    assert len(seen) > 1


def test_a_shift_of_probability_0_changes_nothing():
    image = MetaTensor(torch.rand(1, 4, 4, 4))
    assert RandTranslated("image", (1, 1, 1), prob=0.0)({"image": image})["image"] is image


def test_loading_needs_no_anatomy_key(nifti, hu):
    assert LoadScand("image")({"image": nifti, "id": "a"})["image"].shape == (1, *hu.shape)


# --- real scans ---


def test_a_native_series_passes_in_time_and_shape(shared_data):
    image = run(shared_data / "dicom" / "ts_example_20_slices.zip")
    assert image.shape[3] == 16 and float(image.max()) == 1


def test_a_flipped_real_scan_gives_the_same_tensor(tmp_path, shared_data):
    path = shared_data / "ct" / "imlab_id002_ct_128x128x64.nii.gz"
    nib.save(nib.load(path).as_reoriented([[1, -1], [0, 1], [2, -1]]), tmp_path / "flipped.nii")
    np.testing.assert_allclose(run(tmp_path / "flipped.nii").numpy(), run(path).numpy(), atol=1e-3)
