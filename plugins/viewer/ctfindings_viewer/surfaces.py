"""Anatomies as smooth surfaces: those of the 3D view, and finer ones whose cuts outline them in the slice views. They
are made from a thinned label map: the network's grain is coarser, and the page must not wait.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk
from ctfindings_client import nodes
from ctfindings_client.anatomy import TERMS
from vtk.util.numpy_support import numpy_to_vtk

from .places import thinned


@dataclass(frozen=True)
class Kind:
    """What surfaces are for.

    Attributes:
        role: of their nodes, followed by the anatomy.
        spacing_mm: least distance of the voxels that they are made from. Tokens of the network are 12 mm and more
            apart.
        cut: whether the slice views show where they cut them; otherwise the 3D view shows them whole. What an anatomy
            leaves over is not outlined: its border is that of its neighbours, and would be drawn twice.
    """

    role: str
    spacing_mm: float
    cut: bool


WHOLE = Kind("surface of ", 5.0, cut=False)
OUTLINES = Kind("outline of ", 2.0, cut=True)

_OPACITY = {"lung": 0.2, "mediastinum": 0.15, "heart": 0.6}
_SMOOTHING = 20
_LINE_PIXELS = 2


def show(
    volume: Any, labels: np.ndarray, affine: np.ndarray, label_names: Mapping[str, int], kind: Kind = WHOLE
) -> None:
    """Makes a model of each anatomy that is visible at first, in place of earlier ones.

    Args:
        volume: the scan.
        labels: ``(K, J, I)``, 0 outside.
        affine: ``(4, 4)``, voxel index (i, j, k) to RAS mm.
        label_names: label value by anatomy.
        kind: what they are for.
    """
    thin, thin_affine = thinned(labels, affine, kind.spacing_mm)
    for name, value in label_names.items():
        if name not in TERMS or not TERMS[name].shown or (kind.cut and TERMS[name].note):
            continue
        mask = thin == value
        if not mask.any():
            nodes.remove(volume, kind.role + name)
            continue
        node = nodes.make(volume, kind.role + name, "vtkMRMLModelNode", TERMS[name].meaning)
        if node.GetDisplayNode() is None:
            _add_display(node, TERMS[name].colour, _OPACITY.get(name, 0.9), kind)
        node.SetAndObservePolyData(surface(mask, thin_affine))


def set_visible(volume: Any, kind: Kind, visible: bool) -> bool:
    """Shows or hides the surfaces of a kind; False if there are none."""
    made = [node for name in TERMS if (node := nodes.find(volume, kind.role + name)) is not None]
    for node in made:
        node.GetDisplayNode().SetVisibility(visible)
    return bool(made)


def _add_display(node: Any, colour: tuple[int, int, int], opacity: float, kind: Kind) -> None:
    """Everything is set before the node sees its display: each later change would draw the surface again."""
    display = slicer.vtkMRMLModelDisplayNode()
    display.SetColor(*(part / 255 for part in colour))
    display.SetOpacity(1.0 if kind.cut else opacity)
    display.SetVisibility2D(kind.cut)
    display.SetVisibility3D(not kind.cut)
    display.SetSliceIntersectionThickness(_LINE_PIXELS)
    display.SetScalarVisibility(False)
    display.SetScalarRangeFlag(slicer.vtkMRMLDisplayNode.UseManualScalarRange)
    display.SetScalarRange(0, 1)
    slicer.mrmlScene.AddNode(display)
    node.SetAndObserveDisplayNodeID(display.GetID())


def surface(mask: np.ndarray, affine: np.ndarray) -> Any:
    """Closed, smoothed surface of a mask ``(K, J, I)`` in RAS mm, as ``vtkPolyData``."""
    closed = np.pad(mask, 1).astype(np.uint8)
    image = vtk.vtkImageData()
    image.SetDimensions(*closed.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(closed.ravel(), deep=True))
    edges = vtk.vtkDiscreteFlyingEdges3D()
    edges.SetInputData(image)
    edges.SetValue(0, 1)
    smooth = vtk.vtkWindowedSincPolyDataFilter()
    smooth.SetInputConnection(edges.GetOutputPort())
    smooth.SetNumberOfIterations(_SMOOTHING)
    smooth.SetPassBand(0.05)
    smooth.NormalizeCoordinatesOn()
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy((affine @ _shifted(-1.0)).ravel())
    to_ras = vtk.vtkTransform()
    to_ras.SetMatrix(matrix)
    place = vtk.vtkTransformPolyDataFilter()
    place.SetInputConnection(smooth.GetOutputPort())
    place.SetTransform(to_ras)
    normals = vtk.vtkPolyDataNormals()
    normals.SetInputConnection(place.GetOutputPort())
    normals.SplittingOff()
    normals.ConsistencyOn()
    normals.AutoOrientNormalsOn()
    normals.Update()
    return normals.GetOutput()


def _shifted(voxels: float) -> np.ndarray:
    """Takes the padding of one voxel back."""
    matrix = np.eye(4)
    matrix[:3, 3] = voxels
    return matrix
