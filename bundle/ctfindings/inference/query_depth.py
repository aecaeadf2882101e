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

from bundle.ctfindings.inference.evidence import as_map, tokens_in_scan
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


def place_depth(
    logits: Tensor | None, evidence: Any, token_affine: Any, scan_affine: Any, scan_shape: Sequence[int]
) -> tuple[list[DepthScore], DepthSource]:
    """The depth profile of one answer, from inferior to superior, and its source.

    From snippets: each row with its centre in the scan and its probability; they sum to one. From evidence: each layer
    that reaches into the scan with its largest value, 0..1.

    Args:
        logits: of the depth rows, ``[D]``, inferior to superior; None reads the profile from the evidence.
        evidence, token_affine, scan_affine, scan_shape: see ``locate``.
    """
    tokens, scan, shape = as_affine(token_affine), as_affine(scan_affine), np.asarray(scan_shape, dtype=np.int64)
    grid = tuple(evidence.shape)
    if logits is None:
        scores = as_map(evidence)
        tokens_inside = tokens_in_scan(scores.shape, tokens, scan, shape)
        strongest = np.where(tokens_inside, scores, 0.0).max(axis=(0, 1))
        inside, heights = tokens_inside.any(axis=(0, 1)), _heights(np.arange(grid[2]), grid, tokens)
        return sorted(_profile(heights[inside], strongest[inside]), key=lambda level: level.z_mm), "evidence"
    rows = len(logits)
    # A row is a token, or an even part of one.
    heights = _heights((np.arange(rows) + 0.5) * grid[2] / rows - 0.5, grid, tokens)
    lower, upper = bounds_mm(scan, (0, 0, 0), shape - 1)
    inside = (heights >= lower[2]) & (heights <= upper[2])
    probabilities = depth_profile(logits.double().cpu(), torch.from_numpy(np.where(inside, heights, np.nan))).numpy()
    return _profile(heights[inside], probabilities[inside]), "snippets"


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
