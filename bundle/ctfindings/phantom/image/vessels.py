"""Branching tubes: the bronchi and the pulmonary vessels grow from the hilum to points of the lung."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundle.ctfindings.phantom.image.canvas import curve


@dataclass
class Branch:
    """One unbranched course of a tree.

    Attributes:
        points: centre line, body mm, (N, 3), about one point per 1.5 mm.
        radii: inner radius in mm at each point, (N,).
        generation: number of forks between the root and here.
        side: ``right`` or ``left``.
    """

    points: NDArray
    radii: NDArray
    generation: int
    side: str


def grow_tree(
    targets: NDArray, trunk: Sequence[NDArray], root_mm: float, leaf_mm: float, side: str, step: float
) -> list[Branch]:
    """Connects every target to the tree grown so far, near ones first, and sizes the branches by what they supply.

    Args:
        targets: ends of the branches, body mm, (N, 3).
        trunk: polyline that the tree starts with; branches leave from its last point on.
        root_mm: radius of the trunk.
        leaf_mm: radius of the last branches.
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
        points, radii = curve(nodes[rows], 1.5, sizes)
        assert radii is not None
        branches.append(Branch(points, radii, generation, side))
        stack += [(child, node, generation + 1) for child in children[node]]
    return branches
