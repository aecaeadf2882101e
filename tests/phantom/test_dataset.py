"""A synthetic data set is the same for the same seed, is finished after a stop, and refuses other settings."""

import errno
import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest

from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.phantom.dataset import make_case, make_dataset, render_all


@pytest.fixture(scope="module")
def datalist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("phantom"), 2, 1, 1, seed=3, workers=2, dicom=True)


def test_the_datalist_has_three_splits_of_different_patients_whose_files_exist(datalist: Path) -> None:
    content = json.loads(datalist.read_text(encoding="utf-8"))
    assert [len(content[split]) for split in ("training", "validation", "test")] == [2, 1, 1]
    records = content["training"] + content["validation"] + content["test"]
    assert len({record["patient"] for record in records}) == 4
    for record in records:
        image = nib.load(datalist.parent / record["image"])
        mask = nib.load(datalist.parent / record["anatomy"])
        assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
        assert np.allclose(image.affine, mask.affine) and image.shape == mask.shape
        bits = np.zeros(1, np.int32)
        if "finding_masks" in record:
            bits = np.asarray(nib.load(datalist.parent / record["finding_masks"]).dataobj)
        seen = [int(bool((bits >> i & 1).any())) for i in range(len(FINDING_NAMES))]
        assert seen == record["labels"]
        assert set(record["lesions"]) == {
            name for name, label in zip(FINDING_NAMES, record["labels"], strict=True) if label
        }
        for lesion in record["lesions"].values():
            assert 0 <= lesion["severity"] <= 1 and lesion["lesion_mm"] > 0
        assert record["report"]["findings"]


def test_a_scan_is_a_function_of_seed_and_index(datalist: Path) -> None:
    record = json.loads(datalist.read_text(encoding="utf-8"))["training"][1]
    _, image, _, _, affine = make_case(3, 1)
    stored = nib.load(datalist.parent / record["image"])
    assert np.array_equal(np.asarray(stored.dataobj), image)
    assert np.allclose(stored.affine, affine, atol=1e-4)
    assert not np.array_equal(make_case(4, 1)[1], image)


def test_a_stopped_run_is_completed_without_rendering_again(datalist: Path) -> None:
    folder = datalist.parent
    before = datalist.read_text(encoding="utf-8")
    datalist.unlink()
    records = (folder / "records.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "records.jsonl").write_text("".join(line for line in records if "phantom_000002" not in line))
    kept = (folder / "images/phantom_000001.nii.gz").stat().st_mtime_ns
    assert make_dataset(folder, 2, 1, 1, seed=3, workers=1, dicom=True).read_text(encoding="utf-8") == before
    assert (folder / "images/phantom_000001.nii.gz").stat().st_mtime_ns == kept
    assert not list(folder.rglob(".*"))


def test_scans_that_cannot_be_written_end_the_run_with_the_folder_and_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"file: synthetic scans cannot be written there .*; .*name another folder"):
        make_dataset(tmp_path / "file", 1, 0, 0, seed=3, workers=1)

    write = Path.write_bytes

    def until_full(path: Path, content: bytes) -> int:
        write(path, content[:10])
        if len(content) > 10_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, content)

    with monkeypatch.context() as full:
        full.setattr(Path, "write_bytes", until_full)
        with pytest.raises(ValueError, match=r"No space left on device.*free disk space"):
            make_dataset(tmp_path / "small", 1, 0, 0, seed=3, workers=1)
    assert [path.name for path in (tmp_path / "small").rglob("*") if path.is_file()] == ["parameters.json"]
    assert make_dataset(tmp_path / "small", 1, 0, 0, seed=3, workers=1).exists(), "the same command goes on"


def test_a_folder_of_other_settings_is_refused(datalist: Path) -> None:
    with pytest.raises(ValueError, match="choose another folder or delete it"):
        make_dataset(datalist.parent, 2, 1, 1, seed=4, workers=1)


def test_a_negative_number_of_scans_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="from 0 on"):
        make_dataset(tmp_path / "none", -1, 1, 1, seed=3, workers=1)
    assert not (tmp_path / "none").exists()


def test_labels_that_are_not_eighteen_zeros_and_ones_are_refused() -> None:
    with pytest.raises(ValueError, match="18 values of 0 or 1"):
        make_case(0, 0, [0] * 17)


def test_the_dicom_series_has_the_geometry_and_the_values_of_the_image(datalist: Path) -> None:
    record = json.loads(datalist.read_text(encoding="utf-8"))["training"][0]
    case, image, _, _, affine = make_case(3, 0)
    files = sorted((datalist.parent / record["dicom"]).glob("*.dcm"))
    assert len(files) == case.image_count
    top = pydicom.dcmread(files[0])
    assert (top.InstanceNumber, top.SeriesNumber, top.Modality) == (1, case.series, "CT")
    assert float(top.ImagePositionPatient[2]) == pytest.approx(case.z_of_image(1), abs=1e-3)
    # The first pixel is the patient's right front corner.
    right_front = affine @ [0, image.shape[1] - 1, image.shape[2] - 1, 1]
    left_most = affine @ [image.shape[0] - 1, 0, 0, 1]
    assert float(top.ImagePositionPatient[0]) == pytest.approx(-left_most[0], abs=1e-3)
    assert float(top.ImagePositionPatient[1]) == pytest.approx(-right_front[1], abs=1e-3)
    values = top.pixel_array.astype(int) * int(top.RescaleSlope) + int(top.RescaleIntercept)
    assert np.array_equal(values, image[::-1, ::-1, -1].T)


def test_scans_are_rendered_where_the_system_does_not_tell_which_cores_may_be_used(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    tasks = {"a": "1", "b": "2"}
    assert render_all(lambda task: {"id": task}, tasks, tmp_path / "records.jsonl") == [{"id": "1"}, {"id": "2"}]
