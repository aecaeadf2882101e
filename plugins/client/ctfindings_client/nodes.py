"""The nodes that belong to a volume: found by their role, made once, removed together.

A node carries its role as an attribute and the volume as a node reference. Both are saved with the scene, so a scene
that is opened again is understood.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import slicer.util
import vtk

_ROLE = "CTFindings.role"
_VOLUME = "CTFindings.volume"


def find(volume: Any, role: str) -> Any:
    """The node of a volume with a role, or None."""
    return next((node for node in _all(volume) if node.GetAttribute(_ROLE) == role), None)


def make(volume: Any, role: str, node_class: str, name: str, *, listed: bool = True) -> Any:
    """The node of a volume with a role, created if missing; gets its name in both cases.

    Args:
        volume: the scan.
        role: of the node.
        node_class: such as ``vtkMRMLTableNode``.
        name: of the node.
        listed: whether selectors offer the node; decided when it is made.
    """
    node = find(volume, role)
    if node is None:
        node = getattr(slicer, node_class)()
        node.SetName(name)
        node.SetHideFromEditors(not listed)  # before it is added: selectors look when it arrives
        node = slicer.mrmlScene.AddNode(node)
        node.SetAttribute(_ROLE, role)
        node.AddNodeReferenceID(_VOLUME, volume.GetID())
        _file_under(volume, node)
    node.SetName(name)
    return node


def remove(volume: Any, role: str | None = None) -> None:
    """Removes the nodes of a volume, or the one with a role, with their display and storage nodes, which the scene
    would keep.
    """
    for node in _all(volume):
        if role is None or node.GetAttribute(_ROLE) == role:
            _take_out(node)


def remove_orphans() -> None:
    """Removes the nodes whose volume is no longer in the scene."""
    for node in _with_role():
        if node.GetNodeReference(_VOLUME) is None:
            _take_out(node)


def hide_others(volume: Any) -> list[Any]:
    """Hides what belongs to other volumes than this one, or to any for None; gives those nodes."""
    others = [node for node in _with_role() if volume is None or node.GetNodeReference(_VOLUME) is not volume]
    for node in others:
        if node.IsA("vtkMRMLDisplayableNode") and node.GetDisplayNode() is not None:
            node.GetDisplayNode().SetVisibility(False)
    return others


def is_one(node: Any) -> bool:
    """Whether a node has a role, and so belongs to a volume."""
    return bool(node.GetAttribute(_ROLE))


def affine_of(volume: Any) -> np.ndarray:
    """Voxel index (i, j, k) of a volume to RAS mm, ``(4, 4)``; transforms above the volume are left out."""
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def fill_volume(node: Any, array: np.ndarray, affine: np.ndarray) -> None:
    """Puts voxels ``(K, J, I)`` and their place into a volume node."""
    matrix = vtk.vtkMatrix4x4()
    for row in range(4):
        for column in range(4):
            matrix.SetElement(row, column, float(affine[row, column]))
    node.SetIJKToRASMatrix(matrix)
    slicer.util.updateVolumeFromArray(node, array)


def _all(volume: Any) -> list[Any]:
    return [node for node in _with_role() if node.GetNodeReference(_VOLUME) is volume]


def _with_role() -> list[Any]:
    every = [slicer.mrmlScene.GetNthNode(index) for index in range(slicer.mrmlScene.GetNumberOfNodes())]
    return [node for node in every if is_one(node)]


def _take_out(node: Any) -> None:
    helpers = [node.GetNthNodeReference(kind, 0) for kind in ("display", "storage")]
    slicer.mrmlScene.RemoveNode(node)
    for helper in helpers:
        if helper is not None:
            slicer.mrmlScene.RemoveNode(helper)


def _file_under(volume: Any, node: Any) -> None:
    """Shows the node below its volume in the Data module, where there is such a tree."""
    tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    if tree is not None and tree.GetItemByDataNode(node):
        tree.SetItemParent(tree.GetItemByDataNode(node), tree.GetItemByDataNode(volume))
