"""The bar over the views: window, heat map with its scale, what is shown, a distance, and keys for the same."""

from pathlib import Path
from typing import Any

from ctfindings_client import heat, points
from ctfindings_client.answers import Evidence
from ctfindings_client.record import Row
from trame.widgets import html
from trame.widgets import vuetify3 as v

from .scene import WINDOWS

AMBER = "#e9a23b"
SOFT_TISSUE = "Mediastinum"
IN_SOFT_TISSUE = ("Pleural effusion",)
"""Findings of the lung that are read in the window of the mediastinum."""

KEYS = (
    "Keys: n and p next and previous finding, N and P next and previous scan of the server, f find, "
    "arrows scroll the view under the mouse, 1 to 3 window, h heat map, d distance. "
    "Drag with the right mouse button for width and level, turn the wheel with Ctrl to zoom"
)
_STEPS = {"ArrowUp": 1, "ArrowRight": 1, "ArrowDown": -1, "ArrowLeft": -1}
"""Slices towards the head, the front or the right side of the patient."""

_SCALE = ", ".join(f"rgb({', '.join(str(round(255 * part)) for part in colour)})" for colour in heat.ANCHORS)
_SCRIPTS = "ctfindings_keys"


class DisplayBar:
    """What its switches and keys do.

    Args:
        viewer: with the scene, the table, and the questions to the server.
    """

    def __init__(self, viewer: Any) -> None:
        self.viewer, self.state = viewer, viewer.state
        self.shown_opacity = heat.DEFAULT_OPACITY
        self.state.update(
            {
                "opacity": heat.DEFAULT_OPACITY,
                "window": SOFT_TISSUE,
                "show_anatomy": False,
                "show_points": False,
                "show_box": True,
                "heat_of": "",
                "measuring": False,
                "distance": None,
                "key": "",
            }
        )

    def watch(self) -> None:
        """Follows the switches, and has the page tell the keys that are pressed."""
        watched = {"opacity": self.on_opacity, "window": self.on_window, "key": self.on_key}
        watched |= dict.fromkeys(("show_anatomy", "show_points", "show_box"), self.on_visibility)
        for name, slot in watched.items():
            self.state.change(name)(lambda _slot=slot, **_: _slot())
        folder = str(Path(__file__).with_name("static"))
        self.viewer.server.enable_module(
            {"serve": {_SCRIPTS: folder}, "scripts": [f"{_SCRIPTS}/{name}.js" for name in ("keys", "draft")]}
        )

    def build(self) -> None:
        """Adds the bar to the page that is being built."""
        with html.Div(classes="ct-display", title=KEYS):
            with v.VBtnToggle(
                v_model="window",
                mandatory=True,
                density="compact",
                variant="outlined",
                divided=True,
                classes="ct-windows",
            ):
                for name, (width, level) in WINDOWS.items():
                    v.VBtn(name, value=name, size="small", title=f"width {width:.0f}, level {level:.0f} HU")
            html.Span("Heat map", classes="ct-small ct-gap")
            v.VSlider(
                v_model="opacity",
                min=0,
                max=1,
                step=0.05,
                density="compact",
                hide_details=True,
                classes="ct-opacity",
                color=AMBER,
                id="opacity",
            )
            for name, label in (("show_anatomy", "Outlines"), ("show_box", "Box"), ("show_points", "Points")):
                v.VCheckbox(
                    v_model=name, label=label, density="compact", hide_details=True, classes="ct-check", id=name
                )
            v.VBtn(
                icon="mdi-ruler",
                click=self.on_distance,
                disabled=("!has_scan",),
                color=(f"measuring ? '{AMBER}' : undefined",),
                variant="text",
                size="x-small",
                title=("distance === null ? 'Distance: click two points of a slice view' : distance + ' mm; remove'",),
                id="distance",
            )
            with html.Span(
                v_if="heat_of",
                classes="ct-small ct-legend",
                title=("heat_of + ': colours run from half of its own maximum to the maximum'",),
                id="legend",
            ):
                html.Span("half")
                html.Span(classes="ct-scale", style=f"background: linear-gradient(to right, {_SCALE})")
                html.Span("max")

    def show_heat(self, evidence: Evidence | None) -> None:
        """Names what the heat map shows; None for no heat map."""
        self.state.heat_of = "" if evidence is None or not evidence.strongest else evidence.text

    def follow(self, row: Row) -> None:
        """Sets the window in which a finding is read."""
        self.state.window = window_of(row)
        self.on_window()

    def on_key(self) -> None:
        """Does what a key stands for; the page sends it with the time, so that it can be pressed twice."""
        key, view = [*str(self.state.key).split(" "), ""][:2]
        if key in ("n", "p"):
            self.viewer.step(1 if key == "n" else -1)
        elif key in ("N", "P"):
            self.open_next(1 if key == "N" else -1)
        elif key == "f":
            if not self.state.busy:
                self.viewer.on_find()
        elif key in _STEPS:
            self.viewer.scene.step(view, _STEPS[key])
        elif key == "d":
            self.on_distance()
        elif key == "h":
            self.state.opacity = 0.0 if self.state.opacity else self.shown_opacity
        elif key in "123"[: len(WINDOWS)] and key:
            self.state.window = list(WINDOWS)[int(key) - 1]

    def open_next(self, scans: int) -> None:
        """Opens the scan so many places below the open one in the server's list; from none, the first or last."""
        names = [scan.id for scan in self.viewer.listed]
        if not names:
            return
        first = 0 if scans > 0 else len(names) - 1
        at = names.index(self.state.scan_id) + scans if self.state.scan_id in names else first
        if 0 <= at < len(names):
            self.state.scan_id = names[at]
        else:
            self.state.status = f"This is the {'last' if scans > 0 else 'first'} scan of the server's list."

    def on_distance(self) -> None:
        """Begins a distance, or removes the one that is there."""
        if self.viewer.scene.volume is None:
            return
        if self.state.measuring:
            self.end_distance()
        else:
            self.viewer.scene.measure(self.show_distance)
            self.state.measuring, self.state.distance = True, None

    def end_distance(self) -> None:
        """Removes the distance."""
        self.state.measuring, self.state.distance = False, None
        self.viewer.scene.stop_measuring()

    def show_distance(self, millimetres: float | None) -> None:
        """Shows a length; None for none yet."""
        with self.state:
            self.state.distance = None if millimetres is None else round(millimetres, 1)

    def on_opacity(self) -> None:
        """Opacity of the heat map."""
        self.shown_opacity = float(self.state.opacity) or self.shown_opacity
        self.viewer.studies.set_opacity(float(self.state.opacity))
        self.viewer.scene.draw()

    def on_window(self) -> None:
        """Width and level by their name; those that the mouse has set have none."""
        if self.state.window:
            self.viewer.scene.set_window(*WINDOWS[self.state.window])
            self.viewer.readout.show_window()

    def show_window(self) -> None:
        """Names the width and level that the mouse has set; without a name, a click or key brings each one back."""
        with self.state:
            window = self.viewer.scene.window
            self.state.window = next((name for name, values in WINDOWS.items() if values == window), "")
            self.viewer.readout.show_window()

    def on_visibility(self) -> None:
        """Shows and hides outlines of the anatomies, points and box."""
        self.viewer.scene.show_outlines(bool(self.state.show_anatomy))
        for role, name in ((points.ROLE, "show_points"), (heat.BOX_ROLE, "show_box")):
            self.viewer.scene.set_visible(role, bool(self.state[name]))


def window_of(row: Row) -> str:
    """Name of the window in which a finding is read."""
    return "Lung" if row.anatomy == "lung" and row.name not in IN_SOFT_TISSUE else SOFT_TISSUE
