import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bundle.ctfindings.losses.disease_prompts import DiseasePromptLoss


def test_loss_is_the_formula_written_out():
    torch.manual_seed(0)
    logits = torch.randn(4, 3, dtype=torch.float64)
    labels = torch.tensor([[1, 0, -1], [0, -1, 1], [-1, -1, -1], [1, 1, 0]])
    positive = [2.0, 50.0, 0.5]
    terms = []
    for i in range(4):
        for q in range(3):
            probability = 1 / (1 + math.exp(-logits[i, q]))
            if labels[i, q] == 1:
                terms.append(-min(positive[q], 20.0) * math.log(probability))
            elif labels[i, q] == 0:
                terms.append(-math.log(1 - probability))
    loss = DiseasePromptLoss(pos_weight=positive)(logits, labels)
    assert len(terms) == 7
    assert loss.item() == pytest.approx(np.mean(terms), rel=1e-6)


@pytest.mark.parametrize("content", [0.0, 1e6, float("nan")])
def test_unknown_label_never_changes_the_loss(content):
    logits = torch.tensor([[0.3, -1.2]])
    labels = torch.tensor([[1, -1]])
    poisoned = torch.tensor([[0.3, content]], requires_grad=True)
    loss = DiseasePromptLoss()(poisoned, labels)
    loss.backward()
    assert loss.item() == DiseasePromptLoss()(logits, labels).item()
    assert poisoned.grad is not None
    assert poisoned.grad[0, 1] == 0


def test_weight_of_rare_positives_is_capped_even_when_a_finding_never_occurs():
    logits, labels = torch.zeros(1, 2), torch.tensor([[1, 1]])
    loss = DiseasePromptLoss(pos_weight=[math.inf, 3.0], cap=7.0)(logits, labels)
    assert loss.item() == pytest.approx(math.log(2) * (7 + 3) / 2)


def test_nothing_known_gives_zero_without_gradient():
    loss = DiseasePromptLoss()(torch.randn(2, 3, requires_grad=True), -torch.ones(2, 3, dtype=torch.int64))
    assert loss.item() == 0
    assert not loss.requires_grad


def test_number_of_weights_must_be_the_number_of_findings():
    with pytest.raises(ValueError, match="pos_weight has 3 values for 2 findings"):
        DiseasePromptLoss(pos_weight=[1, 1, 1])(torch.zeros(1, 2), torch.tensor([[1, 0]]))


@pytest.mark.parametrize("value", [-1.0, math.nan])
def test_weight_that_is_negative_or_not_a_number_is_refused(value):
    with pytest.raises(ValueError, match="pos_weight"):
        DiseasePromptLoss(pos_weight=[1.0, value])


def test_weights_follow_the_device_but_stay_out_of_the_checkpoint():
    loss = DiseasePromptLoss(pos_weight=[2.0])
    assert len(list(loss.buffers())) == 1
    assert not loss.state_dict()


class Elsewhere(Tensor):
    """On another device, as far as a machine without one can tell: it must be brought over with ``to`` before it is
    used with others.
    """

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.__getitem__, F.binary_cross_entropy_with_logits):
            raise RuntimeError("tensors lie on two devices")
        if func is Tensor.to:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **(kwargs or {})).as_subclass(Tensor)
        return super().__torch_function__(func, types, args, kwargs or {})


def test_weights_follow_the_labels_to_their_device_for_nobody_moves_the_loss() -> None:
    loss = DiseasePromptLoss(pos_weight=[2.0, 3.0])
    logits, labels = torch.tensor([[0.3, -0.2], [1.0, 0.5]]), torch.tensor([[1, -1], [0, 1]])
    expected = loss(logits, labels)
    assert loss.pos_weight is not None
    loss.pos_weight = Tensor.as_subclass(loss.pos_weight, Elsewhere)
    torch.testing.assert_close(loss(logits, labels), expected)


def test_values_and_gradients_are_those_of_the_released_code(bundle_root):
    path = bundle_root.parent / "shared" / "reference" / "radfinder" / "radfinder_golden.npz"
    if not path.is_file():
        pytest.skip("no recorded reference values beside the checkout (../shared/reference/radfinder)")
    golden = np.load(path)
    image, prompts = (
        torch.tensor(golden[name], dtype=torch.float64, requires_grad=True) for name in ("in_pr_img", "in_pr_prompts")
    )
    labels = torch.tensor(golden["in_pr_labels"]).long()
    loss = DiseasePromptLoss(golden["in_pr_pos_weight"].tolist())
    # All are unit vectors; by wording, scan and question.
    logits = math.exp(2.3026) * torch.einsum("be,qve->vbq", image, prompts[:, :, 0] - prompts[:, :, 1])
    assert loss(logits.mean(0), labels).item() == pytest.approx(golden["pr_loss_mean_all_plain"].item(), rel=1e-5)
    value = loss(logits[0], labels)
    assert value.item() == pytest.approx(golden["pr_loss_first_only_plain"].item(), rel=1e-5)
    assert golden["pr_all_unknown_is_none"] and loss(logits[0], torch.full_like(labels, -1)).item() == 0
    # The recorded gradients are those with a weight for each finding, which multiplies the gradient of its logits.
    (gradient,) = torch.autograd.grad(value, logits)
    logits.backward(gradient * torch.tensor(golden["in_pr_question_weight"]))
    for found, name in ((image.grad, "pr_grad_img"), (prompts.grad, "pr_grad_prompts")):
        assert found is not None
        np.testing.assert_allclose(found.numpy(), golden[name], atol=1e-5 * abs(golden[name]).max())
