"""A synthetic patient and the settings of the scan: age, build, position, contrast, noise, voxel size."""

from dataclasses import dataclass

import numpy as np

ENLARGED = 1.15
"""A heart of at least this size, relative to the width of the chest, is enlarged."""

# Attenuation of the blood in HU of the left heart and aorta and of the right heart and pulmonary arteries, and how many
# scans with contrast have the phase.
_PHASES = {"pulmonary arterial": ((90, 230), (250, 480), 0.25), "aortic": ((230, 420), (130, 300), 0.3)}
_VENOUS = (120, 190)


@dataclass
class Patient:
    """One synthetic patient and the settings of the scan.

    Attributes:
        size: scale of the skeleton, 1 for an average adult.
        wide, deep: width and depth of the rib cage relative to an average one of that size.
        kyphosis_mm: how far the thoracic inlet lies in front of the middle of the back's curve, in mm.
        muscle: thickness of the muscles, 1 for an average adult.
        fat_mm: thickness of the subcutaneous fat in mm.
        breast_mm: height of the breasts over the chest wall in mm.
        arms_up: whether the arms lie beside the head or beside the trunk.
        heart_scale: size of the heart relative to a normal one.
        blood_hu: attenuation of the blood in HU, (left heart and aorta, right heart and pulmonary arteries).
        inflow_hu: attenuation in HU of the vein that contrast is given into.
        rotation: rotation of the body about its long axis in radians.
        offset: shift of the body in the field of view in mm, (2,).
        extent, spacing: size of the field and of a voxel in mm, (3,).
        origin: shift of the world origin in mm, (3,).
        noise_hu: standard deviation of the image noise in HU in the middle of the chest.
        kernel: share of the two neighbours in the reconstruction, in plane; sharp below zero.
        overlap: the same along z.
        inspiration: 0 (expiration) to 1 (full inspiration).
        lung_hu: mean attenuation of the aerated lung in HU.
    """

    sex: str
    age: int
    size: float
    wide: float
    deep: float
    kyphosis_mm: float
    muscle: float
    fat_mm: float
    breast_mm: float
    arms_up: bool
    heart_scale: float
    contrast: bool
    blood_hu: tuple[float, float]
    inflow_hu: float
    rotation: float
    offset: tuple[float, float]
    extent: tuple[float, float, float]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    noise_hu: float
    kernel: float
    overlap: float
    inspiration: float
    lung_hu: float
    table: bool

    @property
    def heart_ratio(self) -> float:
        """Size of the heart relative to a chest of this size and width."""
        return self.heart_scale / self.wide


def sample_patient(rng: np.random.Generator, latent_age: float, cardiomegaly: bool) -> Patient:
    """Draws a patient; ``latent_age`` is standard normal. Enlarged hearts begin where normal ones end."""
    sex = str(rng.choice(["F", "M"]))
    age = int(np.clip(round(56 + 16 * latent_age), 18, 95))
    size = float(np.clip(rng.normal(1.03 if sex == "M" else 0.96, 0.04), 0.86, 1.12))
    wide, deep = float(rng.uniform(0.94, 1.05)), float(rng.uniform(0.9, 1.14))
    fat_mm = float(np.clip(rng.gamma(4.0, 4.5), 4, 42))
    muscle = float(np.clip(rng.normal(1.15 if sex == "M" else 0.85, 0.15) - 0.004 * (age - 56), 0.55, 1.5))
    breast_mm = float(np.clip(rng.normal(16 + 0.9 * fat_mm, 9), 3, 58)) if sex == "F" else float(rng.uniform(0, 6))
    arms_up = bool(rng.random() < 0.85)
    contrast = bool(rng.random() < 0.45)
    left_blood, right_blood, inflow = _blood(rng, contrast)
    ratio = ENLARGED + 0.42 * rng.beta(1.1, 1.7) if cardiomegaly else 0.84 + (ENLARGED - 0.84) * rng.beta(1.7, 1.5)
    shoulders = 2 * (174 * size + 0.6 * fat_mm)
    width = float(np.clip(shoulders + rng.uniform(-10, 40) + (0 if arms_up else 80), 350, 470))
    depth = float(np.clip(196 * size * deep + 40 + 2.0 * fat_mm + 0.6 * breast_mm + rng.uniform(15, 50), 260, 340))
    height = float(np.clip(285 * size + rng.uniform(-12, 40), 265, 350))
    in_plane = float(rng.uniform(2.4, 3.2))
    inspiration = float(rng.beta(2.5, 1.3))
    return Patient(
        sex=sex,
        age=age,
        size=size,
        wide=wide,
        deep=deep,
        kyphosis_mm=float(np.clip(rng.normal(14 + 0.12 * (age - 56), 5), 2, 32)),
        muscle=muscle,
        fat_mm=fat_mm,
        breast_mm=breast_mm,
        arms_up=arms_up,
        heart_scale=float(ratio) * wide,
        contrast=contrast,
        blood_hu=(left_blood, right_blood),
        inflow_hu=inflow,
        rotation=float(np.deg2rad(np.clip(rng.normal(0, 2.5), -7, 7))),
        offset=(float(rng.normal(0, 5)), float(rng.normal(0, 5))),
        extent=(width, depth, height),
        spacing=(in_plane, in_plane, float(rng.uniform(2.2, 4.5))),
        origin=(float(rng.uniform(-30, 30)), float(rng.uniform(-60, 20)), float(rng.uniform(-900, 500))),
        noise_hu=float(np.exp(rng.normal(np.log(19), 0.5))) * (0.8 + 0.012 * fat_mm),
        kernel=float(rng.uniform(-0.2, 0.25)),
        overlap=float(rng.uniform(0, 0.3)),
        inspiration=inspiration,
        lung_hu=float(-800 - 125 * inspiration + rng.normal(0, 12)),
        table=bool(rng.random() < 0.8),
    )


def _blood(rng: np.random.Generator, contrast: bool) -> tuple[float, float, float]:
    """HU of the blood of the left and the right heart and of the vein that contrast comes in by."""
    if not contrast:
        plain = float(rng.uniform(32, 54))
        return plain, plain, plain
    draw = rng.random()
    for left, right, share in _PHASES.values():
        if draw < share:
            bright = float(rng.uniform(*right))
            return float(rng.uniform(*left)), bright, bright + float(rng.uniform(0, 700))
        draw -= share
    venous = float(rng.uniform(*_VENOUS))
    return venous, venous * float(rng.uniform(0.92, 1.05)), venous
