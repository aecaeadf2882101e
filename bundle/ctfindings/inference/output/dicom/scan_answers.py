"""What the DICOM objects of one scan show: its answers, the images they refer to, and the volumes."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from bundle.ctfindings.inference.findings_record import FindingsRecord
from bundle.ctfindings.scan.storage import SourceImages

DICOM_REFUSED = "dicom-refused"
"""Code of a scan whose answers can be written, but not as DICOM objects."""


class ScanAnswers(NamedTuple):
    """Answers about one scan. Shapes: K anatomies, x y z voxels of the grid of the volumes."""

    record: FindingsRecord
    source: SourceImages  # images of the slices
    regions: Any  # anatomies, bool [K, x, y, z]
    maps: Mapping[str, Any]  # evidence [x, y, z] in [0, 1] by ``answer.key``
    affine: Any  # (4, 4), voxel of regions and maps to RAS mm
