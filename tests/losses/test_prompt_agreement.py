"""PromptAgreementLoss: wordings of one statement attract each other, and repel other statements and its denial."""

import math

import pytest
import torch
from torch.nn import functional as F

from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.losses.prompt_agreement import PromptAgreementLoss


def test_loss_is_the_formula_written_out() -> None:
    torch.manual_seed(0)
    drawn = F.normalize(torch.randn(2, 3, 4, 5, dtype=torch.float64), dim=-1)
    places = [(polarity, draw, finding) for polarity in range(2) for draw in range(3) for finding in range(4)]
    terms = []
    for place in places:
        shares = {other: math.exp(float(drawn[place] @ drawn[other]) / 0.2) for other in places if other != place}
        same = [other for other in shares if (other[0], other[2]) == (place[0], place[2])]
        terms.append(-sum(math.log(shares[other] / sum(shares.values())) for other in same) / len(same))
    loss = PromptAgreementLoss(temperature=0.2)(drawn)
    assert loss.item() == pytest.approx(sum(terms) / len(terms), abs=1e-10)


def test_a_step_parts_a_statement_from_its_denial() -> None:
    torch.manual_seed(0)
    raw = torch.randn(2, 4, 3, 8, requires_grad=True)
    PromptAgreementLoss()(F.normalize(raw, dim=-1)).backward()
    assert raw.grad is not None
    with torch.no_grad():
        before = F.normalize(raw, dim=-1)
        after = F.normalize(raw - 5 * raw.grad, dim=-1)
    opposed = [F.cosine_similarity(rows[0].mean(0), rows[1].mean(0), dim=-1).mean().item() for rows in (before, after)]
    together = [(rows[:, 0] * rows[:, 1]).sum(-1).mean().item() for rows in (before, after)]
    assert opposed[1] < opposed[0] and together[1] > together[0]


def test_a_single_draw_gives_zero_without_gradient() -> None:
    loss = PromptAgreementLoss()(torch.randn(2, 1, 3, 4, requires_grad=True))
    assert loss.item() == 0 and not loss.requires_grad


def test_temperature_must_be_positive() -> None:
    with pytest.raises(ValueError, match=r"temperature: .* got 0"):
        PromptAgreementLoss(temperature=0)


def test_wordings_of_excluded_findings_take_no_part() -> None:
    drawn = torch.randn(2, 3, len(FINDING_NAMES), 8, requires_grad=True)
    PromptAgreementLoss(excluded=["Lung nodule"])(drawn).backward()
    assert drawn.grad is not None
    moved = drawn.grad.abs().sum(dim=(0, 1, 3)) > 0
    assert [name for name, each in zip(FINDING_NAMES, moved.tolist(), strict=True) if not each] == ["Lung nodule"]


def test_an_unknown_finding_cannot_be_excluded() -> None:
    with pytest.raises(ValueError, match="excluded: expected names of findings, got 'Nodule'"):
        PromptAgreementLoss(excluded=["Nodule"])
