"""Encoders on the five tasks: what the page says is what the files of the tasks hold, paired by scan."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.ctfindings.files.csv_table import write_table
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.metrics.report_quality import CRG_FLOOR
from experiments.downstream.page import write_results_and_page
from experiments.downstream.results import FRACTIONS, downstream_results
from experiments.downstream.run import _network
from experiments.harness.task_results import MASKED

IDS = [f"s{row}" for row in range(20)]
NODULE = FINDING_NAMES.index("Lung nodule")


def labels() -> np.ndarray:
    """A nodule in every second scan, and nothing else."""
    rows = np.zeros((len(IDS), len(FINDING_NAMES)), dtype=int)
    rows[::2, NODULE] = 1
    return rows


def tasks(folder: Path, right: bool) -> Path:
    """The files of an encoder whose answers are all right, or of one that always says the same."""
    for task in ("classification", "retrieval", "detection", "segmentation", "report_generation"):
        (folder / task).mkdir(parents=True)
    truth = labels()[:, NODULE]
    for percent in FRACTIONS:
        scores = [[key, int(y) if right else 0.5, int(y)] for key, y in zip(IDS, truth, strict=True)]
        columns = ["id", "Lung nodule probability", "Lung nodule label"]
        write_table(folder / "classification" / f"predictions_{percent}_0.csv", columns, scores[::-1])
        masks = [[key, MASKED[0], 0.8 if right else 0.2] for key, y in zip(IDS, truth, strict=True) if y]
        write_table(folder / "segmentation" / f"predictions_{percent}.csv", ["id", "class", "dice"], masks)
        said = {0: "No pulmonary nodules.", 1: "There is a nodule in the left lower lobe."}
        for method in ("nearest", "decoder"):
            texts = [[key, said[int(y) if right else 0]] for key, y in zip(IDS, truth, strict=True)]
            write_table(folder / "report_generation" / f"reports_{method}_{percent}.csv", ["id", "generated"], texts)
    ranks = [[key, 1 if right else 11] for key in IDS]
    write_table(folder / "retrieval" / "predictions.csv", ["id", "global image_to_text"], ranks)
    hits = [[key, MASKED[0], "field", float(right), 0.25] for key, y in zip(IDS, truth, strict=True) if y]
    columns = ["id", "finding", "map", "pointing", "pointing_chance"]
    write_table(folder / "detection" / "pointing.csv", columns, hits)
    return folder


@pytest.fixture
def compared(tmp_path: Path) -> dict[str, Any]:
    folders = {"random": tasks(tmp_path / "random", False), "good": tasks(tmp_path / "good", True)}
    studies = [{"id": key, "patient": key, "labels": row} for key, row in zip(IDS, labels().tolist(), strict=True)]
    keys = {"subset_seeds": [0]}
    settings = {"studies": {"training": 9, "validation": 3}, "keys": keys}
    return downstream_results(folders, studies, settings, resamples=50)


def test_each_task_is_scored_by_scan_and_compared_with_the_first_encoder(compared: dict[str, Any]) -> None:
    good, bad = (compared["variants"][name]["mean"] for name in ("good", "random"))
    for percent in FRACTIONS:
        assert (good[f"auroc_{percent}"], bad[f"auroc_{percent}"]) == (1.0, 0.5), "rows are joined by id, not by place"
        assert good[f"dice_{percent}"] == pytest.approx(0.8)
        assert good[f"decoder_{percent}"] == 1.0 and bad[f"nearest_{percent}"] == pytest.approx(CRG_FLOOR)
    assert (good["retrieval_global"], bad["retrieval_global"]) == (1.0, 0.0)
    assert (good["pointing_field"], good["pointing_chance"]) == (1.0, 0.25)
    assert good["retrieval_set"] is None and good["pointing_answer"] is None, "no encoder has queries"
    gained = compared["differences"]["good"]
    assert gained["dice_100"] == pytest.approx(0.6) and gained["dice_100_interval"] == pytest.approx([0.6, 0.6])


def test_the_auroc_is_the_mean_over_the_draws_and_not_that_of_an_ensemble(tmp_path: Path) -> None:
    folder = tasks(tmp_path / "drawn", True)
    truth = labels()[:, NODULE]
    # Each draw is sure of the nodules of its half of the scans and wrong by a little on the others.
    for draw in (0, 1):
        scores = [
            [key, (0.1 + 0.9 * int(y)) if row // 2 % 2 == draw else (0.3 - 0.1 * int(y)), int(y)]
            for row, (key, y) in enumerate(zip(IDS, truth, strict=True))
        ]
        columns = ["id", "Lung nodule probability", "Lung nodule label"]
        write_table(folder / "classification" / f"predictions_5_{draw}.csv", columns, scores)
    studies = [{"id": key, "patient": key, "labels": row} for key, row in zip(IDS, labels().tolist(), strict=True)]
    settings = {"studies": {"training": 9, "validation": 3}, "keys": {"subset_seeds": [0, 1]}}
    found = downstream_results({"drawn": folder}, studies, settings, resamples=20)["variants"]["drawn"]["mean"]
    # A sure nodule beats both kinds of negatives, a doubtful one beats only the sure negatives: 3 of 4 pairs.
    assert found["auroc_5"] == pytest.approx(0.75), "the mean probabilities of the draws have an AUROC of 1"


def test_a_task_that_was_not_run_is_a_dash(tmp_path: Path) -> None:
    folder = tasks(tmp_path / "tuned", True)
    (folder / "retrieval" / "predictions.csv").unlink()
    studies = [{"id": key, "patient": key, "labels": row} for key, row in zip(IDS, labels().tolist(), strict=True)]
    settings = {"studies": {"training": 9, "validation": 3}, "keys": {"subset_seeds": [0]}}
    found = downstream_results({"tuned": folder}, studies, settings, resamples=20)
    page = write_results_and_page(tmp_path / "page", found, "python x.py").read_text(encoding="utf-8")
    assert "| retrieval, R@10, score global | - |" in page and "Minus" not in page
    assert "| segmentation, Dice of findings, 5 % of the labels | 0.800 (0.800 to 0.800) |" in page


def test_an_encoder_has_overlays_and_keys(tmp_path: Path) -> None:
    configs, keys = _network("random", ["objectives/place.json", "encoder=tuned"])
    assert [Path(name).name for name in configs] == ["train.json", "place.json"]
    assert keys == {"encoder": "tuned", "ckpt_path": "random"}
    assert _network("a.pt", [])[1]["ckpt_path"] == str(Path("a.pt").resolve())
