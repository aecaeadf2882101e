"""The histogram of a scan as features of a head: what Hounsfield units alone tell, without a network."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import nn

from bundle.ctfindings.adaptation.head_training import Head
from bundle.ctfindings.adaptation.held_scans import HeldScans
from bundle.ctfindings.data.scan_cache import CachedStudies
from bundle.ctfindings.scan.lung_mask import LUNG

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
ABOVE_HU = (-700.0, -300.0, 0.0, 150.0)


def hu_head(head: Head, scans: HeldScans, dataset: CachedStudies, window: Sequence[float]) -> tuple[Head, HeldScans]:
    """A head of the same form, with new weights, that reads statistics of the lungs and of the body in every row.

    Args:
        head: Head of a tower.
        scans: Its scans.
        dataset: The same scans from the cache.
        window: HU of 0 and of 1 in the cached images.
    """
    features = torch.from_numpy(
        np.stack([hu_statistics(dataset[index], window) for index in range(len(dataset))])
    ).float()  # [S, F]
    features = (features - features.mean(0)) / features.std(0).clamp(min=1e-6)
    own = copy.deepcopy(head)
    anatomies, _, embedding = own.projection.shape
    count = features.shape[1]
    own.projection = nn.Parameter(torch.randn(anatomies, count, embedding) * count**-0.5)
    own.bias = nn.Parameter(torch.zeros(anatomies, embedding))
    return own, replace(scans, pooled=features.unsqueeze(1).expand(-1, anatomies, -1))


def hu_statistics(study: Mapping[str, Any], window: Sequence[float]) -> NDArray[np.float64]:
    """Of the air-filled lungs and of the body of a cached scan: mean, SD, percentiles and shares above HU, ``[F]``."""
    hu = study["image"][0].double().numpy() * (window[1] - window[0]) + window[0]
    to_regions = np.linalg.inv(np.asarray(study["regions_affine"])) @ np.asarray(study["image_affine"])
    labels = ndimage.affine_transform(study["regions"][0].numpy(), to_regions, output_shape=hu.shape, order=0)
    return np.concatenate([_statistics(hu[labels == LUNG]), _statistics(hu[labels > 0])])


def _statistics(hu: NDArray[np.float64]) -> NDArray[np.float64]:
    if not hu.size:
        return np.zeros(2 + len(PERCENTILES) + len(ABOVE_HU))
    above = [(hu > limit).mean() for limit in ABOVE_HU]
    return np.array([hu.mean(), hu.std(), *np.percentile(hu, PERCENTILES), *above])
