"""fVLM's windows about the organs, its padding and its scorer, by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.networks.image.vit_tower import VisionTransformerTower
from bundle.ctfindings.published.fvlm.image_encoder import (
    ORGANS,
    FvlmImageEncoder,
    FvlmScorer,
    on_scan_grid,
    organ_window,
    pad_to_multiple,
)


def box_mask(shape: tuple[int, int, int], *box: tuple[int, int]) -> Tensor:
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[tuple(slice(*sides) for sides in box)] = True
    return mask


def test_organs_are_the_first_anatomies() -> None:
    assert ANATOMY_NAMES[:4] == ORGANS


def test_a_window_lies_about_the_middle_of_the_organ_and_within_the_volume() -> None:
    # Middle (10 + 15) // 2 = 12, size 8: from 8. At the low end it is shifted to 0, at the high end back by what is
    # missing.
    mask = box_mask((40, 40, 40), (10, 16), (0, 2), (36, 40))
    assert organ_window(mask, (8, 8, 8)) == (slice(8, 16), slice(0, 8), slice(32, 40))


def test_a_window_grows_to_the_organ_and_ends_with_the_volume() -> None:
    # 29 - 10 = 19 voxels from (10 + 29) // 2 - 19 // 2 = 10, as published: the extent is that between the outer voxels.
    mask = box_mask((40, 6, 40), (10, 30), (0, 6), (0, 40))
    assert organ_window(mask, (8, 8, 8)) == (slice(10, 29), slice(0, 6), slice(0, 39))


def test_padding_is_at_the_far_end() -> None:
    padded = pad_to_multiple(torch.ones(1, 1, 5, 4, 3), (4, 4, 2))
    assert padded.shape == (1, 1, 8, 4, 4)
    assert padded[0, 0, :5, :, :3].all() and padded.sum() == 60


def test_tokens_of_a_window_are_interpolated_on_the_grid_of_the_scan() -> None:
    tokens = torch.tensor([0.0, 1.0, 2.0]).view(3, 1, 1, 1)
    placed = on_scan_grid(tokens, (slice(6, 18), slice(0, 4), slice(0, 4)), (5, 1, 1), (4, 4, 4))
    # The centre of the scan's token i is at voxel 4 i + 1.5, that of the window's token j at 4 j + 7.5: j = i - 1.5.
    assert placed.flatten().tolist() == [0.0, 0.0, 0.5, 1.5, 0.0]


def test_a_missing_organ_scores_zero_and_has_no_evidence() -> None:
    scorer = FvlmScorer()
    rows, valid = F.normalize(torch.ones(1, 6, 8), dim=-1), torch.tensor([[True, False, True, True, False, False]])
    field = F.normalize(torch.ones(1, 5, 4, 8), dim=-1)
    logits, tokens = scorer(
        rows, valid, field, torch.ones(1, 5, 6, dtype=torch.bool), torch.ones(1, 3, 8), torch.tensor([0, 1, 5])
    )
    assert logits.sigmoid()[0, 0] > 0.5 and logits.sigmoid()[0, 1:].tolist() == [0.0, 0.0]
    assert (tokens.sigmoid()[0, :, 1:] == 0).all() and (tokens.sigmoid()[0, :, 0] > 0.5).all()


def test_a_scan_without_a_mask_is_refused() -> None:
    encoder = FvlmImageEncoder(
        VisionTransformerTower(patch=(4, 4, 4), size=(8, 8, 8), width=12, depth=2, heads=2, perceptron=8, levels=(0,))
    )
    with pytest.raises(ValueError, match="give the mask of the scan: --anatomy MASK"):
        encoder.encode_scan(torch.zeros(1, 1, 8, 8, 8))
