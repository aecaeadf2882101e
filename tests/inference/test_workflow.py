"""The parts of the inference workflow: what the written record says of a scan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor

from bundle.ctfindings.inference.findings import Answers
from bundle.ctfindings.inference.workflow import FindingsWriter


def test_the_record_names_no_folder_of_the_scan_which_may_be_that_of_a_patient(tmp_path: Path) -> None:
    path = "/archive/A NAME/scan.nii.gz"
    meta = {"filename_or_obj": path, "source_format": "nifti", "warnings": [f"{path}: the slices are tilted by 2.0 degrees"]}
    batch = {"scan": MetaTensor(torch.zeros(1, 4, 4, 4), affine=torch.eye(4), meta=meta), "seconds": {}}
    answers = Answers([], [], {}, np.eye(4), 0.0, ["lung was not found in the scan"], {})
    (tmp_path / "model.pt").write_bytes(b"weights")
    record, _ = FindingsWriter(tmp_path, tmp_path / "model.pt")._record(batch, answers, "a tower")
    assert record.warnings == ["scan.nii.gz: the slices are tilted by 2.0 degrees", "lung was not found in the scan"]
    assert "A NAME" not in record.to_json()
