"""Validation of the objectives of PLACE: are sentences found in their scans, and do correlations need the report?"""

import math
from typing import Any

import numpy as np
import scipy.stats
import torch
import torch.distributed as dist
from ignite.engine import Engine
from ignite.metrics import Metric

from bundle.ctfindings.losses.correlation_exploration import CorrelationExplorationLoss
from bundle.ctfindings.losses.gathering import world_size
from bundle.ctfindings.losses.pathology_alignment import PathologyAlignmentLoss, as_observations
from bundle.ctfindings.metrics.bootstrap import Bootstrap

_IMAGE_ROWS = ("pathology", "valid", "anatomy")
_CONDITIONS = ("correlation", "correlation_shuffled", "correlation_without_report")


class ObservationMetrics(Metric):
    """Numbers over the validation scans, without a label; those whose inputs are absent are left out.

    - ``alignment``: minus the alignment loss of a batch, the mean over scans. Chooses the best model, so larger is
      better. Without one for a batch, or a validation, of one scan, of which nothing is false.
    - ``alignment_gap``: the same minus that with the scans of a batch exchanged; 0 for a model that reads no image.
    - ``effective_queries``: exponential of the entropy of the use of the queries by abnormal sentences.
    - ``cce``, ``cce_shuffled``, ``cce_without_report``: correlation loss with its own, another and no report.
    - ``cce_gap``: (shuffled - true) / without report, with its 95 % interval over scans, ``_low`` and ``_high``.

    Args:
        alignment: The alignment loss of training; None leaves its numbers out.
        correlation: The correlation loss of training.
    """

    def __init__(
        self, alignment: PathologyAlignmentLoss | None, correlation: CorrelationExplorationLoss | None = None
    ) -> None:
        self.alignment = alignment
        self.correlation = correlation or CorrelationExplorationLoss()
        super().__init__(output_transform=lambda output: (output["pred"], output["label"]))

    def reset(self) -> None:
        """Forgets the scans so far."""
        self._aligned: list[list[float]] = []
        self._used: list[list[float]] = []
        self._correlated: list[list[float]] = []

    def update(self, output: tuple[dict[str, Any], dict[str, Any]]) -> None:
        """Takes the outputs and targets of a batch."""
        known = {**output[1], **output[0]}
        if self.alignment is not None and all(known.get(name) is not None for name in self.alignment.inputs):
            rows = as_observations(**{name: known[name] for name in self.alignment.inputs})
            exchanged = rows._replace(**{name: getattr(rows, name).roll(1, 0) for name in _IMAGE_ROWS})
            losses = [self.alignment.value(rows), self.alignment.value(exchanged)]
            scans = len(rows.pathology)
            if scans > 1:
                self._aligned += [torch.stack(losses).tolist()] * scans
            self._used.append(self.alignment.use(rows).tolist())
        if known.get("correlation") is not None:
            target, weight = known["correlation_target"], known["correlation_weight"]
            losses = [self.correlation.of_scans(known[name], target, weight) for name in _CONDITIONS]
            self._correlated += torch.stack(losses, dim=1).tolist()

    def completed(self, engine: Engine, name: str) -> None:
        """Adds each number to the metrics of the engine; Ignite would add their dictionary too."""
        engine.state.metrics.update(self.compute())

    def compute(self) -> dict[str, float]:
        """The numbers, the same on every rank."""
        aligned, used, correlated = (
            np.array(_of_all_ranks(rows)) for rows in (self._aligned, self._used, self._correlated)
        )
        found: dict[str, float] = {}
        if len(aligned):
            own, exchanged = aligned.mean(axis=0)
            found |= {"alignment": -float(own), "alignment_gap": float(exchanged - own)}
            share = used.sum(axis=0) / max(used.sum(), 1e-12)
            found["effective_queries"] = float(np.exp(scipy.stats.entropy(share))) if share.any() else math.nan
        losses = correlated[np.isfinite(correlated).all(axis=1)] if len(correlated) else correlated
        if len(losses):
            names = ("cce", "cce_shuffled", "cce_without_report")
            found |= dict(zip(names, losses.mean(axis=0).tolist(), strict=True)) | correlation_gap(losses)
        return found


def correlation_gap(losses: np.ndarray) -> dict[str, float]:
    """``cce_gap`` of losses ``[S, 3]`` with the report, a wrong one and none, with its interval for two scans on."""

    def gap(rows: np.ndarray) -> float:
        own, shuffled, without = rows.mean(axis=0)
        return float((shuffled - own) / without)

    if len(losses) < 2:
        return {"cce_gap": gap(losses)}
    interval = Bootstrap([str(scan) for scan in range(len(losses))]).row_interval(gap, [losses])
    limits = {"cce_gap_low": float(interval.low), "cce_gap_high": float(interval.high)}
    return {"cce_gap": float(interval.estimate), **limits}


def _of_all_ranks(rows: list[list[float]]) -> list[list[float]]:
    if world_size() == 1:
        return rows
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, rows)
    return [row for part in gathered for row in part]
