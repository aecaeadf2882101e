"""Pictures of the report: an axial slice with its evidence and a coronal locator, as data URIs.

Display is radiological: the patient's left is on the right, anterior (or superior) at the top. Sizes are in mm.
"""

import base64
import io
from typing import Any, Literal, NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bundle.ctfindings.inference.evidence import as_map
from bundle.ctfindings.inference.findings_record import Answer, Evidence, FindingAnswer
from bundle.ctfindings.inference.output.evidence_volume import sample_evidence
from bundle.ctfindings.scan.coordinates import (
    Array,
    as_affine,
    box_corners,
    voxel_spacing,
    voxel_to_world,
    world_to_voxel,
)


class Window(NamedTuple):
    """A display window: name, level (centre) and width in HU."""

    name: str
    level: float
    width: float


LUNG = Window("Lung", -600, 1500)
SOFT_TISSUE = Window("Soft tissue", 40, 400)
WIDE = Window("Wide", 200, 1400)

WINDOW_OF_FINDING = {
    "Medical material": WIDE,
    "Arterial wall calcification": WIDE,
    "Coronary artery wall calcification": WIDE,
    "Pleural effusion": SOFT_TISSUE,
}
"""Findings whose display window is not that of their anatomy."""

HEAT = np.array([[0.45, 0.08, 0.35], [0.80, 0.20, 0.25], [0.96, 0.48, 0.10], [0.99, 0.75, 0.18], [0.99, 0.98, 0.65]])
"""Anchors of the heat scale, dark to light; lightness rises evenly, so colour-blind readers can use it."""
HEAT_FLOOR = 0.3
"""Evidence below this fraction of the peak is not drawn."""
_HEAT_ALPHA = 0.52
_HEAT_PIXELS = 176
_AIR_HU = -400.0
"""Voxels above it count as body when the picture is trimmed."""
_MARGIN_MM = 12.0


Spans = tuple[tuple[int, int], tuple[int, int]]
"""First and last column, and first and last row, to show."""


class Picture(NamedTuple):
    """One grey slice with its overlays; lengths in mm, positions from the upper left corner."""

    width: float
    height: float
    image: str  # data URI of the grey slice
    heat: str | None  # data URI of the transparent evidence layer; None without a map
    box: tuple[float, float, float, float] | None  # outline of the evidence box (x, y, width, height)
    peak: tuple[float, float]  # position of the evidence peak (x, y)
    letters: tuple[str, str, str, str]  # patient directions at the left, right, top and bottom edge
    window: Window


def display_window(answer: Answer) -> Window:
    """The window of a finding, or of the finding nearest to a query; by default that of the anatomy."""
    names = [answer.name] if isinstance(answer, FindingAnswer) else [near.name for near in answer.nearest_findings]
    return window_of(next(iter(names), ""), answer.anatomy)


def window_of(finding: str, anatomy: str) -> Window:
    """The window of a finding, by default that of the anatomy."""
    return WINDOW_OF_FINDING.get(finding, LUNG if anatomy == "lung" else SOFT_TISSUE)


class DisplayVolume:
    """A scan seen along the axes closest to RAS; views only, no copy.

    Args:
        hu: ``[X, Y, Z]`` in HU on the scan's own grid, in any orientation; ValueError if it is not three-dimensional.
        affine: ``(4, 4)``, voxel index to RAS mm.
    """

    def __init__(self, hu: Any, affine: Any) -> None:
        voxels = hu.detach().cpu().numpy() if hasattr(hu, "detach") else np.asarray(hu)
        if voxels.ndim != 3:
            raise ValueError(f"expected a scan [X, Y, Z], got shape {voxels.shape}")
        orientation = nib.orientations.io_orientation(as_affine(affine))
        self.hu: NDArray[Any] = nib.orientations.apply_orientation(voxels, orientation)
        self.affine: Array = as_affine(affine) @ nib.orientations.inv_ornt_aff(orientation, voxels.shape)
        self.spacing = voxel_spacing(self.affine)

    def picture(
        self, plane: Literal["axial", "coronal"], place: Evidence, window: Window, evidence: Any, token_affine: Any
    ) -> Picture:
        """The slice through the peak, trimmed to the body; a coronal one from left to right only.

        Args:
            place: peak and box to draw.
            evidence: token map ``[gx, gy, gz]``; None draws no heat.
            token_affine: ``(4, 4)``, token index to RAS mm.
        """
        across, down, through = (0, 1, 2) if plane == "axial" else (0, 2, 1)
        peak = np.clip(world_to_voxel(place.peak_mm, self.affine), 0, np.array(self.hu.shape) - 1)
        index = round(float(peak[through]))
        corners = world_to_voxel(box_corners(*(place.box_mm or (place.peak_mm, place.peak_mm))), self.affine)
        box_low, box_high = corners.min(axis=0), corners.max(axis=0)

        # [down, across]: both axes grow to the patient's right or upwards, so the display flips both.
        # A view: np.take would copy the whole scan.
        pixels = self.hu[:, :, index].T if through == 2 else self.hu[:, index, :].T
        spans = self._body(pixels, (across, down), box_low, box_high, trim_down=plane == "axial")
        (a0, a1), (d0, d1) = spans
        grey = window_grey(pixels[d0 : d1 + 1, a0 : a1 + 1], window)[::-1, ::-1]
        step_a, step_d = self.spacing[across], self.spacing[down]

        def position(voxel: Array) -> tuple[float, float]:
            return float((a1 + 0.5 - voxel[across]) * step_a), float((d1 + 0.5 - voxel[down]) * step_d)

        width, height = (a1 - a0 + 1) * step_a, (d1 - d0 + 1) * step_d
        left, top = np.clip(position(box_high), 0, (width, height))
        right, bottom = np.clip(position(box_low), 0, (width, height))
        axes = (across, down, through)
        return Picture(
            width=width,
            height=height,
            image=_data_uri(Image.fromarray(np.ascontiguousarray(grey)), "JPEG", quality=90),
            heat=None if evidence is None else self._heat(evidence, token_affine, spans, axes, index),
            box=place.box_mm and (float(left), float(top), float(right - left), float(bottom - top)),
            peak=position(peak),
            letters=("R", "L", "A", "P") if plane == "axial" else ("R", "L", "S", "I"),
            window=window,
        )

    def _body(
        self, pixels: NDArray[Any], axes: tuple[int, int], box_low: Array, box_high: Array, trim_down: bool
    ) -> Spans:
        """The body with a margin, never less than the evidence box."""
        spans = []
        body = pixels > _AIR_HU
        for axis, filled, trim in ((axes[0], body.mean(axis=0), True), (axes[1], body.mean(axis=1), trim_down)):
            last = len(filled) - 1
            hits = np.flatnonzero(filled > 0.02)
            if not trim or hits.size == 0:
                spans.append((0, last))
                continue
            margin = int(np.ceil(_MARGIN_MM / self.spacing[axis]))
            low = min(int(hits[0]) - margin, int(np.floor(box_low[axis])))
            high = max(int(hits[-1]) + margin, int(np.ceil(box_high[axis])))
            spans.append((max(low, 0), min(high, last)))
        return spans[0], spans[1]

    def _heat(self, evidence: Any, token_affine: Any, spans: Spans, axes: tuple[int, int, int], index: int) -> str:
        """The evidence on the same rectangle, coarser than the scan: tokens are large and the browser interpolates."""
        lengths = [(high - low + 1) * self.spacing[axis] for (low, high), axis in zip(spans, axes, strict=False)]
        pixel = max(lengths) / _HEAT_PIXELS
        lines = []
        for (low, high), length in zip(spans, lengths, strict=True):
            count = max(round(length / pixel), 2)
            lines.append(high + 0.5 - (np.arange(count) + 0.5) * (high - low + 1) / count)
        voxels = np.empty((len(lines[1]), len(lines[0]), 3))
        voxels[..., axes[0]] = lines[0][None, :]
        voxels[..., axes[1]] = lines[1][:, None]
        voxels[..., axes[2]] = index
        peak = float(as_map(evidence).max())
        values = sample_evidence(evidence, token_affine, voxel_to_world(voxels, self.affine)) / max(peak, 1e-6)
        return _heat_png(np.clip((values - HEAT_FLOOR) / (1 - HEAT_FLOOR), 0, 1))


def heat_css() -> str:
    """The heat scale as stops of a CSS gradient, from the floor to the peak."""
    return ", ".join(f"rgb({r:.0f} {g:.0f} {b:.0f})" for r, g, b in HEAT * 255)


def _heat_png(values: NDArray[Any]) -> str:
    rgba = np.empty((*values.shape, 4), dtype=np.uint8)
    for colour in range(3):
        rgba[..., colour] = np.rint(np.interp(values, np.linspace(0, 1, len(HEAT)), HEAT[:, colour]) * 255)
    # Opacity rises steeply to a plateau, so anatomy under the peak stays visible.
    rgba[..., 3] = np.rint(np.minimum(values * 1.6, 1) * _HEAT_ALPHA * 255)
    return _data_uri(Image.fromarray(rgba), "PNG", compress_level=6)


def window_grey(pixels: NDArray[Any], window: Window) -> NDArray[np.uint8]:
    """Grey values 0 to 255 of HU in a display window; NaN is black."""
    low = window.level - window.width / 2
    grey = (pixels.astype(np.float32) - low) * (255 / window.width)
    return np.clip(np.nan_to_num(grey), 0, 255).astype(np.uint8)


def _data_uri(image: Image.Image, format: str, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return f"data:image/{format.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
