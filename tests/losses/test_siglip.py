"""SigLIP by hand and against the recorded values of the released code."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bundle.ctfindings.losses.composite import CompositeLoss
from bundle.ctfindings.losses.siglip import SigLIPLoss


def loss_of(scan, report, ids=None, scan_valid=None, report_valid=None, **settings):
    batch = len(scan)
    every = torch.ones(batch, dtype=torch.bool)
    ids = torch.arange(batch) if ids is None else torch.tensor(ids)
    valid = [every if given is None else torch.tensor(given) for given in (scan_valid, report_valid)]
    return SigLIPLoss(**settings).double()(scan, valid[0], report, valid[1], ids)


def rows(seed: int, batch: int = 4) -> torch.Tensor:
    return F.normalize(
        torch.randn(batch, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1
    )


def softplus(value: float) -> float:
    return math.log1p(math.exp(value))


def test_a_single_pair_is_one_logistic_question():
    scan, report = rows(0, 1), rows(1, 1)
    cosine = float(scan[0] @ report[0])
    assert loss_of(scan, report).item() == pytest.approx(softplus(-(10 * cosine - 10)))


def test_every_other_report_is_a_negative_of_the_scan():
    scan = torch.eye(2, dtype=torch.float64)
    # cosines [[0.6, 0.8], [0.8, -0.6]], scale 2, bias -1: logits [[0.2, 0.6], [0.6, -2.2]].
    report = torch.tensor([[0.6, 0.8], [0.8, -0.6]], dtype=torch.float64)
    expected = ((softplus(-0.2) + softplus(0.6)) + (softplus(0.6) + softplus(2.2))) / 2
    assert loss_of(scan, report, scale=2.0, bias=-1.0).item() == pytest.approx(expected)


def test_with_the_initial_bias_the_positives_dominate_at_random():
    scan, report = rows(0, 64), rows(1, 64)
    assert loss_of(scan, report).item() == pytest.approx(10, abs=1)


def test_a_duplicate_of_the_report_is_no_negative():
    scan, report = rows(0), rows(1)
    logits = 2 * scan @ report.T - 1
    left_out = loss_of(scan, report, scale=2.0, bias=-1.0) - loss_of(
        scan, report, ids=[5, 6, 5, 7], scale=2.0, bias=-1.0
    )
    assert left_out.item() == pytest.approx(float(F.softplus(logits[0, 2]) + F.softplus(logits[2, 0])) / 4)


@pytest.mark.parametrize("which", ["scan_valid", "report_valid"])
def test_a_scan_without_report_or_a_report_without_scan_is_neither_positive_nor_negative(which):
    scan, report = rows(0), rows(1)
    report[1] = math.nan if which == "report_valid" else 1.0
    kept = [0, 2, 3]
    assert loss_of(scan, report, **{which: [True, False, True, True]}).item() == pytest.approx(
        loss_of(scan[kept], report[kept]).item()
    )


def test_no_pair_gives_zero_without_gradient():
    loss = loss_of(rows(0).requires_grad_(), rows(1), report_valid=[False] * 4)
    assert loss.item() == 0 and not loss.requires_grad


def test_order_of_the_batch_does_not_matter():
    scan, report, order = rows(0), rows(1), [2, 0, 3, 1]
    ids = [5, 6, 5, 7]
    shuffled = loss_of(scan[order], report[order], ids=[ids[i] for i in order])
    assert shuffled.item() == pytest.approx(loss_of(scan, report, ids=ids).item())


def test_scale_and_bias_are_learned_and_saved():
    loss = SigLIPLoss()
    assert {name: round(value.item(), 4) for name, value in loss.state_dict().items()} == {
        "log_scale": 2.3026,
        "bias": -10.0,
    }
    composite = CompositeLoss({"siglip": loss}, {"siglip": 1.0})
    assert {"losses.siglip.log_scale", "losses.siglip.bias"} <= set(composite.state_dict())


def test_a_scale_that_is_no_positive_number_is_refused():
    with pytest.raises(ValueError, match=r"scale: .* got 0"):
        SigLIPLoss(scale=0)


def test_values_and_gradients_are_those_of_the_released_code(bundle_root):
    path = bundle_root.parent / "shared" / "reference" / "radfinder" / "radfinder_golden.npz"
    if not path.is_file():
        pytest.skip("no recorded reference values beside the checkout (../shared/reference/radfinder)")
    golden = np.load(path)
    scan, report = (
        torch.tensor(golden[name], dtype=torch.float64, requires_grad=True) for name in ("in_sig_img", "in_sig_txt")
    )
    every, ids = torch.ones(4, dtype=torch.bool), torch.arange(4)
    loss = SigLIPLoss().double()
    with torch.no_grad():
        loss.log_scale.fill_(2.3026)
    value = loss(F.normalize(scan, dim=-1), every, F.normalize(report, dim=-1), every, ids)
    value.backward()
    assert value.item() == pytest.approx(golden["sig_loss"].item(), rel=1e-5)
    for found, name in ((scan.grad, "img"), (report.grad, "txt"), (loss.log_scale.grad, "t"), (loss.bias.grad, "b")):
        np.testing.assert_allclose(found.numpy(), golden[f"sig_grad_{name}"], atol=1e-5)
    # The losses on the outputs of the whole published network with formula weights.
    scan, report = torch.tensor(golden["global_embed"]), torch.tensor(golden["text_report_embed"][:2])
    every, ids = torch.ones(2, dtype=torch.bool), torch.arange(2)
    value = loss.float()(F.normalize(scan, dim=-1), every, F.normalize(report, dim=-1), every, ids)
    assert value.item() == pytest.approx(golden["siglip_e2e_loss"].item(), rel=1e-5)
    # Reports that are all the same text are no negatives: what is left is the part of the own reports.
    scan, report = (
        F.normalize(torch.tensor(golden[name], dtype=torch.float64), dim=-1) for name in ("in_sig_img", "in_sig_txt")
    )
    every, loss = torch.ones(4, dtype=torch.bool), loss.double()
    own = loss(scan, every, report, every, torch.zeros(4, dtype=torch.int64)).item()
    assert own == pytest.approx(golden["sig_pos"].item(), rel=1e-5)
    assert loss(scan, every, report, every, torch.arange(4)).item() - own == pytest.approx(
        golden["sig_neg"].item(), rel=1e-5
    )
