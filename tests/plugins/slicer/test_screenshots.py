"""The pictures of the docs and of the Extensions Index, drawn from the module's own scene by Slicer's views.

    CTFINDINGS_SCREENSHOTS=1 python -m pytest tests/plugins/slicer/test_screenshots.py

writes them into the checkout; otherwise they are made and checked only.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.plugins.slicer.conftest import BundleAnswer
from tests.plugins.slicer.program import MODULE_FOLDER, Program
from tests.plugins.slicer.stand_in_server import StandInServer

SIZE = 420
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
    from CTFindingsLib import anatomy, nodes
    from CTFindingsLib.study import Studies
    from CTFindingsLib.transport import Cancellation, ignore_progress
    from PIL import Image, ImageDraw

    from tests.plugins.slicer.views import ThreeDView

    front = ThreeDView(program, (SIZE, SIZE))
    studies = Studies()
    studies.address = server.address
    volume.SetName("synthetic chest CT")
    volume.GetDisplayNode().SetWindowLevel(500, 40)
    studies.show_findings(volume, studies.ask_findings(volume)(Cancellation(), ignore_progress))
    finding = max(bundle_answer.present(), key=lambda entry: entry["probability"])
    for view in slice_views.values():
        view.resize(SIZE, SIZE)
    studies.show_evidence(volume, studies.ask_evidence(volume, finding=finding["name"])(Cancellation(), ignore_progress))

    segmentation = nodes.find(volume, anatomy.ROLE)
    segmentation.CreateClosedSurfaceRepresentation()
    segmentation.GetDisplayNode().SetOpacity3D(0.55)
    front.look_from_front()

    sheet = Image.new("RGB", (2 * SIZE + 4, 2 * SIZE + 28), (24, 26, 30))
    places = {"Red": (0, 0), "Green": (0, SIZE + 4), "Yellow": (SIZE + 4, SIZE + 4)}
    for name, place in places.items():
        pixels = slice_views[name].pixels()
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 200, f"{name} is empty"
        sheet.paste(Image.fromarray(pixels), place)
    surface = front.pixels()
    assert (surface.max(axis=-1) > 60).mean() > 0.1, "the 3D view is empty"
    sheet.paste(Image.fromarray(surface), (SIZE + 4, 0))
    front.close()
    text = f"{finding['name']} {finding['probability']:.2f}, z {finding['evidence']['z_mm']:.0f} mm.  {CAPTION}"
    ImageDraw.Draw(sheet).text((8, 2 * SIZE + 10), text, fill=(255, 255, 255))
    sheet.quantize(256).save(tmp_path / "views.png", optimize=True)
    assert (tmp_path / "views.png").stat().st_size < 300_000

    if os.environ.get("CTFINDINGS_SCREENSHOTS"):
        for target in (MODULE_FOLDER.parent / "Screenshots" / "views.png", bundle_root / "docs" / "images" / "slicer_views.png"):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((tmp_path / "views.png").read_bytes())


@pytest.mark.parametrize("name", ["views.png"])
def test_pictures_of_the_extension_are_in_the_docs_as_well(bundle_root: Path, name: str) -> None:
    own, docs = MODULE_FOLDER.parent / "Screenshots" / name, bundle_root / "docs" / "images" / f"slicer_{name}"
    assert own.read_bytes() == docs.read_bytes()
