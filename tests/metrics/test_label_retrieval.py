"""Precision by label set, against a calculation by hand."""

from __future__ import annotations

import numpy as np

from bundle.ctfindings.metrics.bootstrap import Bootstrap
from bundle.ctfindings.metrics.label_retrieval import agreement, label_precision

LABELS = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [0, -1, 0], [1, 1, 0], [0, 0, 1]])


def test_items_agree_by_equal_sets_or_by_half_of_their_union() -> None:
    found = agreement(LABELS)
    assert found["equal"][0].tolist() == [True, False, False, False, True, False]
    assert found["jaccard"][0].tolist() == [True, True, False, False, True, False]
    # Nothing is known to be present in either.
    assert found["equal"][2].tolist() == [False, False, True, True, False, False]


def test_precision_is_the_share_of_agreeing_items_among_the_first() -> None:
    similarity = -np.abs(np.arange(6)[:, None] - np.arange(6)[None, :]) - np.arange(6) / 100
    found = label_precision(similarity, LABELS, Bootstrap([str(i) for i in range(6)], 50))
    # At rank 1 every query finds itself.
    assert found["equal"]["1"]["value"] == 1
    nearest = [[0, 1, 2, 3, 4], [1, 0, 2, 3, 4], [2, 1, 3, 0, 4], [3, 2, 4, 1, 5], [4, 3, 5, 2, 1], [5, 4, 3, 2, 1]]
    equal = agreement(LABELS)["equal"]
    by_hand = np.mean([equal[query, items].mean() for query, items in enumerate(nearest)])
    assert np.isclose(found["equal"]["5"]["value"], by_hand)
    assert found["equal"]["5"]["chance"] == equal.mean()
    assert "10" not in found["equal"]
