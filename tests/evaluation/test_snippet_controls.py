"""Controls of snippet localization: they answer without the scan that is asked about."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bundle.ctfindings.evaluation.snippet_controls import shares_by_other_scan, shares_by_text


def test_words_that_tell_the_height_are_learned() -> None:
    known = ["apex nodule", "base effusion", "apex scar", "base atelectasis"] * 10
    shares = np.tile([0.9, 0.1, 0.9, 0.1], 10)
    apex, base = shares_by_text(known, shares, ["apex", "base"])
    assert apex > 0.8 and base < 0.2


def test_a_snippet_is_sought_in_a_scan_of_another_patient() -> None:
    """Patient a has the two scans whose rows match; b's scan, twice as high and padded, has its match on top."""
    rows, z_mm = torch.eye(3), torch.tensor([0.0, 10.0, 20.0])
    other, high = torch.eye(3)[[2, 1, 0, 0]], torch.tensor([0.0, 20.0, 40.0, torch.nan])
    snippets = torch.eye(3)[[0, 0, 0]]
    found = shares_by_other_scan(snippets, ["a", "a", "b"], [rows, rows, other], [z_mm, z_mm, high])
    assert found.tolist() == [1, 1, 0]
    with pytest.raises(ValueError, match="of one patient"):
        shares_by_other_scan(snippets[:2], ["a", "a"], [rows, rows], [z_mm, z_mm])
