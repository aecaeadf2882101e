"""The datalist: records are completed, checked and batched."""

import json
from pathlib import Path

import pytest
import torch

from bundle.ctfindings.anatomy import ANATOMY_NAMES, THORAX, anatomy_index
from bundle.ctfindings.data.datalist import label_balance, load_datalist
from bundle.ctfindings.data.loaders import collate_studies


def write(folder: Path, *records: dict) -> Path:
    path = folder / "datalist.json"
    path.write_text(json.dumps({"training": list(records)}))
    return path


def test_paths_are_relative_to_the_datalist(tmp_path: Path) -> None:
    study = load_datalist(write(tmp_path, {"id": "a", "image": "images/a.nii.gz"}), "training")[0]
    assert study["image"] == str(tmp_path / "images" / "a.nii.gz")
    assert "anatomy" not in study


def test_paths_are_absolute_and_links_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk" / "list").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "list")
    (tmp_path / "disk" / "a.nii.gz").write_bytes(b"scan")
    write(tmp_path / "link", {"id": "a", "image": "../a.nii.gz"})
    monkeypatch.chdir(tmp_path)
    (study,) = load_datalist("link/datalist.json", "training")
    assert study["image"] == str(tmp_path / "link" / ".." / "a.nii.gz")
    assert Path(study["image"]).samefile("disk/a.nii.gz")


def test_a_study_without_labels_has_unknown_labels(tmp_path: Path) -> None:
    study = load_datalist(write(tmp_path, {"id": "a", "image": "a.nii"}), "training")[0]
    assert study["labels"].tolist() == [-1] * 18


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-8"])
def test_a_datalist_that_windows_wrote_is_read_and_a_number_is_an_id(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "datalist.json"
    path.write_bytes(
        json.dumps({"training": [{"id": 0, "image": "größe.nii.gz"}]}, ensure_ascii=False)
        .replace(",", ",\r\n")
        .encode(encoding)
    )
    (study,) = load_datalist(path, "training")
    assert (study["id"], study["patient"], Path(study["image"]).name) == ("0", "0", "größe.nii.gz")


def test_equal_captions_have_equal_ids_whatever_the_anatomy(tmp_path: Path) -> None:
    captions = {"lung": {"text": "Unremarkable.", "normal": True}, "heart": {"text": "Unremarkable.", "normal": True}}
    study = load_datalist(write(tmp_path, {"id": "a", "image": "a.nii", "captions": captions}), "training")[0]
    ids, normal = study["caption_id"], study["caption_normal"]
    assert ids[anatomy_index("lung")] == ids[anatomy_index("heart")] != ids[THORAX]
    assert normal.tolist() == [name in captions for name in ANATOMY_NAMES]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"image": "a.nii"}, "no 'id'"),
        ({"id": "a"}, "no 'image'"),
        ({"id": "a", "image": "a.nii", "labels": [1] * 17}, "labels of study a"),
        ({"id": "a", "image": "a.nii", "labels": [2] * 18}, "labels of study a"),
        ({"id": "a", "image": "a.nii", "labels": 1}, "labels of study a"),
        ({"id": "a", "image": "a.nii", "labels": [[0]] * 18}, "labels of study a"),
        ({"id": "a", "image": "a.nii", "report": "Clear lungs."}, "report of study a: expected an object"),
        ({"id": "a", "image": "a.nii", "captions": ["Clear lungs."]}, "captions of study a: expected an object"),
        ({"id": "a", "image": "a.nii", "captions": {"lung": "Clear lungs."}}, "caption of lung of study a"),
    ],
)
def test_incomplete_records_are_refused_by_name(tmp_path: Path, record: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load_datalist(write(tmp_path, record), "training")
    assert "\n" not in str(caught.value) and "datalist.json" in str(caught.value)


def test_an_empty_split_is_refused_where_studies_are_needed(tmp_path: Path) -> None:
    assert load_datalist(write(tmp_path), "training") == []
    with pytest.raises(ValueError, match=r"datalist\.json: split 'training' has no study; add some"):
        load_datalist(write(tmp_path), "training", may_be_empty=False)


def test_missing_file_folder_damaged_file_and_missing_split_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such datalist; check the path"):
        load_datalist(tmp_path / "none.json", "training")
    with pytest.raises(ValueError, match="is a folder; give the JSON file of a datalist"):
        load_datalist(tmp_path, "training")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match="expected JSON"):
        load_datalist(tmp_path / "bad.json", "training")
    with pytest.raises(ValueError, match="no split 'test'"):
        load_datalist(write(tmp_path), "test")


def test_a_batch_with_one_mask_knows_nothing_of_the_other_scan() -> None:
    mask = torch.ones(1, 2, 2, 2, dtype=torch.uint8)
    known = torch.ones(len(ANATOMY_NAMES), dtype=torch.bool)
    image = torch.zeros(1, 2, 2, 2)
    batch = collate_studies([{"image": image, "anatomy": mask, "anatomy_known": known}, {"image": image}])
    assert batch["anatomy"].shape == (2, 1, 2, 2, 2)
    assert batch["anatomy_known"].any(1).tolist() == [True, False]


def test_texts_stay_a_list_over_the_studies() -> None:
    batch = collate_studies([{"captions": {"lung": "a"}}, {"captions": {}}])
    assert batch["captions"] == [{"lung": "a"}, {}]


def test_label_balance_counts_known_labels_only() -> None:
    labels = torch.tensor([[1, 0, -1], [0, 0, -1], [0, -1, -1]])
    assert label_balance([{"labels": row} for row in labels]) == [2.0, 1.0, 1.0]


@pytest.mark.parametrize("patient", [{}, {"patient": None}, {"patient": ""}])
def test_a_study_of_an_unknown_patient_is_a_patient_of_its_own(tmp_path: Path, patient: dict) -> None:
    studies = load_datalist(write(tmp_path, *({"id": name, "image": "a.nii", **patient} for name in "ab")), "training")
    assert [study["patient"] for study in studies] == ["a", "b"]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"id": "a"}, "training and test share study a; every study belongs to one split"),
        ({"id": "b", "patient": "Doe"}, r"training and test share a patient \(studies a and b\)"),
    ],
)
def test_a_study_or_patient_in_training_and_in_test_is_refused(tmp_path: Path, other: dict, message: str) -> None:
    studies = {"training": [{"id": "a", "patient": "Doe", "image": "a.nii.gz"}], "test": [{"image": "b", **other}]}
    (tmp_path / "datalist.json").write_text(json.dumps(studies))
    with pytest.raises(ValueError, match=message) as error:
        load_datalist(tmp_path / "datalist.json", "training", apart_from=("validation", "test"))
    assert "Doe" not in str(error.value), "a datalist may call a patient by name"


def test_a_study_that_occurs_twice_in_a_split_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, {"id": "1", "image": "a.nii.gz"}, {"id": 1, "image": "b.nii.gz"})
    with pytest.raises(ValueError, match="study 1 occurs twice in split 'training'; list each study once"):
        load_datalist(path, "training")
