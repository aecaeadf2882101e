"""The domain of a checkpoint: fitted on its training scans, with a threshold from held-out scans, and kept with it.

Shapes: S scans, K anatomies, F features.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf
from sklearn.model_selection import GroupKFold

from bundle.ctfindings.data.datalist import load_datalist, split_names
from bundle.ctfindings.evaluation.evaluated_model import EvaluatedModel
from bundle.ctfindings.evaluation.evaluation_run import EvaluationRun
from bundle.ctfindings.metrics.json_numbers import cell, number
from bundle.ctfindings.networks.domain import Domain

logger = logging.getLogger(__name__)

Features = NDArray[np.float64]

LEAST_SCANS = 5
"""With fewer training scans there is no domain."""
LEAST_HELD_OUT = 20
"""With fewer held-out scans, training scans scored by a fit without them count as well."""
FOLDS = 10


@dataclass(frozen=True)
class DomainSection:
    """Fits the domain on the training scans, and scores the scans of the evaluation.

    A checkpoint that has a domain keeps it, because only its training knows the scans.

    Args:
        datalist: JSON file with the splits.
        training_split: split that the checkpoint was trained on; without it, there is no domain.
        scans: most training scans that are used, the first ones of the split.
        outside_share: share of scans like the training scans that may be called outside.
    """

    datalist: str | Path
    training_split: str = "training"
    scans: int = 300
    outside_share: float = 0.01
    needs_labels = False
    needs_calibration = True

    def __call__(self, run: EvaluationRun) -> str:
        """Adds ``domain`` to the record, and the domain to the model."""
        model = run.own_model
        domain = model.domain
        if not domain.fitted and self.training_split in split_names(Path(self.datalist)):
            training = load_datalist(self.datalist, self.training_split)[: self.scans]
            held_out = run.own_scores_of(str(run.calibration_split)).domain_features
            domain = model.domain = domain_of_studies(model, training, held_out, self.outside_share)
        if not domain.fitted:
            run.record["domain"] = None
            return "Domain: not available."
        scores = domain_scores(domain, run.own_scores.domain_features)
        outside = float((scores > float(domain.threshold)).mean())
        run.record["domain"] = {
            "scans": int(domain.scans),
            "threshold": float(domain.threshold),
            "median": number(np.median(scores)),
            "highest": number(scores.max()),
            "outside": outside,
        }
        return (
            f"Domain of {int(domain.scans)} training scans: threshold {cell(float(domain.threshold))}, "
            f"{cell(outside)} of the scans are outside."
        )


def domain_of_studies(
    model: EvaluatedModel, training: Sequence[dict[str, Any]], held_out: Features | None, outside_share: float
) -> Domain:
    """The domain of a loaded model from its training scans and the features of others, see ``fit_domain``."""
    if len(training) < LEAST_SCANS:
        return _too_few(len(training))
    scores = model.score(training, "domain")
    apart = scores.domain_features[:0] if held_out is None else held_out
    return fit_domain(scores.domain_features, apart, outside_share, scores.patients)


def fit_domain(
    training: Features, held_out: Features, outside_share: float, patients: Sequence[str] | None = None
) -> Domain:
    """The domain of training scans ``[S, K, F]``; empty for fewer than ``LEAST_SCANS``, or if they give no limit.

    Covariances are shrunk (Ledoit and Wolf, https://doi.org/10.1016/S0047-259X(03)00096-4), so that a few scans are
    enough. The threshold is the conformal quantile of the held-out scans ``[S, K, F]``: of new scans like these, at
    most ``outside_share`` are outside, or one in their number plus one if that is more. With fewer than
    ``LEAST_HELD_OUT`` of them, training scans that a fit without them scores count too; ``patients`` names the patient
    of each, whose scans are left out together.
    """
    if len(training) < LEAST_SCANS:
        return _too_few(len(training))
    domain = Domain()
    _fit(domain, training)
    distances = [_distances(domain, held_out)]
    groups = list(range(len(training))) if patients is None else list(patients)
    if len(held_out) < LEAST_HELD_OUT and len(set(groups)) > 1:
        folds = GroupKFold(min(FOLDS, len(set(groups))), shuffle=True, random_state=0)
        for fitted_on, left_out in folds.split(training, groups=groups):
            without = Domain()
            _fit(without, training[fitted_on])
            distances.append(_distances(without, training[left_out]))
    apart = np.concatenate(distances)
    typical = np.array(
        [np.median(column[~np.isnan(column)]) if (~np.isnan(column)).any() else np.nan for column in apart.T]
    )
    if np.isnan(typical).all():
        return _no_domain(f"{len(training)} training scans of {len(set(groups))} patients give no limit")
    domain.precision /= torch.from_numpy(typical**2)[:, None, None]
    apart = apart / typical
    scores = np.sqrt(np.nanmean(apart**2, axis=1))
    domain.threshold = torch.tensor(_conformal_quantile(scores, outside_share))
    domain.anatomy_threshold = torch.tensor([_conformal_quantile(column, outside_share) for column in apart.T])
    domain.scans = torch.tensor(float(len(training)))
    return domain.float()


def _too_few(count: int) -> Domain:
    return _no_domain(f"{count} training scans are too few for a domain; at least {LEAST_SCANS} are needed")


def _no_domain(reason: str) -> Domain:
    logger.warning("domain: unknown; %s", reason)
    return Domain()


def domain_scores(domain: Domain, features: Features) -> NDArray[np.float64]:
    """The score of each scan, ``[S]``, from its features ``[S, K, F]``."""
    rows = torch.from_numpy(features)
    return np.array([float(domain.score(row).score) for row in rows])


def _fit(domain: Domain, training: Features) -> None:
    """Mean and precision of each anatomy; NaN if fewer than ``LEAST_SCANS - 1`` show it, as a fit may leave one out."""
    _, anatomies, features = training.shape
    mean = np.full((anatomies, features), np.nan)
    precision = np.full((anatomies, features, features), np.nan)
    for row in range(anatomies):
        shown = training[~np.isnan(training[:, row]).any(axis=1), row]
        if len(shown) < LEAST_SCANS - 1:
            continue
        mean[row], spread = shown.mean(axis=0), shown.std(axis=0) + 1e-6
        fitted = LedoitWolf(assume_centered=True).fit((shown - mean[row]) / spread)
        precision[row] = fitted.precision_ / np.outer(spread, spread) / features
    domain.mean, domain.precision = torch.from_numpy(mean), torch.from_numpy(precision)


def _distances(domain: Domain, features: Features) -> NDArray[np.float64]:
    rows: list[Any] = [domain.score(torch.from_numpy(row)).anatomy.numpy() for row in features]
    return np.stack(rows) if rows else np.zeros((0, features.shape[1]))


def _conformal_quantile(scores: NDArray[np.float64], share: float) -> float:
    known: Sequence[float] = np.sort(scores[~np.isnan(scores)]).tolist()
    rank = int(np.ceil((len(known) + 1) * (1 - share)))
    return known[min(rank, len(known)) - 1] if known else float("nan")
