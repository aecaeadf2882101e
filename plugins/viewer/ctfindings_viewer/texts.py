"""What the page shows, made of plain values: rows of the table, heights of the views, the curve of a depth profile."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from ctfindings_client.job import STAGES
from ctfindings_client.record import Row, ordered
from ctfindings_client.transport import is_local, is_private

_LETTERS = ("RL", "AP", "SI")
CHART_WIDTH, CHART_HEIGHT = 400.0, 84.0
_MARGIN = 6.0


def table_rows(
    rows: Sequence[Row],
    column: int | None = None,
    descending: bool = False,
    mark: Callable[[str], str] = lambda name: "",
) -> list[dict[str, Any]]:
    """Rows of the table as the page wants them.

    Args:
        rows: of the record.
        column: of ``COLUMNS``, whose order they have; without one present findings come first.
        descending: whether that order falls.
        mark: sign before the name of a finding.
    """
    return [
        {
            "name": row.name,
            "mark": mark(row.name),
            "cells": list(row.cells),
            "percent": max(0.0, round(100 * row.shown_probability, 1)),
            "threshold_percent": min(100.0, round(100 * row.threshold, 1)),
            "present": row.present,
            "placed": row.peak_mm is not None,
            "hint": row.hint,
        }
        for row in ordered(rows, column, descending)
    ]


def position(axis: int, millimetres: float) -> str:
    """A place on an axis of RAS as Slicer's views name it, such as ``S 12.0 mm``.

    Args:
        axis: 0 right, 1 anterior, 2 superior.
        millimetres: RAS coordinate.
    """
    shown = round(millimetres, 1)
    return f"{_LETTERS[axis][0 if shown >= 0 else 1]} {abs(shown):.1f} mm"


def progress_line(stage: str, seconds: float) -> str:
    """What is being done, and since when."""
    return f"{STAGES[stage]} ({seconds:.0f} s) ..."


def remote_line(address: str) -> str:
    """What the user has to agree to before scans go to a server; empty when it is on this computer."""
    if is_local(address):
        return ""
    open_line = "" if is_private(address) else " The connection is NOT encrypted."
    return f"Send scans to {address}? A file goes there whole, with its header; its name stays here.{open_line}"


def depth_curve(
    text: str, depth: Sequence[tuple[float, float]], shown_mm: float | None, image_at: Callable[[float], str]
) -> dict[str, Any] | None:
    """A depth profile as a drawing of ``CHART_WIDTH`` by ``CHART_HEIGHT``: inferior left, zero at the bottom, its own
    maximum at the top.

    Args:
        text: finding or query.
        depth: (z in mm, score) from inferior to superior.
        shown_mm: height that the views show; None without one.
        image_at: names the image at a height in mm.

    Returns:
        ``line`` and ``area`` (points of SVG), ``mark`` (x, y) of the shown height or None, and the texts of both ends.
        None without a profile above zero.
    """
    if len(depth) < 2 or max(score for _, score in depth) <= 0:
        return None
    low, high = depth[0][0], depth[-1][0]
    top = max(max(score for _, score in depth), 1e-9)

    def across(z: float) -> float:
        return _MARGIN + (CHART_WIDTH - 2 * _MARGIN) * (min(max(z, low), high) - low) / max(high - low, 1e-9)

    def up(score: float) -> float:
        return CHART_HEIGHT - _MARGIN - (CHART_HEIGHT - 2 * _MARGIN) * max(score, 0.0) / top

    points = [f"{across(z):.1f},{up(score):.1f}" for z, score in depth]
    floor = CHART_HEIGHT - _MARGIN
    mark = None
    if shown_mm is not None:
        mark = [round(across(shown_mm), 1), round(up(_score_at(depth, shown_mm)), 1)]
    return {
        "text": text,
        "line": " ".join(points),
        "area": f"{across(low):.1f},{floor:.1f} {' '.join(points)} {across(high):.1f},{floor:.1f}",
        "mark": mark,
        "shown": "" if shown_mm is None else image_at(shown_mm),
        "low": image_at(low),
        "high": image_at(high),
    }


def height_at(depth: Sequence[tuple[float, float]], across: float) -> float:
    """Height in mm of a place on the drawing, 0 at its left and 1 at its right edge."""
    inner = (across * CHART_WIDTH - _MARGIN) / (CHART_WIDTH - 2 * _MARGIN)
    low, high = depth[0][0], depth[-1][0]
    return low + (high - low) * min(max(inner, 0.0), 1.0)


def _score_at(depth: Sequence[tuple[float, float]], z: float) -> float:
    """Score of a height, on the straight line between its neighbours."""
    for (below, first), (above, second) in pairwise(depth):
        if below <= z <= above:
            return first + (second - first) * (z - below) / max(above - below, 1e-9)
    return depth[0][1] if z < depth[0][0] else depth[-1][1]
