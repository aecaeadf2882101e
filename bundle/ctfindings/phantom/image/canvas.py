"""The volume that a synthetic scan is drawn on: coordinates of the body, tubes, ellipsoids and smooth noise."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bundle.ctfindings.anatomy import ANATOMIES
from bundle.ctfindings.phantom.patient import Patient

Floats = NDArray[np.float32]
Box = tuple[slice, slice, slice]

LUNG, HEART, ESOPHAGUS, AORTA, MEDIASTINUM, BODY = (anatomy.mask_id for anatomy in ANATOMIES)
SIDES = {"right": 1.0, "left": -1.0}
"""Sign of body x on each side of the patient."""


class Canvas:
    """Voxels in HU with an anatomy mask and finding bits, and the coordinates to draw them in.

    Body coordinates are in mm: x to the patient's right, y to the front, z upwards (RAS), with the origin in the middle
    of the chest at the height of the diaphragm. The body is turned about z and shifted in the field of view, and y
    follows the curve of the spine.

    Args:
        spacing: size of a voxel in mm, (3,).
        shape: number of voxels along X, Y, Z.
        corner: body mm of the centre of the first voxel, for a body that is neither turned nor bent, (3,).
        origin: world RAS mm of the origin of the body, (3,).
        rotation: of the body about its long axis in radians.
        offset: shift of the body in the field of view in mm, (2,).
        kyphosis_mm, middle_mm, span_mm: how far the body is bent forward ``span_mm`` above the height ``middle_mm``.

    Attributes:
        hu: attenuation, float32 (X, Y, Z).
        anatomy: mask ids, uint8 (X, Y, Z).
        bits: bit i is set where finding i was drawn, int32 (X, Y, Z).
        x: body x of each voxel column, (X, Y, 1); ``y`` is (X, Y, Z) and ``z`` (1, 1, Z).
        affine: voxel index to world RAS mm, (4, 4).
    """

    def __init__(
        self,
        spacing: ArrayLike,
        shape: tuple[int, ...],
        corner: ArrayLike,
        origin: ArrayLike,
        rotation: float = 0.0,
        offset: tuple[float, float] = (0.0, 0.0),
        kyphosis_mm: float = 0.0,
        middle_mm: float = 0.0,
        span_mm: float = 1.0,
    ) -> None:
        self.spacing = np.array(spacing, np.float64)
        self.shape = shape
        self.corner = np.array(corner, np.float64)
        cosine, sine = np.cos(rotation), np.sin(rotation)
        self.turn = np.array([[cosine, -sine], [sine, cosine]])
        self.offset = np.array(offset)
        self.affine = np.diag([*self.spacing, 1.0])
        self.affine[:3, 3] = np.array(origin) + self.corner
        gx = self.corner[0] + np.arange(self.shape[0]) * self.spacing[0] - self.offset[0]
        gy = self.corner[1] + np.arange(self.shape[1]) * self.spacing[1] - self.offset[1]
        self.x = (self.turn[0, 0] * gx[:, None] + self.turn[1, 0] * gy[None, :]).astype(np.float32)[:, :, None]
        self.z = (self.corner[2] + np.arange(self.shape[2]) * self.spacing[2]).astype(np.float32)[None, None, :]
        self._kyphosis, self._middle, self._span = kyphosis_mm, middle_mm, span_mm
        plane = (self.turn[0, 1] * gx[:, None] + self.turn[1, 1] * gy[None, :]).astype(np.float32)
        self.y = plane[:, :, None] - self._bend(self.z).astype(np.float32)
        self.voxel = float(np.cbrt(np.prod(self.spacing)))
        self.hu = np.full(self.shape, -1000, np.float32)
        self.anatomy = np.zeros(self.shape, np.uint8)
        self.bits = np.zeros(self.shape, np.int32)
        self._scratch = np.zeros(int(np.prod(self.shape)), np.float32)

    @classmethod
    def of_patient(cls, patient: Patient) -> Self:
        """An empty field of view of a synthetic patient."""
        shape = tuple(round(extent / step) for extent, step in zip(patient.extent, patient.spacing, strict=True))
        spacing, s = np.array(patient.spacing, np.float64), patient.size
        extent = np.array(shape) * spacing
        # The lowest image lies a little under the costophrenic angles.
        corner = np.array([-extent[0] / 2, -extent[1] / 2, -68.0 * s - 8.0]) + spacing / 2
        position = (patient.origin, patient.rotation, patient.offset)
        return cls(spacing, shape, corner, *position, patient.kyphosis_mm, 60 * s, 140 * s)

    def _bend(self, z: NDArray) -> NDArray:
        """How far in mm the body is bent forward at heights z in mm; least in the middle of the chest."""
        share = (z - self._middle) / self._span
        return self._kyphosis * np.where(share > 0, share, 0.8 * share) ** 2

    def index(self, points: ArrayLike) -> NDArray[np.float64]:
        """Voxel indices (N, 3), not rounded, of body points (N, 3) in mm."""
        points = np.asarray(points, np.float64).reshape(-1, 3)
        grid = np.empty_like(points)
        straight = points[:, :2] + np.stack([np.zeros(len(points)), self._bend(points[:, 2])], 1)
        grid[:, :2] = straight @ self.turn.T + self.offset
        grid[:, 2] = points[:, 2]
        return (grid - self.corner) / self.spacing

    def body(self, flat: NDArray[np.int64]) -> Floats:
        """Body coordinates (N, 3) in mm of flat voxel indices (N,)."""
        i, j, k = np.unravel_index(flat, self.shape)
        return np.stack([self.x[i, j, 0], self.y[i, j, k], self.z[0, 0, k]], 1)

    def center(self, flat: NDArray[np.int64]) -> tuple[float, float, float] | None:
        """World RAS mm of the voxel of a region (flat indices) that is nearest to its centroid; None if it is empty."""
        if len(flat) == 0:
            return None
        ijk = np.stack(np.unravel_index(flat, self.shape), 1).astype(np.float64)
        away = ((ijk - ijk.mean(0)) * self.spacing) ** 2
        nearest = ijk[int(away.sum(1).argmin())]
        world = self.affine[:3, :3] @ nearest + self.affine[:3, 3]
        return tuple(round(float(value), 1) for value in world)  # type: ignore[return-value]

    def box(self, center: ArrayLike, radii: ArrayLike) -> Box:
        """Slices that hold the body-aligned box ``center`` +- ``radii`` (mm); may be empty at the border."""
        center = np.asarray(center, np.float64)
        radii = np.broadcast_to(np.asarray(radii, np.float64), 3)
        low, high = center - radii, center + radii
        # The body bends least at ``_middle``, so that its box may be reached there.
        levels = low[2], np.clip(self._middle, low[2], high[2]), high[2]
        index = self.index([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in levels])
        first = np.clip(np.floor(index.min(0)).astype(int), 0, self.shape)
        last = np.clip(np.ceil(index.max(0)).astype(int) + 1, 0, self.shape)
        return slice(first[0], last[0]), slice(first[1], last[1]), slice(first[2], last[2])

    def axes(self, box: Box) -> tuple[Floats, Floats, Floats]:
        """Body x, y and z of a box in mm; the three broadcast to its shape."""
        return self.x[box[0], box[1]], self.y[box], self.z[:, :, box[2]]

    def ellipsoid(self, center: ArrayLike, radii: ArrayLike, margin: float = 0.0) -> tuple[Box, Floats]:
        """A box around an ellipsoid and the approximate signed distance in mm in it, positive inside.

        Centre and semi-axes are in body mm. The box reaches ``margin`` mm beyond the surface.
        """
        center = np.asarray(center, np.float32)
        radii = np.broadcast_to(np.asarray(radii, np.float32), 3)
        box = self.box(center, radii + margin + self.voxel)
        parts = zip(self.axes(box), center, radii, strict=True)
        x, y, z = (((axis - middle) / radius) ** 2 for axis, middle, radius in parts)
        return box, (1 - np.sqrt(x + y + z)) * np.float32(np.cbrt(np.prod(radii)))

    def capsule(self, start: ArrayLike, end: ArrayLike, radius: float) -> tuple[Box, Floats]:
        """A box around a capsule between two body points in mm, and the signed distance in mm in it."""
        start, end = np.asarray(start, np.float64), np.asarray(end, np.float64)
        box = self.box((start + end) / 2, np.abs(end - start) / 2 + radius + self.voxel)
        along = ((end - start) / ((end - start) ** 2).sum()).astype(np.float32)
        x, y, z = (axis - np.float32(begin) for axis, begin in zip(self.axes(box), start, strict=True))
        share = np.clip(along[0] * x + along[1] * y + along[2] * z, 0, 1)
        dx, dy, dz = (end - start).astype(np.float32)
        return box, np.float32(radius) - np.sqrt((x - share * dx) ** 2 + (y - share * dy) ** 2 + (z - share * dz) ** 2)

    def coverage(self, distance: Floats) -> Floats:
        """Share of a voxel inside a surface, from the signed distance in mm (positive inside)."""
        return np.clip(distance * np.float32(1 / self.voxel) + np.float32(0.5), 0, 1)

    def paint_box(self, box: Box, share: Floats, hu: float | Floats, anatomy: int | None = None) -> None:
        """Blends ``hu`` into a box by the share of each voxel; sets the mask id where the share is over one half."""
        view = self.hu[box]
        view += share * (hu - view)
        if anatomy is not None:
            self.anatomy[box][share > 0.5] = anatomy

    def fill_box(self, box: Box, share: NDArray, hu: float | NDArray) -> None:
        """As ``paint_box``, but denser voxels keep their HU."""
        view = self.hu[box]
        view += share * np.maximum(hu - view, 0)

    def paint(self, flat: NDArray[np.int64], share: Floats, hu: float | Floats, anatomy: int | None = None) -> None:
        """As ``paint_box``, for flat voxel indices."""
        values = self.hu.reshape(-1)
        values[flat] += share * (hu - values[flat])
        if anatomy is not None:
            self.anatomy.reshape(-1)[flat[share > 0.5]] = anatomy

    def mark(self, finding: int, flat: NDArray[np.int64]) -> None:
        """Sets the bit of a finding at flat voxel indices."""
        self.bits.reshape(-1)[flat] |= np.int32(1 << finding)

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Erases at the end what was drawn within: the HU, the mask ids and the bits are as before."""
        volumes: tuple[NDArray, ...] = (self.hu, self.anatomy, self.bits)
        before = [volume.copy() for volume in volumes]
        yield
        for volume, kept in zip(volumes, before, strict=True):
            volume[:] = kept

    def flat(self, box: Box, mask: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Flat voxel indices of the true voxels of a mask that lives in a box."""
        i, j, k = np.nonzero(mask)
        return ((i + box[0].start) * self.shape[1] + (j + box[1].start)) * self.shape[2] + (k + box[2].start)

    def balls(self, points: ArrayLike, radii: ArrayLike) -> tuple[NDArray[np.int64], Floats]:
        """Flat indices and shares of the voxels that a set of balls covers; dense points along a curve make a tube.

        Points (N, 3) are in body mm, radii in mm, scalar or (N,).
        """
        index = self.index(points)
        radii = np.broadcast_to(np.asarray(radii, np.float64), (len(index),))
        # A structure thinner than a voxel is drawn one voxel wide and fainter (partial volume).
        half = 0.5 * self.voxel
        faint = np.minimum(1.0, (radii / half) ** 2 * 0.8 + 0.2 * (radii >= half)).astype(np.float32)
        width = np.maximum(radii, half)
        steps = np.ceil(width / 2.0).astype(int)
        low, high, limits = self._scratch.size, 0, np.array(self.shape)
        for step in np.unique(steps):
            rows = np.flatnonzero(steps == step)
            reach = np.ceil((2.0 * step + 0.5 * self.voxel) / self.spacing - 0.5).astype(int)
            reach = np.maximum(reach, 1)
            stencil = np.stack(np.meshgrid(*[np.arange(-r, r + 1) for r in reach], indexing="ij"), -1).reshape(-1, 3)
            # Voxels of the stencil that no ball of this size can reach, wherever in the voxel its centre lies.
            gap = np.maximum(np.abs(stencil) - 0.5, 0) * self.spacing
            stencil = stencil[(gap**2).sum(1) < (2.0 * step + 0.5 * self.voxel) ** 2]
            for start in range(0, len(rows), 20000):
                part = rows[start : start + 20000]
                base = np.rint(index[part]).astype(np.int64)
                rest = ((base - index[part]) * self.spacing).astype(np.float32)
                move = (stencil * self.spacing).astype(np.float32)
                square = (rest[:, None, 0] + move[None, :, 0]) ** 2
                square += (rest[:, None, 1] + move[None, :, 1]) ** 2
                square += (rest[:, None, 2] + move[None, :, 2]) ** 2
                share = (width[part, None].astype(np.float32) - np.sqrt(square)) / np.float32(self.voxel)
                share += np.float32(0.5)
                hit = np.flatnonzero(share.reshape(-1) > 0.02)
                row, column = np.divmod(hit, len(stencil))
                at = base[row] + stencil[column]
                inside = (at >= 0) & (at < limits)
                keep = inside[:, 0] & inside[:, 1] & inside[:, 2]
                row, at = row[keep], at[keep]
                values = np.minimum(share.reshape(-1)[hit[keep]], 1) * faint[part][row]
                touched = (at[:, 0] * self.shape[1] + at[:, 1]) * self.shape[2] + at[:, 2]
                if len(touched):
                    low, high = min(low, int(touched.min())), max(high, int(touched.max()) + 1)
                    np.maximum.at(self._scratch, touched, values)
        flat = low + np.flatnonzero(self._scratch[low:high] > 0)
        share = self._scratch[flat]
        self._scratch[flat] = 0
        return flat, share

    def paint_balls(
        self,
        points: ArrayLike,
        radii: ArrayLike,
        hu: float,
        inside: NDArray[np.bool_] | None = None,
        strength: float = 1.0,
    ) -> tuple[NDArray[np.int64], Floats]:
        """Paints a set of balls as in ``balls``; returns their flat voxel indices and shares.

        Only voxels ``inside`` (X, Y, Z) are painted; all when None. ``strength`` multiplies the shares in painting.
        """
        flat, share = self.balls(points, radii)
        if inside is not None:
            keep = inside.reshape(-1)[flat]
            flat, share = flat[keep], share[keep]
        self.paint(flat, share * np.float32(strength), hu)
        return flat, share

    def splat(self, points: ArrayLike, volumes: NDArray, hu: float, inside: NDArray[np.bool_]) -> None:
        """Paints things smaller than a voxel by their volume, shared out among the eight voxels around each.

        Points (N, 3) are in body mm, volumes (N,) in mm3. Only voxels ``inside`` (X, Y, Z) are painted.
        """
        index = self.index(points)
        base = np.floor(index).astype(np.int64)
        keep = ((base >= 0) & (base < np.array(self.shape) - 1)).all(1)
        base, rest, volumes = base[keep], (index - base)[keep], volumes[keep] / np.prod(self.spacing)
        corner = (base[:, 0] * self.shape[1] + base[:, 1]) * self.shape[2] + base[:, 2]
        strides = (self.shape[1] * self.shape[2], self.shape[2], 1)
        places, weights = [], []
        for corners in np.ndindex(2, 2, 2):
            weights.append(volumes * np.prod(np.where(corners, rest, 1 - rest), axis=1))
            places.append(corner + int(np.dot(corners, strides)))
        total = np.bincount(np.concatenate(places), np.concatenate(weights), self._scratch.size)
        flat = np.flatnonzero(total)
        flat = flat[inside.reshape(-1)[flat]]
        self.paint(flat, np.minimum(total[flat], 1).astype(np.float32), hu)

    def smooth_noise(self, rng: np.random.Generator, scale_mm: float, box: Box | None = None) -> Floats:
        """Noise of unit variance whose grains are about ``scale_mm`` wide, over a box or the whole volume."""
        sizes = self.shape if box is None else tuple(part.stop - part.start for part in box)
        weights = [_spline_weights(size, scale_mm / step) for size, step in zip(sizes, self.spacing, strict=True)]
        field = rng.standard_normal(tuple(w.shape[1] for w in weights), np.float32)
        field = np.tensordot(weights[0], field, (1, 0))
        return np.matmul(np.matmul(weights[1], field), weights[2].T)


def _spline_weights(size: int, step: float) -> Floats:
    """Cubic B-spline weights (size, knots) that turn white noise at knots every ``step`` voxels into unit variance."""
    knots = int(np.ceil(size / step)) + 4
    away = np.abs(np.arange(size)[:, None] / step + 1.5 - np.arange(knots)[None, :])
    weights = np.where(away < 1, 2 / 3 - away**2 + away**3 / 2, np.where(away < 2, (2 - away) ** 3 / 6, 0))
    return (weights / np.linalg.norm(weights, axis=1, keepdims=True)).astype(np.float32)


def tapered_curve(points: ArrayLike, radii: ArrayLike, step: float) -> tuple[NDArray, NDArray]:
    """Resamples a polyline (N, 3) and its radii (N,) smoothly every ``step`` mm."""
    dense = curve(np.column_stack([points, radii]), step)
    return dense[:, :3], dense[:, 3]


def curve(points: ArrayLike, step: float = 1.2) -> NDArray:
    """Resamples a polyline smoothly every ``step`` mm; columns after the first three (mm) follow."""
    values = np.asarray(points, np.float64)
    for _ in range(3 if len(values) > 2 else 0):
        # Chaikin: corners are cut, both ends stay.
        cut = np.empty((2 * len(values), values.shape[1]))
        cut[0], cut[-1] = values[0], values[-1]
        cut[1:-1:2] = 0.75 * values[:-1] + 0.25 * values[1:]
        cut[2:-1:2] = 0.25 * values[:-1] + 0.75 * values[1:]
        values = cut
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(values[:, :3], axis=0), axis=1))])
    at = np.linspace(0, length[-1], max(2, int(length[-1] / step) + 1))
    return np.stack([np.interp(at, length, column) for column in values.T], 1)
