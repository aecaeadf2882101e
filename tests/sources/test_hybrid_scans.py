"""A folder of scans becomes a data set of hybrids with their twins."""

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bundle.ctfindings.data.datalist import load_datalist
from bundle.ctfindings.findings import finding_index
from bundle.ctfindings.sources import hybrid_scans
from bundle.ctfindings.sources.hybrid_scans import HybridSettings, make_hybrids, summary

NODULE, EFFUSION = "Lung nodule", "Pleural effusion"


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
    settings = HybridSettings(findings=(NODULE, EFFUSION), fractions=(1.0, 0.0, 0.0))
    return make_hybrids(studies, tmp_path_factory.mktemp("hybrid"), settings)


def test_one_bad_file_ends_nothing_and_is_named(made: tuple[Path, dict[str, str]]) -> None:
    datalist, problems = made
    assert list(problems) == ["notes"] and "notes.nii.gz" in problems["notes"]
    with (datalist.parent / "bases.csv").open(encoding="utf-8") as file:
        assert [row["scan"] for row in csv.DictReader(file)] == ["Doe^Jane", "other", "notes"]


def test_counts_are_shown_by_split_and_an_empty_split_is_named(made: tuple[Path, dict[str, str]]) -> None:
    lines = [" ".join(line.split()) for line in summary(made[0])]
    counts = ["studies 6 0 0", f"{NODULE} 2 0 0", f"{EFFUSION} 2 0 0"]
    assert lines[:4] == ["training validation test", *counts]
    assert [line.split(";")[0] for line in lines[4:]] == [
        f"warning: {split} has no study" for split in ("validation", "test")
    ]


def test_hybrids_stand_beside_their_twin_with_masks_and_labels(made: tuple[Path, dict[str, str]]) -> None:
    datalist, _ = made
    studies = load_datalist(datalist, "training")
    assert len(studies) == 6 and "Doe" not in datalist.read_text(encoding="utf-8")
    twin, nodule = studies[0], studies[1]
    assert nodule["twin"] == twin["id"] and nodule["patient"] == twin["patient"] != studies[3]["patient"]
    index, other = finding_index(NODULE), finding_index("Cardiomegaly")
    assert (int(twin["labels"][index]), int(nodule["labels"][index]), int(nodule["labels"][other])) == (0, 1, -1)
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


def test_settings_that_cannot_be_used_are_refused(studies: dict[str, dict[str, str]], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="findings: Cardiomegaly cannot be drawn into a scan; choose from Lung nodule"):
        make_hybrids(studies, tmp_path, HybridSettings(findings=("Cardiomegaly",)))
    with pytest.raises(ValueError, match="per_finding: expected at least 1, got 0"):
        make_hybrids(studies, tmp_path, HybridSettings(per_finding=0))
    with pytest.raises(ValueError, match=r"no scan could be used; the first: .*notes\.nii\.gz"):
        make_hybrids({"notes": studies["notes"]}, tmp_path, HybridSettings())
