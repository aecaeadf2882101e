"""Labelled points where the present findings have their strongest evidence; findings in one place share a point."""

from __future__ import annotations

import math
from typing import Any

from ctfindings_client import nodes
from ctfindings_client.record import NOTICE, Record, Row, ordered

ROLE = "points"
SAME_PLACE_MM = 10.0


def show(volume: Any, record: Record) -> Any:
    """Makes the point list of a volume, in place of an earlier one; points cannot be moved."""
    nodes.remove(volume, ROLE)
    node = nodes.make(volume, ROLE, "vtkMRMLMarkupsFiducialNode", f"Findings in {volume.GetName()}")
    node.CreateDefaultDisplayNodes()
    for place, rows in _places(record):
        index = node.AddControlPoint(*place)
        node.SetNthControlPointLabel(index, "\n".join(f"{row.name} {row.probability:.2f}" for row in rows))
        node.SetNthControlPointDescription(index, " ".join(row.hint for row in rows))
        node.SetNthControlPointLocked(index, True)
    node.SetLocked(True)
    node.SetDescription(NOTICE)
    display = node.GetDisplayNode()
    display.SetTextScale(2.5)
    display.SetGlyphScale(1.5)
    display.SetVisibility3D(False)  # in 3D the labels of all heights would lie over each other
    display.SetSelectedColor(0.99, 0.75, 0.18)
    return node


def _places(record: Record) -> list[tuple[tuple[float, float, float], list[Row]]]:
    """Points and what is found there. Labels of points closer than ``SAME_PLACE_MM`` would be drawn over each other."""
    places: list[tuple[tuple[float, float, float], list[Row]]] = []
    for row in ordered(record.rows):
        if not row.present or row.peak_mm is None:
            continue
        near = [rows for place, rows in places if math.dist(place, row.peak_mm) < SAME_PLACE_MM]
        if near:
            near[0].append(row)
        else:
            places.append((row.peak_mm, [row]))
    return places
