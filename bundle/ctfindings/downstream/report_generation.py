"""Report generation: reports of several methods, at fractions of the training reports. Shapes: S scans, C findings."""

import warnings as python_warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bundle.ctfindings.data.datalist import label_rows
from bundle.ctfindings.downstream.encoded_scans import Rows, ScanEncoder, unseen_scans
from bundle.ctfindings.downstream.encoder_tuning import EncoderTuning
from bundle.ctfindings.downstream.label_fractions import Subsets, draw_subsets, subset_rows
from bundle.ctfindings.downstream.report_methods import (
    DecoderReports,
    Draw,
    Method,
    composed_reports,
    frequent_reports,
    nearest_reports,
    oracle_reports,
    random_reports,
    written_report,
)
from bundle.ctfindings.downstream.result_numbers import drawn_metric, format_seeds, format_value, plot_by_fraction
from bundle.ctfindings.downstream.task_run import Results, Studies, Table
from bundle.ctfindings.files.csv_table import write_table
from bundle.ctfindings.metrics.bootstrap import Bootstrap
from bundle.ctfindings.metrics.classification import FloatArray
from bundle.ctfindings.metrics.report_quality import CRG_FLOOR, label_scores, text_scores
from bundle.ctfindings.reports.captions import read_report
from bundle.ctfindings.reports.observations import observations_of

METHODS: dict[str, Method | None] = {
    "random": random_reports,
    "frequent": frequent_reports,
    "nearest": nearest_reports,
    "composed": composed_reports,
    "decoder": None,  # ``DecoderReports`` with its settings
    "oracle": oracle_reports,
}
METRICS = {"f1_macro": "F1 macro", "f1_micro": "F1 micro", "crg": "CRG", "bleu_4": "BLEU-4", "rouge_l": "ROUGE-L"}
EXAMPLES = 3


class ReportGeneration:
    """Labels that the report reader finds in generated reports, and overlap of words with the written ones.

    Args:
        decoder: method ``decoder``.
        methods: of ``METHODS``. ``random`` is a training report drawn at random, ``frequent`` one with the most
            frequent labels, and ``oracle`` the one whose labels are nearest to the true ones: two floors and the
            ceiling of ``nearest``.
        fractions: percentages of the training patients whose reports are used.
        seeds: seeds of the draws of these patients, of random reports and of the decoder.
        tuning: fine-tunes the encoder on the labels of each subset first; None leaves it frozen.
    """

    name = "report_generation"

    def __init__(
        self,
        decoder: DecoderReports,
        methods: Sequence[str] = tuple(METHODS),
        fractions: Sequence[float] = (5, 25, 100),
        seeds: Sequence[int] = (0, 1, 2),
        tuning: EncoderTuning | None = None,
    ) -> None:
        if unknown := [method for method in methods if method not in METHODS]:
            raise ValueError(f"methods: expected some of {', '.join(METHODS)}, got {unknown[0]!r}")
        self.methods: dict[str, Method] = {name: METHODS[name] or decoder for name in methods}
        self.fractions, self.seeds, self.tuning = sorted(fractions), list(seeds), tuning

    def check(self, studies: dict[str, Studies]) -> None:
        """ValueError if a split or a subset has no report, or the test split has one patient with a report."""
        written = {split: [study for study in listed if written_report(study)] for split, listed in studies.items()}
        if len({study["patient"] for study in written["test"]}) < 2:
            raise ValueError("report_generation: the test split has reports of fewer than two patients; add a 'report'")
        for split in ("training", "validation"):
            if not written[split]:
                raise ValueError(f"report_generation: the {split} split has no report; add a 'report' to its studies")
        if not (label_rows(written["test"]) == 1).any():
            raise ValueError("report_generation: the test split has no positive label; add 'labels' to its studies")
        for (percent, seed), subset in self._subsets(written["training"]).items():
            if len(subset) < 2:
                where = f"{percent:g} % of the labels (seed {seed})"
                raise ValueError(f"report_generation: {where} leave one report; use larger fractions")

    def _subsets(self, training: Studies) -> Subsets:
        return draw_subsets(training, self.fractions, self.seeds, repeat_all=True)

    def run(self, encoder: ScanEncoder, studies: dict[str, Studies], bootstrap: Bootstrap) -> Results:
        """Writes a report for every test scan by every method, subset and seed, and scores them."""
        kept = [index for index, study in enumerate(studies["test"]) if written_report(study)]
        lines = _unusable(studies)
        studies = {split: [study for study in listed if written_report(study)] for split, listed in studies.items()}
        subsets = self._subsets(studies["training"])
        frozen = {} if self.tuning else {split: encoder.encode(listed, split) for split, listed in studies.items()}
        lines += [line for split, listed in studies.items() if frozen for line in unseen_scans(listed, frozen[split])]
        given: dict[str, dict[float, list[list[str]]]] = {
            method: {percent: [] for percent in self.fractions} for method in self.methods
        }
        for (percent, seed), subset in subsets.items():
            training = [studies["training"][index] for index in subset]
            rows = self._rows(encoder, frozen, studies, subset, seed)
            draw = Draw(encoder, rows, training, studies["validation"], studies["test"], seed)
            for method in self.methods:
                with python_warnings.catch_warnings():
                    # ``choose_thresholds`` warns of findings with one label only, which would repeat at every draw.
                    python_warnings.simplefilter("ignore")
                    given[method][percent].append(self.methods[method](draw))
        record, tables = self._score(given, studies["test"], bootstrap.of(kept))
        record |= {"encoder": "tuned" if self.tuning else "frozen", "crg_floor": CRG_FLOOR}
        record["subsets"] = subset_rows(subsets)
        ids = [str(study["id"]) for study in studies["test"]]
        texts = [written_report(study) for study in studies["test"]]
        files: dict[str, Callable[[Path], None]] = {
            f"reports_{method}_{percent:g}.csv": partial(
                write_table, columns=["id", "written", "generated"], rows=list(zip(ids, texts, draws[0], strict=True))
            )
            for method, by_percent in given.items()
            for percent, draws in by_percent.items()
        }
        for method in self.methods:
            files[f"crg_of_{method}.png"] = partial(
                plot_by_fraction,
                by_fraction={percent: found["crg"]["macro"] for percent, found in record["methods"][method].items()},
                ylabel="CRG",
                label=method,
                line=("all stated or all denied", CRG_FLOOR),
            )
        tables.append(self._examples(ids, texts, given))
        return Results(record, tables, files, lines)

    def _rows(
        self,
        encoder: ScanEncoder,
        frozen: dict[str, Rows],
        studies: dict[str, Studies],
        subset: Sequence[int],
        seed: int,
    ) -> dict[str, Rows]:
        """The rows of all splits, those of the training split of the subset only."""
        found = frozen
        if self.tuning:
            tuned = self.tuning(encoder, [studies["training"][index] for index in subset], ["anatomy", "field"], seed)
            found = {split: tuned.encode(listed, split) for split, listed in studies.items()}
        training = {name: value[list(subset)] for name, value in found["training"].items()}
        return {**found, "training": training}

    def _score(
        self, given: dict[str, dict[float, list[list[str]]]], test: Studies, bootstrap: Bootstrap
    ) -> tuple[dict[str, Any], list[Table]]:
        labels, texts = label_rows(test), [written_report(study) for study in test]
        found: dict[str, dict[str, Any]] = {}
        for method, by_percent in given.items():
            for percent, draws in by_percent.items():
                said = [np.array([read_report(text).labels for text in draw]) for draw in draws]
                scored = [
                    {**label_scores(read, labels), **text_scores(draw, texts)}
                    for read, draw in zip(said, draws, strict=True)
                ]
                found.setdefault(method, {})[f"{percent:g}"] = {
                    metric: drawn_metric([partial(_column, each[metric]) for each in scored], [metric], bootstrap)
                    for metric in METRICS
                }
        rows = [
            [
                method,
                f"{percent} %",
                *(format_value(entry[metric]["macro"]) for metric in METRICS),
                format_seeds(entry["crg"]["macro"]["by_seed"]),
            ]
            for method, by_fraction in found.items()
            for percent, entry in by_fraction.items()
        ]
        title = f"Generated reports; CRG of all stated or all denied is {CRG_FLOOR:.3f}"
        columns = ["method", "reports", *METRICS.values(), "CRG by seed"]
        return {"methods": found}, [Table(title, columns, rows)]

    def _examples(
        self, ids: Sequence[str], texts: Sequence[str], given: dict[str, dict[float, list[list[str]]]]
    ) -> Table:
        """The first test scans, with the largest fraction."""
        largest = self.fractions[-1]
        shown = [
            [ids[row], method, text]
            for row in range(min(EXAMPLES, len(ids)))
            for method, text in [("written", texts[row]), *((m, given[m][largest][0][row]) for m in self.methods)]
        ]
        return Table(
            f"First test scans, {largest:g} % of the reports", ["scan", "method", "report"], shown, page_only=True
        )


def _column(statistic: Callable[[FloatArray], FloatArray], weights: FloatArray) -> FloatArray:
    return statistic(weights)[:, None]


def _unusable(studies: dict[str, Studies]) -> list[str]:
    """Lines about studies without a report, which are left out, and reports that state nothing about the scan."""
    lines = []
    for split, listed in studies.items():
        written = [study for study in listed if written_report(study)]
        if len(written) < len(listed):
            missing = next(str(study["id"]) for study in listed if not written_report(study))
            lines.append(f"{split} studies without a report, left out: {len(listed) - len(written)}, first {missing}")
        silent = [str(study["id"]) for study in written if not observations_of(study["report"])]
        if silent:
            lines.append(f"{split} reports without an observation: {len(silent)}, first {silent[0]}")
    return lines
