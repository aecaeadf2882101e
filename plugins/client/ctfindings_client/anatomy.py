"""The anatomies as a segmentation: one named, coloured and SNOMED-coded segment for each label of the map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer

from ctfindings_client import nodes

ROLE = "anatomy"


@dataclass(frozen=True)
class Term:
    """How an anatomy is named and shown.

    Attributes:
        code: SNOMED CT concept, as in the terminology lists of Slicer.
        meaning: its name there.
        colour: red, green, blue, 0..255. Not the recommendations of Slicer, whose lung, heart, esophagus and aorta are
            shades of brown and red that outlines, and the heat map, cannot be told from.
        shown: whether the segment is visible at first.
        note: what the label leaves out, for the segment's name.
    """

    code: str
    meaning: str
    colour: tuple[int, int, int]
    shown: bool = True
    note: str = ""


# A label map gives each voxel one label: the mediastinum is what remains of it, and the thorax what remains of the
# body.
TERMS: Mapping[str, Term] = {
    "lung": Term("39607008", "Lung", (86, 180, 233)),
    "heart": Term("80891009", "Heart", (255, 130, 190)),
    "esophagus": Term("32849002", "Esophagus", (40, 210, 150)),
    "aorta": Term("15825003", "Aorta", (150, 110, 255)),
    "mediastinum": Term("72410000", "Mediastinum", (225, 230, 235), note="other parts"),
    "thorax": Term("51185008", "Thorax", (140, 150, 165), shown=False, note="other parts"),
}

_LIST = "Segmentation category and type - 3D Slicer General Anatomy list"
_CATEGORY = "SCT^123037004^Anatomical Structure"
_NO_REGION = "~^^~Anatomic codes - DICOM master list~^^~^^"


def show(volume: Any, labels: np.ndarray, affine: np.ndarray, label_names: Mapping[str, int]) -> Any:
    """Makes the segmentation of a volume, in place of an earlier one.

    Args:
        volume: the scan.
        labels: ``(K, J, I)``, 0 outside.
        affine: ``(4, 4)``, to RAS mm.
        label_names: label value by anatomy.

    Returns:
        The segmentation node. Outlines only: fills would hide the heat map.
    """
    nodes.remove(volume, ROLE)
    segmentation_node = nodes.make(volume, ROLE, "vtkMRMLSegmentationNode", f"Anatomy of {volume.GetName()}")
    segmentation_node.CreateDefaultDisplayNodes()
    segmentation_node.SetReferenceImageGeometryParameterFromVolumeNode(volume)

    label_node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "CT Findings labels")
    nodes.fill_volume(label_node, labels.astype(np.uint8), affine)
    try:
        imported = slicer.vtkSlicerSegmentationsModuleLogic.ImportLabelmapToSegmentationNode(
            label_node, segmentation_node
        )
    finally:
        slicer.mrmlScene.RemoveNode(label_node)
    if not imported:
        raise RuntimeError(f"{volume.GetName()}: Slicer did not take the anatomy map as a segmentation")
    _dress(segmentation_node, {value: name for name, value in label_names.items()})
    return segmentation_node


def _dress(segmentation_node: Any, names: Mapping[int, str]) -> None:
    segmentation, display = segmentation_node.GetSegmentation(), segmentation_node.GetDisplayNode()
    display.SetAllSegmentsVisibility2DFill(False)
    display.SetAllSegmentsVisibility2DOutline(True)
    for index in range(segmentation.GetNumberOfSegments()):
        segment_id = segmentation.GetNthSegmentID(index)
        segment = segmentation.GetSegment(segment_id)
        value = segment.GetLabelValue()
        term = _term(names.get(value, f"label {value}"))
        segment.SetName(f"{term.meaning}, {term.note}" if term.note else term.meaning)
        segment.SetColor(*(part / 255 for part in term.colour))
        if term.code:
            segment.SetTag(segment.GetTerminologyEntryTagName(), terminology(term))
        display.SetSegmentVisibility(segment_id, term.shown)


def terminology(term: Term) -> str:
    """A term as the terminology entry of a Slicer segment."""
    return f"{_LIST}~{_CATEGORY}~SCT^{term.code}^{term.meaning}{_NO_REGION}"


def _term(name: str) -> Term:
    return TERMS.get(name, Term("", name.capitalize(), (128, 174, 128)))
