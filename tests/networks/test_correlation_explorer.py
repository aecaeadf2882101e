"""The decoder of correlations: its targets, what it hides, and what it may read."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from torch import Tensor

from bundle.ctfindings.anatomy import ANATOMY_NAMES, THORAX
from bundle.ctfindings.losses.correlation_exploration import CorrelationExplorationLoss
from bundle.ctfindings.networks.correlation_explorer import CorrelationExplorer, pair_weights
from bundle.ctfindings.networks.correlation_targets import (
    correlations,
    intensity_statistics,
    patch_voxels,
    standardised,
    variance_hinge,
)
from bundle.ctfindings.networks.image.hounsfield_windows import HounsfieldWindows
from tests.networks.conftest import convolutional_tower

GRID, TOKENS = [8, 8, 8], 512


def explorer_of(**settings: Any) -> CorrelationExplorer:
    torch.manual_seed(0)
    tower = convolutional_tower()
    return CorrelationExplorer(
        tower, 8, (4, 4, 3), (-1000, 1000), **{"positions": 40, "heads": 2, "width": 16, **settings}
    )


def inputs_of(scans: int = 2, sentences: int = 3) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    members = torch.zeros(scans, TOKENS, len(ANATOMY_NAMES), dtype=torch.bool)
    members[:, :, THORAX] = True
    members[:, :100, 0] = True
    return {
        "image": torch.rand(scans, 1, 16, 16, 16, generator=generator),
        "field": torch.nn.functional.normalize(torch.randn(scans, TOKENS, 8, generator=generator), dim=-1),
        "membership": members,
        "grid": GRID,
        "sentence": torch.nn.functional.normalize(torch.randn(scans * sentences, 8, generator=generator), dim=-1),
        "sentence_count": torch.full((scans,), sentences),
        "abnormal": torch.zeros(scans, len(ANATOMY_NAMES), dtype=torch.bool),
        "encode": torch.nn.Identity(),
    }


def test_the_statistics_of_a_patch_by_hand() -> None:
    """0, 100 and 900 HU are -1, -1/2 and 1 in the window from 0 to 400 HU, with a variance of 39/36."""
    voxels = (torch.tensor([[[0.0, 100.0, 900.0]]]) + 1000) / 2000
    found = intensity_statistics(voxels, HounsfieldWindows((-1000, 1000), [(0, 400)]))
    assert found.shape == (1, 1, 3) and found.flatten().tolist() == pytest.approx([-1 / 6, 39**0.5 / 6, 1], abs=1e-5)


@pytest.mark.parametrize("target", ["raw", "covariance"])
def test_a_target_is_the_product_of_standardised_statistics_with_unit_rows_or_by_their_number(target: str) -> None:
    explorer, image, index = explorer_of(target=target), inputs_of(scans=1)["image"], torch.arange(0, TOKENS, 8)[None]
    statistics = intensity_statistics(patch_voxels(image, (2, 2, 2), index), explorer.windows)[0].double().numpy()
    spread = statistics.std(0)
    rows = (statistics - statistics.mean(0)) / np.where(spread > 1e-5, spread, np.inf)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True) if target == "raw" else rows.shape[1] ** 0.5
    found = explorer.targets(image, index, torch.ones_like(index, dtype=torch.bool))[0]
    np.testing.assert_allclose(found.numpy(), rows @ rows.T, atol=1e-4)


def test_correlations_are_symmetric_with_a_diagonal_of_one_and_ignore_offset_and_scale() -> None:
    features, counted = torch.randn(2, 30, 24), torch.ones(2, 30, dtype=torch.bool)
    found = correlations(standardised(features, counted), counted)
    torch.testing.assert_close(found, found.transpose(1, 2))
    torch.testing.assert_close(found.diagonal(dim1=1, dim2=2), torch.ones(2, 30))
    moved = correlations(standardised(3 * features + torch.randn(24), counted), counted)
    torch.testing.assert_close(moved, found, atol=1e-5, rtol=0)
    assert torch.linalg.matrix_rank(found[0], atol=1e-4) <= 24


def test_the_residual_of_pairs_of_equal_tissue_has_mean_zero() -> None:
    explorer, inputs = explorer_of(target="residual").train(), inputs_of(scans=1)
    # Two tissues: each half of the scan varies about its own mean.
    inputs["image"] = inputs["image"] * 0.1 + torch.tensor([0.1, 0.6]).repeat_interleave(8).view(1, 1, 16, 1, 1)
    index = torch.arange(0, TOKENS, 8)[None]
    counted = torch.ones_like(index, dtype=torch.bool)
    residual = explorer.targets(inputs["image"], index, counted)[0]
    raw = explorer_of(target="raw").targets(inputs["image"], index, counted)[0]
    dark, apart = index[0] < 256, ~torch.eye(64, dtype=torch.bool)
    assert dark.sum() == 32
    for first, second in ((dark, dark), (dark, ~dark), (~dark, ~dark)):
        pairs = first[:, None] & second & apart
        assert residual[pairs].mean().abs() < 1e-5
        assert raw[pairs].mean().abs() > 0.01


def test_without_hidden_members_a_pair_does_not_count_and_one_organ_counts_twice() -> None:
    members = torch.zeros(1, 4, len(ANATOMY_NAMES), dtype=torch.bool)
    members[:, :, THORAX] = True
    members[0, :2, 0] = True
    hidden, counted = torch.tensor([[True, False, False, True]]), torch.tensor([[True, True, True, False]])
    expected = [[0, 2, 1, 0], [2, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert pair_weights(members, hidden, counted)[0].tolist() == expected


def test_hidden_tokens_are_not_read_and_others_are() -> None:
    inputs = inputs_of()
    inputs["field"].requires_grad_()
    outputs = explorer_of(hidden_share=1.0).eval()(**inputs)
    outputs["correlation"].square().sum().backward()
    assert inputs["field"].grad is None or not inputs["field"].grad.any()
    outputs = explorer_of(hidden_share=0.5).eval()(**inputs)
    outputs["correlation"].square().sum().backward()
    assert inputs["field"].grad.any()
    assert 10 < inputs["field"].grad[0].any(dim=1).sum() < 30


def test_the_report_is_read_without_gradient_to_its_text() -> None:
    inputs = inputs_of()
    inputs["sentence"].requires_grad_()
    explorer = explorer_of().eval()
    outputs = explorer(**inputs)
    assert not torch.equal(outputs["correlation"], outputs["correlation_without_report"])
    torch.testing.assert_close(outputs["correlation_shuffled"][0], _with_report_of_the_other(explorer, inputs))
    outputs["correlation"].square().sum().backward()
    assert inputs["sentence"].grad is None


def _with_report_of_the_other(explorer: CorrelationExplorer, inputs: dict[str, Any]) -> Tensor:
    exchanged = {**inputs, "sentence": inputs["sentence"].detach().roll(3, 0)}
    found: Tensor = explorer(**exchanged)["correlation"][0]
    return found


def test_half_of_the_positions_lie_in_the_organs_that_the_report_calls_abnormal() -> None:
    inputs, explorer = inputs_of(), explorer_of().train()
    inputs["abnormal"][1, 0] = True
    body = inputs["membership"][:, :, THORAX]
    index, counted = explorer._draw(body, inputs["membership"], inputs["abnormal"], None)
    assert counted.all() and all(len(set(row.tolist())) == 40 for row in index)
    shares = (index < 100).float().mean(1)
    assert shares[0] < 0.45 and shares[1] >= 0.5
    # An organ of a few tokens gives all of them, and the body the rest.
    inputs["membership"][:, 3:, 0] = False
    inputs["membership"][:, 400:, THORAX] = False
    body = inputs["membership"][:, :, THORAX]
    index, counted = explorer._draw(body, inputs["membership"], inputs["abnormal"], None)
    assert counted.all() and {0, 1, 2} <= set(index[1].tolist())


def test_scans_without_body_or_without_report_do_not_count() -> None:
    inputs = inputs_of(scans=3)
    inputs["membership"][1] = False
    inputs["sentence_count"] = torch.tensor([3, 3, 0])
    inputs["sentence"] = inputs["sentence"][:6]
    outputs = explorer_of().train()(**inputs)
    assert outputs["correlation_weight"].flatten(1).any(1).tolist() == [True, False, False]
    assert all(outputs[name].isfinite().all() for name in ("correlation", "correlation_target"))


def test_a_control_without_image_reads_the_report_alone() -> None:
    inputs = inputs_of()
    explorer = explorer_of(sees_image=False).eval()
    first = explorer(**inputs)["correlation"]
    inputs["field"] = inputs["field"].flip(1)
    torch.testing.assert_close(explorer(**inputs)["correlation"], first)


def test_validation_compares_the_same_patches_each_time_and_training_others() -> None:
    inputs, explorer = inputs_of(), explorer_of(target="raw")
    first, second = (explorer.eval()(**inputs)["correlation_target"] for _ in range(2))
    assert torch.equal(first, second)
    third, fourth = (explorer.train()(**inputs)["correlation_target"] for _ in range(2))
    assert not torch.equal(third, fourth)


@pytest.mark.parametrize("target", ["covariance", "classes"])
def test_other_targets_are_finite_and_symmetric(target: str) -> None:
    found = explorer_of(target=target).eval()(**inputs_of())["correlation_target"]
    assert found.isfinite().all()
    torch.testing.assert_close(found, found.transpose(1, 2))


def test_a_teacher_gives_the_target_without_gradient() -> None:
    inputs, explorer = inputs_of(), explorer_of(target="teacher").eval()
    explorer.pair_means.mean.zero_()
    taught = torch.randn(2, TOKENS, 8, requires_grad=True)
    outputs = explorer(**inputs, taught=taught)
    assert not outputs["correlation_target"].requires_grad
    index, counted = explorer._draw(
        inputs["membership"][:, :, THORAX], inputs["membership"], inputs["abnormal"], torch.Generator().manual_seed(0)
    )
    rows = torch.stack([scan[chosen] for scan, chosen in zip(taught.detach(), index, strict=True)])
    torch.testing.assert_close(outputs["correlation_target"], correlations(standardised(rows, counted), counted))


def test_the_variance_floor_punishes_a_constant_teacher() -> None:
    """Its correlations are all zero, and so are those of a field that is constant too: a solution but for the floor."""
    inputs, explorer = inputs_of(), explorer_of(target="teacher").eval()
    loss = CorrelationExplorationLoss()
    apart, same = inputs["field"], torch.nn.functional.normalize(torch.ones_like(inputs["field"]), dim=-1)
    values = {}
    for name, field in (("apart", apart), ("same", same)):
        outputs = explorer(**{**inputs, "field": field}, taught=field)
        outputs["correlation"] = outputs["correlation_target"]
        values[name] = loss(**{key: outputs[key] for key in loss.inputs}).item()
    assert not explorer(**inputs, taught=same)["correlation_target"].any()
    assert values["same"] == pytest.approx(0.99), "1 - the root of 1e-4"
    assert 0 < values["apart"] < 0.15
    assert explorer_of().eval()(**inputs)["variance_hinge"].tolist() == [0, 0], "fixed targets need no floor"


def test_the_variance_hinge_by_hand() -> None:
    """Two channels of unit rows times the root of 2: standard deviations 1 and 0. Positions that do not count hide."""
    rows = torch.tensor([[[0.6, 0.8], [-0.6, 0.8], [0.6, 0.8], [-0.6, 0.8], [0.0, -1.0]]])
    counted = torch.tensor([[True, True, True, True, False]])
    expected = (1 - (2 * 0.36 + 1e-4) ** 0.5 + 1 - 0.01) / 2
    assert variance_hinge(rows, counted).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("hidden_in", ["tokens", "input"])
def test_patches_that_are_hidden_in_the_input_reach_no_other_token(hidden_in: str) -> None:
    """Tokens that see their neighbours, as those of a tower do."""
    project = torch.nn.Conv3d(1, 8, kernel_size=6, stride=2, padding=2)
    passes = []

    def encode(image: Tensor) -> Tensor:
        passes.append(image)
        return torch.nn.functional.normalize(project(image).flatten(2).transpose(1, 2), dim=-1)

    inputs, explorer = inputs_of(), explorer_of(hidden_in=hidden_in).eval()
    inputs["image"] = (inputs["image"] + 0.01).requires_grad_()
    outputs = explorer(**{**inputs, "field": encode(inputs["image"]), "encode": encode})
    outputs["correlation"].square().sum().backward()
    weight = outputs["correlation_weight"]
    index, _ = explorer._draw(
        inputs["membership"][:, :, THORAX], inputs["membership"], inputs["abnormal"], torch.Generator().manual_seed(0)
    )
    # Only a pair of two positions that are not hidden has no weight.
    hidden = (weight > 0).sum(2) == 39
    assert 20 < hidden.sum() < 60
    gradient = patch_voxels(inputs["image"].grad, (2, 2, 2), index).abs().amax(2)
    assert (gradient[~hidden] > 0).all()
    assert gradient[hidden].any() == (hidden_in == "tokens")
    if hidden_in == "input":
        blank = patch_voxels(passes[1], (2, 2, 2), index)
        assert (blank[hidden] == 0).all() and (blank[~hidden] > 0).all()
        assert (passes[1] == 0).sum() == 8 * hidden.sum()


def test_what_is_unknown_is_refused() -> None:
    with pytest.raises(ValueError, match="target"):
        explorer_of(target="rgb")
    with pytest.raises(ValueError, match="hidden_in"):
        explorer_of(hidden_in="report")


def test_a_config_key_hides_the_image_from_the_decoder(bundle_root: Path) -> None:
    parser = ConfigParser()
    parser.read_config([bundle_root / "configs" / name for name in ("train.json", "objectives/place.json")])
    parser.update({"bundle_root": str(bundle_root), "correlation_sees_image": False})
    assert not parser.get_parsed_content("network_def#correlation").sees_image
