"""Classification of the findings: a linear probe on the rows of the encoder, at fractions of the labels.

Shapes: S scans, F features, C findings.
"""

from __future__ import annotations

import warnings as python_warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bundle.ctfindings.downstream.encoded_scans import Rows, ScanEncoder, scan_features, unseen_scans
from bundle.ctfindings.downstream.encoder_tuning import EncoderTuning
from bundle.ctfindings.downstream.label_fractions import label_fractions
from bundle.ctfindings.downstream.task_run import Results, Studies, Table, format_value
from bundle.ctfindings.evaluation.evaluate import write_predictions
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.metrics.bootstrap import Bootstrap, Interval, weighted_auc, weighted_average_precision
from bundle.ctfindings.metrics.classification import FloatArray, IntArray, macro_auc, macro_average
from bundle.ctfindings.metrics.json_numbers import interval_numbers, number

METRICS: dict[str, Callable[..., FloatArray]] = {"auroc": weighted_auc, "auprc": weighted_average_precision}


class Classification:
    """L2 logistic regression of each finding on features of the scan, beside the zero-shot scores of the encoder.

    Args:
        features: rows that the probe reads, of ``FEATURES``.
        fractions: percentages of the training patients whose labels are used.
        seeds: seeds of the draws of these patients; numbers are means over the draws.
        inverse_penalties: values of C of which the validation split chooses one, for the middle fraction.
        tuning: fine-tunes the encoder on each subset first; None leaves it frozen.
    """

    name = "classification"

    def __init__(
        self,
        features: Sequence[str] = ("anatomy", "pathology", "field"),
        fractions: Sequence[float] = (5, 25, 100),
        seeds: Sequence[int] = (0, 1, 2),
        inverse_penalties: Sequence[float] = (0.0001, 0.001, 0.01, 0.1, 1),
        tuning: EncoderTuning | None = None,
    ) -> None:
        self.features, self.fractions, self.seeds = list(features), sorted(fractions), list(seeds)
        self.inverse_penalties, self.tuning = list(inverse_penalties), tuning

    def check(self, studies: dict[str, Studies]) -> None:
        """ValueError if a split has no finding with both classes, or a fraction leaves none."""
        for split, listed in studies.items():
            if not _both_classes(_labels(listed)).any():
                raise ValueError(
                    f"classification: no finding of the {split} split is both present and absent; add labels"
                )
        for (percent, seed), subset in self._subsets(studies["training"]).items():
            if not _both_classes(_labels([studies["training"][index] for index in subset])).any():
                problem = (
                    f"{percent:g} % of the labels (seed {seed}, {len(subset)} scans) leave no finding with both classes"
                )
                raise ValueError(f"classification: {problem}; use larger fractions")

    def _subsets(self, training: Studies) -> dict[tuple[float, int], list[int]]:
        """Indices by fraction and seed; all labels are drawn once."""
        drawn = {seed: label_fractions(training, self.fractions, seed) for seed in self.seeds}
        return {
            (percent, seed): drawn[seed][percent]
            for percent in self.fractions
            for seed in (self.seeds[:1] if percent == 100 else self.seeds)
        }

    def run(self, encoder: ScanEncoder, studies: dict[str, Studies], bootstrap: Bootstrap) -> Results:
        """Trains a probe on every subset and scores the test split."""
        subsets = self._subsets(studies["training"])
        labels = {split: _labels(listed) for split, listed in studies.items()}
        lines, usable = [], _both_classes(labels["test"])
        for (percent, seed), subset in subsets.items():
            known = _both_classes(labels["training"][subset])
            if missing := [name for name, here in zip(FINDING_NAMES, known, strict=True) if not here]:
                where = f"{percent:g} % of the labels (seed {seed}, {len(subset)} scans)"
                lines.append(f"{where}: not both classes of {', '.join(missing)}; left out at every fraction")
            usable &= known
        if not usable.any():
            raise ValueError("classification: no finding has both classes in every subset; use larger fractions")
        columns = np.flatnonzero(usable)
        frozen = {split: encoder.encode(listed, split) for split, listed in studies.items()} if not self.tuning else {}
        lines += [line for split, listed in studies.items() if frozen for line in unseen_scans(listed, frozen[split])]
        middle = list(subsets)[len(subsets) // 2]
        middle_rows = frozen or self._tuned(encoder, studies, subsets[middle])
        penalty = self._choose(middle_rows, labels, subsets[middle], columns)
        logits: dict[float, list[FloatArray]] = {percent: [] for percent in self.fractions}
        for drawn, subset in subsets.items():
            rows = middle_rows if frozen or drawn == middle else self._tuned(encoder, studies, subset)
            fitted = self._probe(rows, labels["training"], subset, columns, penalty)
            logits[drawn[0]].append(fitted(rows["test"]))
        record, tables = self._score(logits, labels["test"], columns, bootstrap)
        record |= {"inverse_penalty": penalty, "features": self.features, "encoder": self._encoder}
        record["subsets"] = [{"percent": p, "seed": seed, "scans": len(at)} for (p, seed), at in subsets.items()]
        if frozen:
            zero_shot = frozen["test"]["zero_shot"].double().numpy()[:, columns]
            record["zero_shot"] = _macro([zero_shot], labels["test"][:, columns], bootstrap)
            tables[0].rows.insert(0, ["zero-shot", *map(format_value, record["zero_shot"].values()), "-"])  # type: ignore[attr-defined]
        ids = [str(study["id"]) for study in studies["test"]]
        names = [FINDING_NAMES[column] for column in columns]
        files: dict[str, Callable[[Path], None]] = {
            f"predictions_{percent:g}.csv": partial(
                write_predictions,
                ids=ids,
                probabilities=np.mean([expit(each) for each in given], axis=0),
                labels=labels["test"][:, columns],
                findings=names,
            )
            for percent, given in logits.items()
        }
        files["auroc_by_fraction.png"] = partial(_plot, record=record)
        return Results(record, tables, files, lines)

    @property
    def _encoder(self) -> str:
        return "tuned" if self.tuning else "frozen"

    def _tuned(self, encoder: ScanEncoder, studies: dict[str, Studies], subset: Sequence[int]) -> dict[str, Rows]:
        """The rows of all splits by an encoder that was fine-tuned on a subset of the training split."""
        assert self.tuning is not None
        tuned = self.tuning(encoder, [studies["training"][index] for index in subset], self.features)
        return {split: tuned.encode(listed, split) for split, listed in studies.items()}

    def _choose(
        self, rows: dict[str, Rows], labels: dict[str, IntArray], subset: Sequence[int], columns: IntArray
    ) -> float:
        """The C with the highest macro AUROC on the validation split."""
        scores = [
            macro_auc(
                self._probe(rows, labels["training"], subset, columns, penalty)(rows["validation"]),
                labels["validation"][:, columns],
            )
            for penalty in self.inverse_penalties
        ]
        return self.inverse_penalties[int(np.nanargmax(scores))]

    def _probe(
        self, rows: dict[str, Rows], labels: IntArray, subset: Sequence[int], columns: IntArray, penalty: float
    ) -> Callable[[Rows], FloatArray]:
        """A function from the rows of scans to the logits of the findings, ``[S, C]``; unknown labels are left out."""
        given = scan_features(rows["training"], self.features).double().numpy()[list(subset)]
        models = []
        for column in columns:
            known = labels[list(subset), column] >= 0
            model = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=300))
            with python_warnings.catch_warnings():
                python_warnings.simplefilter("ignore", ConvergenceWarning)
                models.append(model.fit(given[known], labels[list(subset), column][known]))

        def logits(scans: Rows) -> FloatArray:
            features = scan_features(scans, self.features).double().numpy()
            return np.stack([model.decision_function(features) for model in models], axis=1)

        return logits

    def _score(
        self, logits: dict[float, list[FloatArray]], labels: IntArray, columns: IntArray, bootstrap: Bootstrap
    ) -> tuple[dict[str, Any], list[Table]]:
        truth = labels[:, columns]
        macro: dict[str, Any] = {}
        findings: dict[str, Any] = {}
        for percent, given in logits.items():
            macro[f"{percent:g}"] = _macro(given, truth, bootstrap)
            for metric, statistic in METRICS.items():
                found = bootstrap.interval(_mean_over(given, truth, statistic))
                for place, column in enumerate(columns):
                    entry = findings.setdefault(FINDING_NAMES[column], {}).setdefault(f"{percent:g}", {})
                    entry[metric] = _entry(found, place)
        by_seed = {
            f"{percent:g}": [number(macro_auc(each, truth)) for each in given] for percent, given in logits.items()
        }
        rows = [
            [
                f"{percent} %",
                *map(format_value, entry.values()),
                ", ".join(f"{value:.3f}" for value in by_seed[percent]),
            ]
            for percent, entry in macro.items()
        ]
        summary = Table(
            f"Mean over {len(columns)} findings, {self._encoder} encoder",
            ["labels", "AUROC", "AUPRC", "AUROC by seed"],
            rows,
        )
        largest = f"{self.fractions[-1]:g}"
        each = [
            [name, str(int((truth[:, place] == 1).sum())), *(format_value(findings[name][largest][m]) for m in METRICS)]
            for place, name in enumerate(findings)
        ]
        detail = Table(f"By finding, {largest} % of the labels", ["finding", "positive", "AUROC", "AUPRC"], each)
        return {"macro": macro, "auroc_by_seed": by_seed, "findings": findings}, [summary, detail]


def _labels(studies: Studies) -> IntArray:
    return np.stack([study["labels"].numpy() for study in studies])


def _both_classes(labels: IntArray) -> NDArray[np.bool_]:
    return np.asarray((labels == 1).any(axis=0) & (labels == 0).any(axis=0))


def _mean_over(
    given: Sequence[FloatArray], labels: IntArray, statistic: Callable[..., FloatArray]
) -> Callable[[FloatArray], FloatArray]:
    """The mean over the draws, ``[R, C]``, of a statistic of scan weights ``[R, S]``."""
    return lambda weights: np.mean([statistic(each, labels, weights) for each in given], axis=0)


def _macro(given: Sequence[FloatArray], labels: IntArray, bootstrap: Bootstrap) -> dict[str, Any]:
    """The mean over findings and draws of each metric."""
    record = {}
    for metric, statistic in METRICS.items():
        mean = _mean_over(given, labels, statistic)
        # A finding without both classes in a resample is left out of it.
        record[metric] = _entry(
            bootstrap.interval(lambda weights, mean=mean: np.array([macro_average(row) for row in mean(weights)]))  # type: ignore[misc]
        )
    return record


def _entry(found: Interval, place: int | tuple[()] = ()) -> dict[str, Any]:
    limits = interval_numbers(found.low[place], found.high[place])
    return {"value": number(float(found.estimate[place])), "interval": limits}


def _plot(path: Path, record: dict[str, Any]) -> None:
    """Macro AUROC by fraction with its interval, the draws as points, and the zero-shot score as a line."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    names = list(record["macro"])
    value = np.array([record["macro"][name]["auroc"]["value"] for name in names])
    limits = np.array([record["macro"][name]["auroc"]["interval"] for name in names]).T
    axes.errorbar(range(len(names)), value, np.abs(limits - value), fmt="o-", color="#1f5a96", capsize=4, label="probe")
    for place, name in enumerate(names):
        drawn = record["auroc_by_seed"][name]
        axes.plot([place] * len(drawn), drawn, "x", color="#8a8a8a", label="draws" if place == 0 else None)
    if "zero_shot" in record:
        axes.axhline(record["zero_shot"]["auroc"]["value"], color="#b03a2e", linestyle="--", label="zero-shot")
    axes.set_xticks(range(len(names)), [f"{name} %" for name in names])
    axes.set_xlabel("training patients with labels")
    axes.set_ylabel("macro AUROC")
    axes.legend(frameon=False)
    figure.savefig(path, format="png", dpi=150)
