"""What stands in the corners of the slice views: where each one is, HU and place under the mouse, and the window."""

from typing import Any

import slicer.util
from ctfindings_client import nodes, slices
from trame.widgets import html

from . import texts
from .places import Places, image_number
from .scene import VIEWS


def place_key(view: str) -> str:
    """Name in the state of where a slice view stands."""
    return f"place_{view.lower()}"


def mouse_key(view: str) -> str:
    """Name in the state of what is under the mouse in a slice view."""
    return f"mouse_{view.lower()}"


class Readout:
    """What it says.

    Args:
        viewer: with the scene.
    """

    def __init__(self, viewer: Any) -> None:
        self.viewer, self.state = viewer, viewer.state
        self.places: Places | None = None
        self.state.update({place_key(name): "" for name in VIEWS} | {mouse_key(name): [] for name in VIEWS})
        self.state.window_lines = []

    def build(self, view: str) -> None:
        """Adds the elements over a slice view, but for where it stands, to the page that is being built."""
        for classes, key in (("ct-mouse", mouse_key(view)), ("ct-window", "window_lines")):
            with html.Div(v_if="has_scan", classes=classes, id=f"{classes.removeprefix('ct-')}-{view.lower()}"):
                html.Div("{{ line }}", v_for=f"line in {key}", key="line")

    def show_standing(self) -> None:
        """Where the views stand: the axial one by its image number, as a reader names it."""
        scene = self.viewer.scene
        for name, millimetres in scene.places().items():
            axial = name == "Axial"
            self.state[place_key(name)] = (
                self.image_at(millimetres) if axial else texts.position(VIEWS[name], millimetres)
            )

    def image_at(self, z_mm: float) -> str:
        """The image at a height, through the place where the views meet."""
        x, y, _ = slices.here() or (0.0, 0.0, 0.0)
        return self._image((x, y, z_mm))

    def show_mouse(self) -> None:
        """HU and place under the mouse, in the view where it is."""
        pointed = self.viewer.scene.pointed_at()
        with self.state:
            for name in VIEWS:
                self.state[mouse_key(name)] = self._lines(pointed[1]) if pointed and pointed[0] == name else []

    def show_window(self) -> None:
        """Width and level of the window."""
        width, level = self.viewer.scene.window
        self.state.window_lines = [f"W {width:.0f}", f"L {level:.0f}"]

    def _lines(self, place: tuple[float, float, float]) -> list[str]:
        hu = self.viewer.scene.hu(place)
        if hu is None:
            return []
        where = "" if self.places is None else self.places.name(place)
        return [f"{hu} HU", *filter(None, [where]), self._image(place)]

    def _image(self, place: tuple[float, float, float]) -> str:
        volume = self.viewer.scene.volume
        return image_number(place, nodes.affine_of(volume), slicer.util.arrayFromVolume(volume).shape)
