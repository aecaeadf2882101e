"""A published protocol on the scores of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bundle.ctfindings.evaluation.scoring import SplitScores
from bundle.ctfindings.metrics.protocols import ZeroShotScores, protocol_record


def protocol_of_scores(
    name: str | None,
    scored: SplitScores,
    calibration: SplitScores,
    templates: Sequence[str],
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any] | None:
    """The block ``protocol`` of ``metrics.json``, see `protocol_record`; None without a protocol.

    Args:
        name: of the protocol.
        scored: of the studies that are scored.
        calibration: of the studies on which a protocol may choose thresholds.
        templates: ids of the templates.
        resamples: bootstrap resamples of the intervals.
        seed: of the bootstrap.
    """
    if name is None:
        return None
    return protocol_record(name, _zero_shot(scored), _zero_shot(calibration), templates, resamples, seed)


def _zero_shot(scores: SplitScores) -> ZeroShotScores:
    return ZeroShotScores(
        scores.ids, scores.patients, scores.labels, scores.logits, scores.template_logits, scores.anatomy_valid
    )
