"""The probe learns what the rows hold, at every fraction, and says what it cannot learn."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from bundle.ctfindings.downstream.classification import Classification, _metrics
from bundle.ctfindings.downstream.encoder_tuning import known_label_loss
from bundle.ctfindings.downstream.task_run import TaskRun
from bundle.ctfindings.metrics.bootstrap import Bootstrap
from tests.downstream.conftest import LabelEncoder


class Unread(LabelEncoder):
    def encode(self, studies, name=""):
        raise AssertionError("a scan was read")


def run(datalist: Path, task: Classification, encoder: LabelEncoder | None = None, **options) -> dict:
    return TaskRun(task, encoder or LabelEncoder(), datalist, datalist.parent / "out", resamples=20, **options).run()


def test_the_probe_learns_more_from_more_labels_and_chance_without_information(datalist: Path, capsys) -> None:
    task = Classification(["anatomy"], fractions=[25, 100], seeds=[0, 1], inverse_penalties=[0.01, 1])
    record = run(datalist, task)
    few, every = (record["fractions"][percent]["auroc"]["macro"] for percent in ("25", "100"))
    assert every["value"] > few["value"] > 0.7 and every["interval"][0] < every["value"] < every["interval"][1]
    assert len(few["by_seed"]["values"]) == 2 and len(every["by_seed"]["values"]) == 1
    assert few["by_seed"]["interval"][0] < few["value"] and every["by_seed"]["interval"] == [None, None]
    assert record["zero_shot"]["auroc"]["macro"]["value"] == 0.5
    # The rows of the field are zero.
    blind = run(datalist, Classification(["field"], fractions=[100], inverse_penalties=[1]))
    assert blind["fractions"]["100"]["auroc"]["macro"]["value"] == 0.5
    assert "Mean over" in capsys.readouterr().out


def _macro_auc(path: Path) -> float:
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = [column.removesuffix(" label") for column in rows[0] if column.endswith(" label")]
    return float(
        np.mean(
            [
                roc_auc_score([int(r[f"{n} label"]) for r in rows], [float(r[f"{n} probability"]) for r in rows])
                for n in names
            ]
        )
    )


def test_metrics_predictions_figure_and_page_are_written(datalist: Path) -> None:
    record = run(datalist, Classification(["anatomy"], fractions=[50, 100], seeds=[0, 1], inverse_penalties=[1]))
    folder = datalist.parent / "out"
    names = ["auroc_by_fraction.png", "metrics.json", "report.html"]
    drawn = ["predictions_100_0.csv", "predictions_50_0.csv", "predictions_50_1.csv"]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*names, *drawn])
    aucs = [_macro_auc(folder / name) for name in drawn[1:]]
    assert record["fractions"]["50"]["auroc"]["macro"]["by_seed"]["values"] == pytest.approx(aucs, abs=1e-4)
    assert json.loads((folder / "metrics.json").read_text(encoding="utf-8")) == record
    assert len((folder / "predictions_50_1.csv").read_text(encoding="utf-8").splitlines()) == 41
    assert "data:image/png" in (folder / "report.html").read_text(encoding="utf-8")


def test_a_finding_that_a_fraction_leaves_without_positives_is_named_and_left_out(datalist: Path) -> None:
    content = json.loads(datalist.read_text(encoding="utf-8"))
    for study in content["training"]:
        study["labels"][3] = 0
    datalist.write_text(json.dumps(content), encoding="utf-8")
    record = run(datalist, Classification(["anatomy"], fractions=[100], inverse_penalties=[1]))
    findings = record["fractions"]["100"]["auroc"]["classes"]
    assert "Pericardial effusion" not in findings and len(findings) == 17
    (line,) = record["warnings"]
    assert line.startswith("100 % of the labels (seed 0, 80 scans): without both labels: Pericardial effusion;")


def test_a_fraction_that_leaves_no_finding_is_refused_before_a_scan_is_read(datalist: Path) -> None:
    with pytest.raises(ValueError, match=r"classification: 1 % of the labels \(seed 0, 1 scans\) leave no class"):
        run(datalist, Classification(fractions=[1]), Unread())
    assert not (datalist.parent / "out").exists()


def test_a_validation_split_that_scores_no_finding_of_the_others_is_refused_before_a_scan_is_read(
    datalist: Path,
) -> None:
    content = json.loads(datalist.read_text(encoding="utf-8"))
    for split, column in (("training", 0), ("validation", 1), ("test", 0)):
        for index, study in enumerate(content[split]):
            study["labels"] = [-1] * 18
            study["labels"][column] = index % 2
    datalist.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match="no finding has both labels in every subset and in the validation split"):
        run(datalist, Classification(fractions=[100]), Unread())


def test_patients_of_two_splits_are_refused(datalist: Path) -> None:
    content = json.loads(datalist.read_text(encoding="utf-8"))
    content["test"][0]["patient"] = content["training"][0]["patient"]
    datalist.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match="share a patient"):
        run(datalist, Classification())


def test_features_that_the_encoder_lacks_are_refused(datalist: Path) -> None:
    with pytest.raises(ValueError, match="this encoder has no pathology"):
        run(datalist, Classification(["pathology"]), LabelEncoder(queries=0))


def test_unknown_labels_take_no_part_in_the_loss() -> None:
    logits = torch.tensor([[2.0, -1.0], [0.5, 3.0]], requires_grad=True)
    labels = torch.tensor([[1, -1], [-1, -1]])
    loss = known_label_loss(logits, labels)
    loss.backward()
    assert torch.isclose(loss, torch.log1p(torch.exp(torch.tensor(-2.0))))
    assert (logits.grad != 0).tolist() == [[True, False], [False, False]]
    assert known_label_loss(logits, torch.full((2, 2), -1)) == 0


def test_a_tuned_encoder_is_trained_once_for_each_subset(datalist: Path) -> None:
    tuned_on = []

    def tuning(encoder, studies, features, seed):
        tuned_on.append(len(studies))
        return encoder

    task = Classification(["anatomy"], fractions=[50, 100], seeds=[0, 1], inverse_penalties=[1], tuning=tuning)
    record = run(datalist, task)
    assert sorted(tuned_on) == [40, 40, 80]
    assert record["encoder"] == "tuned" and "zero_shot" not in record


def test_a_perfect_auroc_has_the_exact_limit_of_its_smaller_class() -> None:
    truth = np.array([[1, 0, 0, 0, 1, 0]]).T
    found = _metrics([truth * 1.0], truth, ["Emphysema"], Bootstrap([*"abcdef"], resamples=20))["auroc"]
    for entry in (found["classes"]["Emphysema"], found["macro"]):
        assert (entry["value"], entry["interval"]) == (1, [pytest.approx(0.025 ** (1 / 2)), 1])


def test_an_empty_or_misspelt_choice_is_refused_before_a_scan_is_read(datalist: Path) -> None:
    with pytest.raises(ValueError, match="features: expected some of anatomy, pathology, field, got 'anatomyy'"):
        Classification(["anatomyy"])
    with pytest.raises(ValueError, match=r"features: .* got none"):
        Classification([])
    with pytest.raises(ValueError, match="subset_seeds: expected at least one, got none"):
        run(datalist, Classification(seeds=[]), Unread())
