"""The depth profile of a free text: its mm, its agreement with the peak, and its place in the record."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from bundle.ctfindings.inference.evidence import depth_profile, locate
from bundle.ctfindings.inference.findings_record import DepthScore, FindingsRecord

TOKENS = np.array([[16.0, 0, 0, -100], [0, 16, 0, -80], [0, 0, 12, -400], [0, 0, 0, 1]])
"""Tokens of 16 x 16 x 12 mm whose lowest layer is centred at z = -400 mm."""

GRID = (4, 4, 5)
SCAN = np.array([[2.0, 0, 0, -108], [0, 2, 0, -88], [0, 0, 3, -406], [0, 0, 0, 1]])
"""Voxels of 2 x 2 x 3 mm."""

SHAPE = (32, 32, 20)


def test_each_layer_has_its_height_and_its_strongest_evidence() -> None:
    evidence = torch.zeros(GRID)
    evidence[1, 2, 3], evidence[0, 0, 3], evidence[0, 0, 0] = 0.7, 0.3, 0.2
    profile = depth_profile(evidence, TOKENS)
    assert [level.z_mm for level in profile] == pytest.approx([-400, -388, -376, -364, -352])
    assert [level.score for level in profile] == pytest.approx([0.2, 0, 0, 0.7, 0])


def test_the_highest_level_is_the_layer_of_the_peak() -> None:
    evidence = np.random.default_rng(0).random(GRID) ** 4
    best = max(depth_profile(evidence, TOKENS), key=lambda level: level.score)
    found = locate(evidence, TOKENS, SCAN, SHAPE)
    assert found is not None and best.score == pytest.approx(found.peak_score)
    # The peak is the weighted centre of its neighbourhood, on the nearest slice.
    assert abs(best.z_mm - found.z_mm) <= 12


def test_the_record_keeps_the_profile(case) -> None:  # type: ignore[no-untyped-def]
    query = replace(case.record.queries[0], depth=[DepthScore(-388.0, 0.25), DepthScore(-376.0, 0.75)], z_mm=-376.0)
    record = replace(case.record, queries=[query])
    again = FindingsRecord.from_json(record.to_json()).queries[0]
    assert (again.depth, again.z_mm) == (query.depth, -376.0)
