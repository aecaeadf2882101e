"""Controls of snippet localization: they answer without the scan that is asked about."""

import numpy as np
import pytest
import torch

from bundle.ctfindings.evaluation.snippet_controls import (
    lobe_named,
    middle_of_lobe,
    shares_by_finding_and_side,
    shares_by_other_scan,
    shares_by_text,
)


def test_words_that_tell_the_height_are_learned() -> None:
    known = ["apex nodule", "base effusion", "apex scar", "base atelectasis"] * 10
    shares = np.tile([0.9, 0.1, 0.9, 0.1], 10)
    apex, base = shares_by_text(known, shares, ["apex", "base"])
    assert apex > 0.8 and base < 0.2


def test_the_prior_is_the_mean_of_the_same_finding_and_side() -> None:
    known = ["A nodule in the right lung.", "Nodule on the right.", "A nodule on the left.", "No nodule. Effusion."]
    shares = np.array([0.8, 0.6, 0.2, 0.0])
    texts = [
        "There is a right nodule.",
        "Bilateral nodules.",
        "Left pleural effusion.",
        "A hiatal hernia.",
    ]
    found = shares_by_finding_and_side(known, shares, texts)
    # Nodules on no known side are the mean of all nodules; the effusion has no side, and a hernia is the mean of all.
    np.testing.assert_allclose(found, [0.7, 1.6 / 3, 0.0, 0.4])


@pytest.mark.parametrize(
    ("text", "lobe"),
    [
        ("A nodule in the right upper lobe.", "upper"),
        ("Consolidation of the lower lobe of the left lung, upper part", "lower"),
        ("Atelectasis in the lingular segment", "middle"),
        ("Bands in the middle lobe and the lingula", "middle"),
        ("Ground glass in both upper and lower lobes", None),
        ("Nodes in the upper mediastinum, nodule in the lung", None),
    ],
)
def test_a_lobe_is_read_where_one_is_named(text: str, lobe: str | None) -> None:
    assert lobe_named(text) == lobe


def test_the_middle_of_a_lobe_is_that_of_its_third_of_the_lungs() -> None:
    ends = np.array([-100.0, 200.0])
    assert [middle_of_lobe(lobe, ends) for lobe in ("lower", "middle", "upper")] == [-50, 50, 150]


def test_a_snippet_is_sought_in_a_scan_of_another_patient() -> None:
    """Patient a has the two scans whose rows match; b's scan, twice as high and padded, has its match on top."""
    rows, z_mm = torch.eye(3), torch.tensor([0.0, 10.0, 20.0])
    other, high = torch.eye(3)[[2, 1, 0, 0]], torch.tensor([0.0, 20.0, 40.0, torch.nan])
    snippets = torch.eye(3)[[0, 0, 0]]
    found = shares_by_other_scan(snippets, ["a", "a", "b"], [rows, rows, other], [z_mm, z_mm, high])
    assert found.tolist() == [1, 1, 0]
    with pytest.raises(ValueError, match="of one patient"):
        shares_by_other_scan(snippets[:2], ["a", "a"], [rows, rows], [z_mm, z_mm])
