"""The published protocols: which prompt, findings, thresholds and columns each has, and that they are never mixed."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from bundle.ctfindings.anatomy import ANATOMIES, anatomy_index
from bundle.ctfindings.findings import FINDING_NAMES, LABEL_SETS, TEMPLATES, finding_index
from bundle.ctfindings.metrics.bootstrap import Bootstrap
from bundle.ctfindings.metrics.published_protocols import (
    OPTIMISTIC,
    PROTOCOLS,
    ZeroShotScores,
    format_protocol,
    protocol_record,
)

C, S = len(FINDING_NAMES), 40
SIXTEEN = [finding_index(name) for name in LABEL_SETS["ctrate16_fvlm"]]
NODULE, CARDIOMEGALY = finding_index("Lung nodule"), finding_index("Cardiomegaly")


def answers(prefix: str, seed: int) -> ZeroShotScores:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, (S, C))
    by_template = (labels - 0.5)[:, None] + random.normal(0, 1, (S, 7, C))
    return ZeroShotScores(
        ids=[f"{prefix}{i}" for i in range(S)],
        patients=[f"p{prefix}{i}" for i in range(S)],
        labels=labels,
        logits=by_template.mean(axis=1),
        template_logits=by_template,
        anatomy_valid=np.ones((S, len(ANATOMIES)), dtype=bool),
    )


SCORED, CALIBRATION = answers("test", 0), answers("validation", 1)


def record_of(name: str, scored: ZeroShotScores = SCORED, **options: Any) -> dict[str, Any]:
    given = {"calibration": CALIBRATION, "templates": [template.id for template in TEMPLATES], **options}
    return protocol_record(name, scored, bootstrap=Bootstrap(scored.patients, resamples=50), **given)


def row_of(record: dict[str, Any], finding: int) -> dict[str, Any]:
    return next(row for row in record["findings"] if row["finding"] == FINDING_NAMES[finding])


@pytest.mark.parametrize(("name", "template"), [("radfinder", None), ("fvlm", 4), ("ct-clip", 6)])
def test_each_protocol_scores_with_its_own_prompts(name: str, template: int | None) -> None:
    logits = SCORED.logits if template is None else SCORED.template_logits[:, template]
    expected = roc_auc_score(SCORED.labels[:, NODULE], logits[:, NODULE])
    assert row_of(record_of(name), NODULE)["auc"] == pytest.approx(expected)


def test_one_calcification_is_scored_by_the_larger_of_two_findings() -> None:
    aorta, coronary = finding_index("Arterial wall calcification"), finding_index("Coronary artery wall calcification")
    larger = np.maximum(SCORED.logits[:, aorta], SCORED.logits[:, coronary])
    record = record_of("radchest")
    assert row_of(record, aorta)["auc"] == pytest.approx(roc_auc_score(SCORED.labels[:, aorta], larger))
    assert len(record["findings"]) == 16 and any("the larger one of it and" in note for note in record["notes"])
    assert row_of(record_of("radfinder"), aorta)["auc"] == pytest.approx(
        roc_auc_score(SCORED.labels[:, aorta], SCORED.logits[:, aorta])
    )


def test_each_protocol_means_over_its_own_findings() -> None:
    for name in PROTOCOLS:
        record = record_of(name)
        expected = LABEL_SETS[{"fvlm": "ctrate16_fvlm", "radchest": "radchest16"}.get(name.split("-c")[0], "ctrate18")]
        assert tuple(record["findings_in_mean"]) == tuple(row["finding"] for row in record["findings"]) == expected
        assert record["macro"]["auc"] == pytest.approx(np.mean([row["auc"] for row in record["findings"]]))


def test_a_calibrated_protocol_never_reads_the_scored_labels_for_its_thresholds() -> None:
    flipped = replace(SCORED, labels=1 - SCORED.labels)
    first, second = record_of("radfinder-calibrated"), record_of("radfinder-calibrated", flipped)
    assert [row["threshold"] for row in first["findings"]] == [row["threshold"] for row in second["findings"]]
    assert not first["optimistic"] and first["notes"] == []


@pytest.mark.parametrize("name", ["fvlm", "ct-clip"])
def test_thresholds_of_the_published_tables_are_tuned_on_the_scored_scans_and_the_output_says_so(name: str) -> None:
    record = record_of(name)
    assert record["optimistic"] and OPTIMISTIC in record["notes"] and "optimistic" in format_protocol(record)
    label = SCORED.labels[:, NODULE]
    probability = 1 / (1 + np.exp(-SCORED.template_logits[:, 4 if name == "fvlm" else 6, NODULE]))
    distance, best = np.inf, 0.0
    for limit in np.linspace(0, 1, 100):
        present = probability > limit
        here = np.hypot(1 - present[label == 1].mean(), present[label == 0].mean())
        if here <= distance + 1e-12 if name == "fvlm" else here < distance - 1e-12:
            distance, best = here, float(limit)
    row = row_of(record, NODULE)
    assert row["threshold"] == pytest.approx(best, abs=1e-9)
    assert row["accuracy"] == pytest.approx(np.mean((probability > best) == label))


def test_radfinder_tunes_on_the_scored_scans_and_calls_nothing_positive_that_is_worse_than_chance() -> None:
    label = SCORED.labels[:, NODULE]
    reversed_logits = SCORED.logits.copy()
    reversed_logits[:, NODULE] = -np.sort(-reversed_logits[:, NODULE])[np.argsort(np.argsort(label))]
    worse = replace(SCORED, logits=reversed_logits)
    row = row_of(record_of("radfinder", worse), NODULE)
    assert row["auc"] < 0.5 and (row["sensitivity"], row["specificity"]) == (0.0, 1.0)
    record = record_of("radfinder")
    assert record["optimistic"] and "Youden on the scored scans" in format_protocol(record)
    ours = record_of("radfinder-calibrated")
    assert ours["macro"]["auc"] == record["macro"]["auc"]
    assert ours["macro"]["balanced_accuracy"] <= record["macro"]["balanced_accuracy"]


def test_radfinder_chooses_its_thresholds_again_in_every_resample() -> None:
    """Labels that the scores say nothing of: thresholds that follow each resample keep it above chance."""
    random = np.random.default_rng(2)
    blind = replace(SCORED, labels=random.integers(0, 2, (S, C)))
    macro = record_of("radfinder", blind)["macro"]
    fixed = record_of("radfinder-calibrated", blind)["macro"]
    assert "balanced_accuracy_interval" not in fixed
    low, high = macro["balanced_accuracy_interval"]
    bootstrap = Bootstrap(blind.patients, resamples=50)
    expected = []
    for weight in bootstrap.weights:
        rows = np.repeat(np.arange(S), weight)
        scores, labels = blind.logits[rows], blind.labels[rows]
        best = []
        for finding in range(C):
            fpr, tpr, _ = roc_curve(labels[:, finding], scores[:, finding])
            best.append((1 + (tpr - fpr).max()) / 2)
        expected.append(np.mean(best))
    assert (low, high) == pytest.approx(tuple(np.percentile(expected, [2.5, 97.5])))
    assert low > 0.5 and "anew in every resample" in format_protocol(record_of("radfinder", blind))


def test_accuracies_of_different_protocols_do_not_share_a_column() -> None:
    names = {name: set(record_of(name)["macro"]) for name in PROTOCOLS}
    assert "accuracy" not in names["radfinder"] and "balanced_accuracy" in names["radfinder"]
    assert all("balanced_accuracy" not in names[name] and "accuracy" in names[name] for name in ("fvlm", "ct-clip"))


def test_a_missing_anatomy_scores_zero_in_fvlm_alone() -> None:
    valid = SCORED.anatomy_valid.copy()
    valid[:5, anatomy_index("heart")] = False
    without_heart = replace(SCORED, anatomy_valid=valid)
    assert "15 scores are 0" in record_of("fvlm", without_heart)["notes"][1], (
        "three findings of the heart in five scans"
    )
    scores = np.where(np.arange(S) < 5, -np.inf, SCORED.template_logits[:, 4, CARDIOMEGALY])
    expected = roc_auc_score(SCORED.labels[:, CARDIOMEGALY], np.exp(scores))
    assert row_of(record_of("fvlm", without_heart), CARDIOMEGALY)["auc"] == pytest.approx(expected)
    assert record_of("ct-clip", without_heart) == record_of("ct-clip")


def test_a_model_with_one_template_scores_with_that_one() -> None:
    single, other = (replace(given, template_logits=given.template_logits[:, :1]) for given in (SCORED, CALIBRATION))
    record = record_of("fvlm", single, calibration=other, templates=("fvlm",))
    assert record["prompts"] == "template fvlm"
    with pytest.raises(ValueError, match="scores with template T7; the model has T1, T2"):
        record_of("ct-clip", templates=("T1", "T2"))


def test_what_would_be_unfair_or_unknown_is_refused() -> None:
    with pytest.raises(
        ValueError, match="protocol 'clip' is unknown; choose one of radfinder, radfinder-calibrated, fvlm, ct-clip"
    ):
        record_of("clip")
    with pytest.raises(ValueError, match="give a calibration split"):
        record_of("radfinder-calibrated", calibration=None)


def test_a_finding_without_a_threshold_is_named_although_its_protocol_leaves_others_out() -> None:
    # Of the 16 findings of radchest16 this is the 15th, of all it is the 17th.
    unknown = replace(
        CALIBRATION, labels=np.where(np.arange(C) == finding_index("Bronchiectasis"), -1, CALIBRATION.labels)
    )
    with pytest.warns(UserWarning, match=r"classes: Bronchiectasis \(0 scans with a known label\)$"):
        record_of("radchest-calibrated", calibration=unknown)


def test_the_record_is_strict_json() -> None:
    unknown = replace(SCORED, labels=np.where(np.arange(C) == NODULE, -1, SCORED.labels))
    with pytest.warns(UserWarning, match="findings without both classes"):
        record = record_of("ct-clip", unknown)
    assert json.loads(json.dumps(record, allow_nan=False))["findings"][NODULE]["auc"] is None


def test_a_mean_over_fewer_findings_than_the_protocol_has_says_so() -> None:
    one_class = replace(SCORED, labels=np.where(np.arange(C) == NODULE, 0, SCORED.labels))
    with pytest.warns(UserWarning, match="Lung nodule"):
        record = record_of("ct-clip", one_class)
    note = "the mean AUC is over 17 of 18 findings: the scored scans do not show both classes of Lung nodule"
    assert note in record["notes"] and note in format_protocol(record)


def test_means_and_their_intervals_are_over_the_same_findings() -> None:
    one_class = replace(SCORED, labels=np.where(np.arange(C) == NODULE, 0, SCORED.labels))
    with pytest.warns(UserWarning, match="Lung nodule"):
        record = record_of("radfinder", one_class)
    macro, rows = record["macro"], record["findings"]
    assert "specificity_interval" in macro and any("the means are over 17 of 18" in note for note in record["notes"])
    assert rows[NODULE]["specificity"] is None
    others = [row["specificity"] for row in rows if row["finding"] != "Lung nodule"]
    assert macro["specificity"] == pytest.approx(np.mean(others))


def test_a_finding_that_the_model_does_not_score_is_in_no_mean() -> None:
    left_out = ["Medical material", "Lymphadenopathy"]
    record = record_of("ct-clip", not_scored=left_out)
    assert (
        record["findings_in_mean"] == [name for name in FINDING_NAMES if name not in left_out]
        and len(record["findings"]) == 16
    )
    assert record["macro"]["auc"] == pytest.approx(
        np.mean([row_of(record_of("ct-clip"), column)["auc"] for column in SIXTEEN])
    )
    assert (
        "the model does not score Medical material, Lymphadenopathy; the means are over 16 findings" in record["notes"]
    )
    assert record_of("fvlm", not_scored=left_out) == record_of("fvlm")
