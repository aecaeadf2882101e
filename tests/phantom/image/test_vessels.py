"""A vessel tree reaches all its targets from one root and tapers on the way."""

import numpy as np
import pytest

from bundle.ctfindings.phantom.image.vessels import Tree


@pytest.fixture(scope="module")
def targets() -> np.ndarray:
    return np.random.default_rng(0).uniform(-60, 60, (80, 3)) + [100, 0, 0]


@pytest.fixture(scope="module")
def tree(targets: np.ndarray) -> Tree:
    return Tree(np.array([[0.0, 0, 0], [20, 0, 0]]), np.array([-1, 0])).grow(targets, 7.0, first=1)


def test_every_target_is_a_node_that_hangs_on_the_root(tree: Tree, targets: np.ndarray) -> None:
    away = np.linalg.norm(tree.nodes[None] - targets[:, None], axis=2).min(1)
    assert away == pytest.approx(np.zeros(len(targets)), abs=1e-9)
    assert (tree.parent[1:] < np.arange(1, len(tree.nodes))).all() and tree.parent[0] == -1
    ends = np.setdiff1d(np.arange(len(tree.nodes)), tree.parent)
    assert tree.supply()[0] == len(ends) <= len(targets)


def test_branches_taper_from_the_root_to_the_ends(tree: Tree) -> None:
    radii = tree.radii(8.0, 0.6)
    assert radii[0] == pytest.approx(8.0) and radii.min() == pytest.approx(0.6)
    assert (radii[1:] <= radii[tree.parent[1:]] + 1e-9).all()


def test_tubes_are_dense_and_only_those_asked_for(tree: Tree) -> None:
    radii = tree.radii(8.0, 0.6)
    points, sizes = tree.tubes(radii, 1.5)
    assert len(points) == len(sizes) and sizes.max() <= 8.0
    assert (
        np.linalg.norm(points[:, None] - points[None], axis=2)[np.eye(len(points)) == 0]
        .reshape(len(points), -1)
        .min(1)
        .max()
        < 3.0
    )
    assert len(tree.tubes(radii, 1.5, first=len(tree.nodes) - 1)[0]) < 20
