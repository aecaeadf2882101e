"""What histograms, textures and noise of a chest CT measure, from the voxels alone."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.data import MetaTensor
from monai.transforms import Spacing
from numpy.typing import NDArray
from scipy import ndimage

from bundle.ctfindings.scan.lung_mask import lung_mask

GRID_MM = (4.0, 4.0, 3.0)
"""The voxels that the default network reads; all statistics but the noise power are taken on them."""
BINS = np.arange(-1000, 1601, 20)
PATCH = 10
"""Width in voxels of the patches whose noise power is measured."""


def image_statistics(path: Path) -> dict[str, float | list[float]]:
    """Histogram, lung texture, dense voxels and noise power of a scan in HU."""
    image = nib.as_closest_canonical(nib.load(path))
    native = np.asarray(image.dataobj, np.float32)
    resampled: Any = Spacing(GRID_MM)(MetaTensor(native[None], affine=image.affine))
    volume, affine = resampled[0].numpy(), resampled.affine.numpy().astype(float)
    lungs = ndimage.binary_erosion(lung_mask(volume, affine), iterations=2)
    mean = ndimage.uniform_filter(volume, 3)
    local = np.sqrt(np.maximum(ndimage.uniform_filter(volume**2, 3) - mean**2, 0))
    body = volume[volume > -300]
    return {
        "lung_median": float(np.median(volume[lungs])),
        "lung_5th_percentile": float(np.percentile(volume[lungs], 5)),
        "lung_95th_percentile": float(np.percentile(volume[lungs], 95)),
        "lung_sd_of_air": float(volume[lungs & (volume < -700)].std()),
        "lung_local_sd": float(np.median(local[lungs])),
        **{f"share_over_{level}": float((body > level).mean()) for level in (300, 600, 1000)},
        "share_of_fat": float(((body > -130) & (body < -60)).mean()),
        "histogram": np.histogram(volume, BINS, density=True)[0].tolist(),
        "noise_power": noise_power(native).tolist(),
    }


def noise_power(volume: NDArray[np.float32]) -> NDArray[np.float64]:
    """Power of the noise in uniform soft tissue by frequency in plane, in HU2 by voxel, (PATCH // 2,).

    The frequencies are 1 to ``PATCH // 2`` periods in a patch; the last is the highest that the voxels hold.
    """
    found: list[Any] = []
    for level in range(2, volume.shape[2], 3):
        plane = volume[:, :, level]
        size = np.array(plane.shape) // PATCH * PATCH
        patches: Any = plane[: size[0], : size[1]].reshape(size[0] // PATCH, PATCH, size[1] // PATCH, PATCH)
        patches = patches.transpose(0, 2, 1, 3).reshape(-1, PATCH, PATCH)
        found.append(patches[((patches > -150) & (patches < 300)).all((1, 2)) & (patches.std((1, 2)) < 60)])
    chosen = np.concatenate(found)
    if len(chosen) == 0:
        return np.full(PATCH // 2, np.nan)
    power = np.abs(np.fft.fft2(chosen - chosen.mean((1, 2), keepdims=True))) ** 2 / PATCH**2
    frequency = np.fft.fftfreq(PATCH) * PATCH
    radius = np.rint(np.hypot(frequency[:, None], frequency[None, :])).astype(int)
    typical = np.median(power, 0)
    return np.array([typical[radius == number].mean() for number in range(1, PATCH // 2 + 1)])
