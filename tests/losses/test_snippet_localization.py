"""Snippet localization by hand and against the recorded values of the released code."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bundle.ctfindings.losses.snippet_localization import SnippetLocalizationLoss, points_into_scan

PITCH = 12.0


def bins(count: int = 20, start: float = -300.0) -> torch.Tensor:
    return start + PITCH * torch.arange(count, dtype=torch.float64)


def batch(snippets: int = 3, count: int = 20, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    depth = F.normalize(torch.randn(snippets, count, 6, generator=generator, dtype=torch.float64), dim=-1)
    snippet = F.normalize(torch.randn(snippets, 6, generator=generator, dtype=torch.float64), dim=-1)
    return depth, bins(count).expand(snippets, -1).clone(), snippet


def test_loss_is_the_entropy_of_the_target_when_the_model_is_perfect():
    loss = SnippetLocalizationLoss(temperature=1.0)
    depth_mm, target_mm = bins()[None], torch.tensor([-180.0], dtype=torch.float64)
    target = loss.target(depth_mm, target_mm)[0]
    # Logits of any size can be written as products; cosines are not needed for this.
    depth = target.clamp(min=1e-30).log()[None, :, None]
    entropy = -(target[target > 0] * target[target > 0].log()).sum()
    value = loss(depth, depth_mm, torch.ones(1, 1, dtype=torch.float64), target_mm)
    assert value.item() == pytest.approx(entropy.item())


def test_two_bins_by_hand():
    depth = torch.eye(2, dtype=torch.float64)[None]
    depth_mm = torch.tensor([[0.0, 12.0]], dtype=torch.float64)
    snippet, target_mm = torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.tensor([3.0], dtype=torch.float64)
    # Weights exp(-9 / 288) and exp(-81 / 288) about z = 3 mm with sigma 12 mm; logits 1 and 0.
    near, far = math.exp(-9 / 288), math.exp(-81 / 288)
    softplus = math.log1p(math.exp(-1))
    expected = (near * softplus + far * (1 + softplus)) / (near + far)
    value = SnippetLocalizationLoss(sigma_mm=12.0, temperature=1.0)(depth, depth_mm, snippet, target_mm)
    assert value.item() == pytest.approx(expected)


def test_padding_bins_get_no_probability_and_no_gradient():
    depth, depth_mm, snippet = batch()
    depth_mm[:, :4] = math.nan
    depth.requires_grad_()
    target_mm = torch.full((3,), -250.0, dtype=torch.float64)
    loss = SnippetLocalizationLoss()
    assert (loss.target(depth_mm, target_mm)[:, :4] == 0).all()
    assert loss.target(depth_mm, target_mm).sum(1).tolist() == pytest.approx([1, 1, 1])
    value = loss(depth, depth_mm, snippet, target_mm)
    value.backward()
    assert depth.grad is not None and depth.grad.isfinite().all()
    assert (depth.grad[:, :4] == 0).all() and depth.grad[:, 4:].any()
    cut = loss(depth[:, 4:], depth_mm[:, 4:], snippet, target_mm)
    assert value.item() == pytest.approx(cut.item())


def test_depth_of_the_target_is_found_in_millimetres_not_in_bins():
    depth, depth_mm, snippet = batch()
    target_mm = torch.tensor([-300.0, -222.0, -80.0], dtype=torch.float64)
    loss = SnippetLocalizationLoss()
    expected = loss(depth, depth_mm, snippet, target_mm)
    # Stored from superior to inferior, and elsewhere in the world: the same bins, the same answer.
    torch.testing.assert_close(loss(depth.flip(1), depth_mm.flip(1), snippet, target_mm), expected)
    torch.testing.assert_close(loss(depth, depth_mm + 1000, snippet, target_mm + 1000), expected)
    assert abs(loss(depth, depth_mm + 24, snippet, target_mm.clamp(min=-276)).item() - expected.item()) > 1e-3


def test_a_target_between_two_bins_is_shared_by_both():
    target = SnippetLocalizationLoss().target(bins()[None], torch.tensor([-300 + 6.5 * PITCH], dtype=torch.float64))[0]
    assert target[6].item() == pytest.approx(target[7].item())
    assert target.argmax() in (6, 7)


def test_loss_moves_smoothly_with_the_target():
    depth, depth_mm, snippet = batch(1)
    values = [
        SnippetLocalizationLoss()(depth, depth_mm, snippet, torch.tensor([z], dtype=torch.float64)).item()
        for z in range(-220, -160)
    ]
    assert np.abs(np.diff(values)).max() < 0.2 < max(values) - min(values)


@pytest.mark.parametrize("sigma_mm", [0.0, 0.01])
def test_a_narrow_target_is_the_nearest_bin(sigma_mm):
    target = SnippetLocalizationLoss(sigma_mm=sigma_mm).target(
        bins()[None], torch.tensor([-300 + 3.3 * PITCH], dtype=torch.float64)
    )
    assert target[0].tolist() == [float(i == 3) for i in range(20)]


def test_a_snippet_outside_its_scan_does_not_take_part():
    depth, depth_mm, snippet = batch()
    depth_mm[2, 15:] = math.nan  # the third scan ends at -132 mm
    target_mm = torch.tensor([-200.0, -306.1, -120.0], dtype=torch.float64)
    assert points_into_scan(depth_mm, target_mm).tolist() == [True, False, False]
    assert points_into_scan(depth_mm, torch.tensor([-306.0, -66.0, -126.0])).tolist() == [True, True, True]
    loss = SnippetLocalizationLoss()
    assert loss(depth, depth_mm, snippet, target_mm).item() == pytest.approx(
        loss(depth[:1], depth_mm[:1], snippet[:1], target_mm[:1]).item()
    )


def test_no_snippet_gives_zero_without_gradient():
    empty = torch.zeros(0, 20, 6, requires_grad=True)
    value = SnippetLocalizationLoss()(empty, torch.zeros(0, 20), torch.zeros(0, 6), torch.zeros(0))
    assert value.item() == 0 and not value.requires_grad
    depth, depth_mm, snippet = batch()
    everywhere_padding = SnippetLocalizationLoss()(depth, torch.full_like(depth_mm, math.nan), snippet, torch.zeros(3))
    assert everywhere_padding.item() == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"sigma_mm": -1.0}, "sigma_mm: .* got -1"), ({"temperature": 0.0}, "temperature: .* got 0")],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SnippetLocalizationLoss(**settings)


@pytest.fixture
def golden(bundle_root):
    path = bundle_root.parent / "shared" / "reference" / "radfinder" / "radfinder_golden.npz"
    if not path.is_file():
        pytest.skip("no recorded reference values beside the checkout (../shared/reference/radfinder)")
    return np.load(path)


def each(
    loss: SnippetLocalizationLoss, slices: np.ndarray, valid: np.ndarray, text: np.ndarray, position: np.ndarray
) -> list[float]:
    """The loss of every snippet on its own, with bins at 12 mm."""
    depth_mm = torch.where(torch.tensor(valid), PITCH * torch.arange(valid.shape[1], dtype=torch.float64), torch.nan)
    depth, snippet = (F.normalize(torch.tensor(values, dtype=torch.float64), dim=-1) for values in (slices, text))
    target_mm = PITCH * torch.tensor(position, dtype=torch.float64)
    return [
        loss(depth[i : i + 1], depth_mm[i : i + 1], snippet[i : i + 1], target_mm[i : i + 1]).item()
        for i in range(len(position))
    ]


def released_mass(sigma: float, position: int, valid: np.ndarray) -> float:
    """What the released code leaves of the target at valid bins: the kernel is cut at the array's ends, normalised,
    then masked.
    """
    radius = max(1, int(3 * sigma + 0.5))
    offset = np.arange(len(valid)) - position
    kernel = np.exp(-(offset**2) / (2 * sigma**2)) * (np.abs(offset) <= radius)
    return float(kernel[valid].sum() / kernel.sum())


@pytest.mark.parametrize("sigma", [2.0, 0.7, 0.0])
def test_values_are_those_of_the_released_code_but_for_its_missing_renormalisation(golden, sigma):
    valid, target = golden["in_loc_valid"], golden["in_loc_target"]
    position = target.argmax(axis=1)
    values = each(
        SnippetLocalizationLoss(PITCH * sigma), golden["in_loc_slices"], valid, golden["in_loc_text"], position
    )
    mass = [released_mass(sigma, p, v) if sigma else 1.0 for p, v in zip(position, valid, strict=True)]
    assert min(mass) < 0.9 or sigma == 0, "a snippet beside padding is part of the comparison"
    assert np.mean(np.multiply(values, mass)) == pytest.approx(golden[f"loc_loss_sigma{sigma}"].item(), rel=2e-6)


def test_value_on_the_outputs_of_the_published_network(golden):
    scan, position = golden["loc_e2e_scan_index"], golden["loc_e2e_target_pos"]
    valid = golden["depth_valid"][scan]
    values = each(
        SnippetLocalizationLoss(), golden["depth_slice_embed"][scan], valid, golden["snippet_embed"], position
    )
    mass = [released_mass(2.0, p, v) for p, v in zip(position, valid, strict=True)]
    assert np.mean(np.multiply(values, mass)) == pytest.approx(golden["loc_e2e_loss"].item(), rel=1e-5)


def test_gradients_are_those_of_the_released_code_where_no_padding_is_near(golden):
    position = golden["in_loc_target"].argmax(axis=1)
    far = [
        i
        for i, (p, v) in enumerate(zip(position, golden["in_loc_valid"], strict=True))
        if released_mass(2.0, p, v) == 1.0
    ]
    assert len(far) >= 2
    slices = torch.tensor(golden["in_loc_slices"], dtype=torch.float64, requires_grad=True)
    text = torch.tensor(golden["in_loc_text"], dtype=torch.float64, requires_grad=True)
    depth_mm = torch.where(
        torch.tensor(golden["in_loc_valid"]), PITCH * torch.arange(24, dtype=torch.float64), torch.nan
    )
    target_mm = PITCH * torch.tensor(position, dtype=torch.float64)
    SnippetLocalizationLoss()(F.normalize(slices, dim=-1), depth_mm, F.normalize(text, dim=-1), target_mm).backward()
    np.testing.assert_allclose(slices.grad[far].numpy(), golden["loc_grad_slices"][far], atol=1e-5)
    np.testing.assert_allclose(text.grad[far].numpy(), golden["loc_grad_text"][far], atol=1e-5)


@pytest.mark.parametrize(("sigma", "name"), [(2.0, "gauss_kernel_sigma2"), (0.7, "gauss_kernel_sigma0.7")])
def test_the_target_far_from_padding_is_the_released_kernel(golden, sigma, name):
    kernel = golden[name]
    middle, radius = 12, len(kernel) // 2
    depth_mm, target_mm = bins(25)[None], torch.tensor([-300 + middle * PITCH], dtype=torch.float64)
    target = SnippetLocalizationLoss(PITCH * sigma).target(depth_mm, target_mm)[0].numpy()
    np.testing.assert_allclose(target[middle - radius : middle + radius + 1], kernel, atol=1e-6)
    assert target.sum() - target[middle - radius : middle + radius + 1].sum() == pytest.approx(0, abs=1e-12)


def test_another_temperature_gives_the_value_and_the_gradient_of_the_released_variant_that_learns_it(golden):
    position = golden["in_loc_target"].argmax(axis=1)
    mass = torch.tensor([released_mass(2.0, p, v) for p, v in zip(position, golden["in_loc_valid"], strict=True)])
    log_scale = torch.tensor(float(golden["loc_log_inv_tau"]), dtype=torch.float64, requires_grad=True)
    loss = SnippetLocalizationLoss()
    loss.temperature = torch.exp(-log_scale)  # type: ignore[assignment]
    depth, snippet = (
        F.normalize(torch.tensor(golden[name], dtype=torch.float64), dim=-1)
        for name in ("in_loc_slices", "in_loc_text")
    )
    depth_mm = torch.where(
        torch.tensor(golden["in_loc_valid"]), PITCH * torch.arange(24, dtype=torch.float64), torch.nan
    )
    target_mm = PITCH * torch.tensor(position, dtype=torch.float64)
    rows = [slice(i, i + 1) for i in range(len(position))]
    values = torch.stack([loss(depth[row], depth_mm[row], snippet[row], target_mm[row]) for row in rows])
    value = (values * mass).mean()
    value.backward()
    assert value.item() == pytest.approx(golden["loc_loss_learnable_tau"].item(), rel=2e-6)
    assert log_scale.grad is not None
    assert log_scale.grad.item() == pytest.approx(golden["loc_grad_log_inv_tau"].item(), rel=1e-5)
