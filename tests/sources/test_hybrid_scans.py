"""A folder of scans becomes a data set of hybrids with their twins."""

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bundle.ctfindings.data.datalist import check_patients, load_datalist, load_studies
from bundle.ctfindings.findings import finding_index
from bundle.ctfindings.inference.batch.run_archive import scans_of
from bundle.ctfindings.sources import hybrid_scans
from bundle.ctfindings.sources.hybrid_scans import HybridSettings, make_hybrids, summary
from bundle.ctfindings.sources.preparation.splits import draw_split, pseudonym

NODULE, EFFUSION, CALCIUM = "Lung nodule", "Pleural effusion", "Arterial wall calcification"
CORONARY = "Coronary artery wall calcification"


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory, phantom_scan: tuple[Path, Path]) -> dict[str, dict[str, str]]:
    """A synthetic scan with its mask, the same without, and a file that is not a scan."""
    folder = tmp_path_factory.mktemp("scans")
    (folder / "notes.nii.gz").write_text("no scan")
    image, anatomy = (str(path) for path in phantom_scan)
    return {
        "Doe^Jane": {"image": image, "anatomy": anatomy},
        "other": {"image": image},
        "notes": {"image": str(folder / "notes.nii.gz")},
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, studies: dict[str, dict[str, str]]) -> tuple[Path, dict[str, str]]:
    settings = HybridSettings(findings=(NODULE, EFFUSION, CALCIUM), fractions=(1.0, 0.0, 0.0))
    return make_hybrids(studies, tmp_path_factory.mktemp("hybrid"), settings)


def test_one_bad_file_ends_nothing_and_is_named(made: tuple[Path, dict[str, str]]) -> None:
    datalist, problems = made
    assert list(problems) == ["notes"] and "notes.nii.gz" in problems["notes"]
    with (datalist.parent / "bases.csv").open(encoding="utf-8") as file:
        assert [row["scan"] for row in csv.DictReader(file)] == ["Doe^Jane", "other", "notes"]


def test_counts_are_shown_by_split_and_an_empty_split_is_named(made: tuple[Path, dict[str, str]]) -> None:
    lines = [" ".join(line.split()) for line in summary(made[0], [NODULE, CALCIUM, CORONARY])]
    counts = ["studies 7 0 0", f"{CALCIUM} 1 0 0", f"{NODULE} 2 0 0", f"{EFFUSION} 2 0 0"]
    assert lines[:5] == ["training validation test", *counts]
    assert lines[5].startswith(f"warning: {CORONARY} was drawn into no scan")
    assert [line.split(";")[0] for line in lines[6:]] == [
        f"warning: {split} has no study" for split in ("validation", "test")
    ]


def test_hybrids_stand_beside_their_twin_with_masks_and_labels(made: tuple[Path, dict[str, str]]) -> None:
    datalist, _ = made
    studies = load_datalist(datalist, "training")
    assert len(studies) == 7 and "Doe" not in datalist.read_text(encoding="utf-8")
    twin, nodule = studies[0], studies[1]
    assert nodule["twin"] == twin["id"] and nodule["patient"] == twin["patient"] != studies[4]["patient"]
    index, other = finding_index(NODULE), finding_index("Cardiomegaly")
    assert (int(twin["labels"][index]), int(nodule["labels"][index]), int(nodule["labels"][other])) == (0, 1, -1)
    calcium = finding_index(CALCIUM)
    assert [int(study["labels"][calcium]) for study in (twin, studies[4])] == [0, -1], "the other scan has no mask"
    bits = np.asarray(nib.load(nodule["finding_masks"]).dataobj)
    assert set(np.unique(bits)) == {0, 1 << index}
    before, after = (np.asarray(nib.load(study["image"]).dataobj).astype(int) for study in (twin, nodule))
    assert (before != after).any() and (before == after).mean() > 0.9


def test_normal_scans_have_negatives_and_a_second_run_makes_nothing(
    studies: dict[str, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = HybridSettings(findings=(NODULE,), normal=True, fractions=(0.0, 0.0, 1.0))
    one = {"Doe^Jane": studies["Doe^Jane"]}
    datalist, _ = make_hybrids(one, tmp_path, settings)
    twin, nodule = json.loads(datalist.read_text(encoding="utf-8"))["test"]
    assert set(twin["labels"]) == {0} and sum(nodule["labels"]) == 1
    monkeypatch.setattr(hybrid_scans, "HybridBase", None)
    assert make_hybrids(one, tmp_path, settings)[0] == datalist


def test_scans_of_one_patient_are_in_one_split(studies: dict[str, dict[str, str]], tmp_path: Path) -> None:
    """Drawn by the ids of the scans, they would be in both."""
    settings = HybridSettings(findings=(NODULE,), fractions=(0.5, 0.0, 0.5))
    names = {draw_split(pseudonym(name), settings.fractions): name for name in ("s0", "s1", "s2", "s3", "s4", "s5")}
    assert set(names) == {"training", "test"}
    scans = [{"id": name, "image": studies["other"]["image"], "patient": "Doe^Jane"} for name in names.values()]
    (tmp_path / "datalist.json").write_text(json.dumps({"training": scans}), encoding="utf-8")
    datalist, _ = make_hybrids(scans_of(tmp_path / "datalist.json"), tmp_path / "hybrid", settings)
    content = json.loads(datalist.read_text(encoding="utf-8"))
    assert sorted(len(content[split]) for split in ("training", "validation", "test")) == [0, 0, 4]
    made = load_studies(datalist)
    assert {study["patient"] for study in made} == {pseudonym("Doe^Jane")}
    check_patients(load_datalist(datalist, "training"), load_datalist(datalist, "test"), "datalist")


def test_files_belong_to_the_scans_of_the_last_run_whatever_was_added_or_removed(
    studies: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    """The scans are told apart by their number of slices."""
    image = nib.load(studies["other"]["image"])
    spread = image.affine @ np.diag([2.0, 2, 2, 1])
    scans = {}
    for number, name in zip((0, 2, 4), "abc", strict=True):
        path = tmp_path / f"{name}.nii.gz"
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[::2, ::2, number::2], spread), path)
        scans[name] = {"image": str(path)}
    depth = {name: nib.load(scan["image"]).shape[2] for name, scan in scans.items()}
    settings = HybridSettings(findings=(NODULE,), fractions=(1.0, 0.0, 0.0))

    def check(*names: str) -> dict[str, int]:
        datalist, problems = make_hybrids({name: scans[name] for name in names}, tmp_path / "out", settings)
        assert not problems
        made = load_studies(datalist)  # An id that occurs twice is refused.
        with (datalist.parent / "bases.csv").open(encoding="utf-8") as file:
            base_of = {row["name"]: row["scan"] for row in csv.DictReader(file)}
        assert {base_of[study.get("twin", study["id"])] for study in made} == set(names)
        for study in made:
            assert nib.load(study["image"]).shape[2] == depth[base_of[study.get("twin", study["id"])]]
        return {study["image"]: Path(study["image"]).stat().st_mtime_ns for study in made}

    first = check("b", "c")
    assert check("b", "c") == first, "nothing is made again"
    moved = settings._replace(fractions=(0.0, 0.0, 1.0))
    datalist, _ = make_hybrids({name: scans[name] for name in "bc"}, tmp_path / "out", moved)
    times = {study["image"]: Path(study["image"]).stat().st_mtime_ns for study in load_studies(datalist, ["test"])}
    assert times == first, "another split draws nothing again"
    check("a", "b", "c")
    check("b", "c")  # Their old entries of the journal have the right numbers, and the files of "a" and "b".
    check("c")
    next((tmp_path / "out" / "images").glob("base_00000_*")).unlink()
    check("c")


def test_settings_that_cannot_be_used_are_refused(studies: dict[str, dict[str, str]], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="findings: Cardiomegaly cannot be drawn into a scan; choose from Lung nodule"):
        make_hybrids(studies, tmp_path, HybridSettings(findings=("Cardiomegaly",)))
    with pytest.raises(ValueError, match="per_finding: expected at least 1, got 0"):
        make_hybrids(studies, tmp_path, HybridSettings(per_finding=0))
    with pytest.raises(ValueError, match=r"no scan could be used; the first: .*notes\.nii\.gz"):
        make_hybrids({"notes": studies["notes"]}, tmp_path, HybridSettings())
