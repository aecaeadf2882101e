"""Things thinner than a voxel keep their volume, and places in the bent body lead back to themselves."""

from dataclasses import replace

import numpy as np
import pytest

from bundle.ctfindings.phantom.image.canvas import Canvas
from bundle.ctfindings.phantom.patient import sample_patient


@pytest.fixture
def canvas() -> Canvas:
    patient = sample_patient(np.random.default_rng(0), 0.0, False)
    small = replace(patient, extent=(90.0, 90.0, 120.0), spacing=(3.0, 3.0, 4.0), kyphosis_mm=20.0, offset=(4.0, -3.0))
    return Canvas.of_patient(small)


def test_body_places_and_voxels_are_inverse_in_a_bent_and_turned_body(canvas: Canvas) -> None:
    flat = np.arange(0, canvas.hu.size, 97)
    voxels = np.stack(np.unravel_index(flat, canvas.shape), 1)
    assert canvas.index(canvas.body(flat)) == pytest.approx(voxels, abs=1e-3)


def test_what_is_splatted_keeps_its_volume(canvas: Canvas) -> None:
    rng = np.random.default_rng(0)
    points = canvas.body(rng.integers(0, canvas.hu.size, 400))
    inner = (np.abs(canvas.index(points) - np.array(canvas.shape) / 2) < np.array(canvas.shape) / 2 - 2).all(1)
    points = points[inner] + rng.uniform(-1, 1, (int(inner.sum()), 3))
    canvas.splat(points, np.full(len(points), 0.5), 0.0, np.ones(canvas.shape, bool))
    added = (canvas.hu + 1000).sum() / 1000 * np.prod(canvas.spacing)
    assert added == pytest.approx(0.5 * len(points), rel=0.01)


def test_nothing_is_splatted_outside_the_mask(canvas: Canvas) -> None:
    canvas.splat(np.zeros((1, 3)), np.ones(1), 0.0, np.zeros(canvas.shape, bool))
    assert (canvas.hu == -1000).all()


def test_a_capsule_is_positive_on_its_axis_and_ends_at_its_radius(canvas: Canvas) -> None:
    start, end = np.array([-20.0, 0, 0]), np.array([20.0, 0, 30])
    box, distance = canvas.capsule(start, end, 9.0)
    inside = canvas.flat(box, distance > 0)
    points = canvas.body(inside)
    share = np.clip((points - start) @ (end - start) / ((end - start) ** 2).sum(), 0, 1)
    away = np.linalg.norm(points - start - share[:, None] * (end - start), axis=1)
    assert len(inside) and away.max() < 9.0
    assert distance.max() == pytest.approx(9.0, abs=3.0)
