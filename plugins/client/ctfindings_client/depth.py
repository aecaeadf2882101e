"""The depth profile: how strongly each height of the scan answers, as a plot with a mark where the views stand."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import slicer
import vtk

from ctfindings_client import nodes

CHART_ROLE = "depth chart"
_PROFILE = ("depth profile", "depth profile table", "Height z (mm)", "Score")
_MARK = ("depth mark", "depth mark table", "Height z (mm)", "Shown slice")


def show(volume: Any, text: str, depth: Sequence[tuple[float, float]], z_mm: float | None) -> Any:
    """Makes the chart of a volume, or fills the one that is there.

    Args:
        volume: the scan.
        text: finding or query.
        depth: (z in mm, score) from inferior to superior.
        z_mm: height of the slice that the views show; None without one.

    Returns:
        The chart node; ``slicer.modules.plots.logic().ShowChartInLayout`` brings it to the screen.
    """
    chart = nodes.make(volume, CHART_ROLE, "vtkMRMLPlotChartNode", f"Depth: {text}")
    chart.RemoveAllPlotSeriesNodeIDs()
    line = _series(volume, _PROFILE, text, depth)
    line.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
    line.SetMarkerStyle(slicer.vtkMRMLPlotSeriesNode.MarkerStyleNone)
    line.SetColor(0.80, 0.20, 0.25)
    line.SetLineWidth(2)
    chart.AddAndObservePlotSeriesNodeID(line.GetID())
    mark = _series(volume, _MARK, "shown slice", [] if z_mm is None else [(z_mm, _height_at(depth, z_mm))])
    mark.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
    mark.SetLineStyle(slicer.vtkMRMLPlotSeriesNode.LineStyleNone)
    mark.SetMarkerStyle(slicer.vtkMRMLPlotSeriesNode.MarkerStyleCircle)
    mark.SetMarkerSize(12)
    mark.SetColor(0.10, 0.35, 0.60)
    if z_mm is not None:
        chart.AddAndObservePlotSeriesNodeID(mark.GetID())
    chart.SetTitle(text)
    chart.SetXAxisTitle("inferior  <-  z (mm)  ->  superior")
    chart.SetYAxisTitle("score")
    chart.SetLegendVisibility(False)
    return chart


def take_away(charts: Collection[Any]) -> None:
    """Takes charts off the plots on the screen."""
    ids = {node.GetID() for node in charts}
    for index in range(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLPlotViewNode")):
        view = slicer.mrmlScene.GetNthNodeByClass(index, "vtkMRMLPlotViewNode")
        if view.GetPlotChartNodeID() in ids:
            view.SetPlotChartNodeID(None)


def _series(volume: Any, kind: tuple[str, str, str, str], name: str, points: Sequence[tuple[float, float]]) -> Any:
    role, table_role, x_name, y_name = kind
    table = nodes.make(volume, table_role, "vtkMRMLTableNode", f"{role}: {name}")
    table.RemoveAllColumns()
    for index, title in enumerate((x_name, y_name)):
        column = vtk.vtkDoubleArray()
        column.SetName(title)
        for point in points:
            column.InsertNextValue(point[index])
        table.AddColumn(column)
    series = nodes.make(volume, role, "vtkMRMLPlotSeriesNode", name)
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetXColumnName(x_name)
    series.SetYColumnName(y_name)
    return series


def _height_at(depth: Sequence[tuple[float, float]], z_mm: float) -> float:
    return min(depth, key=lambda level: abs(level[0] - z_mm))[1] if depth else 0.0
