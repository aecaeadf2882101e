"""Retrieval between scans and reports, both ways: by the scan and its report, and by its pathology rows and sentences.

Shapes: S scans with a report, N distinct sentences, Q pathology queries, E embedding.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from bundle.ctfindings.anatomy import THORAX
from bundle.ctfindings.data.datalist import label_rows
from bundle.ctfindings.data.study_record import report_id, report_text
from bundle.ctfindings.downstream.encoded_scans import Rows, ScanEncoder, unseen_scans
from bundle.ctfindings.downstream.result_numbers import format_value
from bundle.ctfindings.downstream.task_run import Results, Studies, Table
from bundle.ctfindings.evaluation.plots import BLUE, GREY, RED, write_figure
from bundle.ctfindings.files.csv_table import write_table
from bundle.ctfindings.metrics.bootstrap import Bootstrap
from bundle.ctfindings.metrics.classification import FloatArray
from bundle.ctfindings.metrics.retrieval import label_precision, rank_of_own, retrieval_pools, retrieval_record
from bundle.ctfindings.networks.observation_scoring import observation_answers
from bundle.ctfindings.reports.observations import normalise, observations_of

DIRECTIONS = ("image_to_text", "text_to_image")


class Retrieval:
    """Ranks reports by scans and scans by reports of the test split. Nothing is trained.

    ``global`` compares the thorax row with the report. ``set``, for a model with pathology queries, is the weighted
    mean over the sentences of a report of the cosine of each with the answer of the queries to it, as in
    ``PathologyAlignmentLoss``: our reading of PLACE (https://arxiv.org/abs/2506.10573).

    Args:
        normal_weight: weight of a normal sentence in ``set``; abnormal ones have 1.
    """

    name = "retrieval"

    def __init__(self, normal_weight: float = 0.5) -> None:
        self.normal_weight = normal_weight

    def check(self, studies: dict[str, Studies]) -> None:
        """ValueError if fewer than two patients of the test split have a report."""
        if len({study["patient"] for study in studies["test"] if report_text(study.get("report"))}) < 2:
            raise ValueError("retrieval: the test split has reports of fewer than two patients; add a 'report' to them")

    def run(self, encoder: ScanEncoder, studies: dict[str, Studies], bootstrap: Bootstrap) -> Results:
        """Scores every scan against every report."""
        written = [index for index, study in enumerate(studies["test"]) if report_text(study.get("report"))]
        asked = [studies["test"][index] for index in written]
        rows = encoder.encode(asked, "test")
        reports = [report_text(study["report"]) for study in asked]
        with torch.no_grad():
            texts = encoder.network.encode_text(reports, "report").cpu()
        similarity = {"global": (rows["anatomy"][:, THORAX].double() @ texts.double().T).numpy()}
        warnings = []
        if rows["pathology"].shape[1]:
            similarity["set"], problems = self._set_score(encoder, rows, asked)
            warnings += problems
        else:
            warnings.append("retrieval: this model has no pathology queries, so there is no score 'set'")
        warnings += unseen_scans(asked, rows)
        labels, chosen = label_rows(asked), bootstrap.of(written)
        pools = retrieval_pools([report_id(study) for study in asked], chosen.patients)
        found = {
            score: {pool: _both_ways(values[np.ix_(at, at)], labels[at], chosen.of(at)) for pool, at in pools.items()}
            for score, values in similarity.items()
        }
        ids = [str(study["id"]) for study in asked]
        files: dict[str, Callable[[Path], None]] = {
            "predictions.csv": partial(_write_ranks, ids=ids, similarity=similarity),
            "recall_at_k.png": partial(_plot_recall, similarity=similarity),
        }
        return Results({"encoder": "frozen", "retrieval": found}, _tables(found), files, warnings)

    def _set_score(self, encoder: ScanEncoder, rows: Rows, studies: Studies) -> tuple[FloatArray, list[str]]:
        """Of each scan and each report, ``[S, S]``; a report without an observation scores 0 with every scan."""
        reports = [observations_of(study["report"]) for study in studies]
        # Equal sentences once, in the words of the first: training embeds sentences as they are written.
        texts: dict[str, str] = {}
        for item in (item for said in reports for item in said):
            texts.setdefault(normalise(item.text), item.text)
        if not texts:
            raise ValueError("retrieval: no report of the test split has an observation; is it written in English?")
        place = {text: column for column, text in enumerate(texts)}
        weight = np.zeros((len(studies), len(texts)))
        for row, said in enumerate(reports):
            for item in said:
                weight[row, place[normalise(item.text)]] = self.normal_weight if item.normal else 1.0
        weight /= np.maximum(weight.sum(axis=1, keepdims=True), 1e-12)
        with torch.no_grad():
            sentences = encoder.network.encode_text(list(texts.values()), "sentence").cpu()
        scored = np.stack([_answered(rows, scan, sentences) for scan in range(len(studies))])
        silent = [str(study["id"]) for study, said in zip(studies, reports, strict=True) if not said]
        lines = [f"reports without an observation, which score 0: {len(silent)}, first {silent[0]}"] if silent else []
        return scored @ weight.T, lines


def _answered(rows: Rows, scan: int, sentences: Tensor) -> FloatArray:
    """Cosine of each sentence with the answer of the queries of a scan, ``[N]``."""
    own = slice(scan, scan + 1)
    answers, _ = observation_answers(rows["pathology"][own], rows["pathology_valid"][own], sentences)
    return (answers[0] * sentences).sum(dim=1).double().numpy()


def _both_ways(similarity: FloatArray, labels: Any, bootstrap: Bootstrap) -> dict[str, Any]:
    """Recall, median rank and precision by label set of a pool; rows of the matrix are scans, columns reports."""
    record = {}
    for direction, scores in zip(DIRECTIONS, (similarity, similarity.T), strict=True):
        record[direction] = retrieval_record(scores, bootstrap)
        record[direction]["precision"] = label_precision(scores, labels, bootstrap)
    return record


def _tables(found: dict[str, Any]) -> list[Table]:
    tables = []
    for pool in found["global"]:
        rows = []
        for score, pools in found.items():
            for direction, record in pools[pool].items():
                recall, equal = record["recall"], record["precision"]["equal"]
                cells = [format_value(recall.get(k)) for k in ("1", "5", "10", "50")]
                jaccard = record["precision"]["jaccard"]
                cells += [f"{record['median_rank']:g}", format_value(equal.get("5")), format_value(jaccard.get("5"))]
                rows.append([score, direction.replace("_", " "), *cells])
        size = found["global"][pool]["image_to_text"]["pool"]
        columns = ["score", "direction", "R@1", "R@5", "R@10", "R@50", "median rank", "P@5 equal", "P@5 Jaccard"]
        tables.append(Table(f"Retrieval, {pool} ({size})", columns, rows))
    return tables


def _write_ranks(path: Path, ids: list[str], similarity: dict[str, FloatArray]) -> None:
    """Ranks in the pool ``dup_all``, and the report that each score puts first."""
    columns: list[Any] = []
    for scores in similarity.values():
        columns += [rank_of_own(scores), rank_of_own(scores.T), [ids[best] for best in scores.argmax(axis=1)]]
    names = [f"{score} {name}" for score in similarity for name in (*DIRECTIONS, "first report")]
    write_table(path, ["id", *names], zip(ids, *columns, strict=True))


def _plot_recall(path: Path, similarity: dict[str, FloatArray]) -> None:
    """Share of the scans whose report is among the first k, and of the reports whose scan is, in the pool of all."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for (score, scores), colour in zip(similarity.items(), (BLUE, RED), strict=False):
        for direction, matrix, style in zip(DIRECTIONS, (scores, scores.T), ("-", "--"), strict=True):
            ks = np.arange(1, len(matrix) + 1)
            share = np.searchsorted(np.sort(rank_of_own(matrix)), ks, side="right") / len(matrix)
            label = f"{score}, {direction.replace('_', ' ')}"
            axes.step(ks, share, style, where="post", color=colour, label=label)
    axes.plot(ks, ks / len(ks), ":", color=GREY, label="chance")
    axes.set_xscale("log")
    axes.set_xlabel(f"k, of {len(ks)}")
    axes.set_ylabel("R@k")
    axes.legend(frameon=False)
    write_figure(figure, path)
