"""The histogram of a scan as features of a head: what Hounsfield units alone tell, without a network."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from bundle.ctfindings.data.scan_cache import CachedStudies
from bundle.ctfindings.scan.lung_mask import LUNG
from experiments.adapt.joined_features import standardized

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
ABOVE_HU = (-700.0, -300.0, 0.0, 150.0)


def hu_features(dataset: CachedStudies, window: Sequence[float]) -> Tensor:
    """Standardised statistics of the lungs and of the body of cached scans, ``[S, F]``.

    Args:
        dataset: Scans from the cache.
        window: HU of 0 and of 1 in the cached images.
    """
    rows = [hu_statistics(dataset[index], window) for index in range(len(dataset))]
    return standardized(torch.from_numpy(np.stack(rows)).float())


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
