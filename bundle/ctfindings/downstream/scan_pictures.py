"""Pictures of scans with outlines of masks, for the page of a task. Shapes: C classes, X Y Z voxels in RAS."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from bundle.ctfindings.evaluation.plots import write_figure

STYLES: tuple[Literal["solid", "dashed"], ...] = ("solid", "dashed")
"""Outlines of masks, and of predictions."""


class Picture(NamedTuple):
    """One scan to show."""

    title: str
    image: NDArray[np.floating]  # [X, Y, Z] in [0, 1]
    truth: NDArray[np.bool_]  # [C, X, Y, Z]
    predicted: NDArray[np.bool_]  # [C, X, Y, Z]
    spacing: Sequence[float]  # of the voxels in mm


def draw_pictures(
    path: Path, pictures: Sequence[Picture], names: Sequence[str], predicted_as: str = "predicted"
) -> None:
    """The axial slice of each scan with most of the rarest mask: masks as solid, predictions as dashed outlines."""
    figure = Figure(figsize=(4.2 * len(pictures), 5.2), layout="constrained")
    seen: set[int] = set()
    for axes, picture in zip(np.ravel(figure.subplots(1, len(pictures), squeeze=False)), pictures, strict=True):
        height = _shown_slice(picture.truth)
        axes.imshow(_radiological(picture.image[:, :, height]), cmap="gray", vmin=0, vmax=1, origin="lower")
        for place in range(len(names)):
            for mask, style in zip((picture.truth, picture.predicted), STYLES, strict=True):
                flat = _radiological(mask[place, :, :, height])
                if flat.any():
                    seen.add(place)
                    axes.contour(flat, levels=[0.5], colors=[_colour(place)], linestyles=style, linewidths=1.2)
        axes.set_aspect(picture.spacing[1] / picture.spacing[0])
        axes.set_title(f"{picture.title}, slice {height + 1} from below", fontsize=9)
        axes.set_axis_off()
    lines = [Line2D([], [], color=_colour(place), label=names[place]) for place in sorted(seen)]
    lines += [
        Line2D([], [], color="black", linestyle=style, label=label)
        for style, label in zip(STYLES, ("mask", predicted_as), strict=True)
    ]
    figure.legend(handles=lines, loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    write_figure(figure, path)


def _colour(place: int) -> str:
    return f"C{place % 10}"


def _shown_slice(truth: NDArray[np.bool_]) -> int:
    """The slice with most voxels of the smallest mask that is not empty; the middle one if all are empty."""
    sizes = truth.reshape(len(truth), -1).sum(axis=1)
    if not sizes.any():
        return truth.shape[3] // 2
    smallest = int(np.where(sizes > 0, sizes, sizes.max() + 1).argmin())
    return int(truth[smallest].sum(axis=(0, 1)).argmax())


def _radiological(flat: NDArray[np.generic]) -> NDArray[np.generic]:
    """An axial slice ``[X, Y]`` with the right side of the patient at the left of the picture, front at the top."""
    return flat[::-1].T.astype(np.float32)
