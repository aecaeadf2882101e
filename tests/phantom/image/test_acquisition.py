"""The scanner adds noise of the strength asked for, and neither it nor the surroundings become anatomy or a finding."""

from dataclasses import replace

import numpy as np
import pytest

from bundle.ctfindings.phantom.image.acquisition import acquire
from bundle.ctfindings.phantom.image.canvas import BODY, Canvas
from bundle.ctfindings.phantom.image.outside_body import draw_surroundings
from bundle.ctfindings.phantom.patient import Patient, sample_patient


@pytest.fixture
def patient() -> Patient:
    drawn = sample_patient(np.random.default_rng(1), 0.0, False)
    size = {"extent": (240.0, 210.0, 150.0), "spacing": (5.0, 5.0, 5.0), "offset": (0.0, 0.0), "rotation": 0.0}
    return replace(drawn, **size, size=1.0, table=True, arms_up=True)  # type: ignore[arg-type]


@pytest.fixture
def canvas(patient: Patient) -> Canvas:
    """A cylinder of water."""
    canvas = Canvas.of_patient(patient)
    inside = np.hypot(canvas.x, canvas.y) < 70
    canvas.hu[inside] = 0
    canvas.anatomy[inside] = BODY
    return canvas


@pytest.mark.parametrize("kernel", [-0.2, 0.25])
def test_noise_in_the_middle_has_the_strength_asked_for_with_any_kernel(
    canvas: Canvas, patient: Patient, kernel: float
) -> None:
    acquire(np.random.default_rng(3), canvas, replace(patient, noise_hu=20.0, kernel=kernel, overlap=0.2))
    middle = canvas.hu[18:30, 16:26, 5:20]
    assert middle.std() == pytest.approx(20, rel=0.3)
    assert abs(middle.mean()) < 6


def test_a_sharp_kernel_overshoots_at_an_edge_and_a_soft_one_does_not(canvas: Canvas, patient: Patient) -> None:
    quiet = replace(patient, noise_hu=1e-3)
    sharp, soft = canvas.hu.copy(), canvas.hu.copy()
    for volume, kernel in ((sharp, -0.2), (soft, 0.25)):
        canvas.hu = volume.copy()
        acquire(np.random.default_rng(5), canvas, replace(quiet, kernel=kernel, overlap=0.0))
        volume[...] = canvas.hu
    assert sharp[:, :, 5:15].max() > 50 > soft[:, :, 5:15].max()


def test_surroundings_lie_outside_the_body_and_are_no_finding(canvas: Canvas, patient: Patient) -> None:
    before = canvas.hu.copy()
    anatomy = canvas.anatomy.copy()
    for seed in range(8):
        draw_surroundings(np.random.default_rng(seed), canvas, patient)
    changed = canvas.hu != before
    assert changed.any() and not canvas.bits.any()
    np.testing.assert_array_equal(canvas.anatomy, anatomy)
    # Wires lie on the skin, so that a voxel of it may be touched, but nothing deeper.
    assert not changed[np.hypot(*np.broadcast_arrays(canvas.x, canvas.y)) < 55].any()
