"""Report generation: the nearest training report, sentences composed from findings, and a language model.

Shapes: S scans, C findings, E embedding.
"""

from __future__ import annotations

import warnings as python_warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.metrics import Loss
from monai.engines import SupervisedEvaluator
from scipy.special import expit
from torch import Tensor
from torch.utils.data import DataLoader

from bundle.ctfindings.anatomy import ANATOMY_NAMES, THORAX
from bundle.ctfindings.data.datalist import label_rows
from bundle.ctfindings.data.study_record import report_text
from bundle.ctfindings.downstream.best_training import BestTraining
from bundle.ctfindings.downstream.encoded_scans import Rows, ScanEncoder, unseen_scans
from bundle.ctfindings.downstream.encoder_tuning import EncoderTuning
from bundle.ctfindings.downstream.label_fractions import Subsets, draw_subsets, subset_rows
from bundle.ctfindings.downstream.report_decoder import (
    PieceVocabulary,
    ReportDecoder,
    collate_reports,
    next_piece_loss,
    prepare_reports,
    scan_rows,
)
from bundle.ctfindings.downstream.result_numbers import drawn_metric, format_seeds, format_value, plot_by_fraction
from bundle.ctfindings.downstream.task_run import Results, Studies, Table
from bundle.ctfindings.files.csv_table import write_table
from bundle.ctfindings.findings import FINDING_ANATOMY, FINDING_NAMES
from bundle.ctfindings.inference.findings_record import FindingAnswer
from bundle.ctfindings.inference.output.draft_report import compose_report
from bundle.ctfindings.metrics.bootstrap import Bootstrap
from bundle.ctfindings.metrics.classification import FloatArray, IntArray
from bundle.ctfindings.metrics.report_quality import CRG_FLOOR, label_scores, text_scores
from bundle.ctfindings.metrics.thresholds import choose_thresholds
from bundle.ctfindings.reports.captions import read_report
from bundle.ctfindings.reports.observations import read_observations

METHODS = ("random", "nearest", "composed", "decoder", "oracle")
METRICS = {"f1_macro": "F1 macro", "f1_micro": "F1 micro", "crg": "CRG", "bleu_4": "BLEU-4", "rouge_l": "ROUGE-L"}
EXAMPLES = 3


class ReportGeneration:
    """Labels that the report reader finds in generated reports, and overlap of words with the written ones.

    Args:
        training: training of the decoder.
        methods: of ``METHODS``. ``random`` is a training report drawn at random and ``oracle`` the one whose labels are
            nearest to the true ones: the floor and the ceiling of ``nearest``.
        fractions: percentages of the training patients whose reports are used.
        seeds: seeds of the draws of these patients, of random reports and of the decoder.
        tuning: fine-tunes the encoder on the labels of each subset first; None leaves it frozen.
        layers, width: of the decoder.
        longest: word pieces of a generated report at most.
    """

    name = "report_generation"

    def __init__(
        self,
        training: BestTraining,
        methods: Sequence[str] = METHODS,
        fractions: Sequence[float] = (5, 25, 100),
        seeds: Sequence[int] = (0, 1, 2),
        tuning: EncoderTuning | None = None,
        layers: int = 2,
        width: int = 256,
        longest: int = 256,
    ) -> None:
        if unknown := [method for method in methods if method not in METHODS]:
            raise ValueError(f"methods: expected some of {', '.join(METHODS)}, got {unknown[0]!r}")
        self.training, self.methods, self.fractions = training, list(methods), sorted(fractions)
        self.seeds, self.tuning = list(seeds), tuning
        self.layers, self.width, self.longest = layers, width, longest

    def check(self, studies: dict[str, Studies]) -> None:
        """ValueError if a split or a subset has no report, or the test split has one patient with a report."""
        written = {split: [study for study in listed if _text(study)] for split, listed in studies.items()}
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
        kept = [index for index, study in enumerate(studies["test"]) if _text(study)]
        lines = _unusable(studies)
        studies = {split: [study for study in listed if _text(study)] for split, listed in studies.items()}
        subsets = self._subsets(studies["training"])
        frozen = {} if self.tuning else {split: encoder.encode(listed, split) for split, listed in studies.items()}
        lines += [line for split, listed in studies.items() if frozen for line in unseen_scans(listed, frozen[split])]
        given: dict[str, dict[float, list[list[str]]]] = {
            method: {percent: [] for percent in self.fractions} for method in self.methods
        }
        for (percent, seed), subset in subsets.items():
            training = [studies["training"][index] for index in subset]
            rows = self._rows(encoder, frozen, studies, subset)
            for method in self.methods:
                write: Callable[..., list[str]] = getattr(self, f"_{method}")
                with python_warnings.catch_warnings():
                    # ``choose_thresholds`` warns of findings with one label only, which would repeat at every draw.
                    python_warnings.simplefilter("ignore")
                    given[method][percent].append(write(encoder, rows, training, studies, seed))
        record, tables = self._score(given, studies["test"], bootstrap.of(kept))
        record |= {"encoder": "tuned" if self.tuning else "frozen", "crg_floor": CRG_FLOOR}
        record["subsets"] = subset_rows(subsets)
        ids = [str(study["id"]) for study in studies["test"]]
        texts = [_text(study) for study in studies["test"]]
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
        self, encoder: ScanEncoder, frozen: dict[str, Rows], studies: dict[str, Studies], subset: Sequence[int]
    ) -> dict[str, Rows]:
        """The rows of all splits, those of the training split of the subset only."""
        found = frozen
        if self.tuning:
            tuned = self.tuning(encoder, [studies["training"][index] for index in subset], ["anatomy", "field"])
            found = {split: tuned.encode(listed, split) for split, listed in studies.items()}
        training = {name: value[list(subset)] for name, value in found["training"].items()}
        return {**found, "training": training}

    def _random(
        self, _: ScanEncoder, rows: dict[str, Rows], training: Studies, studies: dict[str, Studies], seed: int
    ) -> list[str]:
        drawn = np.random.default_rng(seed).integers(0, len(training), len(studies["test"]))
        return [_text(training[place]) for place in drawn]

    def _oracle(
        self, _: ScanEncoder, rows: dict[str, Rows], training: Studies, studies: dict[str, Studies], seed: int
    ) -> list[str]:
        known, asked = (label_rows(given) == 1 for given in (training, studies["test"]))
        return [_text(training[int((known != labels).sum(axis=1).argmin())]) for labels in asked]

    def _nearest(
        self, encoder: ScanEncoder, rows: dict[str, Rows], training: Studies, studies: dict[str, Studies], seed: int
    ) -> list[str]:
        """The training report whose text row is nearest to the row of the thorax."""
        texts = [_text(study) for study in training]
        with torch.no_grad():
            written: Tensor = encoder.network.encode_text(texts, "report").cpu()
        best = (rows["test"]["anatomy"][:, THORAX] @ written.T).argmax(dim=1)
        return [texts[place] for place in best.tolist()]

    def _composed(
        self, _: ScanEncoder, rows: dict[str, Rows], training: Studies, studies: dict[str, Studies], seed: int
    ) -> list[str]:
        """Draft reports of the findings whose zero-shot score reaches the threshold of the best F1 on validation."""
        scores = {split: expit(rows[split]["zero_shot"].double().numpy()) for split in ("validation", "test")}
        labels = label_rows(studies["validation"])
        thresholds = choose_thresholds(scores["validation"], labels, "f1", FINDING_NAMES)
        seen = rows["test"]["anatomy_valid"]
        return [
            compose_report(_answers(score, thresholds, seen[row].tolist())).text
            for row, score in enumerate(scores["test"])
        ]

    def _decoder(
        self, encoder: ScanEncoder, rows: dict[str, Rows], training: Studies, studies: dict[str, Studies], seed: int
    ) -> list[str]:
        """The text of a decoder that was trained on the reports of the subset."""
        torch.manual_seed(seed)
        vocabulary = PieceVocabulary(encoder.network.text.tokenizer, [_text(study) for study in training])
        given = {split: scan_rows(rows[split]) for split in rows}
        pairs = {
            split: [
                (row, vocabulary.encode(_text(study), self.longest))
                for row, study in zip(given[split], listed, strict=True)
            ]
            for split, listed in (("training", training), ("validation", studies["validation"]))
        }
        _, count, embedding = given["test"].shape
        network = ReportDecoder(embedding, count, len(vocabulary.pieces), self.longest, self.layers, self.width).to(
            encoder.device
        )
        loaders: dict[str, Any] = {
            split: DataLoader(
                listed,  # type: ignore[arg-type]  # a list is a dataset
                self.training.batch_size,
                shuffle=split == "training",
                collate_fn=collate_reports,
                generator=torch.Generator().manual_seed(seed),
            )
            for split, listed in pairs.items()
        }
        evaluator = SupervisedEvaluator(
            device=encoder.device,
            val_data_loader=loaders["validation"],
            network=network,
            prepare_batch=prepare_reports,
            key_val_metric={
                "likelihood": Loss(
                    lambda logits, places: -next_piece_loss(logits, places), lambda o: (o["pred"], o["label"])
                )
            },
            decollate=False,
        )
        groups = [{"params": list(network.parameters()), "lr": self.training.learning_rate}]
        self.training.run(evaluator, groups, loaders["training"], next_piece_loss, "likelihood")
        network.eval()
        chunks = given["test"].to(encoder.device).split(self.training.batch_size)
        return [vocabulary.decode(places) for chunk in chunks for places in network.write(chunk)]

    def _score(
        self, given: dict[str, dict[float, list[list[str]]]], test: Studies, bootstrap: Bootstrap
    ) -> tuple[dict[str, Any], list[Table]]:
        labels, texts = label_rows(test), [_text(study) for study in test]
        found: dict[str, dict[str, Any]] = {}
        for method, by_percent in given.items():
            for percent, draws in by_percent.items():
                scored = [{**label_scores(_read(draw), labels), **text_scores(draw, texts)} for draw in draws]
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


def _text(study: dict[str, Any]) -> str:
    return report_text(study.get("report"))


def _read(texts: Sequence[str]) -> IntArray:
    """The labels that the report reader finds, ``[S, C]``."""
    return np.array([read_report(text).labels for text in texts])


def _column(statistic: Callable[[FloatArray], FloatArray], weights: FloatArray) -> FloatArray:
    return statistic(weights)[:, None]


def _answers(scores: FloatArray, thresholds: FloatArray, seen: Sequence[bool]) -> list[FindingAnswer]:
    """Answers about one scan as a record has them, without evidence."""
    return [
        FindingAnswer(
            name,
            float(score),
            float(threshold),
            present=bool(score >= threshold),
            anatomy=ANATOMY_NAMES[row],
            anatomy_found=seen[row],
        )
        for name, row, score, threshold in zip(FINDING_NAMES, FINDING_ANATOMY, scores, thresholds, strict=True)
    ]


def _unusable(studies: dict[str, Studies]) -> list[str]:
    """Lines about studies without a report, which are left out, and reports that state nothing about the scan."""
    lines = []
    for split, listed in studies.items():
        written = [study for study in listed if _text(study)]
        if len(written) < len(listed):
            missing = next(str(study["id"]) for study in listed if not _text(study))
            lines.append(f"{split} studies without a report, left out: {len(listed) - len(written)}, first {missing}")
        parts = [(study, study["report"]) for study in written]
        silent = [
            str(study["id"])
            for study, report in parts
            if not read_observations(str(report.get("findings") or ""), str(report.get("impression") or ""))
        ]
        if silent:
            lines.append(f"{split} reports without an observation: {len(silent)}, first {silent[0]}")
    return lines
