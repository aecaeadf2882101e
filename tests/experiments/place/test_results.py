"""The comparison finds the part that helps, and the page states what the results hold."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from experiments.harness.task_results import MASKED
from experiments.place import results as module
from experiments.place.page import write_results_and_page
from experiments.place.results import Finished, place_results
from experiments.place.run import captions_from_reports

SCANS, IDS = 30, [f"s{row}" for row in range(30)]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def finished(folder: Path, found: float, hit: float, seed: int) -> Finished:
    """A run that finds a share of the reports and hits a share of the nodules; it has no map ``answer``."""
    rng = np.random.default_rng(seed)
    ranks = np.where(rng.random(SCANS) < found, 1, 50)
    write(
        folder / "retrieval" / "predictions.csv",
        [
            {"id": name, "global image_to_text": 5, "set image_to_text": rank}
            for name, rank in zip(IDS, ranks, strict=True)
        ],
    )
    pointing = [
        {
            "id": name,
            "finding": MASKED[0],
            "map": "field",
            "pointing": float(rng.random() < hit),
            "pointing_chance": 0.1,
        }
        for name in IDS
    ]
    write(folder / "detection" / "pointing.csv", pointing)
    masks = [{"id": name, "class": MASKED[0], "dice": "" if row % 2 else 0.5} for row, name in enumerate(IDS)]
    write(folder / "segmentation" / "predictions_100.csv", masks)
    record = {"calibration": {"observation_weight": 2.0}, "macro_auc_of_parts": {"rows": 0.6, "queries": 0.7}}
    (folder / "metrics.json").write_text(json.dumps(record))
    test = {"value": 0.2, "interval": [-0.1, 0.5], "above": 0.0, "units": 30, "passed": False}
    return Finished("a variant", folder, folder, {"owner gap above 0": test})


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.random.default_rng(0).integers(0, 2, (SCANS, 3))
    scans = SimpleNamespace(ids=np.array(IDS), patients=np.array(IDS), labels=labels, logits=labels * 1.0)
    monkeypatch.setattr(module.Diagnostics, "load", lambda path: scans)


@pytest.fixture
def compared(tmp_path: Path, scored: None) -> dict[str, Any]:
    runs = {
        "place": {seed: finished(tmp_path / f"place{seed}", 0.9, 0.5, seed) for seed in (0, 1)},
        "one_query": {0: finished(tmp_path / "one_query", 0.2, 0.5, 0)},
        "no_correlation": {0: finished(tmp_path / "no_correlation", 0.9, 0.5, 0)},
    }
    return place_results(runs, {"studies": {"training": 9, "validation": 3}}, resamples=80)


def test_a_part_is_compared_on_the_seeds_that_both_have(compared: dict[str, Any]) -> None:
    found = compared["differences"]["one_query"]
    assert found["seeds"] == [0] and found["own"] == ["retrieval_set"]
    assert found["retrieval_set"] > 0.4 and found["retrieval_set_interval"][0] > 0
    assert found["pointing_field"] == 0 and found["dice"] == 0, (
        "the same scans are hit, and the scans without a mask left out"
    )
    assert found["pointing_answer"] is None, "no run has this map"
    assert compared["variants"]["place"]["mean"]["macro_auc"] == 1.0
    assert compared["variants"]["place"]["sd_over_seeds"]["retrieval_set"] >= 0


def test_the_page_states_verdicts_and_what_was_not_measured(compared: dict[str, Any], tmp_path: Path) -> None:
    page = write_results_and_page(tmp_path / "page", compared, "python x.py").read_text(encoding="utf-8")
    assert "| a variant | scan finds its report, R@10, score set | **0." in page and "| helps |" in page
    assert "Intervals: 95 % percentile bootstrap by patient and seed" in page
    assert "| owner gap above 0 | `place` | 1 | 0.200 | -0.100 to 0.500 | 0.0000 | not shown |" in page
    assert "| rows | 0.600 | 0.600 | 0.600 |" in page and "| queries | 0.700 | 0.700 | 0.700 |" in page
    assert (tmp_path / "page" / "variants.png").is_file()
    alone = write_results_and_page(tmp_path / "alone", {**compared, "differences": {}}, "python x.py").read_text()
    assert "minus a variant" in page and "minus a variant" not in alone


def test_one_seed_is_a_bootstrap_by_patient_and_the_commit_is_kept(tmp_path: Path, scored: None) -> None:
    found = place_results({"place": {0: finished(tmp_path / "one", 0.9, 0.5, 0)}}, {}, resamples=10)
    assert found["bootstrap"]["unit"] == "patient"
    assert found["code"] is None or found["code"].removesuffix("-dirty")


def test_hits_are_counted_by_finding(compared: dict[str, Any], tmp_path: Path) -> None:
    for run in compared["variants"].values():
        for hits in run["pointing_answer_by_finding"].values():
            assert hits == {name: {"scans": 0, "hits": 0} for name in MASKED}, "no run has the map answer"
    compared["variants"]["place"]["pointing_answer_by_finding"]["0"] = {
        MASKED[0]: {"scans": 40, "hits": 1},
        MASKED[1]: {"scans": 10, "hits": 5},
    }
    page = write_results_and_page(tmp_path / "page", compared, "python x.py").read_text(encoding="utf-8")
    assert "| `place`, seed 0 | 1 of 40 (0.025) | 5 of 10 (0.500) | 6 of 50 (0.120) |" in page


def test_only_an_interval_at_or_below_the_limit_refutes(compared: dict[str, Any], tmp_path: Path) -> None:
    compared["variants"]["place"]["tests"]["1"]["owner gap above 0"] |= {"value": -0.2, "interval": [-0.5, 0.0]}
    page = write_results_and_page(tmp_path / "page", compared, "python x.py").read_text(encoding="utf-8")
    assert "| owner gap above 0 | `place` | 0 | 0.200 | -0.100 to 0.500 | 0.0000 | not shown |" in page
    assert "| owner gap above 0 | `place` | 1 | -0.200 | -0.500 to 0.0000 | 0.0000 | **refuted** |" in page


def test_other_scans_are_refused(compared: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected place, the reference"):
        place_results({}, {}, resamples=10)


def test_captions_of_the_experiment_are_those_of_the_reports(tmp_path: Path) -> None:
    study = {"id": "a", "image": "a.nii.gz", "captions": {"heart": {"text": "Heart is normal.", "normal": True}}}
    said = {"findings": "Consolidation in the right lower lobe.", "impression": "Consolidation."}
    content = {"training": [{**study, "report": said}], "validation": [study], "test": []}
    (tmp_path / "datalist.json").write_text(json.dumps(content), encoding="utf-8")
    written = json.loads(
        captions_from_reports(tmp_path / "datalist.json", tmp_path / "new").read_text(encoding="utf-8")
    )
    captions = written["training"][0]["captions"]
    assert captions["lung"]["text"].startswith("Consolidation") and not captions["lung"]["normal"]
    assert "heart" not in captions and written["validation"][0]["captions"] == {}
    assert written["training"][0]["image"] == str((tmp_path / "a.nii.gz").resolve())
