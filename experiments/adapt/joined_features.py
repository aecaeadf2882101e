"""Features beside those of a tower in the rows of a head: of a finer stage of Astra's encoder, or of another tower."""

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn

from bundle.ctfindings.adaptation.adapt import Start
from bundle.ctfindings.adaptation.held_scans import PCA_TOKENS
from bundle.ctfindings.data.scan_cache import CachedStudies
from bundle.ctfindings.files.progress import progress_bar
from bundle.ctfindings.inference.encoding import scan_body

LIMIT = 5.0
"""Standardised features are clipped to this many standard deviations, as those of a tower are."""


def with_features(start: Start, features: Tensor, from_zero: bool) -> Start:
    """The start of a head whose rows read features of each scan after its own.

    Args:
        start: Start of a tower.
        features: Of each scan and anatomy ``[S, K, F]``, or of each scan ``[S, F]`` for every row.
        from_zero: Whether the weights of the features start at zero; otherwise at random.
    """
    anatomies, own, embedding = start.head.projection.shape
    if features.ndim == 2:
        features = features.unsqueeze(1).expand(-1, anatomies, -1)
    count = features.shape[2]
    head = copy.deepcopy(start.head)
    weights = torch.zeros(anatomies, count, embedding)
    if not from_zero:
        weights = torch.randn(anatomies, count, embedding) * (own + count) ** -0.5
    head.projection = nn.Parameter(torch.cat([head.projection.detach(), weights], dim=1))
    scans = replace(start.scans, pooled=torch.cat([start.scans.pooled, features], dim=2))
    return start._replace(head=head, scans=scans)


def only_features(start: Start, features: Tensor) -> Start:
    """The start of a head with new weights, whose rows read features ``[S, F]`` of each scan and not its own."""
    head = copy.deepcopy(start.head)
    anatomies, _, embedding = head.projection.shape
    count = features.shape[1]
    head.projection = nn.Parameter(torch.randn(anatomies, count, embedding) * count**-0.5)
    head.bias = nn.Parameter(torch.zeros(anatomies, embedding))
    scans = replace(start.scans, pooled=features.unsqueeze(1).expand(-1, anatomies, -1))
    return start._replace(head=head, scans=scans)


def standardized(features: Tensor) -> Tensor:
    """Features ``[S, F]`` with mean 0 and standard deviation 1 over the scans."""
    return ((features - features.mean(0)) / features.std(0).clamp(min=1e-6)).clamp(-LIMIT, LIMIT)


def second_stage_features(dataset: CachedStudies, stride: Sequence[int], width: int, seed: int) -> Tensor:
    """Mean, maximum and minimum of the second stage inside the body, ``[S, 3 width]``, after principal components.

    Args:
        dataset: Studies from the cache of ``ThreeStagesd``.
        stride: Voxels of a token of the third stage.
        width: Number of components; they use no label.
        seed: Random seed of the components.
    """
    random, drawn = np.random.default_rng(seed), []
    for index in progress_bar(range(len(dataset)), "principal components", unit="scan"):
        cells = _body_cells(dataset[index], stride)
        drawn.append(cells[random.permutation(len(cells))[: PCA_TOKENS // len(dataset)]].float().numpy())
    fitted = PCA(width, whiten=True, svd_solver="randomized", random_state=seed).fit(np.concatenate(drawn))
    rows = []
    for index in progress_bar(range(len(dataset)), "second stage", unit="scan"):
        found = fitted.transform(_body_cells(dataset[index], stride).float().numpy())
        rows.append(np.concatenate([found.mean(0), found.max(0), found.min(0)]))
    return standardized(torch.from_numpy(np.stack(rows)).float())


def _body_cells(study: dict[str, Tensor], stride: Sequence[int]) -> Tensor:
    """The cells of the second stage in tokens of the body, half ``[n, C2]``."""
    cells = study["second_stage"]
    grid = [size // edge for size, edge in zip(study["image"].shape[1:], stride, strict=True)]
    body = scan_body(study, stride)[0].reshape(grid)
    for axis, size in enumerate(cells.shape[1:]):
        # Cell i lies at voxel 8 (i + 1) of the image with its border, on the edge of two tokens or in one.
        body = body.index_select(axis, (torch.arange(size) + 1) // 2)
    return cells[:, body].T
