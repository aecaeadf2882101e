"""Bronchi and pulmonary vessels: trees that grow from the hilum to points of the lung."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundle.ctfindings.phantom.image.canvas import AORTA, LUNG, MEDIASTINUM, SIDES, Canvas, Floats, curve, tapered_curve
from bundle.ctfindings.phantom.patient import Patient


@dataclass
class Spots:
    """A sample of lung points in body mm, (N, 3), with the depth under the lung surface in mm, side and lobe, all (N,).

    ``height`` is 0 at the lowest point and 1 at the highest, (N,).
    """

    points: Floats
    depth: Floats
    side: NDArray[np.str_]
    lobe: NDArray[np.str_]
    height: Floats


@dataclass
class Branch:
    """One unbranched course of a tree: its centre line in body mm, (N, 3), about one point per 1.5 mm.

    ``radii`` are the inner radii in mm, (N,). ``generation`` is the number of forks between the root and here.
    """

    points: NDArray
    radii: NDArray
    generation: int


def grow_tree(targets: NDArray, trunk: Sequence[NDArray], root_mm: float, leaf_mm: float, step: float) -> list[Branch]:
    """Connects every target to the tree grown so far, near ones first, and sizes the branches by what they supply.

    Args:
        targets: ends of the branches, body mm, (N, 3).
        trunk: polyline that the tree starts with; branches leave from its last point on.
        root_mm, leaf_mm: radii of the trunk and of the last branches.
        step: distance between nodes where a branch may leave, in mm.
    """
    order = np.argsort(np.linalg.norm(targets - trunk[-1], axis=1))
    capacity = len(trunk) + int(sum(np.linalg.norm(targets - trunk[-1], axis=1)) / step) + 3 * len(targets) + 8
    nodes = np.empty((capacity, 3))
    path = np.zeros(capacity)
    parent = np.full(capacity, -1)
    count = len(trunk)
    nodes[:count] = trunk
    parent[1:count] = np.arange(count - 1)
    first = count - 1
    for target in targets[order]:
        away = np.linalg.norm(nodes[first:count] - target, axis=1)
        start = first + int((away + 0.25 * path[first:count]).argmin())
        length = np.linalg.norm(target - nodes[start])
        pieces = max(1, int(length / step))
        for piece in range(1, pieces + 1):
            share = 1 / (pieces - piece + 1)
            previous = start if piece == 1 else count - 1
            nodes[count] = nodes[previous] + share * (target - nodes[previous])
            parent[count] = previous
            path[count] = path[previous] + length / pieces
            count += 1
    children: list[list[int]] = [[] for _ in range(count)]
    for node in range(1, count):
        children[parent[node]].append(node)
    supply = np.zeros(count)
    for node in range(count - 1, -1, -1):
        supply[node] += not children[node]
        if node:
            supply[parent[node]] += supply[node]
    # Murray's law with the exponent set so that leaf and root have the radii asked for.
    exponent = np.log(root_mm / leaf_mm) / np.log(max(supply[0], 2))
    radius = leaf_mm * supply**exponent
    branches: list[Branch] = []
    stack = [(child, 0, 0) for child in children[0]]
    while stack:
        node, origin, generation = stack.pop()
        chain = [origin, node]
        while len(children[node]) == 1:
            node = children[node][0]
            chain.append(node)
        rows = np.array(chain)
        sizes = radius[rows].copy()
        sizes[0] = sizes[1]
        branches.append(Branch(*tapered_curve(nodes[rows], sizes, 1.5), generation))
        stack += [(child, node, generation + 1) for child in children[node]]
    return branches


def draw_bronchi_and_vessels(
    rng: np.random.Generator, canvas: Canvas, patient: Patient, spots: Spots, hila: dict[str, NDArray], soft: float
) -> tuple[list[Branch], tuple[NDArray[np.int64], Floats]]:
    """Draws trachea, bronchi, pulmonary arteries and veins; ``hila`` are in body mm, ``soft`` is soft tissue in HU.

    Returns the bronchi, and the flat voxel indices and shares of the air in them.
    """
    s = patient.size
    carina = np.array([2 * s, -18 * s, 112 * s])
    trachea = np.array([[2 * s, -8 * s, 225 * s], [2 * s, -12 * s, 165 * s], carina])
    trachea[:, 0] += rng.normal(0, 3 * s) * np.array([1, 0.5, 0])
    bronchi: list[Branch] = []
    arteries: list[Branch] = []
    veins: list[Branch] = []
    for side, sign in SIDES.items():
        here = spots.side == side
        points, depth = spots.points[here], spots.depth[here]
        hilum = hila[side] + np.array([0, -6, -4 if side == "left" else 2]) * s
        inner = rng.permutation(np.flatnonzero(depth > 10))[:34]
        bronchi += grow_tree(points[inner], [carina, hilum], root_mm=5.8 * s, leaf_mm=1.3, step=9.0)
        outer = rng.permutation(np.flatnonzero(depth > 3))[:180]
        trunk = [hila[side], hila[side] + np.array([sign * 10, -4, -12]) * s]
        arteries += grow_tree(points[outer], trunk, root_mm=8.0 * s, leaf_mm=0.85, step=8.0)
        low = hila[side] + np.array([-sign * 6, -4, -30]) * s
        drained = rng.permutation(np.flatnonzero(depth > 4))[:90]
        trunk = [low - np.array([sign * 14, 0, 4]) * s, low]
        veins += grow_tree(points[drained], trunk, root_mm=6.0 * s, leaf_mm=0.85, step=9.0)
    drawn = arteries + veins
    points, sizes = np.concatenate([b.points for b in drawn]), np.concatenate([b.radii for b in drawn])
    inside = (canvas.anatomy == LUNG) | (canvas.anatomy == MEDIASTINUM)
    canvas.paint_balls(points, sizes, patient.blood_hu[1], inside)

    tracheal = curve(trachea, 2.0)
    points = np.concatenate([tracheal] + [b.points for b in bronchi])
    sizes = np.concatenate([np.full(len(tracheal), 8.8 * s)] + [b.radii for b in bronchi])
    # Walls under a millimetre hardly show outside the mediastinum.
    flat, share = canvas.balls(points, sizes + np.clip(0.28 * sizes, 0.5, 1.8))
    ids = canvas.anatomy.reshape(-1)[flat]
    keep = ids != AORTA
    flat, share = flat[keep], share[keep]
    canvas.paint(flat, share * np.where(ids[keep] == LUNG, 0.55, 1.0).astype(np.float32), soft - 15)
    return bronchi, canvas.paint_balls(points, sizes, -970, canvas.anatomy != AORTA)
