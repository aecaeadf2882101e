"""Where along the body a free text looks: from the depth rows of a scan to a profile in mm.

Two sources. Weights trained on slice references answer with their depth rows and snippet head (``snippets``); for
weights that never saw a slice reference that head means nothing, and the profile is the strongest evidence of each
axial layer (``evidence``).

Shapes: Q queries, D depth rows, E embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from bundle.ctfindings.inference.evidence import strongest_by_layer
from bundle.ctfindings.inference.findings_record import DepthScore
from bundle.ctfindings.networks.image.depth import depth_logits, depth_profile
from bundle.ctfindings.networks.text.text_tower import TextTower
from bundle.ctfindings.scan.coordinates import as_affine, bounds_mm, voxel_to_world

DepthSource = Literal["snippets", "evidence"]


def snippet_logits(depth: Tensor, text: TextTower, queries: Sequence[str]) -> Tensor | None:
    """Cosine of every depth row and query, divided by the temperature of the localization objective, ``[Q, D]``.

    Args:
        depth: unit depth rows of one scan, ``[D, E]``.
        text: the text tower of the same checkpoint.
        queries: one or more.

    Returns:
        None when the weights were not trained on slice references.
    """
    if not bool(text.snippet_head_trained):
        return None
    return depth_logits(depth, text(queries, "snippet"))


def place_depth(
    logits: Tensor | None, evidence: Any, token_affine: Any, scan_affine: Any, scan_shape: Sequence[int]
) -> tuple[list[DepthScore], DepthSource]:
    """The depth profile of one answer, from inferior to superior, and where it comes from.

    Args:
        logits: of the depth rows, ``[D]``, inferior to superior; None to read the profile from the evidence.
        evidence: token map of the answer, ``[gx, gy, gz]``.
        token_affine: ``(4, 4)``, token index to RAS mm of the token's centre.
        scan_affine: ``(4, 4)``, voxel index of the scan's own grid to RAS mm.
        scan_shape: voxels of the scan along its own three axes.

    Returns:
        From snippets: each row whose centre lies in the scan with its probability, which sum to one. From evidence:
        each layer with its largest value, 0..1.
    """
    if logits is None:
        layers = strongest_by_layer(evidence, token_affine, scan_affine, scan_shape)
        return [DepthScore(z_mm, score) for z_mm, score in layers], "evidence"
    tokens, scan = as_affine(token_affine), as_affine(scan_affine)
    gx, gy, gz = (int(size) for size in evidence.shape)
    rows = len(logits)
    # A row is a token, or an even part of one.
    level = (np.arange(rows) + 0.5) * gz / rows - 0.5
    heights = voxel_to_world(
        np.stack([np.full(rows, (gx - 1) / 2), np.full(rows, (gy - 1) / 2), level], axis=-1), tokens
    )[:, 2]
    lower, upper = bounds_mm(scan, (0, 0, 0), np.asarray(scan_shape) - 1)
    inside = (heights >= lower[2]) & (heights <= upper[2])
    scores = depth_profile(logits.double().cpu(), torch.from_numpy(np.where(inside, heights, np.nan))).numpy()[inside]
    return [
        DepthScore(float(z_mm), float(score)) for z_mm, score in zip(heights[inside], scores, strict=True)
    ], "snippets"


def best_depth(profile: Sequence[DepthScore]) -> float | None:
    """World z in mm of the highest score of a profile; None for an empty one, or where nothing is above zero."""
    best = max(profile, key=lambda entry: entry.score, default=None)
    return None if best is None or best.score <= 0 else best.z_mm
