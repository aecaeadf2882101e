"""Scoring: the logit of a prompt pair from an anatomy row and its tokens."""

import math

import pytest
import torch
from torch import Tensor

from bundle.ctfindings.anatomy import ANATOMIES, THORAX, anatomy_index
from bundle.ctfindings.networks.scoring import FindingScorer

HEART = anatomy_index("heart")


def _inputs() -> dict[str, Tensor]:
    """One scan of three tokens in a plane; the heart has tokens 0 and 1."""
    anatomy = torch.zeros(1, len(ANATOMIES), 2)
    anatomy[0, HEART] = torch.tensor([0.6, 0.8])
    anatomy[0, THORAX] = torch.tensor([0.0, -1.0])
    membership = torch.zeros(1, 3, len(ANATOMIES), dtype=torch.bool)
    membership[0, :2, HEART] = True
    membership[0, :, THORAX] = True
    return {
        "anatomy": anatomy,
        "anatomy_valid": membership.any(1),
        "field": torch.tensor([[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]]),
        "membership": membership,
        "delta": torch.tensor([[[0.5, 0.25]]]),
        "rows": torch.tensor([HEART]),
    }


def test_logit_is_the_row_term_plus_the_log_mean_exp_of_the_tokens() -> None:
    scorer = FindingScorer(row_scale=2.0, token_scale=4.0)
    logits, tokens = scorer(**_inputs())
    # row: 2 (0.6 * 0.5 + 0.8 * 0.25) = 1; tokens: 4 (0.5, 0.25, -0.5) = 2, 1, -2, of which the heart has the first two
    torch.testing.assert_close(tokens[0, :, 0], torch.tensor([2.0, 1.0, -2.0]))
    assert logits.item() == pytest.approx(1 + math.log((math.exp(2) + math.exp(1)) / 2), abs=1e-5)


def test_sharpness_leads_from_the_mean_of_the_tokens_to_their_maximum() -> None:
    pooled = [
        FindingScorer(row_scale=2.0, token_scale=4.0, sharpness=r)(**_inputs())[0].item() - 1 for r in (1e-3, 1.0, 1e3)
    ]
    assert pooled[0] == pytest.approx(1.5, abs=1e-2) and pooled[2] == pytest.approx(2.0, abs=1e-2)
    assert pooled[0] < pooled[1] < pooled[2]
    with pytest.raises(ValueError, match=r"sharpness: .* got 0"):
        FindingScorer(sharpness=0)


def test_missing_anatomy_is_scored_on_the_thorax() -> None:
    inputs = _inputs()
    inputs["anatomy_valid"][0, HEART] = False
    inputs["membership"][0, :, HEART] = False
    inputs["anatomy"][0, HEART] = 0
    on_thorax = _inputs() | {"rows": torch.tensor([THORAX])}
    scorer = FindingScorer()
    torch.testing.assert_close(scorer(**inputs)[0], scorer(**on_thorax)[0])


def test_scan_without_any_body_is_scored_on_all_tokens_without_nan() -> None:
    inputs = _inputs()
    inputs["anatomy_valid"][:] = False
    inputs["membership"][:] = False
    inputs["anatomy"][:] = 0
    logits, _ = FindingScorer(row_scale=2.0, token_scale=4.0)(**inputs)
    assert logits.item() == pytest.approx(math.log(sum(math.exp(z) for z in (2, 1, -2)) / 3), abs=1e-5)


def test_one_strong_token_dominates_a_large_anatomy() -> None:
    field = torch.tensor([0.0, -1.0]).repeat(1, 1000, 1)
    field[0, 123] = torch.tensor([1.0, 0.0])
    membership = torch.ones(1, 1000, len(ANATOMIES), dtype=torch.bool)
    anatomy = torch.zeros(1, len(ANATOMIES), 2)
    delta = torch.tensor([[[1.0, 0.0]]])
    scorer = FindingScorer(token_scale=12.0, sharpness=2.0)
    logits, _ = scorer(anatomy, membership.any(1), field, membership, delta, torch.tensor([HEART]))
    assert logits.item() == pytest.approx(12 - math.log(1000) / 2, abs=1e-4)  # a plain mean would give 0.012


def test_pairs_are_scored_each_on_its_own_anatomy() -> None:
    inputs = _inputs()
    scorer = FindingScorer()
    both = scorer(**inputs | {"delta": inputs["delta"].repeat(1, 2, 1), "rows": torch.tensor([HEART, THORAX])})[0]
    for column, row in enumerate((HEART, THORAX)):
        torch.testing.assert_close(both[:, column], scorer(**inputs | {"rows": torch.tensor([row])})[0][:, 0])


def test_gradient_reaches_the_scales_and_stays_out_of_tokens_of_other_anatomies() -> None:
    inputs = _inputs()
    inputs["field"].requires_grad_()
    scorer = FindingScorer()
    scorer(**inputs)[0].sum().backward()
    assert scorer.log_row_scale.grad.abs() > 0 and scorer.log_token_scale.grad.abs() > 0
    assert (inputs["field"].grad[0, 2] == 0).all() and (inputs["field"].grad[0, :2] != 0).any()


def test_a_scan_of_more_tokens_than_half_precision_counts_is_scored_in_half_precision() -> None:
    tokens = 70_000  # configs/networks/base.json has 73,920; half precision ends at 65,504
    inputs = _inputs()
    field = torch.zeros(1, tokens, 2)
    field[0, 0] = torch.tensor([1.0, 0.0])
    field[0, 1:] = torch.tensor([-1.0, 0.0])
    membership = torch.ones(1, tokens, len(ANATOMIES), dtype=torch.bool)
    inputs |= {"field": field, "membership": membership, "delta": torch.tensor([[[1.0, 0.0]]])}
    half = {name: value.half() if value.is_floating_point() else value for name, value in inputs.items()}
    logits, _ = FindingScorer(row_scale=1.0, token_scale=15.0)(**half)
    # row: 0.6; tokens: one of 15 and the rest of -15, so that the mean of their exponentials is exp(15) / 70,000
    assert logits.item() == pytest.approx(0.6 + 15 - math.log(tokens), abs=0.02)
