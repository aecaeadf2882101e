"""Depth profile of an answer: the strongest evidence of each axial layer, in mm.

It is read from the map that the heat shows, so its maximum is the layer of the peak, where viewers jump.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bundle.ctfindings.inference.evidence import as_map
from bundle.ctfindings.inference.findings_record import DepthScore
from bundle.ctfindings.scan.coordinates import as_affine, voxel_to_world


def depth_profile(evidence: Any, map_affine: Any) -> list[DepthScore]:
    """The largest value of each layer of a map of ``locate``, ``[x, y, z]``, inferior to superior.

    A layer has the world z of its middle.
    """
    scores = as_map(evidence)
    x, y, layers = scores.shape
    levels = np.arange(layers, dtype=np.float64)
    middle = [np.full(layers, (size - 1) / 2) for size in (x, y)]
    heights = voxel_to_world(np.stack([*middle, levels], axis=-1), as_affine(map_affine))[:, 2]
    strongest = scores.max(axis=(0, 1))
    return [DepthScore(float(z_mm), float(score)) for z_mm, score in zip(heights, strongest, strict=True)]
