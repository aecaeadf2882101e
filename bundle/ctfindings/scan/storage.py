"""How the voxels of a file become HU with a place in the patient, where the file does not say so itself but a table
does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np


class Stored(NamedTuple):
    """What a study record knows of its file, the entry ``stored`` of a datalist. All are optional.

    Attributes:
        slope: HU = slope x stored value + intercept; applied once, by ``load_scan``.
        intercept: see ``slope``.
        affine: voxel indices to RAS world mm, (4, 4), in place of that of the file; None keeps the file's.
        axes: where the three axes of the array point, such as ``IPL``, for files without geometry; the middle of the
            scan is at 0.
        spacing_mm: voxel size along these axes.
    """

    slope: float = 1.0
    intercept: float = 0.0
    affine: tuple[tuple[float, ...], ...] | None = None
    axes: str | None = None
    spacing_mm: tuple[float, float, float] | None = None

    @property
    def rescales(self) -> bool:
        """Whether the voxels are not in HU as they are."""
        return (self.slope, self.intercept) != (1.0, 0.0)

    def affine_of(self, shape: Sequence[int]) -> np.ndarray | None:
        """Voxel indices to RAS world mm, (4, 4) float64, for an array of this shape; None when the record does not say."""
        if self.affine is not None:
            return np.asarray(self.affine, np.float64)
        if self.axes is None or self.spacing_mm is None:
            return None
        affine = np.eye(4)
        affine[:3, :3] = 0
        for axis, (world, sign) in enumerate(nib.orientations.axcodes2ornt(tuple(self.axes))):
            affine[int(world), axis] = sign * self.spacing_mm[axis]
        affine[:3, 3] = -affine[:3, :3] @ ((np.asarray(shape, np.float64) - 1) / 2)
        return affine

    def record(self) -> dict[str, Any]:
        """The entry of a datalist: what differs from the default."""
        return {name: value for name, value in self._asdict().items() if value != self._field_defaults[name]}


def stored_from(entry: Mapping[str, Any] | None) -> Stored:
    """The entry ``stored`` of a study record.

    Raises:
        ValueError: when it is no mapping, has an unknown key, or a value that is no number, no 4 x 4 affine or no axes.
    """
    if entry is not None and not isinstance(entry, Mapping):
        raise ValueError(f"stored is {entry!r}; give a mapping such as {{'intercept': -8192}}")
    values = dict(entry or {})
    unknown = sorted(set(values) - set(Stored._fields))
    if unknown:
        raise ValueError(f"stored has {unknown[0]!r}; known are {', '.join(Stored._fields)}")
    try:
        slope, intercept = float(values.get("slope", 1)), float(values.get("intercept", 0))
        affine = None if values.get("affine") is None else np.asarray(values["affine"], np.float64)
        spacing = None if values.get("spacing_mm") is None else np.asarray(values["spacing_mm"], np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"stored holds a value that is no number ({error}); correct it") from error
    axes = values.get("axes")
    if not np.isfinite([slope, intercept]).all() or slope <= 0:
        raise ValueError(
            f"stored has slope {slope:g} and intercept {intercept:g}; numbers with a positive slope are expected"
        )
    if affine is not None and (affine.shape != (4, 4) or not np.isfinite(affine).all()):
        raise ValueError("the affine of stored is no 4 x 4 matrix of numbers; correct it")
    if (axes is None) != (spacing is None) or (axes is not None and not _are_axes(axes)):
        raise ValueError(
            f"stored has axes {axes!r}; three letters such as 'IPL', and spacing_mm with them, are expected"
        )
    if spacing is not None and (spacing.shape != (3,) or not (spacing > 0).all()):
        raise ValueError("spacing_mm of stored is not three positive numbers; correct it")
    return Stored(
        slope,
        intercept,
        None if affine is None else tuple(tuple(float(value) for value in row) for row in affine),
        axes,
        None if spacing is None else (float(spacing[0]), float(spacing[1]), float(spacing[2])),
    )


def _are_axes(axes: Any) -> bool:
    """Whether these are three letters, one of each pair R L, A P, S I."""
    pairs = ("RL", "AP", "SI")
    return (
        isinstance(axes, str) and len(axes) == 3 and all(sum(letter in pair for letter in axes) == 1 for pair in pairs)
    )
