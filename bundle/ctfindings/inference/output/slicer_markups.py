"""Findings as a 3D Slicer markups file: one labelled point for each present finding, at its evidence."""

import json
from pathlib import Path
from typing import Any

from bundle.ctfindings.files.atomic_write import write_text
from bundle.ctfindings.inference.findings_record import FindingsRecord
from bundle.ctfindings.scan.coordinates import ras_to_lps

MARKUPS_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/"
    "Modules/Loadable/Markups/Resources/Schema/markups-schema-v1.0.3.json#"
)


def markups(record: FindingsRecord) -> dict[str, Any]:
    """Content of the file, in LPS mm. Findings without evidence are left out.

    A label reads ``"Pleural effusion 0.82"``; its description has the threshold and the anatomy.
    """
    points = [
        {
            "id": str(index),
            "label": f"{answer.name} {answer.probability:.2f}",
            "description": f"threshold {answer.threshold:.2f}; {answer.anatomy}; {record.disclaimer}",
            "associatedNodeID": "",
            "position": ras_to_lps(answer.evidence.peak_mm).tolist(),
            "orientation": [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0],
            "selected": True,
            "locked": True,
            "visibility": True,
            "positionStatus": "defined",
        }
        for index, answer in enumerate(record.ordered(), start=1)
        if answer.present and answer.evidence is not None
    ]
    markup = {
        "type": "Fiducial",
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "locked": True,
        "fixedNumberOfControlPoints": False,
        "labelFormat": "%N-%d",
        "lastUsedControlPointNumber": len(points),
        "controlPoints": points,
    }
    return {"@schema": MARKUPS_SCHEMA, "markups": [markup]}


def write_markups(path: str | Path, record: FindingsRecord) -> None:
    """Writes the file; Slicer expects a name that ends in ``.mrk.json``."""
    write_text(path, json.dumps(markups(record), indent=1, allow_nan=False))
