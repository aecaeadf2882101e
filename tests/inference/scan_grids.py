"""A small scan in several orientations and a token grid over it, for the tests of evidence."""

import nibabel as nib
import numpy as np

from bundle.ctfindings.scan.coordinates import voxel_to_world

SHAPE = (60, 50, 24)
SCAN = np.array([[2.0, 0, 0, -60], [0, 2, 0, -50], [0, 0, 5, 100], [0, 0, 0, 1]])
GRID = (10, 9, 10)
# Token boxes of 12 mm that start at the scan's outer face.
TOKENS = np.array([[12.0, 0, 0, -55], [0, 12, 0, -45], [0, 0, 12, 103.5], [0, 0, 0, 1]])
TARGET = np.array([17.0, -9.0, 151.0])


def blob(centre: np.ndarray, sigma: float = 12.0) -> np.ndarray:
    points = voxel_to_world(np.moveaxis(np.indices(GRID), 0, -1), TOKENS)
    return 0.9 * np.exp(-0.5 * ((points - centre) ** 2).sum(-1) / sigma**2)


def oblique() -> np.ndarray:
    a, b = np.deg2rad(12), np.deg2rad(-8)
    rz = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    rx = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = rz @ rx @ SCAN[:3, :3]
    middle = (np.array(SHAPE) - 1) / 2
    affine[:3, 3] = voxel_to_world(middle, SCAN) - affine[:3, :3] @ middle
    return affine


def scan_grid(code: str) -> tuple[np.ndarray, tuple[int, ...]]:
    if code == "oblique":
        return oblique(), SHAPE
    image = nib.Nifti1Image(np.zeros(SHAPE, np.uint8), SCAN)
    image = image.as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(SCAN), nib.orientations.axcodes2ornt(code))
    )
    return image.affine, image.shape


ORIENTATIONS = ["RAS", "LPS", "RAI", "PIR", "SAL", "oblique"]
