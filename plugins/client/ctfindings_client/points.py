"""Labelled points where the present findings have their strongest evidence, and where readers placed them; findings in
one place share a point.
"""

from __future__ import annotations

import math
from typing import Any

from ctfindings_client import nodes
from ctfindings_client.corrections import Corrections
from ctfindings_client.record import NOTICE, Record, Row, ordered

ROLE, CORRECTED_ROLE = "points", "corrected places"
SAME_PLACE_MM = 10.0


def show(volume: Any, record: Record) -> Any:
    """Makes the point list of a volume, in place of an earlier one; points cannot be moved."""
    marks = [
        (place, "\n".join(f"{row.name} {row.probability:.2f}" for row in rows), " ".join(row.hint for row in rows))
        for place, rows in _places(record)
    ]
    return _show(volume, ROLE, f"Findings in {volume.GetName()}", marks, (0.99, 0.75, 0.18))


def show_corrected(volume: Any, corrections: Corrections) -> None:
    """Marks the places that readers set, in place of earlier marks."""
    nodes.remove(volume, CORRECTED_ROLE)
    placed = [(verdict.place_mm, name) for name, verdict in corrections.findings.items() if verdict.place_mm]
    if placed:
        marks = [(place, name, corrections.line(name)) for place, name in placed]
        _show(volume, CORRECTED_ROLE, f"Corrected places in {volume.GetName()}", marks, (0.35, 0.85, 0.55))


def _show(
    volume: Any,
    role: str,
    name: str,
    marks: list[tuple[tuple[float, float, float], str, str]],
    colour: tuple[float, float, float],
) -> Any:
    """The point list of a role, created again: place, label and description of each point."""
    nodes.remove(volume, role)
    node = nodes.make(volume, role, "vtkMRMLMarkupsFiducialNode", name)
    node.CreateDefaultDisplayNodes()
    for place, label, description in marks:
        index = node.AddControlPoint(*place)
        node.SetNthControlPointLabel(index, label)
        node.SetNthControlPointDescription(index, description)
        node.SetNthControlPointLocked(index, True)
    node.SetLocked(True)
    node.SetDescription(NOTICE)
    display = node.GetDisplayNode()
    display.SetTextScale(2.5)
    display.SetGlyphScale(1.5)
    display.SetVisibility3D(False)  # in 3D the labels of all heights would lie over each other
    display.SetSelectedColor(*colour)
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
