"""Snippet targets: the slice references of a study that lie in its own scan."""

import logging
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from monai.transforms import MapTransform

from bundle.ctfindings.scan.coordinates import bounds_mm

logger = logging.getLogger(__name__)


class SnippetTargetsd(MapTransform):
    """Keeps the snippets that point to a slice of the scan, with ``text`` and ``z_mm`` (world RAS mm) only.

    A snippet without ``z_mm`` was not resolved to a slice; one with ``z_mm`` outside the scan refers to another series.
    Both are left out, and their number and reason are logged. The key ``snippets`` is optional.
    """

    def __init__(self) -> None:
        super().__init__("snippets", allow_missing_keys=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        study = dict(data)
        for key in self.key_iterator(study):
            placed = [snippet for snippet in study[key] or () if snippet.get("z_mm") is not None]
            meta = study["image"].meta  # of the loaded scan, at the outer faces of its voxels
            (*_, low), (*_, high) = bounds_mm(meta["original_affine"], (0, 0, 0), np.subtract(meta["spatial_shape"], 1))
            inside = [snippet for snippet in placed if low <= snippet["z_mm"] <= high]
            outside = f"z_mm outside the scan ({low:.0f} to {high:.0f} mm)"
            left_out = {"no z_mm": len(study[key] or ()) - len(placed), outside: len(placed) - len(inside)}
            for reason, count in left_out.items():
                if count:
                    # Without the id of the study, which may be a patient's.
                    logger.warning("a study: %d of its snippets left out: %s", count, reason)
            study[key] = [{"text": snippet["text"], "z_mm": float(snippet["z_mm"])} for snippet in inside]
        return study
