"""The HTML report: one self-contained page with the table of findings and pictures of those that are present.

The page loads nothing and runs no script; text from outside (file names, queries, warnings) is escaped.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundle.ctfindings.files.atomic_write import write_text
from bundle.ctfindings.files.html_page import render_page
from bundle.ctfindings.inference.findings_record import Answer, FindingsRecord, where
from bundle.ctfindings.inference.output.draft_report import compose_report
from bundle.ctfindings.inference.output.report_pictures import HEAT_FLOOR, DisplayVolume, display_window, heat_css

_TEMPLATE = Path(__file__).parent / "templates" / "report.html.jinja"


def write_report(
    path: str | Path,
    record: FindingsRecord,
    hu: Any,
    affine: Any,
    evidence_maps: Mapping[str, Any],
    token_affine: Any,
    draft: bool = False,
) -> None:
    """Writes the page, a ``.html`` file that appears only when complete.

    Args:
        hu: the scan ``[X, Y, Z]`` in HU on its own grid, any orientation, tensor or array.
        affine, token_affine: ``(4, 4)``, index of a voxel and of a token to RAS mm.
        evidence_maps: token map ``[gx, gy, gz]`` by ``answer.key``; without one, the pictures have no heat.
        draft: whether the page shows the draft report.
    """
    volume = DisplayVolume(hu, affine)
    shown: list[Answer] = [*(answer for answer in record.ordered() if answer.present), *record.queries]
    panels: list[dict[str, Any]] = []
    for answer in shown:
        if (place := answer.evidence) is not None:
            drawn = (place, display_window(answer), evidence_maps.get(answer.key), token_affine)
            axial, coronal = volume.picture("axial", *drawn), volume.picture("coronal", *drawn)
            anchor = f"picture-{len(panels) + 1}"
            panels.append({"answer": answer, "anchor": anchor, "axial": axial, "coronal": coronal})
    page = render_page(
        _TEMPLATE,
        record=record,
        findings=record.ordered(),
        present=[answer for answer in record.findings if answer.present],
        not_assessed=[answer for answer in record.findings if answer.present is None],
        draft=compose_report(record.findings) if draft else None,
        panels=panels,
        where=where,
        anchors={panel["answer"].key: panel["anchor"] for panel in panels},
        heat=heat_css(),
        heat_floor=HEAT_FLOOR,
    )
    write_text(path, page)
