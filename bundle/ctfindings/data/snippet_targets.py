"""Snippets as training targets: which of a study's slice references have a place in its own scan."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from monai.data import MetaTensor
from monai.transforms import MapTransform

logger = logging.getLogger(__name__)


class SnippetTargetsd(MapTransform):
    """Keeps the snippets of a study that point to a slice of its scan, and logs how many it left out and why.

    A snippet without ``z_mm`` was never resolved to a slice; one whose ``z_mm`` lies outside the scan was resolved in
    another series. Neither may teach where to look.

    Args:
        keys: key of the snippets, each with ``text`` and ``z_mm`` (world RAS mm). A study need not have any.
        image_key: key of the image, whose meta knows the grid of the scan as it was loaded.

    Returns (replaces the snippets by):
        those kept, with ``text`` and ``z_mm`` alone.
    """

    def __init__(self, keys: str = "snippets", image_key: str = "image") -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        study = dict(data)
        for key in self.key_iterator(study):
            placed = [snippet for snippet in study[key] or () if snippet.get("z_mm") is not None]
            low, high = _extent_mm(study[self.image_key])
            inside = [snippet for snippet in placed if low <= snippet["z_mm"] <= high]
            for reason, count in (
                ("no z_mm", len(study[key] or ()) - len(placed)),
                (f"z_mm outside the scan ({low:.0f} to {high:.0f} mm)", len(placed) - len(inside)),
            ):
                if count:
                    # Without the id of the study, which may be a patient's.
                    logger.warning("a study: %d of its snippets left out: %s", count, reason)
            study[key] = [{"text": snippet["text"], "z_mm": float(snippet["z_mm"])} for snippet in inside]
        return study


def _extent_mm(image: MetaTensor) -> tuple[float, float]:
    """Lowest and highest world z in mm of the scan as it was loaded, outer faces of its voxels included."""
    affine = np.asarray(image.meta["original_affine"], dtype=np.float64)
    shape = np.asarray(image.meta["spatial_shape"], dtype=np.float64)
    faces = np.stack([np.full(3, -0.5), shape - 0.5])
    z = np.sort(affine[2, :3] * faces, axis=0).sum(axis=1) + affine[2, 3]
    return float(z[0]), float(z[1])
