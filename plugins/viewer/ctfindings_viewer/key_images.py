"""Key images: a small picture of the axial slice that speaks most for a finding. Those of the present findings stand
above the views, those of others beside their row when the mouse rests on it. Each is drawn when the page asks for it.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import slicer.util
from aiohttp import web
from ctfindings_client import nodes
from ctfindings_client.record import Row, ordered
from PIL import Image, ImageDraw
from trame.widgets import html

from .display_bar import window_of
from .scene import WINDOWS

PATH = "/key-image"
WIDTH, HEIGHT = 288, 192
"""Of a picture in pixels."""

_MARGIN_MM = 10.0
_AIR_HU = -1024
_FINER = 2
"""Samples for each pixel along each axis, so that fine structures do not flicker."""
_BOX_COLOUR = (252, 191, 46)
_EMPTY = "Key images of the present findings appear here."
_NONE = "No finding is present. Hover over a row of the table to see its key image."
_NOT_ASSESSED = "No finding was assessed, so there are no key images."


class KeyImages:
    """The strip above the views, and the pictures.

    Args:
        viewer: with scene, record and readout.
    """

    def __init__(self, viewer: Any) -> None:
        self.viewer, self.state = viewer, viewer.state
        self.state.update({"key_images": [], "answers": 0})

    def serve(self) -> None:
        """Adds the route of the pictures to the viewer."""
        self.viewer.server.controller.on_server_bind.add(lambda bound: bound.app.router.add_get(PATH, self._answer))

    def build(self) -> None:
        """Adds the strip to the page that is being built."""
        with html.Div(
            classes="ct-strip",
            id="key-images",
            wheel="$event.currentTarget.scrollLeft += $event.deltaY",
            __events=["wheel"],
        ):
            html.Span(
                f"{{{{ !rows.length ? '{_EMPTY}' : rows.some((row) => row.placed) ? '{_NONE}' : '{_NOT_ASSESSED}' }}}}",
                v_if="!key_images.length",
                classes="ct-small",
            )
            with html.Button(
                v_for="shown in key_images",
                key="shown.name",
                type="button",
                click=(self.viewer.on_finding_chosen, "[shown.name]"),
                classes=("shown.name === selected ? 'ct-key ct-key-selected' : 'ct-key'",),
                title=("`${shown.name}: image ${shown.image}`",),
            ):
                html.Img(src=(source("shown.name"),), classes="ct-key-picture", alt="")
                html.Span("{{ shown.name }}", classes="ct-key-name")

    def show(self) -> None:
        """The key images of the record that is shown; those of an earlier one are asked for no more."""
        record = self.viewer.record
        self.state.answers += 1
        present = [] if record is None else [row for row in ordered(record.rows) if row.present and row.peak_mm]
        self.state.key_images = [{"name": row.name, "image": row.image} for row in present]

    async def _answer(self, request: web.Request) -> web.Response:
        record, places = self.viewer.record, self.viewer.readout.places
        rows = () if record is None else record.rows
        row = next((row for row in rows if row.name == request.query.get("finding")), None)
        if row is None or row.peak_mm is None or places is None or request.query.get("of") != str(self.state.answers):
            return web.Response(status=404, text="There is no such key image.")
        volume = self.viewer.scene.volume
        picture = draw(slicer.util.arrayFromVolume(volume), nodes.affine_of(volume), row, places.body_mm)
        return web.Response(body=picture, content_type="image/jpeg", headers={"Cache-Control": "no-store"})


def source(name: str) -> str:
    """Address of a key image, as an expression of the page.

    Args:
        name: expression for the name of its finding.
    """
    return f"`{PATH}?of=${{answers}}&finding=${{encodeURIComponent({name})}}`"


def draw(voxels: np.ndarray, affine: np.ndarray, row: Row, body_mm: Sequence[tuple[float, float]]) -> bytes:
    """The axial slice of a finding with its box as JPEG, trimmed to the body; the patient's right is on the left.

    Args:
        voxels: ``(K, J, I)`` in HU.
        affine: ``(4, 4)``, voxel index (i, j, k) to RAS mm.
        row: the finding.
        body_mm: lowest and highest x and y of the body.
    """
    assert row.peak_mm is not None
    (x_low, x_high), (y_low, y_high) = body_mm[:2]
    pixel_mm = max((x_high - x_low + 2 * _MARGIN_MM) / WIDTH, (y_high - y_low + 2 * _MARGIN_MM) / HEIGHT)
    edge_x, edge_y = (x_low + x_high + WIDTH * pixel_mm) / 2, (y_low + y_high + HEIGHT * pixel_mm) / 2
    across = edge_x - (np.arange(WIDTH * _FINER) + 0.5) * pixel_mm / _FINER
    down = edge_y - (np.arange(HEIGHT * _FINER) + 0.5) * pixel_mm / _FINER
    points = np.stack([*np.meshgrid(across, down), np.full((len(down), len(across)), row.peak_mm[2])], axis=-1)
    to_voxel = np.linalg.inv(affine)
    index = np.rint(points @ to_voxel[:3, :3].T + to_voxel[:3, 3]).astype(int)[..., ::-1]
    inside = ((index >= 0) & (index < voxels.shape)).all(axis=-1)
    hu = np.full(inside.shape, _AIR_HU, np.float32)
    hu[inside] = voxels[tuple(index[inside].T)]
    width, level = WINDOWS[window_of(row)]
    grey = np.clip((hu - level) * (255 / width) + 127.5, 0, 255).astype(np.uint8)
    picture = Image.fromarray(grey).reduce(_FINER).convert("RGB")
    if row.box_mm is not None:
        low, high = row.box_mm
        corners = [((edge_x - x) / pixel_mm, (edge_y - y) / pixel_mm) for x, y, _ in (high, low)]
        ImageDraw.Draw(picture).rectangle(corners, outline=_BOX_COLOUR, width=2)
    content = io.BytesIO()
    picture.save(content, format="JPEG", quality=85)
    return content.getvalue()
