"""Pooling: tokens of an anatomy, one batched masked attention, and rows along the body axis."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from bundle.ctfindings.anatomy import ANATOMIES
from bundle.ctfindings.networks.image.pooling import (
    AnatomyPooling,
    RunningStandardization,
    coarsen_membership,
    depth_rows,
    dilate_membership,
    extremes,
    finding_tokens,
    token_membership,
)
from bundle.ctfindings.networks.product_embedding import ProductEmbedding


@pytest.fixture
def pooling() -> AnatomyPooling:
    torch.manual_seed(0)
    pooling = AnatomyPooling(width=8, embedding=5, anatomies=3, heads=2)
    torch.nn.init.normal_(pooling.query)
    torch.nn.init.normal_(pooling.normalize.weight)
    torch.nn.init.normal_(pooling.normalize.bias)
    torch.nn.init.normal_(pooling.standardize.mean)
    torch.nn.init.normal_(pooling.bias)
    return pooling.eval()


@pytest.mark.parametrize("product", [False, True])
def test_the_first_scan_of_an_anatomy_moves_nothing_out_of_bounds(product: bool) -> None:
    """Its features are their own mean, so its row is zero, although it is valid."""
    torch.manual_seed(0)
    tokens = torch.randn(1, 10, 8, requires_grad=True)
    rows, valid = AnatomyPooling(width=8, embedding=8, anatomies=3, heads=2).train()(
        [tokens], [torch.ones(1, 10, 3, dtype=torch.bool)]
    )
    assert valid.all() and not rows.any()
    if product:
        rows = F.normalize(ProductEmbedding(4, 0.25)(rows)[..., 4:], dim=-1)
    (rows @ torch.randn(8 - 4 * product)).sum().backward()
    assert tokens.grad is not None and tokens.grad.abs().max() < 1e4


def _tokens(seed: int = 0) -> Tensor:
    return torch.randn(2, 10, 8, generator=torch.Generator().manual_seed(seed))


def _membership() -> Tensor:
    """Two scans of ten tokens and three anatomies; the second scan misses the second anatomy."""
    members = torch.rand(2, 10, 3, generator=torch.Generator().manual_seed(1)) > 0.5
    members[:, 0] = True
    members[1, :, 1] = False
    return members


def _pool_one(pooling: AnatomyPooling, tokens: Tensor, anatomy: int) -> Tensor:
    """The row of one anatomy of one scan, written out: its tokens (n, d) alone, head by head."""
    mean = tokens.mean(1, keepdim=True)
    spread = ((tokens - mean) ** 2).mean(1, keepdim=True)
    normal = (tokens - mean) / torch.sqrt(spread + 1e-5) * pooling.normalize.weight + pooling.normalize.bias
    key = normal @ pooling.key.weight.T + pooling.key.bias
    value = normal @ pooling.value.weight.T + pooling.value.bias
    heads = []
    for part in (slice(0, 4), slice(4, 8)):
        score = torch.exp(key[:, part] @ pooling.query[anatomy, part] / math.sqrt(4))
        heads.append((score / score.sum()) @ value[:, part])
    common = torch.cat(heads) @ pooling.output.weight.T + pooling.output.bias
    common = (common - common.mean()) / torch.sqrt(common.var(unbiased=False) + 1e-5)
    pooled = torch.cat([common, normal.amax(0), normal.amin(0)]) - pooling.standardize.mean[anatomy]
    row = pooled.clamp(-5, 5) @ pooling.projection[anatomy] + pooling.bias[anatomy]
    return row / row.norm()


def test_batched_attention_equals_a_loop_over_scans_and_anatomies(pooling: AnatomyPooling) -> None:
    tokens, members = _tokens(), _membership()
    rows, valid = pooling([tokens], [members])
    for scan in range(2):
        for anatomy in range(3):
            if valid[scan, anatomy]:
                expected = _pool_one(pooling, tokens[scan][members[scan, :, anatomy]], anatomy)
                torch.testing.assert_close(rows[scan, anatomy], expected, atol=1e-5, rtol=1e-5)


def test_missing_anatomy_gives_a_zero_row_and_no_nan_anywhere(pooling: AnatomyPooling) -> None:
    tokens = _tokens().requires_grad_()
    members = _membership()
    members[0] = False
    rows, valid = pooling([tokens], [members])
    assert valid.tolist() == [[False, False, False], [True, False, True]]
    assert (rows[~valid] == 0).all()
    torch.testing.assert_close(rows[valid].norm(dim=1), torch.ones(2))
    (rows * torch.randn_like(rows)).sum().backward()
    assert tokens.grad is not None and tokens.grad.isfinite().all()
    assert (tokens.grad[0] == 0).all()
    assert all(parameter.grad.isfinite().all() for parameter in pooling.parameters())


def test_tokens_outside_an_anatomy_have_no_influence_on_its_row(pooling: AnatomyPooling) -> None:
    tokens, members = _tokens(), _membership()
    changed = torch.where(members[:, :, :1], tokens, 100 * torch.randn_like(tokens))
    row, other = pooling([tokens], [members])[0][:, 0], pooling([changed], [members])[0][:, 0]
    torch.testing.assert_close(row, other, atol=1e-6, rtol=1e-5)


def test_order_of_the_tokens_does_not_matter(pooling: AnatomyPooling) -> None:
    tokens, members = _tokens(), _membership()
    order = torch.randperm(10)
    torch.testing.assert_close(
        pooling([tokens[:, order]], [members[:, order]])[0], pooling([tokens], [members])[0], atol=1e-6, rtol=1e-5
    )


def test_extremes_are_those_of_the_finest_level(pooling: AnatomyPooling) -> None:
    tokens, members = _tokens(), _membership()
    highest, lowest = extremes(tokens, members)
    mine = tokens[0][members[0, :, 2]]
    assert torch.equal(highest[0, 2], mine.amax(0)) and torch.equal(lowest[0, 2], mine.amin(0))
    assert (highest[1, 1] == 0).all() and (lowest[1, 1] == 0).all()
    rows = pooling([tokens, 0 * tokens], [members, torch.zeros_like(members)])[0]
    torch.testing.assert_close(rows, pooling([tokens], [members])[0], atol=1e-6, rtol=1e-5)


def test_standardised_features_have_mean_zero_and_spread_one_over_the_scans_seen() -> None:
    standardize = RunningStandardization(rows=2, features=3)
    rows = 5 + torch.randn(400, 2, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.01, 1.0, 30.0])
    valid = torch.ones(400, 2, dtype=torch.bool)
    for _ in range(3):
        standardize(rows, valid)
    out = standardize.eval()(rows, valid)
    torch.testing.assert_close(out.mean(0), torch.zeros(2, 3), atol=0.05, rtol=0)
    torch.testing.assert_close(out.std(0), torch.ones(2, 3), atol=0.1, rtol=0)


def test_a_row_that_is_first_seen_late_is_averaged_like_the_others() -> None:
    standardize = RunningStandardization(rows=2, features=1)
    for _ in range(40):
        standardize(torch.tensor([[[3.0], [0.0]]]), torch.tensor([[True, False]]))
    for value in (8.0, 12.0):
        standardize(torch.tensor([[[3.0], [value]]]), torch.ones(1, 2, dtype=torch.bool))
    assert standardize.batches.tolist() == [[42], [2]]
    assert standardize.mean.flatten().tolist() == pytest.approx([3.0, 10.0])
    # About the running mean: 0 for the first scan, 4 for the second.
    assert standardize.variance[1].item() == pytest.approx(2.0)


def test_older_weights_count_their_batches_for_all_rows() -> None:
    older = {
        "mean": torch.tensor([[1.0], [2.0]]),
        "variance": torch.tensor([[4.0], [9.0]]),
        "batches": torch.tensor(7.0),
    }
    standardize = RunningStandardization(rows=2, features=1)
    standardize.load_state_dict(older)
    assert standardize.batches.tolist() == [[7], [7]] and older["batches"].dim() == 0
    rows = standardize.eval()(torch.tensor([[[3.0], [5.0]]]), torch.ones(1, 2, dtype=torch.bool))
    assert rows.flatten().tolist() == pytest.approx([1.0, 1.0], rel=1e-4)


def test_rows_that_are_not_valid_change_no_statistics_and_evaluation_changes_none() -> None:
    standardize = RunningStandardization(rows=2, features=1)
    valid = torch.tensor([[True, False]])
    standardize(torch.tensor([[[3.0], [9.0]]]), valid)
    assert standardize.mean.tolist() == [[3.0], [0.0]] and standardize.variance[1].item() == 1.0
    standardize.eval()(torch.tensor([[[8.0], [8.0]]]), valid)
    assert standardize.mean.tolist() == [[3.0], [0.0]]


def test_token_membership_equals_a_loop_over_tokens() -> None:
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 7, (2, 1, 4, 6, 6)) * (rng.random((2, 1, 4, 6, 6)) < 0.15)
    stride = (2, 3, 1)
    members = token_membership(torch.from_numpy(mask), stride)
    assert members.shape == (2, 2 * 2 * 6, len(ANATOMIES)) and members.dtype == torch.bool
    for scan in range(2):
        token = 0
        for x in range(0, 4, 2):
            for y in range(0, 6, 3):
                for z in range(6):
                    ids = set(mask[scan, 0, x : x + 2, y : y + 3, z].ravel().tolist())
                    assert members[scan, token].tolist() == [bool(ids & set(anatomy.members)) for anatomy in ANATOMIES]
                    token += 1


@pytest.mark.parametrize(
    ("mask_id", "anatomies"),
    [
        (0, []),
        (1, ["lung", "thorax"]),
        (2, ["heart", "mediastinum", "thorax"]),
        (4, ["aorta", "mediastinum", "thorax"]),
        (5, ["mediastinum", "thorax"]),
        (6, ["thorax"]),
    ],
)
def test_one_voxel_belongs_to_its_organ_and_to_the_regions_around_it(mask_id: int, anatomies: list[str]) -> None:
    mask = torch.zeros(1, 1, 4, 4, 4, dtype=torch.uint8)
    mask[0, 0, 1, 2, 3] = mask_id
    members = token_membership(mask, (4, 4, 4))[0, 0]
    assert [anatomy.name for anatomy, member in zip(ANATOMIES, members, strict=True) if member] == anatomies


@pytest.mark.parametrize("tokens", [0, 1, 2])
def test_dilation_grows_each_anatomy_by_a_cube(tokens: int) -> None:
    grid = [5, 4, 6]
    members = torch.rand(2, 120, 3, generator=torch.Generator().manual_seed(0)) > 0.95
    grown = dilate_membership(members, grid, tokens).view(2, *grid, 3)
    cube = np.ones((2 * tokens + 1,) * 3)
    for scan in range(2):
        for anatomy in range(3):
            expected = ndimage.binary_dilation(members.view(2, *grid, 3)[scan, ..., anatomy].numpy(), cube)
            np.testing.assert_array_equal(grown[scan, ..., anatomy].numpy(), expected)


def test_coarse_token_belongs_to_an_anatomy_if_any_of_its_children_does() -> None:
    members = torch.rand(2, 4 * 2 * 6, 3, generator=torch.Generator().manual_seed(0)) > 0.8
    coarse = coarsen_membership(members, [4, 2, 6], [2, 1, 3])
    expected = members.view(2, 2, 2, 1, 2, 3, 2, 3).numpy().any(axis=(2, 4, 6)).reshape(2, 6, 3)
    np.testing.assert_array_equal(coarse.numpy(), expected)
    assert coarsen_membership(members, [4, 2, 6], [4, 2, 6]) is members


def test_depth_row_is_the_unit_mean_over_the_body_at_that_depth() -> None:
    field = F.normalize(torch.randn(2, 3 * 2 * 4, 5), dim=-1)
    body = torch.rand(2, 24) > 0.4
    body.view(2, 6, 4)[0, :, 2] = False  # no body at this depth: all tokens count
    rows = depth_rows(field, body, [3, 2, 4])
    assert rows.shape == (2, 4, 5)
    for scan in range(2):
        for depth in range(4):
            cells, inside = field.view(2, 6, 4, 5)[scan, :, depth], body.view(2, 6, 4)[scan, :, depth]
            mean = cells[inside].mean(0) if inside.any() else cells.mean(0)
            torch.testing.assert_close(rows[scan, depth], mean / mean.norm())


def test_depth_rows_of_an_upside_down_scan_are_reversed() -> None:
    grid = [3, 2, 4]
    field = F.normalize(torch.randn(2, 24, 5), dim=-1)
    body = torch.rand(2, 24) > 0.4
    turned = field.view(2, *grid, 5).flip(3).reshape(2, 24, 5)
    turned_body = body.view(2, *grid).flip(3).reshape(2, 24)
    torch.testing.assert_close(depth_rows(turned, turned_body, grid), depth_rows(field, body, grid).flip(1))


def test_finding_tokens_are_those_that_any_marked_voxel_touches() -> None:
    masks = torch.zeros(2, 1, 4, 4, 4, dtype=torch.int32)
    masks[0, 0, 3, 0, 1] = 1 << 17 | 1
    masks[1, 0, 0, 2, 3] = 1 << 4
    tokens = finding_tokens(masks, (2, 2, 2))
    assert tokens.shape == (2, 8, 18)
    # Token (x, y, z) of the 2 x 2 x 2 grid is row 4 x + 2 y + z.
    assert tokens.nonzero().tolist() == [[0, 4, 0], [0, 4, 17], [1, 3, 4]]


def test_gradient_of_standardized_rows_has_no_part_that_all_scans_share() -> None:
    standardize = RunningStandardization(rows=2, features=3).train()
    rows = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    valid = torch.tensor([[True, True], [True, False], [True, False], [True, False]])
    standardize(rows, valid)[:, :, 0].mul(torch.tensor([[1.0], [2.0], [3.0], [4.0]])).sum().backward()
    gradient = rows.grad
    assert gradient is not None
    torch.testing.assert_close(gradient[:, 0].sum(0), torch.zeros(3))
    assert gradient[3, 0, 0] > 0 > gradient[0, 0, 0]
    assert gradient[0, 1, 0] > 0, "a scan that is alone keeps its gradient"


def test_features_that_move_together_do_not_become_a_constant_of_the_rows() -> None:
    """A loss that likes a constant must not make the features run ahead of their running mean."""
    standardize = RunningStandardization(rows=1, features=1).train()
    shift = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([shift], lr=0.5)
    scans = torch.randn(4, 1, 1, generator=torch.Generator().manual_seed(0))
    for _ in range(50):
        optimizer.zero_grad()
        (-standardize(scans + shift, torch.ones(4, 1, dtype=torch.bool)).mean()).backward()
        optimizer.step()
    assert abs(shift.item()) < 1e-4
