"""The DICOM segmentation of the anatomies, read by highdicom, as segments of Slicer over the series it belongs to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.inference.output.test_dicom import HEART, LUNG, Written
from tests.plugins.slicer.program import Program


def segment_centres(program: Program, file: Path) -> dict[str, np.ndarray]:
    """Centres of the voxels of each segment in RAS mm, ``(N, 3)``, by Slicer's own geometry of the segment."""
    import highdicom as hd
    import slicer
    import vtk
    from ctfindings_client import nodes
    from vtk.util.numpy_support import vtk_to_numpy

    stored = hd.seg.segread(file)
    volume = stored.get_volume(combine_segments=False)  # [slice, row, column, segment], to LPS mm
    to_ras = (np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine)[:, [2, 1, 0, 3]]
    segmentation_node = program.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "anatomies")
    logic, centres = slicer.vtkSlicerSegmentationsModuleLogic, {}
    for description in stored.SegmentSequence:
        labels = program.scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
        nodes.fill_volume(labels, volume.array[..., description.SegmentNumber - 1].astype(np.uint8), to_ras)
        assert logic.ImportLabelmapToSegmentationNode(labels, segmentation_node)
        segmentation = segmentation_node.GetSegmentation()
        segment = segmentation.GetSegment(segmentation.GetNthSegmentID(segmentation.GetNumberOfSegments() - 1))
        image, matrix = segment.GetRepresentation("Binary labelmap"), vtk.vtkMatrix4x4()
        image.GetImageToWorldMatrix(matrix)
        first = np.array(image.GetExtent()[::2])
        inside = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])
        index = np.argwhere(inside == segment.GetLabelValue())[:, ::-1] + first
        world = np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])
        centres[description.SegmentLabel] = index @ world[:3, :3].T + world[:3, 3]
    return centres


def test_segments_lie_where_the_record_found_the_anatomies(
    program: Program,
    tmp_path: Path,
    hu: np.ndarray,
    affine: np.ndarray,
    write_dicom: Callable[..., Path],
) -> None:
    series: Any = Written(write_dicom(tmp_path / "scan", hu, affine))
    series.write(tmp_path / "out")
    centres = segment_centres(program, tmp_path / "out" / "anatomies.dcm")
    for name, row in (("lung", LUNG), ("heart", HEART)):
        index = np.argwhere(series.regions[row])
        expected = index @ np.asarray(series.affine)[:3, :3].T + np.asarray(series.affine)[:3, 3]
        assert len(centres[name]) == len(expected)
        apart = np.linalg.norm(centres[name][:, None] - expected[None], axis=-1)
        assert apart.min(axis=0).max() < 0.01, f"{name} is mirrored or shifted"
