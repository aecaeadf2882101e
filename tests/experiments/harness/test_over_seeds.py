"""Intervals over the seeds of two variants, and which differences are bold."""

import pytest

from experiments.harness.cells import seeded_difference_cell
from experiments.harness.over_seeds import seed_interval


def values(*numbers: float | None) -> dict[str, dict[str, float | None]]:
    return {str(seed): {"auc": number} for seed, number in enumerate(numbers)}


def test_interval_over_three_seeds_is_that_of_student() -> None:
    # Differences 1, 2, 3: mean 2, SD 1, and the 97.5 % quantile of t with 2 degrees of freedom is 4.3027.
    found = seed_interval(values(2.0, 4.0, 6.0), values(1.0, 2.0, 3.0), "auc")
    assert found == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-4)


def test_seeds_are_paired_and_one_seed_has_no_interval() -> None:
    assert seed_interval(values(1.0), values(0.0), "auc") is None
    assert seed_interval(values(1.0, None), values(0.0, 0.0), "auc") is None
    assert seed_interval({"7": {"auc": 1.0}}, values(0.0, 0.0), "auc") is None


@pytest.mark.parametrize(
    ("over_seeds", "primary", "bold"),
    [
        ((0.01, 0.02), ("auc",), True),
        ((-0.01, 0.02), ("auc",), False),
        ((0.01, 0.02), (), False),
        (None, ("auc",), False),
    ],
)
def test_a_difference_is_bold_only_if_the_seeds_agree(over_seeds, primary, bold: bool) -> None:  # type: ignore[no-untyped-def]
    row = {"auc": 0.015, "auc_interval": [0.01, 0.02]}
    assert seeded_difference_cell(row, "auc", primary, over_seeds).startswith("**") == bold
