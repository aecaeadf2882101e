"""Where the pathology queries of a trained PLACE look in real scans with a tumour."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from monai.data import MetaTensor
from monai.transforms import Compose
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.stats import rankdata

from bundle.ctfindings.anatomy import THORAX
from bundle.ctfindings.evaluation.plots import write_figure
from bundle.ctfindings.findings import finding_index
from bundle.ctfindings.inference.encoding import token_affine
from bundle.ctfindings.scan.coordinates import as_affine, voxel_to_world, world_to_voxel
from experiments.domain.tumours import FINDING, TUMOURS, tumour_points
from experiments.harness.page import write_results
from experiments.place.observer import Observer

NAME = "real_tumours"
"""Name of the files that ``look_at_tumours`` writes."""


def look_at_tumours(observer: Observer, scans: Path, output: Path) -> None:
    """Writes ``real_tumours.json`` and ``real_tumours.png``.

    In each scan, the query whose row is nearest to the statement of the finding is shown.

    Args:
        observer: A trained run.
        scans: Folder with the scans and masks of ``TUMOURS``.
        output: Folder of the experiment's page.
    """
    figure = Figure(figsize=(3.3 * len(TUMOURS), 3.4), layout="constrained")
    rows = []
    for panel, scan in zip(figure.subplots(1, len(TUMOURS)), TUMOURS, strict=True):
        tumour = tumour_points(scans, scan)
        image = Compose(observer.pipeline)({"image": scans / f"{scan}.nii.gz"})["image"]
        found, attention = tumour_attention(observer, image, tumour)
        rows.append({"scan": scan, **found})
        _draw(panel, image, attention, tumour)
        panel.set_title(f"{scan.partition('_ct')[0]}: {found['percentile']:.2f}", fontsize=8)
    write_results(output, {"finding": FINDING, "scans": rows}, f"{NAME}.json")
    write_figure(figure, output / f"{NAME}.png")


@torch.no_grad()
def tumour_attention(
    observer: Observer, image: MetaTensor, tumour: NDArray[Any]
) -> tuple[dict[str, Any], NDArray[np.float32]]:
    """The attention of the matching query at a tumour.

    Args:
        observer: A trained run.
        image: Preprocessed scan, ``[1, X, Y, Z]``.
        tumour: Points of the tumour, ``[n, 3]``, RAS mm.

    Returns:
        ``query``; ``percentile``: mean rank share of the tumour's tokens by attention among the tokens of the body, 0.5
        is chance; ``peak_to_tumour_mm``; ``random_to_tumour_mm``: median over the tokens of the body. And the attention
        on the grid of the image, ``[X, Y, Z]``.
    """
    encoder = observer.network.image
    encoded = encoder(image.as_tensor()[None].float())
    statement = observer.prompts[finding_index(FINDING), 0]
    query = int((encoded.pathology[0] @ statement).masked_fill(~encoded.pathology_valid[0], -torch.inf).argmax())
    attention = encoded.pathology_attention[0, query].reshape(encoded.grid).numpy()
    stride: list[int] = encoder.tower.stride  # type: ignore[assignment]
    affine = token_affine(as_affine(image.affine), stride)
    # Without the margin, in which no query attends.
    body = encoder.own_members(encoded.anatomy_logits)[0, :, THORAX].reshape(encoded.grid).numpy()
    hit = np.zeros(attention.shape, dtype=bool)
    places = np.rint(world_to_voxel(tumour, affine)).astype(int)
    hit[tuple(np.clip(places, 0, np.array(attention.shape) - 1).T)] = True
    among = body | hit
    away = cKDTree(tumour)
    found = {
        "query": query,
        "percentile": round(float(np.mean((rankdata(attention[among]) / among.sum())[hit[among]])), 3),
        "peak_to_tumour_mm": _distance(away, np.unravel_index(attention.argmax(), attention.shape), affine),
        "random_to_tumour_mm": _distance(away, np.argwhere(body), affine),
    }
    return found, attention.repeat(stride[0], 0).repeat(stride[1], 1).repeat(stride[2], 2)


def _distance(tumour: cKDTree, tokens: Any, affine: NDArray[np.float64]) -> float:
    """Median distance of tokens to the tumour in mm."""
    return round(float(np.median(tumour.query(voxel_to_world(np.asarray(tokens), affine))[0])), 1)


def _draw(panel: Axes, image: MetaTensor, attention: NDArray[np.float32], tumour: NDArray[Any]) -> None:
    """The axial slice through the middle of a tumour, with the attention in colour and the tumour's outline."""
    affine = as_affine(image.affine)
    voxels = np.rint(world_to_voxel(tumour, affine)).astype(int)
    inside = np.zeros(image.shape[1:], dtype=bool)
    inside[tuple(np.clip(voxels, 0, np.array(inside.shape) - 1).T)] = True
    level = int(np.argmax(inside.sum(axis=(0, 1))))
    # Right of the patient at the left, front at the top.
    view = [np.asarray(part)[:, :, level].T[::-1, ::-1] for part in (image[0], attention, inside)]
    panel.imshow(view[0], cmap="gray", vmin=0, vmax=0.8)
    panel.imshow(view[1], cmap="inferno", alpha=0.45, vmin=0, vmax=attention.max())
    panel.contour(view[2], levels=[0.5], colors="cyan", linewidths=1)
    panel.set_axis_off()
