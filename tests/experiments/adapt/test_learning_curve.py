"""The learning curve scores each scan by heads that saw no scan of its patient, and compares a hybrid with its twin."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from bundle.ctfindings.adaptation.adapt import Start
from bundle.ctfindings.adaptation.head_training import Head, HeadTraining, score
from bundle.ctfindings.adaptation.held_scans import HeldScans
from bundle.ctfindings.findings import FINDINGS
from bundle.ctfindings.scan.lung_mask import LUNG, TISSUE
from experiments.adapt.hu_statistics import hu_features, hu_statistics
from experiments.adapt.joined_features import only_features, second_stage_features, with_features
from experiments.adapt.learning_curve import groups_of, held_out_logits, mean_auc, paired_auc
from tests.networks.conftest import encoder, make_image, make_model  # noqa: F401

PATIENTS, OF_EACH = 4, 3
GROUPS = np.repeat(np.arange(PATIENTS), OF_EACH)


def start_of(model: Any, labels: np.ndarray) -> Start:
    """Four patients with a twin and two hybrids each, and noise as their features."""
    random = torch.Generator().manual_seed(0)
    scans = PATIENTS * OF_EACH
    pooled, tokens = (torch.randn(scans, *shape, generator=random) for shape in ((6, 36), (5, 12)))
    members = torch.ones(5, 6, dtype=torch.bool)
    held = HeldScans(pooled, torch.ones(scans, 6, dtype=torch.bool), list(tokens.half()), [members] * scans)
    deltas = torch.nn.functional.normalize(torch.ones(len(FINDINGS), 8), dim=-1)
    prompts: Any = SimpleNamespace(templates=deltas, drawn=lambda batch, random: deltas.expand(batch, -1, -1))
    studies = [
        {"id": str(scan), "patient": str(scan // OF_EACH), "labels": labels[scan]}
        | ({"twin": str(scan - scan % OF_EACH)} if scan % OF_EACH else {})
        for scan in range(scans)
    ]
    return Start(Head(model.image, model.scorer), held, prompts, studies, {}, True, None)


def some_labels() -> np.ndarray:
    """Finding 0 in every first hybrid, finding 1 in every second; the twin has neither."""
    labels = np.full((PATIENTS * OF_EACH, len(FINDINGS)), -1)
    labels[::OF_EACH, :2], labels[1::OF_EACH, 0], labels[2::OF_EACH, 1] = 0, 1, 1
    return labels


@pytest.fixture
def training() -> HeadTraining:
    return HeadTraining("linear_probe", [0.01], steps=10, validate_every=5, folds=2, learning_rates=[0.02])


def test_labels_of_a_patient_do_not_reach_its_own_scores(make_model: Any, training: HeadTraining) -> None:  # noqa: F811
    model, labels = make_model(), some_labels()
    changed = labels.copy()
    changed[:OF_EACH][labels[:OF_EACH] >= 0] = 1 - labels[:OF_EACH][labels[:OF_EACH] >= 0]
    starts = [start_of(model, given) for given in (labels, changed)]
    one, two = (held_out_logits(training, start, GROUPS, [4, 9], 2, seed=0) for start in starts)
    assert one.shape == (2, 2, PATIENTS * OF_EACH, len(FINDINGS))
    np.testing.assert_array_equal(one[:, :, :OF_EACH], two[:, :, :OF_EACH])
    assert (one[1, :, OF_EACH:, 0] != two[1, :, OF_EACH:, 0]).all()  # With nine scans, every other head saw it.


def test_more_scans_than_the_other_patients_have_are_refused(make_model: Any, training: HeadTraining) -> None:  # noqa: F811
    with pytest.raises(ValueError, match="--sizes 10: a group leaves 9 scans; give fewer"):
        held_out_logits(training, start_of(make_model(), some_labels()), GROUPS, [10], 1, seed=0)


def test_pairs_compare_within_a_patient_and_the_auc_over_patients(make_model: Any) -> None:  # noqa: F811
    start, logits = start_of(make_model(), some_labels()), np.zeros((1, PATIENTS * OF_EACH, len(FINDINGS)))
    logits[0] += np.repeat(10 * np.arange(PATIENTS), OF_EACH)[:, None]  # Patients differ more than their scans.
    logits[0, 1::OF_EACH, 0] += 1
    logits[0, 2, 1] -= 1
    weights = np.ones((1, PATIENTS * OF_EACH))
    np.testing.assert_allclose(paired_auc(logits, start, [0, 1])(weights), [[1.0, (0 + 0.5 * 3) / 4]])
    np.testing.assert_allclose(mean_auc(logits, some_labels(), [0, 1])(weights)[0, 0], 10 / 16)


def test_hu_statistics_are_those_of_lungs_and_body(make_model: Any, training: HeadTraining) -> None:  # noqa: F811
    regions = torch.zeros(1, 4, 4, 4, dtype=torch.uint8)
    regions[0, :2], regions[0, :, 0] = LUNG, 0
    regions[0, 2] = TISSUE
    image = torch.full((1, 4, 4, 4), 0.1)
    image[0, 2] = 0.5
    study = {"image": image, "image_affine": torch.eye(4), "regions": regions, "regions_affine": torch.eye(4)}
    found = hu_statistics(study, (-1000, 1000))
    lungs, body = np.split(found, 2)
    assert lungs[0] == pytest.approx(-800) and lungs[1] == pytest.approx(0, abs=1e-6)
    assert body[0] == pytest.approx((24 * -800 + 16 * 0) / 40, abs=1e-3)

    model, scans = make_model(), PATIENTS * OF_EACH
    start = start_of(model, some_labels())
    dataset: Any = [{**study, "image": image * (1 + index / 20)} for index in range(scans)]
    start = only_features(start, hu_features(dataset, (-1000, 1000)))
    training.prepare(start.head)
    logits = held_out_logits(training, start, GROUPS, [6], 1, seed=0)
    assert start.scans.pooled.shape == (scans, 6, len(found)) and np.isfinite(logits).all()


def test_features_from_zero_change_no_answer_and_are_learned_from(make_model: Any, training: HeadTraining) -> None:  # noqa: F811
    labels = some_labels()
    start, told = start_of(make_model(), labels), torch.from_numpy(labels[:, :1] == 1).float() * 2 - 1
    joined = with_features(start, told.repeat(1, 60), from_zero=True)
    for each in (start, joined):
        training.prepare(each.head)
    scans = np.arange(len(labels))
    before, after = (score(each.head, each.scans, scans, each.prompts, 4) for each in (start, joined))
    np.testing.assert_allclose(after, before, atol=1e-5)
    logits = held_out_logits(training, joined, GROUPS, [9], 1, seed=0)[0, 0, :, 0]
    assert logits[1::OF_EACH].min() > logits[::OF_EACH].max()  # The features are the labels.


def test_groups_hold_out_whole_patients() -> None:
    patients = [str(index // 2) for index in range(12)]
    groups = groups_of(patients, 3, seed=0)
    assert (np.bincount(groups) == 4).all() and (groups[::2] == groups[1::2]).all()
    assert groups_of(patients, None, seed=0).tolist() == [index // 2 for index in range(12)]


def test_the_second_stage_is_read_where_the_body_is() -> None:
    # 2 x 2 x 2 tokens of 16 x 16 x 8 voxels; the body is the upper half along X, the cells there are bright.
    body = torch.zeros(1, 2, 2, 2, dtype=torch.uint8)
    body[0, 1] = TISSUE
    random = torch.Generator().manual_seed(0)
    dataset: Any = []
    for index in range(3):
        cells = torch.randn(3, 2, 2, 2, generator=random)
        cells[:, 0] = 100.0 * (index + 1)  # Outside
        image = torch.zeros(1, 32, 32, 16)
        affines = {"image_affine": torch.eye(4), "regions_affine": torch.diag(torch.tensor([16.0, 16, 8, 1]))}
        dataset.append({"image": image, "second_stage": cells.half(), "regions": body, **affines})
    found = second_stage_features(dataset, (16, 16, 8), 2, seed=0)
    for study in dataset:
        study["second_stage"][:, 0] = -100.0
    torch.testing.assert_close(second_stage_features(dataset, (16, 16, 8), 2, seed=0), found)
    assert found.shape == (3, 6)
