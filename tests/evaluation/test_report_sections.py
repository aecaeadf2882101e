"""Evaluation on reports: what is asked of which scan, and that the truth is not needed to answer."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from bundle.ctfindings.anatomy import ANATOMY_NAMES, THORAX
from bundle.ctfindings.evaluation.evaluated_model import SplitScores
from bundle.ctfindings.evaluation.report_sections import format_localization, localization_of, retrieval_of
from bundle.ctfindings.findings import FINDING_NAMES, TEMPLATES
from bundle.ctfindings.metrics.bootstrap import Bootstrap
from bundle.ctfindings.metrics.prompt_perturbations import PERTURBATIONS

STUDIES, ROWS = 12, 10
C = len(FINDING_NAMES)


class Reader:
    """A model whose text tower reads the number in a text as a direction."""

    def encode_text(self, texts: Sequence[str], role: str) -> torch.Tensor:
        assert role in ("report", "snippet")
        return torch.eye(STUDIES)[[int(text.split()[1].rstrip(".")) for text in texts]]


BOOTSTRAP = Bootstrap([f"p{index}" for index in range(STUDIES)], resamples=20)


def scored() -> tuple[SplitScores, list[dict[str, Any]]]:
    """Study i is direction i; row r of every scan is direction r and lies at 12 r mm, above two rows of padding."""
    depth_mm = 12.0 * torch.arange(-2, ROWS)
    depth_mm[:2] = torch.nan
    depth = torch.cat([torch.zeros(2, STUDIES), torch.eye(STUDIES)[:ROWS]])
    studies: list[dict[str, Any]] = [
        {
            "id": f"s{index}",
            "report": {"findings": f"report {index}.", "impression": None},
            "snippets": [{"text": f"row {row}", "z_mm": 12.0 * row} for row in (index % ROWS, (index + 4) % ROWS)],
        }
        for index in range(STUDIES)
    ]
    studies[3]["report"] = None
    studies[4]["snippets"] = [{"text": "row 1", "z_mm": 200.0}, {"text": "row 2", "z_mm": None}]
    studies[5]["snippets"] = None
    anatomy = np.zeros((STUDIES, len(ANATOMY_NAMES), STUDIES))
    anatomy[:, THORAX] = np.eye(STUDIES)
    scores = SplitScores(
        ids=[f"s{index}" for index in range(STUDIES)],
        patients=[f"p{index}" for index in range(STUDIES)],
        labels=np.ones((STUDIES, C), dtype=np.int64),
        logits=np.zeros((STUDIES, C)),
        template_logits=np.zeros((STUDIES, len(TEMPLATES), C)),
        wording_logits=np.zeros((STUDIES, len(PERTURBATIONS), C)),
        anatomy=anatomy,
        anatomy_valid=np.ones((STUDIES, len(ANATOMY_NAMES)), dtype=bool),
        domain_features=np.zeros((STUDIES, len(ANATOMY_NAMES), 2)),
        peaks_mm=np.zeros((STUDIES, C, 3)),
        random_mm=np.zeros((STUDIES, C, 1, 3)),
        anatomy_dice=np.zeros((STUDIES, len(ANATOMY_NAMES))),
        depth=[depth] * STUDIES,
        depth_mm=[depth_mm] * STUDIES,
    )
    return scores, studies


def test_a_reader_of_directions_finds_every_report_that_there_is() -> None:
    record = retrieval_of(*scored(), Reader(), BOOTSTRAP)
    assert record is not None
    found = record["pools"]["first_all"]["text_to_image"]
    assert found["pool"] == STUDIES - 1 and found["recall"]["1"]["value"] == 1
    six = retrieval_of(*scored(), Reader(), BOOTSTRAP, count=6)
    assert six is not None and six["pools"]["dup_all"]["image_to_text"]["pool"] == 6
    assert retrieval_of(*scored(), Reader(), BOOTSTRAP, count=1) is None, "one patient is no pool"


def test_snippets_are_found_in_mm_and_those_without_a_place_are_counted() -> None:
    record = localization_of(*scored(), Reader(), BOOTSTRAP)
    assert record is not None and record["left_out"] == 2
    assert record["all"]["snippets"] == 2 * (STUDIES - 2)
    assert record["all"]["model"]["mae_mm"]["value"] == 0 and record["all"]["middle"]["mae_mm"]["value"] > 20
    assert record["all"]["other_scan"]["mae_mm"]["value"] == 0, "all scans have the same rows"
    assert "text_only" not in record["all"]
    line = format_localization(record)
    assert "20 snippets: mean error 0.0 mm" in line and "2 left out" in line


def test_words_are_taught_by_other_patients() -> None:
    record = localization_of(*scored(), Reader(), BOOTSTRAP, known=scored())
    assert record is not None and record["all"]["text_only"]["mae_mm"]["value"] < 20
    # No snippet states a finding, so the prior is the mean height of all.
    assert record["all"]["finding_and_side"]["mae_mm"]["value"] > 20
    line = format_localization(record)
    assert "words alone" in line and "mean of the finding and side" in line
    assert "one_lobe" not in record, "no snippet names a lobe"


def test_snippets_that_name_one_lobe_are_compared_with_its_middle() -> None:
    """Lungs from 0 to 108 mm: the lower third has its middle at 18 mm. Rows 1 and 2 lie at 12 and 24 mm."""
    scores, studies = scored()
    scores = replace(scores, lung_mm=np.tile([0.0, 108.0], (STUDIES, 1)))
    studies[0]["snippets"] = [{"text": "row 1 lower lobe", "z_mm": 12.0}, {"text": "row 2", "z_mm": 24.0}]
    studies[1]["snippets"] = [{"text": "row 2 lower lobe", "z_mm": 24.0}]
    record = localization_of(scores, studies, Reader(), BOOTSTRAP)
    assert record is not None
    found = record["one_lobe"]
    assert (found["snippets"], found["patients"]) == (2, 2)
    assert found["lobe"]["mae_mm"]["value"] == 6 and found["model"]["mae_mm"]["value"] == 0
    assert "lobe" not in record["all"]
    assert "2 that name one lobe: 0.0 mm, middle of that third of the lungs 6.0." in format_localization(record)


def test_reworded_snippets_are_asked_in_place_of_the_own() -> None:
    wrong = localization_of(
        *scored(), Reader(), BOOTSTRAP, lambda study, own: [{**one, "text": "row 11"} for one in own]
    )
    assert wrong is not None and wrong["all"]["model"]["mae_mm"]["value"] > 0
    assert localization_of(*scored(), Reader(), BOOTSTRAP, lambda study, own: []) is None
