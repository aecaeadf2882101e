"""The parts of the inference workflow: what the written record says of a scan."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from bundle.ctfindings.inference.findings import Answers
from bundle.ctfindings.inference.workflow import FindingsWriter


@pytest.fixture
def answers() -> Answers:
    return Answers([], [], {}, np.eye(4), 0.0, ["lung was not found in the scan"], {})


def batch_of(path: str, *warnings: str) -> dict[str, Any]:
    meta = {"filename_or_obj": path, "source_format": "nifti", "warnings": list(warnings)}
    return {"scan": MetaTensor(torch.zeros(1, 4, 4, 4), affine=torch.eye(4), meta=meta), "seconds": {}}


def test_the_record_names_no_folder_of_the_scan_which_may_be_that_of_a_patient(tmp_path: Path, answers: Answers) -> None:
    path = "/archive/A NAME/scan.nii.gz"
    batch = batch_of(path, f"{path}: the slices are tilted by 2.0 degrees")
    (tmp_path / "model.pt").write_bytes(b"weights")
    record, _ = FindingsWriter(tmp_path, tmp_path / "model.pt", tmp_path)._record(batch, answers, "a tower")
    assert record.warnings == ["scan.nii.gz: the slices are tilted by 2.0 degrees", "lung was not found in the scan"]
    assert "A NAME" not in record.to_json()


def test_results_that_cannot_be_written_are_one_line_that_names_the_folder(tmp_path: Path, answers: Answers) -> None:
    (tmp_path / "model.pt").write_bytes(b"weights")
    (tmp_path / "output").write_text("a file where the folder should be")
    network = SimpleNamespace(image=SimpleNamespace(tower=None))
    engine = SimpleNamespace(state=SimpleNamespace(batch=batch_of("a.nii.gz"), output={"pred": answers}), network=network)
    with pytest.raises(ValueError, match=r"output: results cannot be written there \(.*\); make room"):
        FindingsWriter(tmp_path / "output", tmp_path / "model.pt", tmp_path)(engine)  # type: ignore[arg-type]
