"""Subsets of labels: nested, whole patients, and with the prevalence of all."""

import numpy as np
import pytest
import torch

from bundle.ctfindings.downstream.label_fractions import label_fractions


def studies(count: int = 400) -> list[dict]:
    """Studies of patients with two scans each; finding i has a prevalence between 5 and 50 %."""
    random = np.random.default_rng(0)
    labels = random.random((count, 18)) < np.linspace(0.05, 0.5, 18)
    return [{"patient": str(index // 2), "labels": torch.tensor(row.astype(int))} for index, row in enumerate(labels)]


@pytest.mark.parametrize("seed", [0, 1])
def test_smaller_subsets_lie_in_larger_ones_and_patients_are_whole(seed: int) -> None:
    found = label_fractions(studies(), [5, 25, 100], seed)
    assert [len(found[percent]) for percent in (5, 25, 100)] == [20, 100, 400]
    assert set(found[5]) < set(found[25]) < set(found[100])
    for subset in found.values():
        assert {index ^ 1 for index in subset} == set(subset)


def test_prevalence_is_nearer_to_that_of_all_than_in_random_subsets() -> None:
    given = studies()
    labels = np.stack([study["labels"].numpy() for study in given])

    def distance(subset: list[int]) -> float:
        return float(np.abs(labels[subset].mean(axis=0) - labels.mean(axis=0)).mean())

    random = np.random.default_rng(0)
    drawn = [distance(list(random.permutation(400)[:40])) for _ in range(20)]
    assert all(distance(label_fractions(given, [10], seed)[10]) < min(drawn) for seed in range(5))


def test_another_seed_draws_other_patients_and_the_same_seed_the_same() -> None:
    for count in (24, 400):
        first, again, other = (label_fractions(studies(count), [25], seed)[25] for seed in (0, 0, 1))
        assert first == again != other


def test_a_fraction_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"fractions: expected percentages above 0 and up to 100, got 120"):
        label_fractions(studies(8), [5, 120], 0)
