"""Errors of depth profiles by hand."""

import json

import numpy as np
import pytest

from bundle.ctfindings.metrics.bootstrap import Bootstrap
from bundle.ctfindings.metrics.localization import at_share_of_height, depth_errors, depth_record, share_of_height


def profiles() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three snippets on bins of 12 mm; the second scan has four bins, stored upside down."""
    depth = np.array([[0.0, 12, 24, 36, 48], [36, 24, 12, 0, np.nan], [0, 12, 24, 36, 48]])
    scores = np.array([[0.1, 0.2, 0.9, 0, 0], [0.5, 0.1, 0.1, 0.1, 99], [0, 0, 0, 0, 1.0]])
    return scores, depth, np.array([24.0, 3.0, 10.0])


def test_depth_errors_by_hand() -> None:
    errors = depth_errors(*profiles())
    assert errors["model"].tolist() == [0, 33, 38]
    # Half of 1.2 is reached at 24 mm; half of 0.8 at 36 mm (0.3 lies below); all of 1.0 at 48 mm.
    assert errors["profile"].tolist() == [0, 33, 38]
    assert errors["middle"].tolist() == [0, 15, 14]
    assert all(
        error in abs(row[~np.isnan(row)] - target)
        for error, row, target in zip(errors["random"], *profiles()[1:], strict=True)
    )


def test_the_profile_is_halved_where_two_peaks_are_weighed() -> None:
    """Peaks of 0.4 at 0 mm and 0.3 at 36 and 48 mm each: the most probable bin is the first, half of the probability
    lies up to 36 mm.
    """
    errors = depth_errors([[0.4, 0, 0, 0.3, 0.3]], [[0.0, 12, 24, 36, 48]], [40.0])
    assert (errors["model"][0], errors["profile"][0]) == (40, 4)


def test_padding_is_never_the_answer() -> None:
    scores, depth, target = profiles()
    errors = depth_errors(np.where(np.isnan(depth), np.inf, scores), depth, target)
    assert errors["model"].tolist() == errors["profile"].tolist() == [0, 33, 38]


def test_baselines_are_those_of_evenly_spread_targets() -> None:
    """For n bins of pitch h and targets at every bin alike: middle n h / 4, random (n^2 - 1) / (3 n) h."""
    depth = np.tile(12.0 * np.arange(24), (24 * 400, 1))
    target = np.repeat(12.0 * np.arange(24), 400)
    errors = depth_errors(np.zeros_like(depth), depth, target)
    assert errors["middle"].mean() == pytest.approx(24 * 12 / 4)
    assert errors["random"].mean() == pytest.approx((24**2 - 1) / (3 * 24) * 12, rel=0.03)


def test_shares_of_the_height_by_hand_and_their_positions_stay_within_the_scan() -> None:
    """Scans from 0 to 48 mm, from 0 to 36 mm stored upside down, and of one bin at 5 mm."""
    nothing = np.nan
    depth = [[0.0, 12, 24, 36, 48], [36, 24, 12, 0, nothing], [5, *[nothing] * 4]]
    assert share_of_height([12, 45, 5], depth).tolist() == [0.25, 1.25, 0]
    assert at_share_of_height([0.25, 1.25, 0], depth).tolist() == [12, 36, 5]
    assert at_share_of_height([-0.5, 0.75, 0.9], depth).tolist() == [0, 27, 5]


def test_depth_record_by_hand() -> None:
    record = depth_record(depth_errors(*profiles()), Bootstrap(["a", "b", "c"], resamples=100))
    assert (record["snippets"], record["patients"]) == (3, 3)
    values = {name: entry["value"] for name, entry in record["model"].items()}
    assert values == pytest.approx({"mae_mm": 71 / 3, "median_mm": 33, "within_12_mm": 1 / 3, "within_24_mm": 1 / 3})
    assert record["middle"]["within_24_mm"]["value"] == 1
    assert record["mae_of_middle"]["value"] == record["profile_mae_of_middle"]["value"] == pytest.approx(71 / 29)
    low, high = record["model"]["mae_mm"]["interval"]
    assert 0 <= low < 71 / 3 < high <= 38


def test_snippets_that_all_lie_in_the_middle_have_no_ratio_to_it() -> None:
    depth = np.array([[0.0, 12, 24], [0, 12, 24]])
    errors = depth_errors([[0.9, 0.1, 0], [0, 1, 0]], depth, [12.0, 12.0])
    record = depth_record(errors, Bootstrap(["a", "b"], resamples=20))
    assert record["mae_of_middle"] == record["profile_mae_of_middle"] == {"value": None, "interval": [None, None]}
    assert record["model"]["mae_mm"]["value"] == 6
    json.dumps(record, allow_nan=False)


def test_depths_that_cannot_be_scored_are_refused() -> None:
    scores, depth, target = profiles()
    with pytest.raises(ValueError, match="must be"):
        depth_errors(scores, depth[:, :3], target)
    with pytest.raises(ValueError, match="not finite"):
        depth_errors(np.where(scores == 0.9, np.nan, scores), depth, target)
    with pytest.raises(ValueError, match="at least 2 patients"):
        depth_record(depth_errors(scores, depth, target), Bootstrap(["a", "a", "a"]))
