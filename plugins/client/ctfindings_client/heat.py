"""The heat map over the scan: a volume in the foreground of the slice views, and the box around its strongest part."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ctfindings_client import nodes
from ctfindings_client.answers import Evidence

HEAT_ROLE = "heat"
BOX_ROLE = "box"
COLOUR_ROLE = "heat colours"

DEFAULT_OPACITY = 0.35
"""Of the map over the scan, which keeps the other 65 % of its contrast."""

DEFAULT_FLOOR = 0.5
"""Part of the strongest value below which nothing is drawn; at one half the heat ends where the box does."""

# The scale of the bundle's report: lightness rises evenly, so it reads without colour vision.
ANCHORS = ((0.45, 0.08, 0.35), (0.80, 0.20, 0.25), (0.96, 0.48, 0.10), (0.99, 0.75, 0.18), (0.99, 0.98, 0.65))
"""Colours from the lowest value that is drawn to the strongest, red, green and blue, 0..1."""

_COLOURS = 256
_STRONGEST = "CTFindings.strongest"


def show(volume: Any, evidence: Evidence, floor: float = DEFAULT_FLOOR) -> Any:
    """Puts a heat map into the scene, in place of an earlier one of the same volume.

    Args:
        volume: the scan.
        evidence: with the map and what it answers.
        floor: part of the strongest value below which nothing is drawn.

    Returns:
        The volume node of the map: 8 bits, 255 for 1.0. Lists of scans do not offer it.
    """
    node = nodes.make(volume, HEAT_ROLE, "vtkMRMLScalarVolumeNode", f"Evidence: {evidence.text}", listed=False)
    nodes.fill_volume(node, evidence.heat, evidence.affine)
    if node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()
        node.GetDisplayNode().SetAndObserveColorNodeID(_colours(volume).GetID())
        node.GetDisplayNode().SetInterpolate(True)
    node.SetAttribute(_STRONGEST, str(evidence.strongest))
    set_floor(node, floor)
    return node


def set_floor(node: Any, floor: float) -> None:
    """Draws what is above a part (0..1) of the strongest value of a heat map."""
    strongest = int(node.GetAttribute(_STRONGEST))
    # Whole numbers: VTK would cut 0.9 down to 0. Zero would draw the whole scan.
    lowest = max(math.ceil(floor * strongest), 1)
    display = node.GetDisplayNode()
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(lowest, max(strongest, lowest + 1))
    display.AutoThresholdOff()
    display.SetThreshold(lowest, max(strongest, lowest))
    display.ApplyThresholdOn()


def show_box(
    volume: Any, text: str, box_mm: tuple[tuple[float, float, float], tuple[float, float, float]] | None
) -> Any:
    """Outlines the evidence by a box (min, max corners in RAS mm) that cannot be moved; without one the box is taken
    away.
    """
    if box_mm is None:
        nodes.remove(volume, BOX_ROLE)
        return None
    node = nodes.make(volume, BOX_ROLE, "vtkMRMLMarkupsROINode", f"Box: {text}")
    if node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()
    low, high = np.array(box_mm[0]), np.array(box_mm[1])
    node.SetLocked(False)
    node.SetCenter(*((low + high) / 2))
    node.SetSize(*(high - low))
    node.SetLocked(True)
    display = node.GetDisplayNode()
    display.SetHandlesInteractive(False)
    display.SetPropertiesLabelVisibility(False)
    display.SetPointLabelsVisibility(False)
    display.SetFillVisibility(False)
    display.SetUseGlyphScale(False)
    display.SetGlyphSize(
        0.01
    )  # in mm: a mark in the middle of the box means nothing. Hiding the point hides the box in 3D
    display.SetOutlineVisibility(True)
    display.SetColor(0.99, 0.75, 0.18)
    display.SetSelectedColor(0.99, 0.75, 0.18)
    return node


def _colours(volume: Any) -> Any:
    node = nodes.find(volume, COLOUR_ROLE)
    if node is not None:
        return node
    node = nodes.make(volume, COLOUR_ROLE, "vtkMRMLColorTableNode", "CT Findings heat")
    node.SetTypeToUser()
    node.SetNumberOfColors(_COLOURS)
    position = np.linspace(0, len(ANCHORS) - 1, _COLOURS)
    parts = [np.interp(position, range(len(ANCHORS)), channel) for channel in zip(*ANCHORS)]
    for index, (red, green, blue) in enumerate(zip(*parts)):
        node.SetColor(index, str(index), float(red), float(green), float(blue), 1)
    node.SaveWithSceneOn()
    return node


def heat_of(volume: Any) -> Any:
    """The heat map of a volume, or None."""
    return nodes.find(volume, HEAT_ROLE)


def hide(volume: Any) -> None:
    """Takes heat map and box out of the scene."""
    for role in (HEAT_ROLE, BOX_ROLE):
        nodes.remove(volume, role)
