"""Classification of the findings: a linear probe on the rows of the encoder, at fractions of the labels.

Shapes: S scans, F features, C findings.
"""

import warnings as python_warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bundle.ctfindings.data.datalist import label_rows
from bundle.ctfindings.downstream.encoded_scans import Rows, ScanEncoder, check_features, scan_features, unseen_scans
from bundle.ctfindings.downstream.encoder_tuning import EncoderTuning
from bundle.ctfindings.downstream.label_fractions import Subsets, draw_subsets, subset_rows, usable_classes
from bundle.ctfindings.downstream.result_numbers import drawn_metric, format_seeds, format_value, plot_by_fraction
from bundle.ctfindings.downstream.task_run import Results, Studies, Table
from bundle.ctfindings.evaluation.evaluate import write_predictions
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.metrics.bootstrap import Bootstrap, weighted_auc, weighted_average_precision
from bundle.ctfindings.metrics.classification import FloatArray, IntArray, macro_auc

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
        check_features(features)
        self.features, self.fractions, self.seeds = list(features), sorted(fractions), list(seeds)
        self.inverse_penalties, self.tuning = list(inverse_penalties), tuning

    def check(self, studies: dict[str, Studies]) -> None:
        """ValueError if a split has no finding with both classes, or a fraction leaves none."""
        for split, listed in studies.items():
            if not _both_classes(label_rows(listed)).any():
                raise ValueError(
                    f"classification: no finding of the {split} split is both present and absent; add labels"
                )
        self._usable(studies)

    def _usable(self, studies: dict[str, Studies]) -> tuple[Subsets, NDArray[np.bool_], list[str]]:
        """Subsets, the findings that every one of them can teach and the test split can score, and the warnings."""
        subsets = draw_subsets(studies["training"], self.fractions, self.seeds)
        labels = label_rows(studies["training"])
        known = {drawn: _both_classes(labels[subset]) for drawn, subset in subsets.items()}
        usable, lines = usable_classes(self.name, subsets, known, FINDING_NAMES, "both labels")
        usable = usable & _both_classes(label_rows(studies["test"]))
        validated = usable & _both_classes(label_rows(studies["validation"]))
        for split, scored in (("test", usable), ("validation", validated)):
            if not scored.any():
                raise ValueError(
                    f"classification: no finding has both labels in every subset and in the {split} split; add labels"
                )
        return subsets, usable, lines

    def run(self, encoder: ScanEncoder, studies: dict[str, Studies], bootstrap: Bootstrap) -> Results:
        """Trains a probe on every subset and scores the test split."""
        subsets, usable, lines = self._usable(studies)
        labels = {split: label_rows(listed) for split, listed in studies.items()}
        columns = np.flatnonzero(usable)
        frozen = {split: encoder.encode(listed, split) for split, listed in studies.items()} if not self.tuning else {}
        lines += [line for split, listed in studies.items() if frozen for line in unseen_scans(listed, frozen[split])]
        middle = list(subsets)[len(subsets) // 2]
        middle_rows = frozen or self._tuned(encoder, studies, subsets[middle], middle[1])
        penalty = self._choose(middle_rows, labels, subsets[middle], columns)
        logits: dict[float, list[FloatArray]] = {percent: [] for percent in self.fractions}
        for drawn, subset in subsets.items():
            rows = middle_rows if frozen or drawn == middle else self._tuned(encoder, studies, subset, drawn[1])
            fitted = self._probe(rows, labels["training"], subset, columns, penalty)
            logits[drawn[0]].append(fitted(rows["test"]))
        names = [FINDING_NAMES[column] for column in columns]
        record, tables = self._score(logits, labels["test"][:, columns], names, bootstrap)
        record |= {"inverse_penalty": penalty, "features": self.features, "encoder": self._encoder}
        record["subsets"] = subset_rows(subsets)
        if frozen:
            zero_shot = frozen["test"]["zero_shot"].double().numpy()[:, columns]
            record["zero_shot"] = _metrics([zero_shot], labels["test"][:, columns], names, bootstrap)
            tables[0].rows.insert(0, ["zero-shot", *_cells(record["zero_shot"]), "-"])  # type: ignore[attr-defined]
        ids = [str(study["id"]) for study in studies["test"]]
        every = [each for given in logits.values() for each in given]
        files: dict[str, Callable[[Path], None]] = {
            f"predictions_{percent:g}_{seed}.csv": partial(
                write_predictions,
                ids=ids,
                probabilities=expit(each),
                labels=labels["test"][:, columns],
                findings=names,
            )
            for (percent, seed), each in zip(subsets, every, strict=True)
        }
        files["auroc_by_fraction.png"] = partial(
            plot_by_fraction,
            by_fraction={percent: found["auroc"]["macro"] for percent, found in record["fractions"].items()},
            ylabel="macro AUROC",
            label="probe",
            line=("zero-shot", record["zero_shot"]["auroc"]["macro"]["value"]) if frozen else None,
        )
        return Results(record, tables, files, lines)

    @property
    def _encoder(self) -> str:
        return "tuned" if self.tuning else "frozen"

    def _tuned(
        self, encoder: ScanEncoder, studies: dict[str, Studies], subset: Sequence[int], seed: int
    ) -> dict[str, Rows]:
        """The rows of all splits by an encoder that was fine-tuned on a subset of the training split."""
        assert self.tuning is not None
        tuned = self.tuning(encoder, [studies["training"][index] for index in subset], self.features, seed)
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
        self, logits: dict[float, list[FloatArray]], truth: IntArray, names: Sequence[str], bootstrap: Bootstrap
    ) -> tuple[dict[str, Any], list[Table]]:
        found = {f"{percent:g}": _metrics(given, truth, names, bootstrap) for percent, given in logits.items()}
        rows = [
            [f"{percent} %", *_cells(entry), format_seeds(entry["auroc"]["macro"]["by_seed"])]
            for percent, entry in found.items()
        ]
        title = f"Mean over {len(names)} findings, {self._encoder} encoder"
        summary = Table(title, ["labels", "AUROC", "AUPRC", "AUROC by seed"], rows)
        largest = f"{self.fractions[-1]:g}"
        each = [
            [name, str(int(positive)), *(format_value(found[largest][metric]["classes"][name]) for metric in METRICS)]
            for name, positive in zip(names, (truth == 1).sum(axis=0), strict=True)
        ]
        detail = Table(f"By finding, {largest} % of the labels", ["finding", "positive", "AUROC", "AUPRC"], each)
        return {"fractions": found}, [summary, detail]


def _both_classes(labels: IntArray) -> NDArray[np.bool_]:
    return np.asarray((labels == 1).any(axis=0) & (labels == 0).any(axis=0))


def _metrics(
    given: Sequence[FloatArray], truth: IntArray, names: Sequence[str], bootstrap: Bootstrap
) -> dict[str, Any]:
    """Each metric over the draws, by finding and as their mean."""
    trials = {"auroc": bootstrap.smaller_class(truth)}
    return {
        metric: drawn_metric(
            [partial(statistic, logits, truth) for logits in given], names, bootstrap, trials.get(metric)
        )
        for metric, statistic in METRICS.items()
    }


def _cells(found: dict[str, Any]) -> list[str]:
    return [format_value(found[metric]["macro"]) for metric in METRICS]
