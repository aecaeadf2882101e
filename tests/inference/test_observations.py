"""Pathology queries that fire, their statements and their places, in the record."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from bundle.ctfindings.anatomy import ANATOMIES
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.inference.findings_record import FindingsRecord, ModelInfo, ScanInfo
from bundle.ctfindings.inference.observations import observed_statements
from bundle.ctfindings.inference.regions import Regions

GRID = [4, 4, 4]
TOKENS = np.diag([10.0, 10, 10, 1])


def classifier_of(prompts: Tensor) -> Any:
    """Of two findings; all others have prompts of zero and are not scored."""
    bank = torch.zeros(len(FINDING_NAMES), 2, 1, 3)
    bank[:2] = prompts[:, :, None]
    return SimpleNamespace(bank=SimpleNamespace(prompts=bank), scored=(True, True) + (False,) * 16)


def scan_of(rows: Tensor, valid: list[bool]) -> Any:
    attention = torch.zeros(1, len(rows), 64)
    for query in range(len(rows)):
        attention[0, query, 21 + query] = 1.0
    return SimpleNamespace(
        pathology=rows[None], pathology_valid=torch.tensor([valid]), pathology_attention=attention, grid=GRID
    )


def placed(body: np.ndarray | None = None) -> Any:
    """A scan of 40 x 40 x 40 mm in voxels of 1 mm, with a body on a grid of 20 x 20 x 20 voxels; all by default."""
    everywhere = np.ones((len(ANATOMIES), 20, 20, 20), bool)
    inside = everywhere if body is None else everywhere & body
    to_grid = np.diag([2.0, 2, 2, 1])
    reached = np.ones((len(ANATOMIES), *GRID), bool)
    regions = Regions(inside, inside, to_grid, reached, TOKENS, 0.0)
    return SimpleNamespace(
        regions=regions, grids=(to_grid, np.eye(4), (40, 40, 40)), midline_mm=20.0, on_source=lambda evidence: evidence
    )


def test_a_query_that_fires_names_its_statement_and_the_place_of_its_attention() -> None:
    x, y, z = torch.eye(3)
    # Finding 0 is stated by x and denied by z, finding 1 by y and z.
    classifier = classifier_of(torch.stack([torch.stack([x, z]), torch.stack([y, z])]))
    rows = torch.stack([z, 0.6 * y + 0.8 * z, 0.8 * x + 0.6 * y, x])
    found = observed_statements(classifier, scan_of(rows, [True, True, True, False]), placed())
    # Queries 0 and 1 are nearer to the denial, and query 3 sees no token.
    assert [(item.query, item.finding) for item in found] == [(2, FINDING_NAMES[0])]
    assert found[0].similarity == pytest.approx(0.8) and found[0].support == pytest.approx(0.8)
    assert FINDING_NAMES[0].lower() in found[0].statement.lower()
    # Token 23 of a grid of 4 x 4 x 4 in C order is (1, 1, 3).
    assert found[0].evidence is not None and found[0].evidence.peak_mm == pytest.approx((10, 10, 32), abs=1), (
        "the outer half of a token counts"
    )
    body = np.zeros((20, 20, 20), bool)
    body[:, :, :14] = True
    confined = observed_statements(classifier, scan_of(rows, [True, True, True, False]), placed(body))
    assert confined[0].evidence is not None and confined[0].evidence.peak_mm == pytest.approx((10, 10, 26), abs=1)


def test_the_record_holds_observations_only_of_models_that_have_them() -> None:
    x, y, z = torch.eye(3)
    classifier = classifier_of(torch.stack([torch.stack([x, z]), torch.stack([y, z])]))
    found = observed_statements(classifier, scan_of(torch.stack([y, x]), [True, True]), placed())
    assert len(found) == 2
    (other,) = observed_statements(classifier, scan_of(torch.stack([y, x]), [True, True]), placed(), FINDING_NAMES[1:])
    assert other.finding == FINDING_NAMES[1], "nothing is stated of findings that are not assessed"
    record = cast(Any, FindingsRecord)(scan=_info(), model=_model(), findings=[], observations=found)
    read = FindingsRecord.from_json(record.to_json())
    assert [item.finding for item in read.observations] == [item.finding for item in found]
    assert read.observations[0].evidence.image == found[0].evidence.image  # type: ignore[union-attr]
    without = cast(Any, FindingsRecord)(scan=_info(), model=_model(), findings=[])
    assert "observations" not in without.to_dict() and FindingsRecord.from_json(without.to_json()).observations == []
    assert observed_statements(classifier, scan_of(torch.zeros(0, 3), []), placed()) == []


def _info() -> Any:
    return ScanInfo("x", "NIfTI", (4, 4, 4), (1, 1, 1), "RAS", np.eye(4).tolist(), (4, 4, 4))


def _model() -> Any:
    return ModelInfo("bundle", "0", "0", "tower")
