"""The pictures of the docs and of the Extensions Index, drawn from the module's own scene by Slicer's views.

    CTFINDINGS_SCREENSHOTS=1 python -m pytest tests/plugins/slicer/test_screenshots.py

writes them into the checkout; otherwise they are made and checked only.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.plugins.slicer.conftest import BundleAnswer
from tests.plugins.slicer.program import MODULE_FOLDER, Program
from tests.plugins.slicer.stand_in_server import StandInServer

WIDTH, HEIGHT = 560, 420
"""Of a view in pixels: beside the scan there is room for the labels of its points."""

CAPTION = "Research only. Not a diagnosis. Synthetic scan."


def test_views_of_the_most_probable_finding(
    slice_views: dict[str, Any],
    program: Program,
    volume: Any,
    server: StandInServer,
    bundle_answer: BundleAnswer,
    bundle_root: Path,
    tmp_path: Path,
) -> None:
    from ctfindings_client import anatomy, nodes
    from ctfindings_client.study import Studies
    from ctfindings_client.transport import Cancellation, ignore_progress
    from PIL import Image, ImageDraw
    from PIL.PngImagePlugin import PngInfo

    from tests.plugins.slicer.views import ThreeDView

    front = ThreeDView(program, (WIDTH, HEIGHT))
    studies = Studies()
    studies.address = server.address
    volume.SetName("synthetic chest CT")
    volume.GetDisplayNode().SetWindowLevel(500, 40)
    studies.show_findings(volume, studies.ask_findings(volume)(Cancellation(), ignore_progress))
    finding = max(bundle_answer.present(), key=lambda entry: entry["probability"])
    for view in slice_views.values():
        view.resize(WIDTH, HEIGHT)
    studies.show_evidence(
        volume, studies.ask_evidence(volume, finding=finding["name"])(Cancellation(), ignore_progress)
    )

    segmentation = nodes.find(volume, anatomy.ROLE)
    segmentation.CreateClosedSurfaceRepresentation()
    segmentation.GetDisplayNode().SetOpacity3D(0.55)
    front.look_from_front()

    sheet = Image.new("RGB", (2 * WIDTH + 4, 2 * HEIGHT + 28), (24, 26, 30))
    places = {"Red": (0, 0), "Green": (0, HEIGHT + 4), "Yellow": (WIDTH + 4, HEIGHT + 4)}
    for name, place in places.items():
        pixels = slice_views[name].pixels()
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 200, f"{name} is empty"
        sheet.paste(Image.fromarray(pixels), place)
    surface = front.pixels()
    assert (surface.max(axis=-1) > 60).mean() > 0.1, "the 3D view is empty"
    sheet.paste(Image.fromarray(surface), (WIDTH + 4, 0))
    front.close()
    text = f"{finding['name']} {finding['probability']:.2f}, z {finding['evidence']['z_mm']:.0f} mm.  {CAPTION}"
    ImageDraw.Draw(sheet).text((8, 2 * HEIGHT + 10), text, fill=(255, 255, 255))
    told = PngInfo()
    told.add_text("weights", str(bundle_answer.record["model"]["weights_sha256"]))
    sheet.quantize(256).save(tmp_path / "views.png", optimize=True, pnginfo=told)
    assert (tmp_path / "views.png").stat().st_size < 300_000

    if os.environ.get("CTFINDINGS_SCREENSHOTS"):
        for target in (
            MODULE_FOLDER.parent / "Screenshots" / "views.png",
            bundle_root / "docs" / "images" / "slicer_views.png",
        ):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((tmp_path / "views.png").read_bytes())


@pytest.mark.parametrize("name", ["slicer_views.png", "viewer.png", "viewer_1920x1080.png", "viewer_1024x768.png"])
def test_pictures_show_the_shipped_weights(bundle_root: Path, name: str) -> None:
    """If this fails, make them again: see the docstrings of this file and of tests/plugins/viewer/test_pictures.py."""
    from PIL import Image

    shipped = hashlib.sha256((bundle_root / "models" / "model.pt").read_bytes()).hexdigest()
    assert Image.open(bundle_root / "docs" / "images" / name).info.get("weights") == shipped


@pytest.mark.parametrize("name", ["views.png"])
def test_pictures_of_the_extension_are_in_the_docs_as_well(bundle_root: Path, name: str) -> None:
    own, docs = MODULE_FOLDER.parent / "Screenshots" / name, bundle_root / "docs" / "images" / f"slicer_{name}"
    assert own.read_bytes() == docs.read_bytes()
