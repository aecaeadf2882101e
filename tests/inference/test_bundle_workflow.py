"""The parts of the inference workflow: the request, and where the results are written."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from bundle.ctfindings.inference.bundle_workflow import FindingsWriter, scan_records
from bundle.ctfindings.inference.service import FindingsService


def test_results_that_cannot_be_written_are_one_line_that_names_the_folder(
    service: FindingsService, phantom_scan: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "output").write_text("a file where the folder should be")
    study = service.preprocessing({"image": str(phantom_scan[0])})
    engine = SimpleNamespace(state=SimpleNamespace(batch=study, output={"pred": service.answer(study)}))
    with pytest.raises(ValueError, match=r"output: results cannot be written there \(.*\); free some space"):
        FindingsWriter(tmp_path / "output")(engine)  # type: ignore[arg-type]


def test_scans_and_masks_pair() -> None:
    assert scan_records("a.nii") == [{"image": "a.nii"}]
    assert scan_records(["a.nii", "b.nii"], [None, "m.nii"]) == [
        {"image": "a.nii"},
        {"image": "b.nii", "anatomy": "m.nii"},
    ]
    assert scan_records("a.nii", stored={"intercept": -8192}) == [{"image": "a.nii", "stored": {"intercept": -8192}}]
    assert scan_records(None) == []
    with pytest.raises(ValueError, match="1 masks were given for 2 scans"):
        scan_records(["a.nii", "b.nii"], "m.nii")
    with pytest.raises(ValueError, match=r"stored: expected a mapping such as .*, got -8192"):
        scan_records("a.nii", stored=-8192)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="same output folder"):
        scan_records(["x/a.nii", "y/a.nii.gz"])
