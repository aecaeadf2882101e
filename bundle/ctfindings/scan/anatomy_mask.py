"""Reading an anatomy mask, with anyone's label ids, onto the grid of its scan."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from monai.data import MetaTensor
from scipy import ndimage

from bundle.ctfindings.anatomy import ANATOMIES, ANATOMY_NAMES, anatomy_index
from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.scan.load_scan import as_metatensor, read_volume

MASK_MAPPINGS: dict[str, dict[int, str]] = {
    "ctfindings": {anatomy.mask_id: anatomy.name for anatomy in ANATOMIES},
    "totalsegmentator": {label: anatomy.name for anatomy in ANATOMIES for label in anatomy.totalsegmentator},
    "totalsegmentator_v1": {label: anatomy.name for anatomy in ANATOMIES for label in anatomy.totalsegmentator_v1},
}
"""Label ids of well-known masks. The third name, ``lung``, takes every id above 0 as lung."""


def load_anatomy_mask(
    path: str | Path, mapping: Mapping[int, str] | Mapping[str, str] | str, reference: MetaTensor
) -> tuple[MetaTensor, tuple[str, ...]]:
    """Read an anatomy mask and put it on the grid of a scan, nearest voxel through the affines.

    Args:
        path: NIfTI, NRRD or MetaImage with integer label ids; any grid.
        mapping: label id -> name of an anatomy (ids may be strings, as JSON has it), or one of ``ctfindings``,
            ``totalsegmentator``, ``totalsegmentator_v1`` and ``lung``.
        reference: the scan, [1, X, Y, Z].

    Returns:
        The mask on the scan's grid, [1, X, Y, Z] uint8, with the ids of ``anatomy.ANATOMIES``, 0 where no mapped id is;
        and the anatomies it knows, which are those the mapping names. Ids without a mapping are ignored, with a warning
        in the meta.

    Raises:
        ScanError: when the file cannot be read, holds no integers, negative values that the mapping does not name or no
            mapped id, or does not overlap the scan.
        ValueError: when the mapping is unknown or names an unknown anatomy.
    """
    volume = read_volume(path)
    labels = volume.array
    if labels.dtype.kind not in "biu":
        if not np.array_equal(labels, np.round(labels)):
            raise ScanError(path, "holds values that are not integers; an anatomy mask has one integer id per anatomy")
        labels = labels.astype(np.int64)
    present = np.unique(labels)
    names = _names_of_ids(mapping, present)
    if any(label < 0 and int(label) not in names for label in present):
        raise ScanError(
            path, f"holds {present[0]}, and ids of a mask are not negative; give the anatomy mask, not a scan"
        )
    known = tuple(name for name in ANATOMY_NAMES if name in names.values())
    ids = {label: ANATOMIES[anatomy_index(name)].mask_id for label, name in names.items()}
    ours = np.zeros(len(present), np.uint8)
    for place, label in enumerate(present):
        ours[place] = ids.get(int(label), 0)
    if not ours.any():
        raise ScanError(
            path, f"holds none of the mapped ids {sorted(ids)}; name its ids in the mapping of the anatomy mask"
        )
    ignored = [int(label) for label, mask_id in zip(present, ours, strict=True) if label != 0 and mask_id == 0]
    if ignored:
        volume.warnings.append(f"{path}: {len(ignored)} label ids that the mapping does not name were ignored")
    mapped = ours[np.searchsorted(present, labels)]
    placed = _on_grid(mapped, volume.affine, reference, path)
    if not placed.any():
        raise ScanError(
            path, f"does not overlap the scan {reference.meta.get('filename_or_obj', '')}; give the mask of this scan"
        )
    mask = as_metatensor(placed, volume._replace(affine=np.asarray(reference.affine, np.float64)), path)
    return mask, known


def _names_of_ids(mapping: Mapping[int, str] | Mapping[str, str] | str, present: np.ndarray) -> dict[int, str]:
    """Label id -> anatomy; id 0 is never an anatomy."""
    if mapping == "lung":
        return {int(label): "lung" for label in present if label > 0}
    if isinstance(mapping, str):
        if mapping not in MASK_MAPPINGS:
            raise ValueError(
                f"mask mapping {mapping!r} is unknown; known are {', '.join([*MASK_MAPPINGS, 'lung'])}, or a table of ids"
            )
        return MASK_MAPPINGS[mapping]
    return {int(label): name for label, name in mapping.items() if int(label) != 0}


def _on_grid(labels: np.ndarray, affine: np.ndarray, reference: MetaTensor, path: str | Path) -> np.ndarray:
    """Labels (X, Y, Z) of the voxels nearest to those of the reference, 0 outside; needs no grid of coordinates in
    memory.
    """
    target = np.asarray(reference.affine, np.float64)
    shape = tuple(int(size) for size in reference.shape[1:])
    if labels.shape == shape and np.allclose(affine, target, atol=1e-3):
        return np.ascontiguousarray(labels)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        raise ScanError(
            path, "its affine is singular or not finite; write the mask again with the geometry of the scan"
        )
    to_labels = np.linalg.inv(affine) @ target
    return ndimage.affine_transform(
        labels, to_labels[:3, :3], to_labels[:3, 3], shape, order=0, mode="grid-constant", cval=0
    )
