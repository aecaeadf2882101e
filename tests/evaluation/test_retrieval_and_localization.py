"""Evaluation on reports: what is asked of which scan, and that the truth is not needed to answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.evaluation.protocol_scores import protocol_of_scores
from bundle.ctfindings.evaluation.retrieval_and_localization import (
    ReportEmbeddings,
    format_reports,
    localization_of,
    retrieval_of,
)
from bundle.ctfindings.evaluation.scoring import SplitScores
from bundle.ctfindings.findings import FINDING_NAMES, TEMPLATES
from bundle.ctfindings.metrics.wordings import WORDINGS

STUDIES, ROWS = 12, 10
C = len(FINDING_NAMES)


class Reader:
    """A model whose text tower reads the number in a text as a direction."""

    def encode_text(self, texts: list[str], role: str) -> torch.Tensor:
        assert role in ("report", "snippet")
        return torch.eye(STUDIES)[[int(text.split()[1].rstrip(".")) for text in texts]]


def embeddings() -> ReportEmbeddings:
    """Study i is direction i; row r of every scan is direction r and lies at 12 r mm, with two rows of padding below."""
    depth_mm = 12.0 * torch.arange(-2, ROWS)
    depth_mm[:2] = torch.nan
    depth = torch.cat([torch.zeros(2, STUDIES), torch.eye(STUDIES)[:ROWS]])
    studies: list[dict[str, Any]] = [
        {
            "report": {"findings": f"report {index}.", "impression": None},
            "snippets": [{"text": f"row {row}", "z_mm": 12.0 * row} for row in (index % ROWS, (index + 4) % ROWS)],
        }
        for index in range(STUDIES)
    ]
    studies[3]["report"] = None
    studies[4]["snippets"] = [{"text": "row 1", "z_mm": 200.0}, {"text": "row 2", "z_mm": None}]
    studies[5]["snippets"] = None
    return ReportEmbeddings(
        ids=[f"s{index}" for index in range(STUDIES)],
        patients=[f"p{index}" for index in range(STUDIES)],
        labels=np.ones((STUDIES, C), dtype=np.int64),
        scans=np.eye(STUDIES),
        valid=np.ones(STUDIES, dtype=bool),
        depth=[depth] * STUDIES,
        depth_mm=[depth_mm] * STUDIES,
        studies=studies,
    )


def test_a_reader_of_directions_finds_every_report_that_there_is() -> None:
    found = retrieval_of(embeddings(), Reader(), resamples=20)["pools"]["first_all"]["text_to_image"]  # type: ignore[arg-type]
    assert found["pool"] == STUDIES - 1 and found["recall"]["1"]["value"] == 1
    assert retrieval_of(embeddings(), Reader(), resamples=20, count=6)["pools"]["dup_all"]["image_to_text"]["pool"] == 6  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="reports: 1 studies with a report are of fewer than 2 patients"):
        retrieval_of(embeddings(), Reader(), count=1)  # type: ignore[arg-type]


def test_snippets_are_found_in_mm_and_those_without_a_place_are_counted() -> None:
    record = localization_of(embeddings(), Reader(), resamples=20)  # type: ignore[arg-type]
    assert record is not None and record["left_out"] == 2
    assert record["all"]["snippets"] == 2 * (STUDIES - 2) and record["first_of_scan"]["snippets"] == STUDIES - 2
    assert record["all"]["model"]["mae_mm"]["value"] == 0 and record["all"]["middle"]["mae_mm"]["value"] > 20
    summary = {"retrieval": {"pools": {}}, "localization": record}
    assert "20 snippets: mean error 0.0 mm" in format_reports(summary) and "2 left out" in format_reports(summary)


def test_reworded_snippets_are_asked_in_place_of_the_own() -> None:
    wrong = localization_of(
        embeddings(), Reader(), lambda study, own: [{**one, "text": "row 11"} for one in own], resamples=20
    )  # type: ignore[arg-type, misc]
    assert wrong is not None and wrong["all"]["model"]["mae_mm"]["value"] > 0
    assert localization_of(embeddings(), Reader(), lambda study, own: []) is None  # type: ignore[arg-type]


def test_a_protocol_reads_the_scores_of_an_evaluation() -> None:
    random = np.random.default_rng(0)

    def scores(prefix: str) -> SplitScores:
        labels = random.integers(0, 2, (STUDIES, C))
        logits = labels + random.normal(0, 0.5, (STUDIES, C))
        return SplitScores(
            ids=[f"{prefix}{index}" for index in range(STUDIES)],
            patients=[f"p{prefix}{index}" for index in range(STUDIES)],
            labels=labels,
            logits=logits,
            template_logits=np.repeat(logits[:, None], len(TEMPLATES), axis=1),
            wording_logits=np.zeros((STUDIES, len(WORDINGS), C)),
            anatomy=np.zeros((STUDIES, len(ANATOMY_NAMES), 4)),
            anatomy_valid=np.ones((STUDIES, len(ANATOMY_NAMES)), dtype=bool),
            peaks_mm=np.zeros((STUDIES, C, 3)),
            anatomy_dice=np.zeros((STUDIES, len(ANATOMY_NAMES))),
        )

    templates = [template.id for template in TEMPLATES]
    scored, calibration = scores("test"), scores("validation")
    assert protocol_of_scores(None, scored, calibration, templates) is None
    record = protocol_of_scores("radfinder", scored, calibration, templates, resamples=20)
    assert record is not None and record["protocol"] == "radfinder" and record["scans"] == STUDIES
