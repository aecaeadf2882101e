"""The service with random weights, and a small scan with fabricated answers for the tests of the output side."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.ctfindings.inference.answers import template_spread
from bundle.ctfindings.inference.encoding import describe_scan
from bundle.ctfindings.inference.evidence import locate
from bundle.ctfindings.inference.findings_record import (
    FindingAnswer,
    FindingsRecord,
    ModelInfo,
    NearestFinding,
    QueryAnswer,
)
from bundle.ctfindings.inference.service import FindingsService, load_service

HOSTILE = 'fluid <script>alert("x")</script> & "quotes"'


@dataclass
class Case:
    record: FindingsRecord
    hu: np.ndarray
    affine: np.ndarray
    maps: dict[str, Any]
    token_affine: np.ndarray


@pytest.fixture(scope="session")
def service(bundle_root: Path, untrained_weights: Path) -> FindingsService:
    """The service with random weights."""
    return load_service(bundle_root, untrained_weights)


@pytest.fixture
def case() -> Case:
    """A 40x36x20 scan in LPS: air around a box of soft tissue."""
    affine = np.array([[-4.0, 0, 0, 80], [0, -4, 0, 70], [0, 0, 6, -60], [0, 0, 0, 1]])
    tokens = np.array([[12.0, 0, 0, -70], [0, 12, 0, -64], [0, 0, 12, -57], [0, 0, 0, 1]])
    hu = np.full((40, 36, 20), -1000, dtype=np.int16)
    hu[5:35, 5:30] = 40
    scores = np.full((13, 12, 10), 0.05)
    scores[9, 5, 6] = 0.8
    evidence = locate(scores, tokens, affine, hu.shape)
    findings = []
    for number, (name, anatomy, found) in enumerate(
        [("Cardiomegaly", "heart", True), ("Lung nodule", "lung", True), ("Hiatal hernia", "esophagus", False)]
    ):
        templates = {f"T{i}": 0.1 + 0.3 * number % 0.7 + 0.01 * i for i in range(1, 8)}
        spread = template_spread(templates)
        findings.append(
            FindingAnswer(name, spread["mean"], 0.4, spread["mean"] >= 0.4, anatomy, found, spread, templates, evidence)
        )
    query = QueryAnswer(HOSTILE, 0.6, "lung", True, evidence, [NearestFinding("Pleural effusion", 0.8)])
    record = FindingsRecord(
        scan=describe_scan("/some/where/scan <b>.nii.gz", "NIfTI", hu.shape, affine),
        model=ModelInfo("ctfindings", "0.1.0", "ab" * 32, "small"),
        findings=findings,
        queries=[query],
        warnings=["a <i>warning</i>"],
        seconds={"load": 1.0, "encode": 2.0},
    )
    return Case(record, hu, affine, {"Lung nodule": scores, query.key: scores}, tokens)
