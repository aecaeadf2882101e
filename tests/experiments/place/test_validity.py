"""The tests of PLACE on made-up models: one that observes passes, one that does not is refuted."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bundle.ctfindings.losses.pathology_alignment import Observations, PathologyAlignmentLoss
from experiments.place.validity import (
    attention_hits,
    counterfactual_rank,
    owner_gap,
    query_collapse,
    recall_within_organ,
    verdict,
)

SCANS, QUERIES, WIDTH = 12, 4, 64


def observations(seen: bool) -> Observations:
    """One abnormal sentence on the lung for each scan; a model that sees it has a query with its row."""
    generator = torch.Generator().manual_seed(0)
    rows = F.normalize(torch.randn(SCANS, QUERIES, WIDTH, generator=generator), dim=-1)
    texts = F.normalize(torch.randn(SCANS, WIDTH, generator=generator), dim=-1)
    if seen:
        rows[:, 0] = texts
    return Observations(
        pathology=rows,
        valid=torch.ones(SCANS, QUERIES, dtype=torch.bool),
        anatomy=torch.full((SCANS, QUERIES), -1),
        written=torch.ones(SCANS, dtype=torch.int64),
        owner=torch.arange(SCANS),
        sentence=texts,
        text=torch.arange(SCANS),
        normal=torch.zeros(SCANS, dtype=torch.bool),
        place=torch.zeros(SCANS, dtype=torch.int64),
        findings=torch.zeros(SCANS, 2, dtype=torch.bool),
    )


def test_only_a_model_that_reads_the_image_loses_when_scans_are_exchanged() -> None:
    loss = PathologyAlignmentLoss()
    assert owner_gap(loss, observations(seen=True)) > 5
    blind = observations(seen=False)
    blind = blind._replace(pathology=blind.pathology[:1].expand(SCANS, -1, -1))
    assert owner_gap(loss, blind) == pytest.approx(0, abs=1e-5)


def test_a_scan_finds_its_sentence_among_those_on_the_organ_only_if_it_shows_it() -> None:
    assert recall_within_organ(observations(seen=True)) == [(scan, 1.0) for scan in range(SCANS)]
    organ_only = observations(seen=False)
    organ_only = organ_only._replace(pathology=organ_only.sentence.mean(0).expand(SCANS, QUERIES, WIDTH))
    assert np.mean([hit for _, hit in recall_within_organ(organ_only)]) < 0.4
    few = observations(seen=True)._replace(place=torch.arange(SCANS))
    assert len(recall_within_organ(few)) == 0, "no other sentence on the same organ"
    alike = observations(seen=True)._replace(findings=torch.ones(SCANS, 2, dtype=torch.bool))
    assert len(recall_within_organ(alike)) == 0, "all others state what the own report states"


def test_a_sentence_that_is_near_the_answers_of_all_scans_is_no_rival() -> None:
    rows = observations(seen=True)
    common = F.normalize(torch.ones(1, 1, WIDTH), dim=-1)
    nearest = rows._replace(
        pathology=F.normalize(torch.cat([rows.pathology[:, :1] + 3 * common, rows.pathology[:, 1:]], 1), dim=-1),
        sentence=torch.cat([common[0], rows.sentence[1:]]),
    )
    found = dict(recall_within_organ(nearest))
    assert np.mean([found[scan] for scan in range(1, SCANS)]) == 1.0


def test_the_attention_of_the_matching_query_is_compared_with_another_and_with_chance() -> None:
    rows, statement = torch.eye(3), torch.tensor([0.0, 1.0, 0.0])
    attention, lesion, organ = torch.zeros(3, 10), torch.zeros(10, dtype=torch.bool), torch.ones(10, dtype=torch.bool)
    lesion[4] = True
    attention[1, 4] = attention[0, 7] = attention[2, 8] = 1.0
    found = attention_hits(attention, torch.ones(3, dtype=torch.bool), rows, statement, lesion, organ)
    assert found == {"matched": 1.0, "other": 0.0, "organ": pytest.approx(0.1)}
    again = attention_hits(attention, torch.ones(3, dtype=torch.bool), rows, statement, lesion, organ, attention)
    assert again == {**found, "lesion_free": 1.0}, "a query that looks at the place in any scan"
    assert attention_hits(attention, torch.ones(3, dtype=torch.bool), rows, statement, ~organ, organ) is None


def test_a_removed_lesion_ranks_by_the_fall_of_its_support() -> None:
    before, after = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.4, 0.1, 0.3])
    assert [counterfactual_rank(before, after, finding) for finding in range(3)] == [2, 1, 3]


def test_equal_queries_are_one_and_orthogonal_ones_are_many() -> None:
    spread = query_collapse(torch.eye(QUERIES).expand(3, -1, -1), torch.ones(QUERIES))
    assert spread == {"effective": pytest.approx(4), "cosine": pytest.approx(0, abs=1e-6), "rank": 4}
    same = query_collapse(torch.eye(QUERIES)[:1].expand(3, QUERIES, -1), torch.tensor([1.0, 0, 0, 0]))
    assert same == {"effective": pytest.approx(1), "cosine": pytest.approx(1), "rank": 1}


def test_a_verdict_passes_when_its_interval_lies_above_the_number() -> None:
    values, scans = [1.0, 1, 1, 0.8], [0, 1, 2, 3]
    low, high = (verdict(values, scans, above) for above in (0.5, 0.95))
    assert low is not None and high is not None and low["passed"] and not high["passed"]
    assert verdict(values, [0] * 4, 0.5) is None, "values of one scan are no sample"


def test_only_a_share_of_zero_has_the_exact_limit() -> None:
    share, difference = (verdict([0.0] * 20, range(20), 0.05, share=share) for share in (True, False))
    assert share and difference
    # Clopper-Pearson, no success in 20 trials: 1 - 0.025 ** (1 / 20).
    assert share["interval"] == pytest.approx([0, 0.1684], abs=1e-4)
    assert difference["interval"] == [0, 0]


def test_values_of_one_scan_are_drawn_together() -> None:
    rng = np.random.default_rng(0)
    apart = verdict([float(value) for value in rng.normal(size=40)], range(40), 0.0)
    together = verdict([float(value) for value in rng.normal(size=10).repeat(4)], np.arange(10).repeat(4).tolist(), 0.0)
    assert apart is not None and together is not None
    widths = [held["interval"][1] - held["interval"][0] for held in (apart, together)]
    assert widths[1] > 1.4 * widths[0]
