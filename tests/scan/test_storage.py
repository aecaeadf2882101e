"""Files that are not in HU, or have no geometry, become HU in the patient once, by the one loader."""

import json
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import nibabel as nib
import numpy as np
import pytest

from bundle.ctfindings.data.datalist import load_datalist
from bundle.ctfindings.data.transforms import LoadScand
from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.scan import storage
from bundle.ctfindings.scan.hu_check import hu_problem
from bundle.ctfindings.scan.load_scan import load_scan
from bundle.ctfindings.scan.storage import Stored, stored_from


def save(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


@pytest.mark.parametrize("intercept", [-1024, -8192])
def test_values_are_rescaled_once_by_the_record(
    tmp_path: Path, hu: np.ndarray, affine: np.ndarray, intercept: int
) -> None:
    path = save(tmp_path / "raw.nii.gz", (hu - intercept).astype(np.int16), affine)
    scan = load_scan(path, {"slope": 1, "intercept": intercept})
    np.testing.assert_array_equal(scan[0].numpy(), hu)


def test_the_pipeline_rescales_once_and_leaves_nothing_to_rescale_again(
    tmp_path: Path, hu: np.ndarray, affine: np.ndarray
) -> None:
    path = save(tmp_path / "raw.nii.gz", (hu + 8192).astype(np.int16), affine)
    study = LoadScand("image")({"image": str(path), "stored": {"intercept": -8192}})
    np.testing.assert_array_equal(study["image"][0].numpy(), hu)
    assert "stored" not in study


@pytest.mark.parametrize("intercept", [-1024, -8192])
def test_a_file_in_hu_is_not_rescaled_again(nifti: Path, intercept: int) -> None:
    with pytest.raises(
        ScanError, match=rf"is already in HU, but its record gives slope 1 and intercept {intercept}"
    ) as refused:
        load_scan(nifti, {"intercept": intercept})
    assert refused.value.code == "rescaled-twice" and "\n" not in str(refused.value)


@pytest.mark.parametrize("intercept", [-1024, -8192])
def test_a_raw_file_without_its_rescale_is_refused(
    tmp_path: Path, hu: np.ndarray, affine: np.ndarray, intercept: int
) -> None:
    with pytest.raises(ScanError, match="slope and intercept left out"):
        load_scan(save(tmp_path / "raw.nii.gz", (hu - intercept).astype(np.int16), affine))


def test_a_raw_file_whose_padding_looks_like_air_is_refused_too(hu: np.ndarray) -> None:
    raw = hu.astype(np.float32) + 1024
    raw[:4] = -1024
    assert "was an intercept of -1024 left out?" in hu_problem(raw, np.dtype(np.int16))


def test_another_intercept_than_that_of_the_file_is_refused(tmp_path: Path, hu: np.ndarray, affine: np.ndarray) -> None:
    path = save(tmp_path / "raw.nii.gz", (hu + 8192).astype(np.int16), affine)
    with pytest.raises(ScanError, match="after slope 1 and intercept -1024 of its record"):
        load_scan(path, {"intercept": -1024})


def test_no_real_scan_passes_raw_or_rescaled_twice(shared_data: Path) -> None:
    scans = sorted(path for path in (shared_data / "ct").glob("*_ct*.nii.gz") if "mask" not in path.name)
    assert len(scans) >= 8
    for path in scans:
        values = np.asarray(nib.load(path).dataobj, np.float32)
        refused = {
            shift
            for shift in (0, 1024, 8192, -1024, -8192)
            if hu_problem(values + np.float32(shift), np.dtype(np.float32))
        }
        assert refused == {1024, 8192, -1024, -8192}, path.name


def test_the_affine_of_the_record_takes_the_place_of_the_files(nifti: Path) -> None:
    own = np.diag([-2.0, -2.0, 4.0, 1.0])
    own[:3, 3] = 10, 20, -30
    np.testing.assert_array_equal(load_scan(nifti, {"affine": own.tolist()}).affine, own)


def test_axes_and_spacing_place_the_middle_of_the_scan_at_zero() -> None:
    affine = Stored(axes="IPL", spacing_mm=(0.8, 0.8, 0.8)).affine_of((11, 5, 7))
    # The first axis runs down, the second back, the third to the left, where x of RAS falls.
    assert affine is not None
    np.testing.assert_allclose(affine @ [5, 2, 3, 1], [0, 0, 0, 1])
    np.testing.assert_allclose(affine @ [0, 2, 3, 1], [0, 0, 4, 1])
    np.testing.assert_allclose(affine @ [5, 0, 3, 1], [0, 1.6, 0, 1])
    np.testing.assert_allclose(affine @ [5, 2, 0, 1], [2.4, 0, 0, 1])


def test_an_npz_needs_its_geometry_and_is_never_unpickled(tmp_path: Path, hu: np.ndarray) -> None:
    # RAS voxels (X, Y, Z) turned to down, back, left.
    turned = np.ascontiguousarray(hu[::-1, ::-1, ::-1].transpose(2, 1, 0))
    np.savez(tmp_path / "a.npz", ct=turned)
    scan = load_scan(tmp_path / "a.npz", {"axes": "IPL", "spacing_mm": [3.0, 2.5, 2.0]})
    back = nib.as_closest_canonical(nib.Nifti1Image(scan[0].numpy(), np.asarray(scan.affine)))
    np.testing.assert_array_equal(back.get_fdata(), hu)
    with pytest.raises(ScanError, match="has no geometry"):
        load_scan(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", ct=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ScanError, match="cannot be read as"):
        load_scan(tmp_path / "b.npz", {"axes": "IPL", "spacing_mm": [1, 1, 1]})
    np.savez(tmp_path / "c.npz", volume=turned)
    with pytest.raises(ScanError, match="expected an array 'ct', found volume"):
        load_scan(tmp_path / "c.npz", {"axes": "IPL", "spacing_mm": [1, 1, 1]})


def test_an_npz_of_too_many_voxels_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "packed.npz", ct=np.zeros((100, 100, 100), np.int16))
    with ZipFile(tmp_path / "packed.npz", "a") as archive:
        archive.writestr("ct", archive.read("ct.npy")[:100])  # numpy calls both members ct.
    monkeypatch.setattr(storage, "MAX_VOXELS", 999_999)
    monkeypatch.setattr(np.lib.format, "read_array", None)
    with pytest.raises(ScanError, match="has 100 x 100 x 100 voxels; at most 999,999 are allowed") as refused:
        load_scan(tmp_path / "packed.npz", {"axes": "IPL", "spacing_mm": [1, 1, 1]})
    assert refused.value.code == "too-large"


def test_a_record_holds_what_differs_from_the_default() -> None:
    assert Stored(intercept=-8192).record() == {"intercept": -8192}
    stored = Stored(2.0, -1024.0, axes="IPL", spacing_mm=(0.8, 0.8, 0.8))
    assert stored_from(json.loads(json.dumps(stored.record()))) == stored


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (-8192, "stored: expected a mapping such as .*, got -8192"),
        ({"intercepts": 1}, "stored: unknown key 'intercepts'"),
        ({"slope": 0}, "a positive slope"),
        ({"intercept": "none"}, "stored: expected numbers"),
        ({"affine": [[1, 0], [0, 1]]}, "expected a 4 x 4 affine"),
        ({"axes": "IPP", "spacing_mm": [1, 1, 1]}, "expected axes such as 'IPL'"),
        ({"axes": "IPL"}, "together with spacing_mm"),
        ({"axes": "IPL", "spacing_mm": [1, 0, 1]}, "three positive numbers"),
    ],
)
def test_a_record_that_cannot_be_read_is_named(tmp_path: Path, entry: Any, message: str) -> None:
    path = tmp_path / "d.json"
    path.write_text(json.dumps({"training": [{"id": "s1", "image": "a.nii.gz", "stored": entry}]}))
    with pytest.raises(ValueError, match=message) as refused:
        load_datalist(path, "training")
    assert "study s1" in str(refused.value)
