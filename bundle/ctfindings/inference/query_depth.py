"""Depth profile of an answer: how strongly each level along the body axis answers, in mm.

Weights trained on slice references give the profile with their depth rows and snippet head (``snippets``). For other
weights the profile is the strongest evidence of each axial layer (``evidence``).

Shapes: Q queries, D depth rows, E embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from bundle.ctfindings.inference.evidence import as_map
from bundle.ctfindings.inference.findings_record import DepthScore
from bundle.ctfindings.networks.image.depth import depth_logits, depth_profile
from bundle.ctfindings.networks.text.text_tower import TextTower
from bundle.ctfindings.scan.coordinates import Array, as_affine, bounds_mm, voxel_to_world

DepthSource = Literal["snippets", "evidence"]


def snippet_logits(depth: Tensor, text: TextTower, queries: Sequence[str]) -> Tensor | None:
    """Cosine of the unit depth rows of a scan ``[D, E]`` and each query, over the temperature of the loss, ``[Q, D]``.

    None if the weights were not trained on slice references.
    """
    if not bool(text.snippet_head_trained):
        return None
    return depth_logits(depth, text(queries, "snippet"))


def snippet_profile(
    logits: Tensor, grid: Sequence[int], token_affine: Any, scan_affine: Any, scan_shape: Sequence[int]
) -> list[DepthScore]:
    """The probability of each depth row with its centre in the scan, inferior to superior; they sum to one.

    Args:
        logits: of the depth rows, ``[D]``, inferior to superior.
        grid: tokens along X, Y, Z.
        token_affine, scan_affine: ``(4, 4)``, token index and voxel index of the scan's own grid to RAS mm.
        scan_shape: voxels of the scan along its own three axes.
    """
    rows, size = len(logits), tuple(grid)
    # A row is a token, or an even part of one.
    heights = _heights((np.arange(rows) + 0.5) * size[2] / rows - 0.5, size, as_affine(token_affine))
    lower, upper = bounds_mm(as_affine(scan_affine), (0, 0, 0), np.asarray(scan_shape) - 1)
    inside = (heights >= lower[2]) & (heights <= upper[2])
    probabilities = depth_profile(logits.double().cpu(), torch.from_numpy(np.where(inside, heights, np.nan))).numpy()
    return _profile(heights[inside], probabilities[inside])


def evidence_profile(evidence: Any, map_affine: Any) -> list[DepthScore]:
    """The largest value of each layer of a map of ``locate``, ``[x, y, z]``, inferior to superior."""
    scores = as_map(evidence)
    heights = _heights(np.arange(scores.shape[2], dtype=np.float64), scores.shape, as_affine(map_affine))
    return _profile(heights, scores.max(axis=(0, 1)))


def best_depth(profile: Sequence[DepthScore]) -> float | None:
    """World z in mm of the highest score of a profile; None if it is empty or has no score above zero."""
    best = max(profile, key=lambda entry: entry.score, default=None)
    return None if best is None or best.score <= 0 else best.z_mm


def _heights(levels: Array, grid: tuple[int, ...], tokens: Array) -> Array:
    """World z in mm at token levels along the third axis, in the middle of the other two."""
    middle = [np.full(len(levels), (size - 1) / 2) for size in grid[:2]]
    return voxel_to_world(np.stack([*middle, levels], axis=-1), tokens)[:, 2]


def _profile(heights: Array, scores: Array) -> list[DepthScore]:
    return [DepthScore(float(z_mm), float(score)) for z_mm, score in zip(heights, scores, strict=True)]
