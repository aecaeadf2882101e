"""The depth profile of a free text: its mm, its two sources, and its place in the record."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bundle.ctfindings.inference.findings_record import DepthScore, FindingsRecord
from bundle.ctfindings.inference.query_depth import best_depth, evidence_profile, snippet_logits, snippet_profile

TOKENS = np.array([[16.0, 0, 0, -100], [0, 16, 0, -80], [0, 0, 12, -400], [0, 0, 0, 1]])
"""Tokens of 16 x 16 x 12 mm whose lowest layer is centred at z = -400 mm."""

GRID = (4, 4, 5)
SCAN = np.array([[2.0, 0, 0, -108], [0, 2, 0, -88], [0, 0, 3, -392], [0, 0, 0, 1]])
"""Voxels of 2 x 2 x 3 mm; slices from -393.5 to -345.5 mm: the lowest token layer is padding, the highest lies half
outside.
"""

SHAPE = (32, 32, 16)


class Tower:
    """A text tower that answers with one direction."""

    def __init__(self, trained: int) -> None:
        self.snippet_head_trained = torch.tensor([trained])

    def __call__(self, texts: list[str], role: str) -> torch.Tensor:
        assert role == "snippet"
        return torch.eye(3)[: len(texts)]


def test_rows_are_placed_in_the_world_and_padding_is_left_out() -> None:
    profile = snippet_profile(torch.tensor([9.0, 0.0, 2.0, 0.0, 0.0]), GRID, TOKENS, SCAN, SHAPE)
    assert [level.z_mm for level in profile] == pytest.approx([-388, -376, -364, -352])
    weights = np.exp([0, 2, 0, 0])
    assert [level.score for level in profile] == pytest.approx(weights / weights.sum())
    assert best_depth(profile) == pytest.approx(-376)


def test_rows_thinner_than_a_token_share_its_layer_evenly() -> None:
    profile = snippet_profile(torch.zeros(20), GRID, TOKENS, SCAN, SHAPE)
    # Rows of 3 mm: the layer from -394 to -382 mm has its rows at -392.5, -389.5, -386.5 and -383.5.
    assert [level.z_mm for level in profile][:4] == pytest.approx([-392.5, -389.5, -386.5, -383.5])
    assert len(profile) == 16 and sum(level.score for level in profile) == pytest.approx(1)


def test_a_scan_stored_upside_down_has_the_same_profile() -> None:
    flipped = SCAN @ np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 15], [0, 0, 0, 1]])
    logits = torch.arange(5.0)
    assert snippet_profile(logits, GRID, TOKENS, flipped, SHAPE) == snippet_profile(logits, GRID, TOKENS, SCAN, SHAPE)


def test_without_slice_references_in_training_the_evidence_answers() -> None:
    assert snippet_logits(torch.eye(3), Tower(0), ["a", "b"]) is None  # type: ignore[arg-type]
    evidence = torch.zeros(GRID)
    assert best_depth(evidence_profile(evidence, TOKENS)) is None and best_depth([]) is None
    evidence[1, 2, 3], evidence[0, 0, 0] = 0.7, 0.2
    profile = evidence_profile(evidence, TOKENS)
    assert [level.z_mm for level in profile] == pytest.approx([-400, -388, -376, -364, -352])
    assert [level.score for level in profile] == pytest.approx([0.2, 0, 0, 0.7, 0])
    assert best_depth(profile) == pytest.approx(-364)


def test_logits_are_cosines_over_the_temperature() -> None:
    depth = torch.tensor([[1.0, 0, 0], [0.6, 0.8, 0]])
    found = snippet_logits(depth, Tower(1), ["a", "b"])  # type: ignore[arg-type]
    assert found is not None
    torch.testing.assert_close(found, torch.tensor([[10.0, 6.0], [0.0, 8.0]]))


def test_the_record_keeps_the_profile(case) -> None:  # type: ignore[no-untyped-def]
    query = replace(
        case.record.queries[0],
        depth=[DepthScore(-388.0, 0.25), DepthScore(-376.0, 0.75)],
        depth_source="snippets",
        z_mm=-376.0,
    )
    record = replace(case.record, queries=[query])
    again = FindingsRecord.from_json(record.to_json()).queries[0]
    assert (again.depth, again.depth_source, again.z_mm) == (query.depth, "snippets", -376.0)
