"""Bronchi and pulmonary vessels: trees that grow from the hilum to points of the lung."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

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


@dataclass
class Tree:
    """A tree of nodes: places in body mm, (N, 3), the number of the node before each, (N,), and -1 for the first."""

    nodes: NDArray
    parent: NDArray

    def grow(self, targets: NDArray, step: float, first: int = 0, batch: int = 2) -> Self:
        """The tree with branches to all targets, (M, 3): near ones first, each from the nearest node so far.

        Branches leave from the nodes from number ``first`` on; their nodes are ``step`` mm apart. The first ``batch``
        of them start together, then twice as many each time.
        """
        nodes, parent = self.nodes, self.parent
        order = targets[np.argsort(np.linalg.norm(targets - nodes[first], axis=1))]
        begin, size = 0, batch
        while begin < len(order):
            ends = order[begin : begin + size]
            away, start = cKDTree(nodes[first:]).query(ends)
            start = start + first
            pieces = np.maximum(1, (away / step).astype(int))
            row = np.repeat(np.arange(len(ends)), pieces)
            place = np.arange(len(row)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
            share = ((place + 1) / pieces[row])[:, None]
            added = nodes[start][row] * (1 - share) + ends[row] * share
            before = np.where(place == 0, start[row], len(nodes) + np.arange(len(row)) - 1)
            nodes, parent = np.concatenate([nodes, added]), np.concatenate([parent, before])
            begin, size = begin + size, 2 * size
        return type(self)(nodes, parent)

    def supply(self) -> NDArray:
        """The number of ends that each node leads to, (N,)."""
        count = len(self.parent)
        inner = np.zeros(count, bool)
        inner[self.parent[1:]] = True
        ends = np.where(inner, 0.0, 1.0)
        for node in range(count - 1, 0, -1):
            ends[self.parent[node]] += ends[node]
        return ends

    def radii(self, root_mm: float, leaf_mm: float) -> NDArray:
        """Radii in mm, (N,), by Murray's law, with the exponent that gives root and ends the radii asked for."""
        ends = self.supply()
        return leaf_mm * ends ** (np.log(root_mm / leaf_mm) / np.log(max(ends[0], 2)))

    def tubes(self, radii: NDArray, step: float, first: int = 1) -> tuple[NDArray, NDArray]:
        """Points every ``step`` mm along the branches, rounded at the nodes, and their radii in mm.

        Only the courses that lead to the nodes from number ``first`` on are given.
        """
        nodes, parent = self.nodes, self.parent
        ahead = np.zeros_like(nodes)
        np.add.at(ahead, parent[1:], nodes[1:])
        through = np.bincount(parent[1:], minlength=len(nodes)) == 1
        through[0] = False
        smooth = nodes.copy()
        smooth[through] = 0.5 * nodes[through] + 0.25 * (nodes[parent[through]] + ahead[through])
        begin, end = smooth[parent[first:]], smooth[first:]
        pieces = np.maximum(1, np.ceil(np.linalg.norm(end - begin, axis=1) / step)).astype(int)
        row = np.repeat(np.arange(len(pieces)), pieces)
        share = (np.arange(len(row)) - np.repeat(np.cumsum(pieces) - pieces, pieces) + 1) / pieces[row]
        points = begin[row] + share[:, None] * (end - begin)[row]
        thin = radii[first:]
        wide = np.minimum(radii[parent[first:]], 1.5 * thin)
        return points, wide[row] + share * (thin - wide)[row]

    def branches(self, radii: NDArray) -> list[Branch]:
        """The unbranched courses of the tree."""
        children: list[list[int]] = [[] for _ in range(len(self.nodes))]
        for node in range(1, len(self.nodes)):
            children[self.parent[node]].append(node)
        found: list[Branch] = []
        stack = [(child, 0, 0) for child in children[0]]
        while stack:
            node, origin, generation = stack.pop()
            chain = [origin, node]
            while len(children[node]) == 1:
                node = children[node][0]
                chain.append(node)
            sizes = radii[chain].copy()
            sizes[0] = sizes[1]
            found.append(Branch(*tapered_curve(self.nodes[chain], sizes, 1.5), generation))
            stack += [(child, node, generation + 1) for child in children[node]]
        return found


def _path(points: Sequence[NDArray]) -> Tree:
    return Tree(np.array(points, np.float64), np.arange(len(points)) - 1)


def draw_bronchi_and_vessels(
    rng: np.random.Generator, canvas: Canvas, patient: Patient, spots: Spots, hila: dict[str, NDArray], soft: float
) -> tuple[list[Branch], tuple[NDArray[np.int64], Floats]]:
    """Draws trachea, bronchi, pulmonary arteries and veins; ``hila`` are in body mm, ``soft`` is soft tissue in HU.

    Arteries run beside the bronchi and go on to the surface of the lung; veins run between them.

    Returns the bronchi, and the flat voxel indices and shares of the air in them.
    """
    s = patient.size
    carina = np.array([2 * s, -18 * s, 112 * s])
    trachea = np.array([[2 * s, -8 * s, 260 * s], [2 * s, -12 * s, 165 * s], carina])
    trachea[:, 0] += rng.normal(0, 3 * s) * np.array([1, 0.5, 0])
    bronchi: list[Branch] = []
    tubes: list[tuple[NDArray, NDArray]] = []
    fill = float(rng.uniform(0.7, 1.3))
    for side, sign in SIDES.items():
        here = spots.side == side
        points, depth = spots.points[here], spots.depth[here]

        def ends(deepest: float, count: int, points: NDArray = points, depth: NDArray = depth) -> NDArray:
            return points[rng.permutation(np.flatnonzero(depth > deepest))[:count]].astype(np.float64)

        hilum = hila[side] + np.array([0, -6, -4 if side == "left" else 2]) * s
        airways = _path([carina, hilum]).grow(ends(10, 44), 9.0, first=1)
        bronchi += airways.branches(airways.radii(5.8 * s, 1.2))
        beside = hila[side] + np.array([sign * 10, -4, -12]) * s
        # The arteries take the course of the bronchi, a few millimetres to their side.
        shifted = airways.nodes[1:] + np.array([sign * 3.5, 2.0, 3.5]) * s
        shifted[0] = beside
        arteries = Tree(np.vstack([hila[side], shifted]), airways.parent).grow(ends(2.5, int(700 * fill)), 7.0, first=1)
        low = hila[side] + np.array([-sign * 6, -4, -30]) * s
        veins = _path([low - np.array([sign * 14, 0, 4]) * s, low]).grow(ends(3, int(450 * fill)), 8.0, first=1)
        for tree, root in ((arteries, 8.0), (veins, 7.0)):
            tubes.append(tree.tubes(tree.radii(root * s, 0.6), 1.5))
            twigs = tree.grow(ends(1.5, int(1600 * fill)), 8.0, first=len(tree.nodes) // 4, batch=5000)
            tubes.append(twigs.tubes(np.full(len(twigs.nodes), 0.42), 1.5, first=len(tree.nodes)))
    points, sizes = (np.concatenate(parts) for parts in zip(*tubes, strict=True))
    inside = (canvas.anatomy == LUNG) | (canvas.anatomy == MEDIASTINUM)
    thin = sizes < 0.5 * canvas.voxel
    canvas.splat(points[thin], 1.4 * np.pi * sizes[thin] ** 2, patient.blood_hu[1], inside)
    canvas.paint_balls(points[~thin], sizes[~thin], patient.blood_hu[1], inside)

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
