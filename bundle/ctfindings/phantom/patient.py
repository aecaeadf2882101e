"""A synthetic patient and the settings of the scan: age, build, position, contrast, noise, voxel size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Patient:
    """One synthetic patient and the settings of the scan.

    Attributes:
        size: scale of the skeleton, 1 for an average adult.
        fat_mm: thickness of the subcutaneous fat in mm.
        heart_scale: size of the heart relative to a normal one.
        blood_hu: attenuation of the blood in HU, (left heart and aorta, right heart and pulmonary arteries).
        rotation: rotation of the body about its long axis in radians.
        offset: shift of the body in the field of view in mm, (2,).
        extent, spacing: size of the field and of a voxel in mm, (3,).
        origin: shift of the world origin in mm, (3,).
        noise_hu: standard deviation of the image noise in HU.
        lung_hu: mean attenuation of the aerated lung in HU.
    """

    sex: str
    age: int
    size: float
    fat_mm: float
    heart_scale: float
    contrast: bool
    blood_hu: tuple[float, float]
    rotation: float
    offset: tuple[float, float]
    extent: tuple[float, float, float]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    noise_hu: float
    lung_hu: float
    table: bool


def sample_patient(rng: np.random.Generator, latent_age: float, cardiomegaly: bool) -> Patient:
    """Draws a patient; ``latent_age`` is standard normal, and normal and enlarged hearts do not overlap in size."""
    sex = str(rng.choice(["F", "M"]))
    age = int(np.clip(round(56 + 16 * latent_age), 18, 95))
    size = float(np.clip(rng.normal(1.03 if sex == "M" else 0.96, 0.04), 0.86, 1.12))
    fat_mm = float(np.clip(rng.gamma(4.0, 4.5), 6, 38))
    contrast = bool(rng.random() < 0.45)
    left_blood = float(rng.uniform(150, 330)) if contrast else float(rng.uniform(34, 52))
    right_blood = left_blood * float(rng.uniform(0.75, 1.25)) if contrast else left_blood
    half_width = 130 * size + 14 + fat_mm
    width = float(np.clip(2 * half_width + rng.uniform(5, 40), 330, 400))
    depth = float(np.clip(180 * size + 30 + 1.7 * fat_mm + rng.uniform(15, 50), 240, 300))
    height = float(np.clip(285 * size + rng.uniform(-12, 30), 265, 340))
    in_plane = float(rng.uniform(2.0, 3.0))
    return Patient(
        sex=sex,
        age=age,
        size=size,
        fat_mm=fat_mm,
        heart_scale=float(rng.uniform(1.3, 1.6) if cardiomegaly else rng.uniform(0.85, 1.1)),
        contrast=contrast,
        blood_hu=(left_blood, right_blood),
        rotation=float(np.deg2rad(np.clip(rng.normal(0, 2.5), -7, 7))),
        offset=(float(rng.normal(0, 5)), float(rng.normal(0, 5))),
        extent=(width, depth, height),
        spacing=(in_plane, in_plane, float(rng.uniform(2.0, 4.0))),
        origin=(float(rng.uniform(-30, 30)), float(rng.uniform(-60, 20)), float(rng.uniform(-900, 500))),
        noise_hu=float(rng.uniform(10, 32)),
        lung_hu=float(rng.uniform(-880, -820)),
        table=bool(rng.random() < 0.5),
    )
