"""The image-text model: what comes out for what goes in, in training and in evaluation."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bundle.ctfindings.anatomy import THORAX, anatomy_index
from bundle.ctfindings.networks.correlation_explorer import CorrelationExplorer
from bundle.ctfindings.networks.image.pooling import token_membership
from bundle.ctfindings.networks.text.prompts import mean_over_templates, template_bank
from bundle.ctfindings.networks.vision_language import VisionLanguageModel, temperature

ALWAYS = {"anatomy", "anatomy_valid", "anatomy_logits", "membership", "temperature", "temperature_global"}
LUNG, HEART = anatomy_index("lung"), anatomy_index("heart")


@pytest.fixture
def model(make_model: Callable[[], VisionLanguageModel]) -> VisionLanguageModel:
    return make_model().eval()


@pytest.fixture
def scans() -> Tensor:
    return torch.rand(2, 1, 16, 8, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def mask() -> Tensor:
    """Two bodies; only the first has a lung, and neither has a heart."""
    mask = torch.full((2, 1, 16, 8, 16), 6, dtype=torch.uint8)
    mask[0, 0, :4, :4, :8] = 1
    return mask


def test_image_alone_gives_rows_and_the_logits_of_the_scoring_prompts(
    model: VisionLanguageModel, scans: Tensor
) -> None:
    outputs = model(scans)
    assert set(outputs) == ALWAYS | {"logits"}
    assert outputs["membership"] is None
    assert outputs["anatomy"].shape == (2, 6, 8) and outputs["anatomy_logits"].shape == (2, 8 * 4 * 8, 6)
    prompts = mean_over_templates(template_bank(model.text))
    encoded = model.image.encode_scan(scans)
    deltas = (prompts[:, 0] - prompts[:, 1]).expand(2, -1, -1)
    expected, _ = model.scorer(
        encoded.anatomy, encoded.anatomy_valid, encoded.field, encoded.membership, deltas, model.finding_anatomy
    )
    torch.testing.assert_close(outputs["logits"], expected)


def test_training_asks_drawn_wordings_and_not_the_scoring_prompts(
    model: VisionLanguageModel, scans: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.train()
    asked: set[str] = set()
    features = model.text.features
    monkeypatch.setattr(model.text, "features", lambda texts: (asked.update(texts), features(texts))[1])
    outputs = model(scans)
    assert set(outputs) == ALWAYS | {"prompt_drawn", "finding_logits_drawn", "token_logits_drawn", "anatomy_tokens"}
    assert outputs["finding_logits_drawn"].shape == (2, 18)
    assert asked and "There is lung nodule." not in asked
    assert not torch.equal(model(scans)["finding_logits_drawn"], outputs["finding_logits_drawn"])


def test_without_drawn_prompts_a_training_step_encodes_no_wording(
    model: VisionLanguageModel, scans: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "draws_prompts", False)
    monkeypatch.setattr(model.text, "features", lambda texts: pytest.fail(f"encodes {texts}"))
    assert set(model.train()(scans)) == ALWAYS


def test_mask_decides_which_anatomies_are_there(model: VisionLanguageModel, scans: Tensor, mask: Tensor) -> None:
    outputs = model(scans, mask)
    assert torch.equal(outputs["membership"], token_membership(mask, (2, 2, 2)))
    assert outputs["anatomy_valid"][:, LUNG].tolist() == [True, False]
    assert outputs["anatomy_valid"][:, HEART].tolist() == [False, False]
    assert outputs["anatomy_valid"][:, THORAX].all()
    assert (outputs["anatomy"][~outputs["anatomy_valid"]] == 0).all()


def test_head_answers_for_anatomies_that_the_mask_does_not_speak_of(
    model: VisionLanguageModel, scans: Tensor, mask: Tensor
) -> None:
    known = torch.ones(2, 6, dtype=torch.bool)
    known[:, HEART] = False
    with torch.no_grad():
        model.image.anatomy_head.bias[HEART] = 100.0  # the head sees a heart everywhere
        model.image.anatomy_head.bias[LUNG] = 100.0
    encoded = model.image.encode_scan(scans, mask, known)
    assert encoded.membership[..., HEART].all()
    assert encoded.anatomy_valid[:, LUNG].tolist() == [True, False]
    assert model.image.encode_scan(scans).membership[..., LUNG].all()


def test_anatomy_is_pooled_with_a_margin_of_one_token(model: VisionLanguageModel, scans: Tensor, mask: Tensor) -> None:
    # 2 x 2 x 4 tokens of lung in a corner grow to 3 x 3 x 5.
    assert model.image.encode_scan(scans, mask).membership[0, :, LUNG].sum() == 45


def test_captions_become_rows_where_the_report_speaks(model: VisionLanguageModel, scans: Tensor) -> None:
    outputs = model(scans, captions=[{"lung": "a nodule", "thorax": "a report"}, {"heart": "large", "aorta": ""}])
    expected = torch.zeros(2, 6, dtype=torch.bool)
    expected[0, [LUNG, THORAX]] = True
    expected[1, HEART] = True
    assert torch.equal(outputs["caption_valid"], expected)
    torch.testing.assert_close(outputs["caption"][0, LUNG], model.encode_text(["a nodule"], "anatomy")[0])
    torch.testing.assert_close(outputs["caption"][1, HEART], model.encode_text(["large"], "anatomy")[0])
    assert (outputs["caption"][~expected] == 0).all()


@pytest.mark.parametrize("captions", [None, [{}, {}], [{"lung": ""}, {}], [{"pleura": "of no anatomy of ours"}, {}]])
def test_batch_without_captions_has_no_caption_rows(
    model: VisionLanguageModel, scans: Tensor, captions: list | None
) -> None:
    assert "caption" not in model(scans, captions=captions)


def test_temperatures_stay_in_their_range(model: VisionLanguageModel, scans: Tensor) -> None:
    assert model(scans)["temperature"].item() == pytest.approx(0.07)
    with torch.no_grad():
        model.log_temperature.fill_(-20.0)
        model.log_temperature_global.fill_(5.0)
    outputs = model(scans)
    assert outputs["temperature"].item() == pytest.approx(0.001) and outputs[
        "temperature_global"
    ].item() == pytest.approx(0.5)


@pytest.mark.parametrize(("value", "inward"), [(-20.0, -1.0), (5.0, 1.0)])
def test_a_temperature_that_left_its_range_learns_back_into_it_and_no_further_out(value: float, inward: float) -> None:
    for direction in (inward, -inward):
        log = torch.tensor(value, requires_grad=True)
        (direction * temperature(log)).backward()
        assert log.grad is not None
        # d exp(b) = exp(b), at the bound b that the value stands for.
        expected = direction * (0.001 if value < 0 else 0.5) if direction == inward else 0.0
        assert log.grad.item() == pytest.approx(expected)


def test_a_temperature_inside_its_range_has_the_gradient_of_the_exponential() -> None:
    log = torch.tensor(-2.0, requires_grad=True)
    temperature(log).backward()
    assert log.grad is not None and log.grad.item() == pytest.approx(math.exp(-2.0))


def test_captions_are_placed_under_autocast(model: VisionLanguageModel, scans: Tensor, mask: Tensor) -> None:
    captions = [{"lung": "a nodule"}, {"thorax": "clear"}]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(scans, mask, captions=captions)
    assert outputs["caption"].dtype == outputs["anatomy"].dtype
    torch.testing.assert_close(
        outputs["caption"].float(), model(scans, mask, captions=captions)["caption"], atol=0.05, rtol=0
    )


def test_training_reaches_both_towers(model: VisionLanguageModel, scans: Tensor, mask: Tensor) -> None:
    model.train()
    outputs = model(scans, mask, captions=[{"lung": "a nodule"}, {"thorax": "clear"}])
    total = (
        outputs["finding_logits_drawn"].sum() + (outputs["anatomy"] * outputs["caption"]).sum() / outputs["temperature"]
    )
    (total + outputs["anatomy_logits"].square().sum()).backward()
    for module in (
        model.image.tower.stem[0],
        model.image.anatomy_head,
        model.image.anatomy_pooling.key,
        model.text.head.linear,
    ):
        assert module.weight.grad.isfinite().all()
        assert module.weight.grad.abs().sum() > 0
    assert model.log_temperature.grad is not None and model.scorer.log_token_scale.grad is not None


def test_reports_meet_the_thorax_rows(model: VisionLanguageModel, scans: Tensor) -> None:
    outputs = model(scans, reports=["", "clear lungs"])
    assert torch.equal(outputs["scan"], outputs["anatomy"][:, THORAX])
    assert torch.equal(outputs["scan_valid"], outputs["anatomy_valid"][:, THORAX])
    assert outputs["report_valid"].tolist() == [False, True]
    torch.testing.assert_close(outputs["report"][1], model.encode_text(["clear lungs"], "report")[0])
    assert (outputs["report"][0] == 0).all()
    assert "report" not in model(scans, reports=["", ""])


def test_each_snippet_comes_with_the_depth_rows_of_its_scan(model: VisionLanguageModel, scans: Tensor) -> None:
    affine = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    affine[1, 2, 3] = 100.0
    nodule, effusion = {"text": "a nodule", "z_mm": 103.0}, {"text": "an effusion", "z_mm": 110.0}
    outputs = model(scans, snippets=[[], [nodule, effusion]], affine=affine)
    rows = model.image.encode_scan(scans).depth
    torch.testing.assert_close(outputs["depth"], rows[[1, 1]])
    assert outputs["depth_mm"].tolist() == [[100.5 + 2 * row for row in range(8)]] * 2
    assert outputs["target_mm"].tolist() == [103.0, 110.0]
    torch.testing.assert_close(outputs["snippet"], model.encode_text(["a nodule", "an effusion"], "snippet"))
    assert "snippet" not in model(scans, snippets=[[], []], affine=affine)
    with pytest.raises(ValueError, match="need the affine"):
        model(scans, snippets=[[], [nodule]])


def test_weights_know_whether_their_snippet_head_was_trained(model: VisionLanguageModel) -> None:
    trained = model.text.snippet_head_trained
    older = {key: value for key, value in model.state_dict().items() if "snippet_head_trained" not in key}
    model.encode_text(["a nodule"], "snippet")
    model.train()
    (0 * model.encode_text(["a nodule"], "snippet").sum()).backward()
    assert trained.item() == 0, "neither asking nor a loss of weight 0 is training"
    model.encode_text(["a nodule"], "snippet")[0, 0].backward()
    assert trained.item() == 1 and model.state_dict()["text.snippet_head_trained"].item() == 1
    model.load_state_dict(older)


def test_snippets_are_blurred_in_training_alone(model: VisionLanguageModel) -> None:
    with torch.no_grad():
        first, second = (model.encode_text(["a nodule"], "snippet") for _ in range(2))
        assert torch.equal(first, second)
        model.train()
        assert not torch.equal(model.encode_text(["a nodule"], "snippet"), model.encode_text(["a nodule"], "snippet"))
        assert torch.equal(model.encode_text(["a nodule"], "prompt"), model.encode_text(["a nodule"], "prompt"))
        model.text.snippet_noise = 0.0
        torch.testing.assert_close(model.encode_text(["a nodule"], "snippet"), first)


def test_the_pass_over_a_masked_image_changes_no_running_statistics(
    make_model: Callable[[], VisionLanguageModel], scans: Tensor
) -> None:
    observations = [[{"text": "a nodule", "anatomy": 0, "normal": False}]] * len(scans)
    means = []
    for hidden_in in ("tokens", "input"):
        model = make_model().train()
        model.correlation = CorrelationExplorer(model.image.tower, 8, (4, 4, 3), (-1000, 1000), hidden_in=hidden_in)
        assert "correlation" in model(scans, observations=observations)
        statistics = model.image.tower.statistics.standardize
        assert statistics.batches.item() == 1 and not statistics.frozen
        means.append(statistics.mean)
    assert torch.equal(*means)
