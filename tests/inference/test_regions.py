"""Regions: answers look into the body and their anatomy only."""

from typing import Any

import numpy as np
import pytest
import torch

from bundle.ctfindings.anatomy import ANATOMIES, anatomy_index
from bundle.ctfindings.inference.regions import GivenMask, Regions, body_tokens, find_regions
from bundle.ctfindings.networks.image.image_encoder import ImageEmbedding, ImageEncoder
from bundle.ctfindings.scan.lung_mask import LUNG, TISSUE, ChestRegions
from tests.networks.conftest import convolutional_tower

LUNGS, HEART, THORAX = (anatomy_index(name) for name in ("lung", "heart", "thorax"))
GRID = (6, 6, 6)
TOKENS = np.diag([16.0, 16.0, 16.0, 1.0])
TOKENS[:3, 3] = 4.0  # the first token covers the first two voxels of 8 mm along each axis
FINE = np.diag([8.0, 8.0, 8.0, 1.0])


def chest() -> ChestRegions:
    """A body of 10 x 10 x 12 voxels in 12 x 12 x 12, with air-filled lung at small x."""
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[1:11, 1:11] = TISSUE
    labels[2:5, 2:10, 2:10] = LUNG
    return ChestRegions(labels, FINE)


def encoded(**boxes: tuple[slice, ...]) -> Any:
    """Anatomies as the head finds them, in boxes of tokens."""
    logits = torch.full((1, *GRID, len(ANATOMIES)), -4.0)
    for name, box in boxes.items():
        logits[(0, *box, anatomy_index(name))] = 4.0
    flat = logits.flatten(1, 3)
    return ImageEmbedding(*[torch.zeros(1)] * 4, flat > 0, flat, list(GRID), *[torch.zeros(1)] * 3)


EVERYWHERE = (slice(None),) * 3


def regions(**boxes: tuple[slice, ...]) -> Regions:
    return find_regions(chest(), encoded(**boxes), 0, TOKENS)


def test_no_anatomy_leaves_the_body_and_the_lung_is_that_of_the_threshold() -> None:
    # The head calls lung what lies around the air-filled lung as well.
    found = regions(lung=(slice(0, 3), slice(None), slice(None)), heart=EVERYWHERE, thorax=EVERYWHERE)
    labels = chest().labels
    assert not found.near[:, labels == 0].any()
    assert np.array_equal(found.inside[LUNGS], labels == LUNG)
    assert not (found.inside[HEART] & (labels == LUNG)).any()
    assert np.array_equal(found.inside[THORAX], labels > 0)
    assert found.lung_litres == pytest.approx(3 * 8 * 8 * 8**3 / 1e6)


def test_a_margin_is_one_voxel_in_the_body_and_none_along_voxels_that_are_thicker() -> None:
    found = regions()
    lung = np.zeros((12, 12, 12), bool)
    lung[2:5, 2:10, 2:10] = True
    assert found.near[LUNGS].sum() - lung.sum() == 2 * (3 * 8 + 3 * 8 + 8 * 8)
    thick = FINE @ np.diag([1, 1, 2, 1])
    found = find_regions(ChestRegions(chest().labels, thick), encoded(), 0, TOKENS)
    assert not found.near[LUNGS][..., 1].any() and found.near[LUNGS][1, 4, 4]


def test_a_network_that_finds_the_body_alone_places_no_organ() -> None:
    # As ``body_hu`` gives them: the same logits for every anatomy.
    network = ImageEncoder(convolutional_tower(), embedding=8, heads=2, body_threshold=0.25)
    image = torch.zeros(1, 1, 24, 24, 24)
    image[:, :, 2:22, 2:22] = 0.5
    with torch.no_grad():
        found = find_regions(chest(), network.eval()(image), 0, FINE)
    labels = chest().labels
    assert np.array_equal(found.inside[LUNGS], labels == LUNG)
    assert np.array_equal(found.inside[THORAX], labels > 0)
    assert not found.inside[HEART].any() and found.answering(HEART) == THORAX


def test_lung_without_air_counts_if_it_is_large() -> None:
    twice = np.diag([2, 2, 2, 1])  # voxels of 16 mm, tokens of 32 mm
    corner = encoded(lung=(slice(4, 6), slice(4, 6), slice(None)))
    # 3 x 3 voxels of the body lie in that corner: 295 ml in 8 layers, 332 ml in 9.
    for layers, counts in ((8, False), (9, True)):
        labels = chest().labels
        labels[:, :, layers:] = 0
        dense = find_regions(ChestRegions(labels, twice @ FINE), corner, 0, twice @ TOKENS).inside[LUNGS]
        expected = labels == LUNG
        expected[8:11, 8:11, :layers] = counts
        assert np.array_equal(dense, expected)


def test_tokens_smaller_than_a_voxel_are_reached_where_their_centre_lies_in_the_margin() -> None:
    fine = np.diag([2.0, 2.0, 2.0, 1.0])
    grid = (46, 46, 46)
    embedding = ImageEmbedding(
        *[torch.zeros(1)] * 4,
        torch.zeros(1, 46**3, 6) > 0,
        torch.full((1, 46**3, 6), -4.0),
        list(grid),
        *[torch.zeros(1)] * 3,
    )
    found = find_regions(chest(), embedding, 0, fine)
    centres = np.rint(np.moveaxis(np.indices(grid), 0, -1) / 4).astype(int)
    assert found.reached[LUNGS][found.near[LUNGS][tuple(np.moveaxis(centres, -1, 0))]].all()
    assert found.reached[LUNGS].sum() < 0.5 * 46**3


def test_evidence_outside_the_anatomy_is_zero_and_does_not_bleed_into_it() -> None:
    scores = np.zeros(GRID, np.float32)
    scores[5], scores[1, 2, 2] = 1.0, 0.3  # the first is far from the lung
    found = regions().confine(scores, LUNGS)
    assert 0 < found.max() <= 0.3 + 1e-6
    assert not found[~regions().near[LUNGS]].any()


def test_a_given_mask_wins_within_the_body() -> None:
    ids = np.zeros((12, 12, 12), np.uint8)
    ids[6:9, 0:4, 4:6] = ANATOMIES[HEART].mask_id
    known = np.zeros(len(ANATOMIES), bool)
    known[HEART] = True
    found = find_regions(chest(), encoded(heart=EVERYWHERE), 0, TOKENS, GivenMask(ids, known, FINE))
    assert np.array_equal(found.inside[HEART], (ids > 0) & (chest().labels > 0))


def test_a_network_without_an_anatomy_head_has_the_tokens_it_pooled() -> None:
    embedding = encoded(heart=(slice(3, 4), slice(2, 4), slice(2, 4)))
    headless = embedding._replace(anatomy_logits=torch.zeros_like(embedding.anatomy_logits))
    found = find_regions(chest(), headless, 0, TOKENS).inside[HEART]
    assert found.sum() == 2 * 4 * 4 and found[6:8, 4:8, 4:8].all()


def test_tokens_of_the_body_are_those_that_reach_into_it() -> None:
    inside = body_tokens(chest(), TOKENS, GRID)
    assert inside.all()  # the outermost token covers the outermost two voxels, one of them body
    labels = chest().labels
    labels[:2] = 0
    assert not body_tokens(ChestRegions(labels, FINE), TOKENS, GRID)[0].any()
    small = body_tokens(ChestRegions(labels, FINE), np.diag([2.0, 2, 2, 1]), (48, 48, 48))
    assert small[20:40, 10:38, 10:38].all() and not small[:6].any()
    assert body_tokens(ChestRegions(np.zeros_like(labels), FINE), TOKENS, GRID).all()
