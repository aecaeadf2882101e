"""Which captions are positives and which are negatives of each other."""

import pytest
import torch
from torch.nn import functional as F

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.data.datalist import _caption_targets
from bundle.ctfindings.losses.cross_anatomy import CrossAnatomyLoss
from bundle.ctfindings.losses.pairs import anatomies_left, other_anatomies, semantic_matrix
from bundle.ctfindings.losses.text_separation import TextSeparationLoss

IDS = torch.tensor([7, 8, 9, 9])
NORMAL = torch.tensor([True, True, False, False])


def test_captions_that_share_a_sentence_are_no_negatives() -> None:
    captions = {
        "lung": {"text": "No nodule. Heart and lungs are normal."},
        "heart": {"text": "heart and lungs are normal"},
        "aorta": {"text": "The aorta is calcified."},
    }
    targets = _caption_targets(captions)
    organs = torch.tensor([ANATOMY_NAMES.index(name) for name in captions])
    other = other_anatomies(organs, targets["caption_sentences"][organs])
    assert other.tolist() == [[False, False, True], [False, False, True], [True, True, False]]


def test_captions_of_one_anatomy_and_padding_are_no_negatives_and_no_share() -> None:
    sentences = torch.tensor([[3, 0], [4, 0], [5, 0]])
    other = other_anatomies(torch.tensor([0, 0, 1]), sentences)
    assert other.tolist() == [[False, False, True], [False, False, True], [True, True, False]]


def test_the_thorax_does_not_take_part_and_an_unknown_name_is_an_error() -> None:
    valid = torch.ones(2, len(ANATOMY_NAMES), dtype=torch.bool)
    left = anatomies_left(valid, ("thorax",))
    assert left.sum() == 2 * (len(ANATOMY_NAMES) - 1) and not left[:, ANATOMY_NAMES.index("thorax")].any()
    with pytest.raises(ValueError, match="excluded: no anatomy liver; choose from lung"):
        anatomies_left(valid, ("liver",))


def _rows(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(2, 3, 4, generator=generator, dtype=torch.float64), dim=-1).requires_grad_()


def test_a_caption_without_a_negative_is_left_out_with_a_finite_gradient() -> None:
    """Anatomy 0 says what both others say, so that only they are apart."""
    anatomy, caption = _rows(0), _rows(1)
    sentences = torch.tensor([[[1, 2], [1, 0], [2, 0]], [[1, 2], [1, 0], [2, 0]]])
    valid = torch.ones(2, 3, dtype=torch.bool)
    cross = CrossAnatomyLoss()(
        torch.tensor(0.2, dtype=torch.float64),
        sentences,
        anatomy=anatomy,
        anatomy_valid=valid,
        caption=caption,
        caption_valid=valid,
        caption_id=torch.arange(6).view(2, 3),
        caption_normal=torch.zeros(2, 3, dtype=torch.bool),
    )
    separation = TextSeparationLoss()(caption, valid, sentences)
    (cross + separation).backward()
    assert caption.grad is not None and caption.grad.isfinite().all()
    assert (caption.grad[:, 0] == 0).all() and (caption.grad[:, 1:] != 0).any()


def test_identical_sentences_everywhere_give_zero() -> None:
    caption, valid = _rows(2), torch.ones(2, 3, dtype=torch.bool)
    assert TextSeparationLoss()(caption, valid, torch.ones(2, 3, 1, dtype=torch.int64)) == 0


def test_a_caption_is_a_positive_of_itself_of_other_normals_and_of_its_own_text():
    expected = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    assert semantic_matrix(IDS, NORMAL).int().tolist() == expected


def test_captions_of_two_anatomies_are_never_positives_even_with_equal_text():
    matrix = semantic_matrix(IDS, NORMAL, anatomy=torch.tensor([0, 1, 0, 1]))
    assert torch.equal(matrix, torch.eye(4, dtype=torch.bool))


def test_equal_text_links_a_normal_and_an_abnormal_row_without_linking_their_partners():
    matrix = semantic_matrix(torch.tensor([1, 2, 2]), torch.tensor([True, True, False]))
    assert matrix.int().tolist() == [[1, 1, 0], [1, 1, 1], [0, 1, 1]]


def test_ids_of_63_bits_that_agree_in_double_precision_stay_apart():
    matrix = semantic_matrix(torch.tensor([2**62, 2**62 + 1]), torch.zeros(2, dtype=torch.bool))
    assert torch.equal(matrix, torch.eye(2, dtype=torch.bool))
