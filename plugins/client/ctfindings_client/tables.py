"""The record in the scene: a table for the reader, and the record itself as text, so that a saved scene keeps all of
it.
"""

from __future__ import annotations

from typing import Any

import vtk

from ctfindings_client import nodes
from ctfindings_client.record import COLUMNS, NOTICE, Record, ordered

TABLE_ROLE = "table"
RECORD_ROLE = "record"


def show(volume: Any, record: Record) -> Any:
    """Makes the table node of a volume, in place of an earlier one, and keeps the record beside it."""
    nodes.remove(volume, TABLE_ROLE)
    node = nodes.make(volume, TABLE_ROLE, "vtkMRMLTableNode", f"Findings in {volume.GetName()} ({NOTICE})")
    for index, title in enumerate(COLUMNS):
        column = vtk.vtkDoubleArray() if title in ("Probability", "Threshold") else vtk.vtkStringArray()
        column.SetName(title)
        for row in ordered(record.rows):
            probability = float("nan") if row.not_assessed else row.probability
            number = {"Probability": probability, "Threshold": row.threshold}.get(title)
            column.InsertNextValue(row.cells[index] if number is None else number)
        node.AddColumn(column)
    node.SetUseColumnTitleAsColumnHeader(True)
    node.SetLocked(True)
    text = nodes.make(volume, RECORD_ROLE, "vtkMRMLTextNode", f"Findings record of {volume.GetName()}")
    text.SetText(record.json)
    text.SetForceCreateStorageNode(True)
    return node


def stored_record(volume: Any) -> Record | None:
    """The record that the scene keeps for a volume; None when there is none.

    Raises:
        ValueError: when it was written by another version of the module.
    """
    text = nodes.find(volume, RECORD_ROLE)
    return None if text is None else Record.from_json(text.GetText())
