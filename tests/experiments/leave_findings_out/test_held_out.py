"""Datalists that leave findings out, and the scores of these findings."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.ctfindings.anatomy import ANATOMIES
from bundle.ctfindings.findings import FINDING_NAMES
from experiments.leave_findings_out.held_out import FOLDS, names_finding, withhold
from experiments.leave_findings_out.results import probe_auc, same_row_gains, write_results_and_page
from experiments.leave_findings_out.scores import Scores

EFFUSION = FINDING_NAMES.index("Pleural effusion")
NODULE = FINDING_NAMES.index("Lung nodule")


@pytest.fixture
def datalist(tmp_path: Path) -> Path:
    study = {
        "id": "a",
        "image": "images/a.nii.gz",
        "labels": [1] * len(FINDING_NAMES),
        "report": {"findings": "Pleural fluid on the left. A nodule in the right upper lobe.", "impression": ""},
        "captions": {"lung": {"text": "Pleural fluid on the left. A nodule.", "normal": False}},
        "snippets": [{"text": "Left pleural effusion.", "z_mm": 1.0}, {"text": "A nodule.", "z_mm": 2.0}],
    }
    path = tmp_path / "datalist.json"
    path.write_text(json.dumps({"name": "n", "training": [study], "validation": [study], "test": [study]}))
    return path


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def test_every_finding_is_in_one_fold() -> None:
    assert sorted(name for fold in FOLDS for name in fold) == sorted(FINDING_NAMES)


@pytest.mark.parametrize("regime", ["unseen", "unlabelled"])
def test_labels_leave_the_training_and_stay_in_the_test(datalist: Path, tmp_path: Path, regime: Any) -> None:
    written = read(withhold(datalist, FOLDS[1], regime, tmp_path / "out" / "datalist.json"))
    for split in ("training", "validation"):
        (study,) = written[split]
        assert study["labels"][EFFUSION] == -1 and study["labels"][NODULE] == 1
        assert study["image"] == str(tmp_path / "images" / "a.nii.gz")
    assert written["test"][0]["labels"][EFFUSION] == 1
    assert ("fluid" in json.dumps(written["training"])) == (regime == "unlabelled")


def test_no_sentence_of_an_unseen_finding_is_left(datalist: Path, tmp_path: Path) -> None:
    (study,) = read(withhold(datalist, FOLDS[1], "unseen", tmp_path / "unseen.json"))["training"]
    assert study["report"] == {"findings": "A nodule in the right upper lobe.", "impression": ""}
    assert study["captions"]["lung"] == {"text": "A nodule in the right upper lobe.", "normal": False}
    assert [each["text"] for each in study["snippets"]] == ["A nodule."]


def test_a_sentence_names_a_finding_also_by_a_synonym_or_in_a_denial() -> None:
    assert names_finding("No pleural effusion.", ["Pleural effusion"])
    assert not names_finding("No pleural effusion.", ["Lung nodule"])
    assert not names_finding("The lungs are clear.", ["Lung nodule"])
    assert names_finding("Heart size is within normal limits.", ["Cardiomegaly"])
    # The aorta hides the heart from a rule that reads both clauses as one.
    assert names_finding("The heart is enlarged and the aorta is dilated.", ["Cardiomegaly"])


def scores(separation: float, seed: int = 0) -> Scores:
    """Labels of 80 patients; logits and lung rows that follow the label of the effusion by ``separation``."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 2, (80, len(FINDING_NAMES)))
    logits = draw.normal(size=labels.shape)
    logits[:, EFFUSION] += separation * labels[:, EFFUSION]
    anatomy = draw.normal(size=(80, len(ANATOMIES), 4))
    anatomy[..., 0] += separation * labels[:, [EFFUSION]]
    return Scores(np.array([f"p{row}" for row in range(80)]), labels, logits, anatomy)


def test_the_probe_finds_what_the_rows_hold() -> None:
    assert (probe_auc(scores(4.0), EFFUSION) or 0) > 0.95
    assert 0.3 < (probe_auc(scores(0.0), EFFUSION) or 0) < 0.7


def test_the_page_compares_left_out_findings_with_their_controls(tmp_path: Path) -> None:
    finished = [
        {"regime": "supervised", "fold": None, "seed": 0, "scores": scores(5.0)},
        {"regime": "unseen", "fold": 1, "seed": 0, "scores": scores(2.0)},
    ]
    page = write_results_and_page(tmp_path, finished, "python run.py", {"studies": {"training": 8, "test": 80}}, 50)
    results = read(tmp_path / "results.json")
    row = next(row for row in results["rows"] if row["finding"] == "Pleural effusion")
    assert 0.5 < row["swapped"] + 0.2 < row["held_out"] < row["supervised"]
    (macro,) = results["macro"]
    assert macro["findings"] == 3 and macro["interval"][0] < macro["held_out"] < macro["interval"][1]
    assert macro["gain"] == pytest.approx(macro["held_out"] - macro["swapped"])
    assert macro["gain_interval"][0] < macro["gain"] < macro["gain_interval"][1]
    assert (tmp_path / "auc.png").is_file() and "| Pleural effusion | unseen | 0 |" in page.read_text()


def test_only_findings_whose_others_share_their_row_count_for_the_gain_within_a_row() -> None:
    rows = [{"fold": fold, "held_out": 0.6 + fold / 100, "swapped": 0.6} for fold in range(len(FOLDS))]
    assert same_row_gains(rows) == pytest.approx([0.02, 0.04])
