"""The example scan of the project: of ``scripts/demo.py``, of the recorded findings, and of the Slicer extension."""

import numpy as np
from numpy.typing import NDArray

from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.phantom.case import Case
from bundle.ctfindings.phantom.dataset import make_case

RENDERED = ("Cardiomegaly", "Coronary artery wall calcification", "Lung nodule", "Pleural effusion")
"""The findings that are drawn into it."""

_SEED, _INDEX = 99, 0


def example_case() -> tuple[Case, NDArray[np.int16], NDArray[np.float64]]:
    """The record, the image in HU (X, Y, Z) and the affine (4, 4) to world RAS mm."""
    case, image, _, _, affine = make_case(_SEED, _INDEX, [int(name in RENDERED) for name in FINDING_NAMES])
    return case, image, affine
