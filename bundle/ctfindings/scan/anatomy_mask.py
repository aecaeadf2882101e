"""Reads an anatomy mask with any label ids onto the grid of its scan."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from monai.data import MetaTensor
from scipy import ndimage

from bundle.ctfindings.anatomy import ANATOMIES, ANATOMY_NAMES, anatomy_index
from bundle.ctfindings.files.errors import ScanError, coded
from bundle.ctfindings.scan.load_scan import as_metatensor, read_volume

MASK_MAPPINGS: dict[str, dict[int, str]] = {
    "ctfindings": {anatomy.mask_id: anatomy.name for anatomy in ANATOMIES},
    "totalsegmentator": {label: anatomy.name for anatomy in ANATOMIES for label in anatomy.totalsegmentator},
    "totalsegmentator_v1": {label: anatomy.name for anatomy in ANATOMIES for label in anatomy.totalsegmentator_v1},
}
"""Label ids of well-known masks. A further name, ``lung``, maps every id above 0 to lung."""


def load_anatomy_mask(
    path: str | Path, mapping: Mapping[int, str] | Mapping[str, str] | str, reference: MetaTensor
) -> tuple[MetaTensor, tuple[str, ...]]:
    """Read an anatomy mask and resample it to the grid of a scan, nearest voxel.

    Args:
        path: NIfTI, NRRD or MetaImage with integer label ids, on any grid.
        mapping: anatomy by label id (strings, as in JSON, or integers), or one of ``ctfindings``, ``totalsegmentator``,
            ``totalsegmentator_v1`` and ``lung``.
        reference: the scan, [1, X, Y, Z].

    Returns:
        The mask, [1, X, Y, Z] uint8, with the ids of ``anatomy.ANATOMIES`` and 0 elsewhere; and the anatomies that the
        mapping names. Ids without a mapping are ignored, with a warning in the meta.

    Raises:
        ScanError: if the file cannot be read, contains values that are not integers, negative ids without a mapping or
            no mapped id, or does not overlap the scan.
        ValueError: if the mapping or one of its anatomies is unknown.
    """
    volume = read_volume(path)
    labels = volume.array
    if labels.dtype.kind not in "biu":
        if not np.array_equal(labels, np.round(labels)):
            problem = "contains values that are not integers; give an anatomy mask with one integer id per anatomy"
            raise ScanError(path, problem, "mask-not-integer")
        labels = labels.astype(np.int64)
    present = np.unique(labels)
    names = _names_of_ids(mapping, present)
    if any(label < 0 and int(label) not in names for label in present):
        raise ScanError(
            path, f"contains the negative id {present[0]}; give the anatomy mask, not a scan", "mask-negative-id"
        )
    known = tuple(name for name in ANATOMY_NAMES if name in names.values())
    ids = {label: ANATOMIES[anatomy_index(name)].mask_id for label, name in names.items()}
    ours = np.array([ids.get(int(label), 0) for label in present], np.uint8)
    if not ours.any():
        problem = f"contains none of the mapped ids {sorted(ids)}; add its ids to the mapping of the mask"
        raise ScanError(path, problem, "mask-without-mapped-ids")
    ignored = [int(label) for label, mask_id in zip(present, ours, strict=True) if label != 0 and mask_id == 0]
    if ignored:
        problem = f"{len(ignored)} label ids without a mapping were ignored"
        volume.warnings.append(coded(path, problem, "mask-ids-ignored"))
    placed = _on_grid(ours[np.searchsorted(present, labels)], volume.affine, reference, path)
    if not placed.any():
        scan = reference.meta.get("filename_or_obj", "")
        raise ScanError(path, f"does not overlap the scan {scan}; give the mask of this scan", "mask-elsewhere")
    mask = as_metatensor(placed, volume._replace(affine=np.asarray(reference.affine, np.float64)), path)
    return mask, known


def _names_of_ids(mapping: Mapping[int, str] | Mapping[str, str] | str, present: np.ndarray) -> dict[int, str]:
    """Anatomy by label id; id 0 is always background."""
    if mapping == "lung":
        return {int(label): "lung" for label in present if label > 0}
    if isinstance(mapping, str):
        if mapping not in MASK_MAPPINGS:
            known = ", ".join([*MASK_MAPPINGS, "lung"])
            raise ValueError(f"unknown mask mapping {mapping!r}; choose from {known}, or give a table of ids")
        return MASK_MAPPINGS[mapping]
    return {int(label): name for label, name in mapping.items() if int(label) != 0}


def _on_grid(labels: np.ndarray, affine: np.ndarray, reference: MetaTensor, path: str | Path) -> np.ndarray:
    """Labels (X, Y, Z) on the grid of the reference, nearest voxel, 0 outside. Needs no coordinate grid in memory."""
    target = np.asarray(reference.affine, np.float64)
    shape = tuple(int(size) for size in reference.shape[1:])
    if labels.shape == shape and np.allclose(affine, target, atol=1e-3):
        return np.ascontiguousarray(labels)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        problem = "its affine is singular or not finite; write the mask again with the scan's geometry"
        raise ScanError(path, problem, "impossible-affine")
    to_labels = np.linalg.inv(affine) @ target
    return ndimage.affine_transform(
        labels, to_labels[:3, :3], to_labels[:3, 3], shape, order=0, mode="grid-constant", cval=0
    )
