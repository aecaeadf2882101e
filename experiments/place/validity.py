"""Tests of PLACE that can fail: does a model observe pathology, or only texts, organs and positions?

Shapes: B scans, Q queries, S sentences of all scans, N tokens, E embedding.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.losses.pathology_alignment import Observations, PathologyAlignmentLoss
from bundle.ctfindings.metrics.bootstrap import Bootstrap, exact_at_ends
from bundle.ctfindings.networks.observation_scoring import observation_answers

GAP_LIMIT = 0.01
"""The gap of the correlations has to be larger."""
CANDIDATES = 8
"""Sentences on one organ among which a scan has to find its own."""


def owner_gap(loss: PathologyAlignmentLoss, rows: Observations) -> float:
    """Loss with the scans exchanged minus the loss with the own ones; 0 or less refutes that images are read."""
    exchanged = rows._replace(
        pathology=rows.pathology.roll(1, 0), valid=rows.valid.roll(1, 0), anatomy=rows.anatomy.roll(1, 0)
    )
    return float(loss.value(exchanged) - loss.value(rows))


def similarity(rows: Observations) -> Tensor:
    """Cosine of each sentence with the answer of each scan to it, ``[B, S]``."""
    answers, _ = observation_answers(rows.pathology, rows.valid, rows.sentence)
    return (answers * rows.sentence).sum(dim=2)


def recall_within_organ(rows: Observations, seed: int = 0) -> list[tuple[int, float]]:
    """Whether each abnormal sentence is the best of ``CANDIDATES`` on its organ for its own scan: the scan, and 0 or 1.

    The others are abnormal sentences on the same organ, drawn from other scans, that state no finding which the own
    report states. Similarities count relative to their mean over the scans, because some sentences are near the answers
    of all. Sentences with fewer candidates are left out. Chance is 1 / ``CANDIDATES``.
    """
    scores, rng = similarity(rows), np.random.default_rng(seed)
    scores = scores - scores.mean(dim=0)
    hits: list[tuple[int, float]] = []
    for own in torch.nonzero(~rows.normal & (rows.place >= 0)).flatten().tolist():
        scan = int(rows.owner[own])
        said = set(rows.text[rows.owner == scan].tolist())
        stated = rows.findings[(rows.owner == scan) & ~rows.normal].any(dim=0)
        alike = (rows.place == rows.place[own]) & ~rows.normal & (rows.owner != scan)
        alike &= ~(rows.findings & stated).any(dim=1)
        others = [index for index in torch.nonzero(alike).flatten().tolist() if int(rows.text[index]) not in said]
        if len(others) >= CANDIDATES - 1:
            drawn = rng.choice(others, CANDIDATES - 1, replace=False)
            hits.append((scan, float(scores[scan, own] > scores[scan, drawn].max())))
    return hits


def attention_hits(
    attention: Tensor,
    valid: Tensor,
    pathology: Tensor,
    statement: Tensor,
    lesion: Tensor,
    organ: Tensor,
    lesion_free: Tensor | None = None,
    seed: int = 0,
) -> dict[str, float] | None:
    """Where in an organ the attention of the query that matches a statement is highest, and where those of controls.

    Args:
        attention: Of all queries, ``[Q, N]``.
        valid: bool ``[Q]``.
        pathology: Rows of the queries, ``[Q, E]``.
        statement: Unit row of the statement of the finding, ``[E]``.
        lesion: Tokens within the tolerance of the finding, bool ``[N]``.
        organ: Tokens of the anatomy of the finding, bool ``[N]``.
        lesion_free: Attention of all queries in a scan without the finding, on the same grid, ``[Q, N]``.
        seed: Of the other query.

    Returns:
        ``matched``: 1 if the highest token of the best-matching query is in the lesion; ``other``: the same for another
        valid query; ``organ``: the share of the organ that the lesion takes, which a random token of the organ hits;
        ``lesion_free``: the same query in the scan without the finding, at the place of the lesion, if that is given.
        None without a lesion in the organ, or with fewer than two valid queries.
    """
    queries = torch.nonzero(valid).flatten()
    if len(queries) < 2 or not (lesion & organ).any():
        return None
    best = queries[(pathology[queries] @ statement).argmax()]
    rest = queries[queries != best]
    other = rest[int(np.random.default_rng(seed).integers(len(rest)))]

    def hit(of_query: Tensor) -> float:
        return float(lesion[of_query.masked_fill(~organ, -1.0).argmax()])

    hits = {
        "matched": hit(attention[best]),
        "other": hit(attention[other]),
        "organ": float((lesion & organ).sum() / organ.sum()),
    }
    return hits if lesion_free is None else {**hits, "lesion_free": hit(lesion_free[best])}


def counterfactual_rank(before: Tensor, after: Tensor, removed: int) -> float:
    """Rank of the removed finding among those whose support falls when it is no longer drawn; 1 falls most.

    Args:
        before, after: Support of each finding in the scan with and without the lesion, ``[C]``.
        removed: Index of the finding.
    """
    fall = before - after
    return float((fall > fall[removed]).sum() + 1)


def query_collapse(pathology: Tensor, use: Tensor) -> dict[str, float]:
    """How many queries a model has in effect.

    Args:
        pathology: Rows of the queries of valid scans, ``[B, Q, E]``.
        use: How much abnormal sentences use each query, ``[Q]``.

    Returns:
        ``effective``: exponential of the entropy of the use; ``cosine``: mean of two queries of a scan; ``rank``:
        dimensions that hold 99 % of the energy of all rows.
    """
    share = (use / use.sum()).clamp(min=1e-12)
    queries = pathology.shape[1]
    alike = (pathology @ pathology.transpose(1, 2)).sum(dim=(1, 2)) - pathology.square().sum(dim=(1, 2))
    energy = torch.linalg.svdvals(pathology.flatten(0, 1).double()).square()
    return {
        "effective": float(torch.exp(-(share * share.log()).sum())),
        "cosine": float((alike / max(1, queries * (queries - 1))).mean()),
        "rank": float(torch.searchsorted(energy.cumsum(0) / energy.sum(), 0.99) + 1),
    }


def verdict(
    values: Sequence[float], units: Sequence[Any], above: float, resamples: int = 1000, share: bool = False
) -> dict[str, Any] | None:
    """Mean of values with its 95 % interval, and whether that lies above a number; None with fewer than two units.

    Args:
        values: of scans, sentences or batches.
        units: what is drawn: values of one unit, such as the sentences of a scan, are drawn together.
        above: the number.
        resamples: of the bootstrap.
        share: whether the values are 0 or 1; a mean of 0 or 1 then has the exact limit.
    """
    if len(set(units)) < 2:
        return None
    interval = Bootstrap([str(unit) for unit in units], resamples).row_interval(np.mean, [values])
    interval = exact_at_ends(interval, len(set(units)) if share else 0)
    low, high = float(interval.low), float(interval.high)
    return {
        "value": float(interval.estimate),
        "interval": [low, high],
        "above": above,
        "units": len(set(units)),
        "passed": low > above,
    }


def verdicts(found: Mapping[str, Any], queries: int) -> dict[str, Any]:
    """The tests of a run, each with what was found, the limit, and whether it passed; None where it does not apply."""
    collapse, attention = found["collapse"], found["attention"]
    scans, paired = [hit["scan"] for hit in attention], [hit for hit in attention if "lesion_free" in hit]
    ranks, middle = found["counterfactual_ranks"], (len(FINDING_NAMES) + 1) / 2
    recall = found["recall_within_organ"]
    return {
        "owner gap above 0": verdict(found["owner_gap"], range(len(found["owner_gap"])), 0.0),
        "recall within an organ above chance": verdict(
            [hit for _, hit in recall], [scan for scan, _ in recall], 1 / CANDIDATES, share=True
        ),
        "attention above another query": verdict([hit["matched"] - hit["other"] for hit in attention], scans, 0.0),
        "attention above a random token of the organ": verdict(
            [hit["matched"] - hit["organ"] for hit in attention], scans, 0.0
        ),
        "attention above the same query in a lesion-free scan": verdict(
            [hit["matched"] - hit["lesion_free"] for hit in paired], [hit["scan"] for hit in paired], 0.0
        ),
        "the removed finding falls most": verdict(
            [float(rank == 1) for rank in ranks], range(len(ranks)), 1 / len(FINDING_NAMES), share=True
        ),
        "the removed finding falls more than the median one": verdict(
            [middle - rank for rank in ranks], range(len(ranks)), 0.0
        ),
        "queries: a quarter used and in rank, cosine below 0.5": None
        if collapse is None or queries == 1
        else {
            **collapse,
            "passed": collapse["effective"] > queries / 4
            and collapse["cosine"] < 0.5
            and collapse["rank"] > queries / 4,
        },
        "correlations need the report": _gap_verdict(found["correlation"]),
        "correlations with a patch of a lesion need the report": _gap_verdict(found["correlation_of_lesions"]),
    }


def _gap_verdict(gap: Mapping[str, float] | None) -> dict[str, Any] | None:
    return None if gap is None else {**gap, "passed": gap.get("cce_gap_low", 0) > 0 and gap["cce_gap"] > GAP_LIMIT}
