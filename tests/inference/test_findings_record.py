"""The record: strict JSON that reads back to the same record."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from bundle.ctfindings.inference.findings_record import FindingsRecord


def test_json_reads_back_to_the_same_record(case) -> None:
    text = case.record.to_json()
    again = FindingsRecord.from_json(text)
    assert again.to_json() == text
    assert again.findings[1].evidence.peak_mm == pytest.approx(case.record.findings[1].evidence.peak_mm)


def test_json_has_the_documented_fields(case) -> None:
    data = json.loads(case.record.to_json())
    assert list(data) == [
        "schema_version", "disclaimer", "created", "scan", "model", "findings", "queries", "domain", "notice",
        "warnings", "seconds", "evidence_channels",
    ]  # fmt: skip
    assert "Research only. Not a diagnosis" in data["disclaimer"]
    assert data["scan"]["file"] == "scan <b>.nii.gz"
    assert (
        data["scan"]["shape"] == [40, 36, 20]
        and data["scan"]["spacing_mm"] == [4, 4, 6]
        and data["scan"]["extent_mm"] == [160, 144, 120]
    )
    assert data["scan"]["orientation"] == "LPS"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), np.float32("nan"), torch.tensor(float("nan"))])
def test_a_number_that_is_not_finite_is_refused_by_name(case, bad) -> None:
    broken = dataclasses.replace(case.record.findings[1], probability=bad)
    record = dataclasses.replace(case.record, findings=[case.record.findings[0], broken])
    with pytest.raises(ValueError, match=r"findings\[1\]\.probability"):
        record.to_json()


def test_arrays_and_tensors_become_plain_numbers(case) -> None:
    answer = dataclasses.replace(
        case.record.findings[0], probability=torch.tensor(0.25), threshold=np.float32(0.5), present=np.bool_(False)
    )
    data = json.loads(dataclasses.replace(case.record, findings=[answer]).to_json())["findings"][0]
    assert (data["probability"], data["threshold"], data["present"]) == (0.25, 0.5, False)


def test_a_record_of_another_schema_is_refused(case) -> None:
    data = json.loads(case.record.to_json()) | {"schema_version": "2.0"}
    with pytest.raises(ValueError, match=r"schema 2\.0"):
        FindingsRecord.from_json(json.dumps(data))
