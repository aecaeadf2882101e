"""The readable report: one self-contained HTML page with the table of findings and a picture of each present one.

Nothing in the page is loaded from elsewhere and no script runs; text from outside (file names, queries, warnings) is
escaped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.ctfindings.files.atomic_write import atomic_path
from bundle.ctfindings.files.html_page import render_page
from bundle.ctfindings.inference.findings_record import Answer, Evidence, FindingAnswer, FindingsRecord
from bundle.ctfindings.inference.output.report_pictures import (
    HEAT_FLOOR,
    LUNG,
    SOFT_TISSUE,
    WIDE,
    DisplayVolume,
    Picture,
    Window,
    heat_css,
)

_TEMPLATES = Path(__file__).parent / "templates"

WINDOW_OF_FINDING: dict[str, Window] = {
    "Medical material": WIDE,
    "Arterial wall calcification": WIDE,
    "Coronary artery wall calcification": WIDE,
    "Pleural effusion": SOFT_TISSUE,
}
"""Findings that are read in another window than the one of their anatomy."""


@dataclass(frozen=True)
class Panel:
    """A finding or query with its pictures; lengths in mm."""

    answer: Answer
    anchor: str
    title: str
    axial: Picture
    coronal: Picture
    images: int
    box_size: tuple[float, float, float]
    heat_low: float
    heat_high: float


def display_window(answer: Answer) -> Window:
    """The window that suits a finding; a query takes that of its nearest finding when that finding has its own, else
    its anatomy's.
    """
    name = (
        answer.name if isinstance(answer, FindingAnswer) else next((near.name for near in answer.nearest_findings), "")
    )
    if name in WINDOW_OF_FINDING:
        return WINDOW_OF_FINDING[name]
    return LUNG if answer.anatomy == "lung" else SOFT_TISSUE


def write_report(
    path: str | Path, record: FindingsRecord, hu: Any, affine: Any, evidence_maps: Mapping[str, Any], token_affine: Any
) -> None:
    """Writes the page; it appears under its name only when complete.

    Args:
        path: ends in ``.html``.
        record: what is reported.
        hu: the scan ``[X, Y, Z]`` in HU on its own grid, any orientation, tensor or array.
        affine: ``(4, 4)``, voxel index to RAS mm.
        evidence_maps: token map ``[gx, gy, gz]`` by ``answer.key``; a finding without one is shown without heat.
        token_affine: ``(4, 4)``, token index to RAS mm.
    """
    volume = DisplayVolume(hu, affine)
    shown: list[Answer] = [answer for answer in record.ordered() if answer.present]
    shown += record.queries
    panels = [
        _panel(
            f"picture-{number}", answer, answer.evidence, record, volume, evidence_maps.get(answer.key), token_affine
        )
        for number, answer in enumerate(shown, start=1)
        if answer.evidence is not None
    ]
    page = render_page(
        _TEMPLATES / "report.html.jinja",
        record=record,
        findings=record.ordered(),
        present=[answer for answer in record.findings if answer.present],
        without_anatomy=[answer for answer in record.answers if not answer.anatomy_found],
        panels=panels,
        anchors={panel.answer.key: panel.anchor for panel in panels},
        heat=heat_css(),
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _panel(
    anchor: str,
    answer: Answer,
    place: Evidence,
    record: FindingsRecord,
    volume: DisplayVolume,
    evidence: Any,
    token_affine: Any,
) -> Panel:
    window = display_window(answer)
    low, high = place.box_mm
    return Panel(
        answer=answer,
        anchor=anchor,
        title=answer.name if isinstance(answer, FindingAnswer) else answer.text,
        axial=volume.axial(place, window, evidence, token_affine),
        coronal=volume.coronal(place, window, evidence, token_affine),
        images=record.scan.shape[place.slice_axis],
        box_size=(high[0] - low[0], high[1] - low[1], high[2] - low[2]),
        heat_low=HEAT_FLOOR * place.peak_score,
        heat_high=place.peak_score,
    )
