"""The air-filled tissue of the lungs: inspiration, gravity, texture, and the fissures between the lobes."""

import numpy as np
from numpy.typing import NDArray

from bundle.ctfindings.phantom.image.canvas import Canvas, Floats
from bundle.ctfindings.phantom.patient import Patient

HORIZONTAL_FISSURE = 78.0
"""Height of the horizontal fissure in the body of an average adult, in mm."""


def oblique_fissure(y: NDArray, z: NDArray, size: float) -> NDArray:
    """Height over the oblique fissure along z in mm, at body y and z in mm."""
    return z + 0.78 * y - 48 * size


def draw_parenchyma(
    rng: np.random.Generator, canvas: Canvas, patient: Patient, lung: Floats, wall: Floats, texture: Floats
) -> None:
    """Fills the lungs; ``lung`` and ``wall`` are depths in mm and ``texture`` is smooth noise, all (X, Y, Z).

    The lower the lung lies in a patient on the back, the denser it is, and the more so in expiration. A thin layer at
    the back may be denser still: it is normal, and absent from every finding.
    """
    s, empty = patient.size, 1 - patient.inspiration
    share = canvas.coverage(lung)
    spans = [np.flatnonzero(share.any(axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    rows, columns, levels = (slice(int(span[0]), int(span[-1]) + 1) for span in spans)
    box = rows, columns, levels
    x, y, z = canvas.axes(box)
    wave = canvas.smooth_noise(rng, 38.0, box)
    gradient = np.float32(rng.uniform(12, 30) + 45 * empty)
    aerated: Floats = (np.clip((-y - 5) / 80, -0.9, 1) * gradient).astype(np.float32, copy=False)
    aerated += np.float32(patient.lung_hu) + np.float32(rng.uniform(5, 13)) * wave
    aerated += np.float32(rng.uniform(3, 9)) * texture[box]
    # Lobules and vessels too thin to be drawn: few are much denser than the rest.
    fine = canvas.smooth_noise(rng, float(rng.uniform(4.0, 6.0)), box)
    fine += np.float32(0.45) * np.maximum(fine, 0) ** 2
    fine *= np.float32(rng.uniform(12, 26))
    aerated += fine
    if rng.random() < 0.25 + 0.4 * empty:
        thick = rng.uniform(5, 10) + 8 * empty
        back = np.clip((-y - 25 * s) / (30 * s), 0, 1) * np.clip(1 - wall[box] / np.float32(thick), 0, 1)
        aerated += back * np.float32(rng.uniform(60, 130) + 120 * empty)
    # A fissure is a wavy sheet, and missing in parts.
    height = oblique_fissure(y, z, s) * np.float32(1 / 1.27)
    height += 3 * wave
    level = np.abs(z - HORIZONTAL_FISSURE * s - 4 * wave)
    level[(x <= 0)[:, :, 0]] = 99
    sheet = np.minimum(np.abs(height), np.where(height > 0, level, np.float32(99)))
    visible = np.float32(rng.uniform(40, 200)) * np.clip(wave[:, ::-1] + 0.8, 0, 1)
    aerated += visible * np.clip(1 - sheet / np.float32(canvas.voxel), 0, 1)
    canvas.paint_box(box, share[box], aerated)
