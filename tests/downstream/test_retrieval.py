"""Retrieval both ways, by the scan's row and by its pathology rows."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from bundle.ctfindings.downstream import retrieval
from bundle.ctfindings.downstream.retrieval import Retrieval
from bundle.ctfindings.downstream.task_run import TaskRun
from tests.downstream.conftest import LabelEncoder


def run(datalist: Path, encoder: LabelEncoder) -> dict:
    return TaskRun(Retrieval(), encoder, datalist, datalist.parent / "out", resamples=20).run()


def test_rows_that_state_the_findings_find_their_report_both_ways(datalist: Path) -> None:
    record = run(datalist, LabelEncoder(noise=0.01))
    for direction in ("image_to_text", "text_to_image"):
        found = record["retrieval"]["global"]["first_all"][direction]
        assert found["recall"]["1"]["value"] > 0.9 and found["median_rank"] == 1
        assert found["precision"]["equal"]["1"]["value"] > 0.9 > 0.5 > found["precision"]["equal"]["1"]["chance"]
    # A scan whose rows answer to every sentence of a report that says less is not told apart from that report's scan.
    assert record["retrieval"]["set"]["first_all"]["text_to_image"]["recall"]["5"]["value"] > 0.8


def test_a_model_without_pathology_queries_has_the_global_score_only_and_says_so(datalist: Path) -> None:
    record = run(datalist, LabelEncoder(queries=0))
    assert list(record["retrieval"]) == ["global"]
    assert record["warnings"] == ["retrieval: this model has no pathology queries, so there is no score 'set'"]


def test_a_scan_outside_every_organ_is_named(datalist: Path) -> None:
    class Blind(LabelEncoder):
        def encode(self, studies, name=""):
            rows = super().encode(studies, name)
            rows["anatomy_valid"] = torch.ones(len(studies), 6, dtype=torch.bool)
            rows["anatomy_valid"][2] = False
            return rows

    assert run(datalist, Blind(queries=0))["warnings"][1] == "no body was found in test-2: their rows are zero"


def test_ranks_of_every_scan_are_written(datalist: Path) -> None:
    run(datalist, LabelEncoder(noise=0))
    with (datalist.parent / "out" / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40 and rows[0]["id"] == "test-0"
    assert {row["global first report"] for row in rows} <= {row["id"] for row in rows}
    assert all(1 <= int(row["set image_to_text"]) <= 40 for row in rows)


def test_the_curve_of_recall_is_that_of_the_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Own items at rank 1, 1 and 3 by rows; by columns at 1, 2 and 2.
    scores = np.array([[0.9, 0.1, 0.2], [0.3, 0.8, 0.05], [0.7, 0.9, 0.1]])
    drawn: list[Figure] = []
    monkeypatch.setattr(retrieval, "write_figure", lambda figure, path: drawn.append(figure))
    retrieval._plot_recall(tmp_path / "recall.png", {"global": scores})
    curves = {line.get_label(): line.get_ydata() for line in drawn[0].axes[0].get_lines()}
    assert curves["global, image to text"] == pytest.approx([2 / 3, 2 / 3, 1])
    assert curves["global, text to image"] == pytest.approx([1 / 3, 1, 1])
    assert curves["chance"] == pytest.approx([1 / 3, 2 / 3, 1])


def test_reports_of_one_examination_have_no_pool_of_first_reports(datalist: Path) -> None:
    content = json.loads(datalist.read_text(encoding="utf-8"))
    for study in content["test"]:
        study["examination"] = "1"
    datalist.write_text(json.dumps(content), encoding="utf-8")
    assert list(run(datalist, LabelEncoder(queries=0))["retrieval"]["global"]) == ["dup_all"]


def test_a_test_split_without_reports_is_refused_before_a_scan_is_read(datalist: Path) -> None:
    content = json.loads(datalist.read_text(encoding="utf-8"))
    for study in content["test"]:
        del study["report"]
    datalist.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match="the test split has reports of fewer than two patients"):
        run(datalist, LabelEncoder())
