"""The extractor of observations: what its queries see, on every tower, and that it exports."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bundle.ctfindings.anatomy import ANATOMY_NAMES, THORAX
from bundle.ctfindings.networks.image.image_encoder import ImageEncoder
from bundle.ctfindings.networks.image.observation_extractor import AttentionWeights, ObservationExtractor
from bundle.ctfindings.networks.image.pooling import body_tokens
from tests.networks.conftest import convolutional_tower, transformer_tower

SPACING = (4, 4, 3)
READINGS: list[dict[str, Any]] = [{}, {"pool": 1}, {"localized": "organ"}, {"localized": "topk", "kept": 3}]


def encoder_of(tower: Any, **settings: Any) -> ImageEncoder:
    torch.manual_seed(1)
    return ImageEncoder(
        tower, embedding=8, heads=2, pathology=ObservationExtractor(tower, 8, SPACING, **settings)
    ).eval()


def membership_of(tokens: int, scans: int = 1) -> Tensor:
    """Everything is thorax, and the first half of the tokens lung."""
    members = torch.zeros(scans, tokens, len(ANATOMY_NAMES), dtype=torch.bool)
    members[:, :, THORAX] = True
    members[:, : tokens // 2, 0] = True
    return members


@pytest.mark.parametrize("tower", [convolutional_tower, transformer_tower], ids=["convolutional", "transformer"])
@pytest.mark.parametrize("settings", READINGS, ids=str)
def test_every_tower_gets_unit_rows_and_attention_that_sums_to_one(tower: Any, settings: dict[str, Any]) -> None:
    encoder = encoder_of(tower(), heads=2, **settings)
    with torch.no_grad():
        encoded = encoder(torch.rand(2, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0)))
    valid = encoded.pathology_valid
    assert encoded.pathology.shape == (2, 16, 8) and encoded.pathology_attention.shape == (
        2,
        16,
        encoded.field.shape[1],
    )
    torch.testing.assert_close(encoded.pathology.norm(dim=2), valid.float())
    torch.testing.assert_close(encoded.pathology_attention.sum(2), valid.float())


def test_a_query_of_an_organ_sees_that_organ_alone_and_is_not_valid_without_it() -> None:
    tower = convolutional_tower()
    extractor = encoder_of(tower, heads=2, localized="organ", pool=1).pathology
    assert extractor is not None
    with torch.no_grad():
        rows, valid, attention = extractor(torch.randn(1, 64, 12), membership_of(64), [4, 4, 4])
    organs = [ANATOMY_NAMES[index] for index in extractor.query_anatomy.tolist()]
    assert {name: organs.count(name) for name in ("lung", "heart", "thorax")} == {"lung": 8, "heart": 2, "thorax": 2}
    lung = torch.tensor([name == "lung" for name in organs])
    assert attention[0, lung, :32].sum() == pytest.approx(8) and not attention[0, lung, 32:].any()
    assert [name for name, seen in zip(organs, valid[0].tolist(), strict=True) if not seen] == [
        name for name in organs if name not in ("lung", "thorax")
    ]
    assert not rows[~valid].any() and not attention[~valid].any()


def test_the_best_tokens_of_a_query_take_all_of_its_attention() -> None:
    torch.manual_seed(0)
    look = AttentionWeights(8, heads=2)
    query, key, allowed = torch.randn(1, 2, 8), torch.randn(1, 20, 8), torch.ones(1, 1, 20, dtype=torch.bool)
    weights = look(query, key, allowed, 5)
    assert (weights > 0).sum(3).tolist() == [[[5, 5]] * 2]
    # With fewer allowed keys than are kept, all of those count.
    allowed[:, :, 3:] = False
    weights = look(query, key, allowed, 5)
    assert (weights > 0).sum(3).tolist() == [[[3, 3]] * 2] and not weights[:, :, :, 3:].any()


def test_a_cell_counts_by_its_share_of_body() -> None:
    torch.manual_seed(0)
    look = AttentionWeights(8, heads=2)
    query, key = torch.randn(1, 2, 8), torch.randn(1, 6, 8)
    share = torch.tensor([[[1.0, 1.0, 0.5, 0.25, 0.0, 1.0]]])
    weights, even = look(query, key, share, 0), look(query, key, torch.ones(1, 1, 6), 0)
    expected = even * share.unsqueeze(1)
    torch.testing.assert_close(weights, expected / expected.sum(3, keepdim=True))


@pytest.mark.parametrize("grid", [[4, 4, 4], [3, 5, 2]], ids=str)
def test_a_scan_without_body_gives_zero_rows_and_finite_gradients(grid: list[int]) -> None:
    extractor = encoder_of(convolutional_tower(), heads=2).pathology
    assert extractor is not None
    count = grid[0] * grid[1] * grid[2]
    tokens = torch.randn(2, count, 12).requires_grad_()
    members = membership_of(count, scans=2)
    members[1] = False
    rows, valid, attention = extractor.train()(tokens, members, grid)
    (rows[0, :, 0].sum() + rows[1].sum()).backward()
    assert valid[0].all() and not valid[1].any() and not rows[1].any() and not attention[1].any()
    assert tokens.grad is not None and tokens.grad.isfinite().all() and not tokens.grad[1].any()


def test_the_peak_of_the_attention_is_in_the_cell_that_is_attended_to_most() -> None:
    extractor = encoder_of(convolutional_tower(), heads=2).pathology
    assert extractor is not None
    body = torch.ones(4, 4, 4, dtype=torch.bool)
    body[:2, :2, :2] = False
    body[0, 0, 0] = True  # the only body token of its cell
    cells = torch.full((1, 1, 8), 0.1)
    cells[0, 0, 0], cells[0, 0, 7] = 0.2, 0.3
    found = extractor._unpooled(cells, body.view(1, 64), [4, 4, 4], [2, 2, 2]).view(4, 4, 4)
    assert found.sum() == pytest.approx(1) and not found[~body].any()
    torch.testing.assert_close(found[2:, 2:, 2:], found.max().expand(2, 2, 2))


def test_tokens_outside_the_body_change_nothing() -> None:
    extractor = encoder_of(convolutional_tower(), heads=2).pathology
    assert extractor is not None
    members = membership_of(64)
    members[:, 40:] = False
    tokens = torch.randn(1, 64, 12)
    changed = torch.cat([tokens[:, :40], 100 * torch.randn(1, 24, 12)], dim=1)
    with torch.no_grad():
        first, second = (extractor(given, members, [4, 4, 4]) for given in (tokens, changed))
    torch.testing.assert_close(first[0], second[0])
    assert not first[2][:, :, 40:].any()


def test_training_tells_scans_apart_that_differ_a_little() -> None:
    torch.manual_seed(0)
    scans, count = 12, 216
    extractor = encoder_of(convolutional_tower(), heads=2).pathology
    assert extractor is not None
    tokens = torch.randn(1, count, 12) + 0.1 * torch.randn(scans, 1, 12)
    stated = F.normalize(torch.randn(scans, 8), dim=1)
    optimizer = torch.optim.AdamW(extractor.parameters(), lr=0.002)
    for step in range(120):
        drawn = torch.arange(4) + 4 * (step % 3)
        rows, _, _ = extractor.train()(tokens[drawn], membership_of(count, scans=4), [6, 6, 6])
        F.cross_entropy((rows @ stated[drawn].T).amax(dim=1) / 0.1, torch.arange(4)).backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        rows, _, _ = extractor.eval()(tokens, membership_of(count, scans), [6, 6, 6])
    alike = torch.einsum("aqe,bqe->qab", rows, rows)[:, ~torch.eye(scans, dtype=torch.bool)]
    assert alike.mean() < 0.7, "the rows of all scans are the same"


def test_gradients_are_finite_in_half_precision() -> None:
    extractor = encoder_of(convolutional_tower(), heads=2).pathology
    assert extractor is not None
    tokens = torch.randn(1, 64, 12).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        rows, _, _ = extractor.train()(tokens, membership_of(64), [4, 4, 4])
        rows[..., 0].sum().backward()
    assert tokens.grad is not None and tokens.grad.isfinite().all() and tokens.grad.any()


@pytest.mark.parametrize("settings", READINGS, ids=str)
def test_the_extractor_compiles_to_torchscript(settings: dict[str, Any]) -> None:
    encoder = encoder_of(convolutional_tower(), heads=2, **settings)
    image = torch.rand(1, 1, 16, 8, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        encoder.anatomy_head.bias.fill_(10)  # every token is body
        found, expected = torch.jit.script(encoder)(image), encoder(image)
    assert expected.pathology.any()
    torch.testing.assert_close(found.pathology, expected.pathology, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.pathology_attention, expected.pathology_attention, atol=1e-5, rtol=1e-4)


def test_an_encoder_without_queries_has_no_observation() -> None:
    encoder = ImageEncoder(convolutional_tower(), embedding=8, heads=2).eval()
    with torch.no_grad():
        encoded = encoder(torch.rand(2, 1, 8, 8, 8))
    assert encoded.pathology.shape == (2, 0, 8) and encoded.pathology_attention.shape == (2, 0, 64)
    assert not any("pathology" in name for name in encoder.state_dict())


def test_the_body_without_a_mask_lies_between_its_walls() -> None:
    image = torch.zeros(1, 1, 12, 12, 2)
    image[:, :, 2:10, 2:10] = 0.5
    image[:, :, 4:8, 4:8] = 0.1
    body = body_tokens(image, [2, 2, 2], 0.25).view(6, 6)
    expected = torch.zeros(6, 6, dtype=torch.bool)
    expected[1:5, 1:5] = True
    assert torch.equal(body, expected), "the dark middle counts, the air around does not"
    encoder = ImageEncoder(convolutional_tower(), embedding=8, heads=2, body_threshold=0.25).eval()
    scan = torch.cat([image, image], dim=2)[:, :, :16, :8].repeat(1, 1, 1, 1, 4)
    with torch.no_grad():
        encoded, scripted = encoder(scan), torch.jit.script(encoder)(scan)
    assert torch.equal(encoded.membership, encoded.membership[:, :, :1].expand_as(encoded.membership))
    assert torch.equal(scripted.anatomy_logits, encoded.anatomy_logits)
    assert encoded.anatomy_logits.unique().tolist() == [-10, 10]


@pytest.mark.parametrize("wrong", [{"localized": "lung"}, {"localized": "organ", "queries": 4}], ids=str)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        ObservationExtractor(convolutional_tower(), 8, SPACING, **wrong)


def test_relevance_adds_up_to_the_row_of_the_query() -> None:
    extractor = encoder_of(convolutional_tower(), heads=2, pool=1).pathology
    assert extractor is not None
    torch.nn.init.zeros_(extractor.project.bias)
    torch.nn.init.zeros_(extractor.offset)
    extractor.standardize.mean.normal_()
    extractor.standardize.variance.uniform_(0.5, 2)
    tokens, members = torch.randn(1, 64, 12), membership_of(64)
    directions = F.normalize(torch.randn(2, 8), dim=-1)
    with torch.no_grad():
        rows, _, _ = extractor(tokens, members, [4, 4, 4])
        for query in (0, 5):
            share = F.one_hot(torch.tensor([[query, query]]), 16).float()
            found = extractor.relevance(tokens, members, [4, 4, 4], share, directions)[0].sum(1)
            # Without bias and offset the row is, up to its length, the sum over the tokens.
            torch.testing.assert_close(
                found[0] / found[1], directions[0] @ rows[0, query] / (directions[1] @ rows[0, query])
            )


@pytest.mark.parametrize("pool", [1, 2])
def test_relevance_is_highest_where_a_token_points_along_the_direction_and_zero_outside_the_body(pool: int) -> None:
    extractor = encoder_of(convolutional_tower(), heads=2, pool=pool).pathology
    assert extractor is not None
    members = membership_of(512)
    members[:, 448:, THORAX] = False
    tokens = torch.zeros(1, 512, 12)
    planted = 8 * 8 * 3 + 8 * 4 + 3  # Token (3, 4, 3) of 8 x 8 x 8.
    tokens[0, planted] = 3.0
    cell = torch.cat([tokens[0, planted]] * 2)
    direction = F.normalize(extractor.project.weight @ cell, dim=-1)[None].detach()
    with torch.no_grad():
        found = extractor.relevance(tokens, members, [8, 8, 8], torch.full((1, 1, 16), 1 / 16), direction)[0, 0]
    assert not found[448:].any() and found.max() > 0
    x, y, z = (int(index[0]) for index in torch.where(found.view(8, 8, 8) == found.max()))
    assert abs(x - 3) < pool and abs(y - 4) < pool and abs(z - 3) < pool


def test_a_clipped_feature_has_no_relevance() -> None:
    extractor = encoder_of(convolutional_tower(), heads=2, pool=1).pathology
    assert extractor is not None
    rows = torch.zeros(1, 16, 24)
    rows[..., 0] = 6.0
    slope = extractor.standardize.slope(rows)
    assert not slope[..., 0].any()
    torch.testing.assert_close(slope[..., 1:], torch.full((1, 16, 23), 1.0), atol=1e-4, rtol=0)


def test_queries_see_nothing_outside_the_body() -> None:
    encoder = encoder_of(convolutional_tower(), heads=2, pool=1)
    torch.nn.init.constant_(encoder.anatomy_head.bias, 10.0)
    body = torch.zeros(1, 8, 8, 8, dtype=torch.bool)
    body[:, 2:5, 2:5, 2:5] = True
    with torch.no_grad():
        encoded = encoder(torch.rand(1, 1, 16, 16, 16), body=body.flatten(1))
    thorax = encoder.own_members(encoded.anatomy_logits, body=body.flatten(1))[..., THORAX]
    assert encoded.membership[..., THORAX].sum() > thorax.sum(), "the margin of the body lies outside it"
    assert encoded.pathology_attention[:, :, thorax[0]].sum() == pytest.approx(16)
