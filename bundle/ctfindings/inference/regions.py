"""Where answers may look: the body and each anatomy in it, on the coarse grid of ``ChestRegions``.

Shapes: K anatomies, gx gy gz tokens, x y z voxels of the coarse grid, X Y Z voxels of the network's grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bundle.ctfindings.anatomy import ANATOMIES, anatomy_index
from bundle.ctfindings.inference.evidence import Region
from bundle.ctfindings.inference.output.evidence_volume import map_on_scan
from bundle.ctfindings.networks.image.image_encoder import ImageEmbedding
from bundle.ctfindings.scan.coordinates import Array, voxel_spacing, voxel_to_world
from bundle.ctfindings.scan.lung_mask import LUNG as LUNG_LABEL
from bundle.ctfindings.scan.lung_mask import TISSUE, ChestRegions
from bundle.ctfindings.scan.morphology import grown_by_ball, grown_by_box

MARGIN_MM = 10.0
"""Evidence may lie this far outside its anatomy, within the body: findings of the lung reach the chest wall."""
DENSE_MM = 16.0
DENSE_ML = 300.0
"""Lung without air, which no threshold finds: at least ``DENSE_ML`` of tissue that the network calls lung, farther than
``DENSE_MM`` from air-filled lung."""

LUNG, THORAX = anatomy_index("lung"), anatomy_index("thorax")
ORGANS = [anatomy_index(name) for name in ("heart", "esophagus", "aorta")]


class GivenMask(NamedTuple):
    """An anatomy mask that came with the scan."""

    ids: NDArray[Any]  # [X, Y, Z]
    known: NDArray[np.bool_]  # [K]
    affine: Array  # (4, 4), voxel to RAS mm


@dataclass(frozen=True)
class Regions:
    """The anatomies of a scan within its body."""

    inside: NDArray[np.bool_]  # [K, x, y, z]
    near: NDArray[np.bool_]  # [K, x, y, z]: with a margin of at most ``MARGIN_MM``
    affine: Array  # (4, 4), voxel to RAS mm
    reached: NDArray[np.bool_]  # [K, gx, gy, gz]: tokens that reach into ``near``
    tokens: Array  # (4, 4), token index to RAS mm of the token's centre
    lung_litres: float  # air-filled lung

    def answering(self, row: int) -> int:
        """The anatomy itself, or the thorax if none of it lies in the body."""
        return row if self.inside[row].any() else THORAX

    def points_mm(self, row: int) -> Array:
        """World positions of the voxels of an anatomy, ``[n, 3]``."""
        return voxel_to_world(np.argwhere(self.inside[row]), self.affine)

    @cached_property
    def lung_mm(self) -> Array:
        """``points_mm`` of the lungs."""
        return self.points_mm(LUNG)

    def region(self, row: int) -> Region:
        """An anatomy, for ``locate``."""
        inside = self.inside[self.answering(row)]
        voxel_litres = float(abs(np.linalg.det(self.affine[:3, :3])) / 1e6)
        return Region(inside, self.lung_litres or float(inside.sum()) * voxel_litres)

    def confine(self, scores: NDArray[np.float32], row: int) -> NDArray[np.float32]:
        """A token map ``[gx, gy, gz]`` on the coarse grid, ``[x, y, z]``, zero outside the margin of an anatomy.

        Tokens that do not reach into the margin count as zero, so that they do not bleed into it.
        """
        row = self.answering(row)
        near = self.near[row]
        return map_on_scan(scores * self.reached[row], self.tokens, self.affine, near.shape) * near


def find_regions(
    chest: ChestRegions, encoded: ImageEmbedding, scan: int, tokens: Array, given: GivenMask | None = None
) -> Regions:
    """The anatomies of one scan of a batch, within its body.

    The lung is the air-filled lung and large parts without air; the other anatomies are those of the anatomy head
    without the lung. An anatomy that a given mask knows is that of the mask. Without head and mask there are the
    air-filled lung and the body.

    Args:
        chest: body and lungs of the scan.
        encoded: the batch.
        scan: its index in the batch.
        tokens: ``(4, 4)``, token index to RAS mm of the token's centre.
    """
    labels, affine = chest
    # Within -8..8: a single very sure token would push the border far into its neighbours.
    logits = encoded.anatomy_logits[scan].clamp(-8, 8).T.reshape(-1, *encoded.grid).cpu().numpy()
    members = encoded.membership[scan].T.reshape(-1, *encoded.grid).cpu().numpy()
    body, air_filled = labels > 0, labels == LUNG_LABEL
    index = _nearest(labels.shape, affine, tokens)
    last = np.reshape(encoded.grid, (3, 1, 1, 1)) - 1
    nearest = (slice(None), *np.clip(index, 0, last))
    scores = np.stack([map_on_scan(row, tokens, affine, labels.shape) for row in logits])
    inside = body & (scores > 0)
    for row in ORGANS:
        # Organs exclude each other; one too thin for the interpolation has its tokens.
        inside[row] &= scores[row] >= scores[ORGANS].max(axis=0)
        if not inside[row].any():
            inside[row] = body & (logits[row] > 0)[nearest[1:]]
            inside[[other for other in ORGANS if other < row]] &= ~inside[row]
    if not logits.any():
        inside = body & members[nearest]
    if (inside == inside[THORAX]).all():
        inside[:] = False  # A network that finds the body alone (``body_hu``) says nothing of the anatomies in it.
    inside[[row for row in range(len(ANATOMIES)) if row != LUNG]] &= ~air_filled
    inside[THORAX] = body
    voxel = np.asarray(voxel_spacing(affine))
    if air_filled.any():
        inside[LUNG] = air_filled | _dense_lung(inside[LUNG] & (labels == TISSUE), air_filled, voxel)
    if given is not None:
        ids = _mask_on(labels.shape, affine, given)
        for row in np.flatnonzero(given.known).tolist():
            inside[row] = np.isin(ids, ANATOMIES[row].members) & body
    # Steps of one voxel along the axes on which that is within the margin.
    steps = np.diag(voxel <= MARGIN_MM).astype(int).tolist()
    near = np.stack([np.logical_or.reduce([grown_by_box(own, step) for step in steps]) for own in inside]) & body
    reached = _tokens_reaching(near, affine, tokens, encoded.grid, index)
    return Regions(inside, near, affine, reached, tokens, chest.litres)


def body_tokens(chest: ChestRegions, tokens: Array, grid: Sequence[int]) -> NDArray[np.bool_]:
    """Tokens that reach into the body, bool ``[gx, gy, gz]``; all of them if no body was found."""
    labels, affine = chest
    if not labels.any():
        return np.ones(tuple(grid), bool)
    return _tokens_reaching((labels > 0)[None], affine, tokens, grid, _nearest(labels.shape, affine, tokens))[0]


def _tokens_reaching(
    masks: NDArray[np.bool_], affine: Array, tokens: Array, grid: Sequence[int], index: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Tokens ``[n, gx, gy, gz]`` of masks ``[n, x, y, z]``: the nearest one of a voxel, or with the centre in one.

    ``index`` is that of the nearest token of each voxel, ``[3, x, y, z]``.
    """
    # Tokens that are smaller than a voxel.
    found = _looked_up(masks, _nearest(grid, tokens, affine))
    flat, within = _flat(index, grid)
    for row, mask in zip(found.reshape(len(masks), -1), masks, strict=True):
        row[flat[mask & within]] = True
    return found


def _dense_lung(tissue: NDArray[np.bool_], lung: NDArray[np.bool_], voxel: Array) -> NDArray[np.bool_]:
    far = tissue & ~grown_by_ball(lung, DENSE_MM, voxel)
    parts, count = ndimage.label(far)
    litres = np.bincount(parts.ravel(), minlength=count + 1) * voxel.prod() / 1000
    litres[0] = 0
    return np.isin(parts, np.flatnonzero(litres >= DENSE_ML))


def _mask_on(shape: Sequence[int], affine: Array, given: GivenMask) -> NDArray[Any]:
    return _looked_up(given.ids[None], _nearest(shape, affine, given.affine))[0]


def _looked_up(values: NDArray[Any], index: NDArray[np.int64]) -> NDArray[Any]:
    """Values ``[n, x, y, z]`` at voxels ``[3, ...]``, ``[n, ...]``; zero outside the grid."""
    flat, within = _flat(index, values.shape[1:])
    return np.ascontiguousarray(values.reshape(len(values), -1)[:, flat] * within)


def _flat(index: NDArray[np.int64], grid: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Positions ``[...]`` of voxels ``[3, ...]`` in a flat grid, 0 for those outside it, and which are inside."""
    size = np.reshape(grid, (3, *(1,) * (index.ndim - 1)))
    within: NDArray[np.bool_] = np.all((index >= 0) & (index < size), axis=0)
    return np.ravel_multi_index(tuple(index * within), tuple(grid)), within


def _nearest(shape: Sequence[int], affine: Array, target: Array) -> NDArray[np.int64]:
    """The voxel of a target grid that is nearest to each voxel of a grid, ``[3, x, y, z]``; it may lie outside."""
    step = np.linalg.inv(target) @ affine
    axes = np.meshgrid(*(np.arange(size) for size in shape), indexing="ij", sparse=True)
    found = [row[3] + sum(factor * axis for factor, axis in zip(row[:3], axes, strict=True)) for row in step[:3]]
    return np.rint(np.stack(found)).astype(np.int64)
