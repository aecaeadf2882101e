"""The evaluation as one self-contained HTML page: nothing is loaded from elsewhere and no script runs."""

import base64
from pathlib import Path
from typing import Any

from PIL import Image

from bundle.ctfindings.evaluation.subgroups import TITLES
from bundle.ctfindings.files.atomic_write import write_text
from bundle.ctfindings.files.html_page import render_page
from bundle.ctfindings.inference.findings_record import DISCLAIMER
from bundle.ctfindings.metrics.text_collapse import PAIR_KINDS, PAIR_TITLES

FIGURES = ("auc", "roc", "prompts", "similarity", "wordings", "reliability", "errors", "training")
DPI = 150  # Resolution of the figures


def write_evaluation_page(path: Path, record: dict[str, Any]) -> None:
    """Writes the page of the sections in ``metrics.json``; the figures in its folder are embedded."""
    figures = {name: path.with_name(f"{name}.png") for name in FIGURES}
    page = render_page(
        Path(__file__).parent / "templates" / "evaluation.html.jinja",
        {"cell": _cell, "limits": _limits},
        record=record,
        disclaimer=DISCLAIMER,
        group_titles=TITLES,
        figures={name: embedded_figure(file) for name, file in figures.items() if file.is_file()},
        pair_titles=PAIR_TITLES,
        pair_kinds=PAIR_KINDS,
    )
    write_text(path, page)


def embedded_figure(path: Path) -> dict[str, str | int]:
    """A figure as a data URI, and its width in CSS pixels at which its text has the size of the page's."""
    with Image.open(path) as image:
        width = round(image.width / DPI * 110)
    return {"data": "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode(), "width": width}


def _cell(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def _limits(interval: list[float | None], digits: int = 3) -> str:
    low, high = interval
    return "–" if low is None or high is None else f"{_cell(low, digits)} to {_cell(high, digits)}"
