"""How tests use the panel: its timers are fired, as Qt would, until something holds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tests.plugins.slicer.conftest import BundleAnswer


def until(panel: Any, condition: Callable[[], bool], seconds: float = 120) -> None:
    """Fires the panel's timers, as Qt would, until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, panel.ui.statusLabel.text
        panel.timer.fire()
        panel.corrections.timer.fire()
        time.sleep(0.01)


def rests(panel: Any) -> Callable[[], bool]:
    return lambda: not (panel.job or panel.timer.active or panel.corrections.saving or panel.corrections.timer.active)


def find(panel: Any, volume: Any) -> None:
    """Finds in a scan, and waits for the answer."""
    panel.ui.volumeSelector.setCurrentNode(volume)
    panel.ui.findButton.emit("clicked(bool)", False)
    until(panel, rests(panel))


def find_focal(panel: Any, volume: Any, answer: BundleAnswer) -> None:
    """Finds, and chooses a finding whose evidence has a box: diffuse evidence has none."""
    find(panel, volume)
    focal = {entry["name"] for entry in answer.record["findings"] if (entry["evidence"] or {}).get("box_mm")}
    rows = [cells[0] for cells in panel.ui.findingsTable.texts()]
    panel.ui.findingsTable.selectRow(next(row for row, name in enumerate(rows) if name in focal))
    until(panel, rests(panel))
