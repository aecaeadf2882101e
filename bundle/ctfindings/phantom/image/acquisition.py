"""What the scanner adds to a chest: motion, streaks, noise and the reconstruction kernel."""

import numpy as np

from bundle.ctfindings.phantom.image.canvas import Canvas, Floats
from bundle.ctfindings.phantom.patient import Patient


def acquire(rng: np.random.Generator, canvas: Canvas, patient: Patient) -> None:
    """Turns the drawn attenuation into an image, in place.

    Noise is added to the sharp image, and both pass the kernel: noise and edges have the same sharpness. It is largest
    in the middle of the body and where much bone is in the way, at the shoulders.
    """
    if rng.random() < 0.2:
        _blur_motion(rng, canvas, patient)
    s, z = patient.size, canvas.z
    rise = np.clip((z - 140 * s) / (60 * s), 0, 1)
    across = np.clip(
        1.15 - np.hypot(canvas.x[:, :, 0] / (230 * s), canvas.y[:, :, canvas.shape[2] // 2] / (170 * s)), 0.3, 1
    )
    level = 1 + (0.5 if patient.arms_up else 1.0) * rise + 0.15 * np.clip(-z / (60 * s), 0, 1)
    gain = np.sqrt((1 + 2 * patient.kernel**2) ** 2 * (1 + 2 * patient.overlap**2))
    gain /= (1 + 2 * patient.kernel) ** 2 * (1 + 2 * patient.overlap)
    grain = rng.standard_normal(canvas.shape, np.float32)
    grain *= (across * patient.noise_hu / gain)[:, :, None].astype(np.float32) * level
    canvas.hu += grain
    _streaks(rng, canvas, patient, rise)
    for axis, share in enumerate((patient.kernel, patient.kernel, patient.overlap)):
        canvas.hu = _three_tap(canvas.hu, axis, share)


def _three_tap(volume: Floats, axis: int, share: float) -> Floats:
    """Adds a share of both neighbours along an axis and keeps the mean."""
    moved = np.moveaxis(volume, axis, 0)
    out = np.empty_like(volume)
    view = np.moveaxis(out, axis, 0)
    np.copyto(view, moved)
    view[1:] += np.float32(share) * moved[:-1]
    view[:-1] += np.float32(share) * moved[1:]
    view[0] += np.float32(share) * moved[0]
    view[-1] += np.float32(share) * moved[-1]
    out *= np.float32(1 / (1 + 2 * share))
    return out


def _streaks(rng: np.random.Generator, canvas: Canvas, patient: Patient, rise: Floats) -> None:
    """Bright and dark lines from side to side between the shoulders, or between arms that lie beside the trunk."""
    strength = rng.uniform(2, 12) * rise + (0 if patient.arms_up else rng.uniform(6, 18))
    if patient.contrast and patient.inflow_hu > 600:
        strength = strength + 10 * rise
    lines = rng.standard_normal((1, canvas.shape[1], canvas.shape[2]), np.float32)
    lines[:, 1:] += 0.7 * lines[:, :-1]
    width = np.clip(1.2 - np.abs(canvas.x / (170 * patient.size)), 0.2, 1).astype(np.float32)
    canvas.hu += (lines * strength.astype(np.float32)) * width * (canvas.anatomy > 0)


def _blur_motion(rng: np.random.Generator, canvas: Canvas, patient: Patient) -> None:
    """Doubles the contours of heart and diaphragm, as when the patient breathes or the heart beats in the scan."""
    s = patient.size
    low, high = sorted(rng.uniform(-60, 110, 2))
    box = canvas.box((0, 0, 0.5 * (low + high) * s), (140 * s, 100 * s, 0.5 * (high - low) * s))
    axis = int(rng.integers(2))
    shift = int(np.ceil(rng.uniform(2, 6) / canvas.spacing[axis]))
    sharp, inside = np.moveaxis(canvas.hu[box], axis, 0), np.moveaxis(canvas.anatomy[box] > 0, axis, 0)
    ghost = sharp[:-shift].copy()
    ghost -= sharp[shift:]
    sharp[shift:] += np.float32(0.3) * ghost * (inside[shift:] & inside[:-shift])
