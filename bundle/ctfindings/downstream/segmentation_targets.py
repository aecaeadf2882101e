"""The masks that a segmentation learns: anatomies and findings by name. Shapes: B scans, C classes, X Y Z voxels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bundle.ctfindings.anatomy import ANATOMIES, ANATOMY_NAMES
from bundle.ctfindings.findings import FINDING_NAMES

GROUPS = {"anatomies": ANATOMY_NAMES, "findings": FINDING_NAMES}


class SegmentationClasses:
    """Classes by the names of the anatomy table and the finding table.

    Args:
        classes: names, or ``anatomies`` or ``findings`` for all of a table.

    Raises:
        ValueError: a name is in neither table.
    """

    def __init__(self, classes: str | Sequence[str]) -> None:
        known = {name.lower(): name for names in GROUPS.values() for name in names}
        given = GROUPS.get(classes, (classes,)) if isinstance(classes, str) else classes
        if unknown := [name for name in given if name.lower() not in known]:
            expected = f"expected 'anatomies', 'findings', or names of docs/datalist.md, got {unknown[0]!r}"
            raise ValueError(f"classes: {expected}")
        self.names = [known[name.lower()] for name in given]

    def stated(self, study: Mapping[str, Any]) -> NDArray[np.bool_]:
        """Classes that a study has a mask of, as far as its record says, bool ``[C]``."""
        labels, masked = study["labels"], "finding_masks" in study
        return np.array(
            [
                "anatomy" in study if name in ANATOMY_NAMES else masked and labels[FINDING_NAMES.index(name)] == 1
                for name in self.names
            ]
        )

    def targets(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Masks ``[B, C, X, Y, Z]`` float, and which of them are known, bool ``[B, C]``.

        The mask of an anatomy is known if the mask file has the anatomy; that of a finding, if it has a voxel or the
        finding is absent.
        """
        image = batch["image"]
        labels = torch.as_tensor(batch["labels"])
        empty = torch.zeros(image.shape, dtype=torch.int32)
        anatomy, bits = (
            batch[key] if isinstance(batch.get(key), Tensor) else empty for key in ("anatomy", "finding_masks")
        )
        given = batch.get("anatomy_known")
        masks, known = [], []
        for name in self.names:
            if name in ANATOMY_NAMES:
                row = ANATOMY_NAMES.index(name)
                mask = torch.isin(anatomy, torch.tensor(ANATOMIES[row].members, dtype=anatomy.dtype))
                known.append(given[:, row] if isinstance(given, Tensor) else torch.zeros(len(image), dtype=torch.bool))
            else:
                column = FINDING_NAMES.index(name)
                mask = (bits >> column) & 1 > 0
                known.append(mask.flatten(1).any(dim=1) | (labels[:, column] == 0))
            masks.append(mask)
        return torch.cat(masks, dim=1).float(), torch.stack(known, dim=1)
