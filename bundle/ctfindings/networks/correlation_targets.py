"""What the correlation task of PLACE predicts: correlations among patches, by their intensities or a teacher's tokens.

Shapes: B scans, m token positions, V voxels of a token, F features, X Y Z voxels.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from bundle.ctfindings.networks.image.hounsfield_windows import HounsfieldWindows

TISSUE_LIMITS_HU = (-850.0, -500.0, -200.0, -20.0, 80.0, 200.0)
"""Limits between the tissue classes of a patch, by its mean HU; for scans without contrast agent."""


def patch_voxels(image: Tensor, stride: tuple[int, int, int], index: Tensor) -> Tensor:
    """The voxels of tokens ``[B, m]``, tokens in C order of the grid, ``[B, 1, X, Y, Z]`` to ``[B, m, V]``."""
    x, y, z = stride
    blocks = image[:, 0].unflatten(3, (-1, z)).unflatten(2, (-1, y)).unflatten(1, (-1, x))
    blocks = blocks.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(1, 3)
    return blocks.gather(1, index.unsqueeze(2).expand(-1, -1, blocks.shape[2]))


def intensity_statistics(voxels: Tensor, windows: HounsfieldWindows) -> Tensor:
    """Mean, standard deviation and maximum of patches in each of W HU windows, ``[B, m, V]`` to ``[B, m, 3 W]``."""
    ramps = windows(voxels[:, None, :, :, None]).squeeze(4)
    return torch.cat([ramps.mean(3), ramps.std(3), ramps.amax(3)], dim=1).transpose(1, 2)


def standardised(features: Tensor, counted: Tensor) -> Tensor:
    """Features ``[B, m, F]`` with mean 0 and standard deviation 1 over the positions that count, bool ``[B, m]``."""
    centred, variance = _centred(features, counted)
    spread = variance.sqrt()
    return torch.where(spread > 1e-5, centred / spread.clamp(min=1e-5), torch.zeros_like(centred))


def variance_hinge(rows: Tensor, counted: Tensor) -> Tensor:
    """How far the channels of unit rows ``[B, m, F]`` fall short of being used alike, ``[B]`` in 0 to 1.

    The mean over the channels of max(0, 1 - standard deviation), as in VICReg (Bardes et al.,
    https://arxiv.org/abs/2105.04906). Rows are multiplied by the root of F, so that a standard deviation of 1 means
    channels that are used alike, and no scale of the features reaches it. Only positions that count are read, bool
    ``[B, m]``.
    """
    with torch.autocast(rows.device.type, enabled=False):
        _, variance = _centred(rows.float() * rows.shape[2] ** 0.5, counted)
        return (1 - (variance + 1e-4).sqrt()).clamp(min=0).mean(dim=(1, 2))


def correlations(features: Tensor, counted: Tensor, unit: bool = True) -> Tensor:
    """Products of the centred rows ``[B, m, F]``, ``[B, m, m]``: of unit rows, or else divided by F.

    Rows are centred over the positions that count, bool ``[B, m]``. In single precision: a correlation is a small
    difference.
    """
    with torch.autocast(features.device.type, enabled=False):
        features, inside = features.float(), counted.unsqueeze(2).float()
        centred = features - (features * inside).sum(1, keepdim=True) / inside.sum(1, keepdim=True).clamp(min=1)
        rows = F.normalize(centred, dim=-1) if unit else centred / features.shape[2] ** 0.5
        return rows @ rows.transpose(1, 2)


def _centred(features: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Features minus their mean over the positions that count, ``[B, m, F]``, and their variance, ``[B, 1, F]``."""
    inside = counted.unsqueeze(2).to(features.dtype)
    number = inside.sum(1, keepdim=True).clamp(min=1)
    centred = features - (features * inside).sum(1, keepdim=True) / number
    return centred, (centred.square() * inside).sum(1, keepdim=True) / number
