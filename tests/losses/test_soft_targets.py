from __future__ import annotations

import pytest
import torch

from bundle.ctfindings.losses.soft_targets import row_normalise, semantic_matrix

IDS = torch.tensor([7, 8, 9, 9])
NORMAL = torch.tensor([True, True, False, False])


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


def test_equal_captions_get_equal_target_rows_that_sum_to_one():
    targets = row_normalise(semantic_matrix(IDS, NORMAL), torch.float32)
    assert torch.equal(targets[2], targets[3])
    assert targets[2].tolist() == pytest.approx([0, 0, 0.5, 0.5])
    assert targets.sum(dim=1).tolist() == pytest.approx([1, 1, 1, 1])
