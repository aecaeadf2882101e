"""The evaluation as one self-contained HTML page: table of findings, figures, robustness, collapse, comparison.

Nothing in the page is loaded from elsewhere and no script runs; text from outside (file names, warnings) is escaped.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bundle.ctfindings.evaluation.diagnostics import Diagnostics
from bundle.ctfindings.evaluation.diagnostics_record import TEMPLATE_NAMES, WORDING_NAMES
from bundle.ctfindings.files.atomic_write import atomic_path
from bundle.ctfindings.files.html_page import render_page
from bundle.ctfindings.inference.findings_record import DISCLAIMER
from bundle.ctfindings.metrics.collapse import PAIR_KINDS
from bundle.ctfindings.metrics.plots import (
    DPI,
    KIND_TITLES,
    plot_auc_by_wording,
    plot_cosine_histograms,
    plot_reliability,
)
from bundle.ctfindings.metrics.robustness import auc_by_wording

_TEMPLATES = Path(__file__).parent / "templates"

FIGURES = ("auc.png", "roc.png", "similarity.png", "wordings.png", "reliability.png")


def write_figures(folder: Path, record: dict[str, Any], answers: Diagnostics, other: Diagnostics | None) -> None:
    """Writes the figures of robustness, collapse and reliability; with another model its curves stand beside.

    Args:
        folder: of the results.
        record: the content of ``metrics.json``.
        answers: of the model.
        other: of the model it is compared with.
    """
    names = (
        (record["comparison"]["first"], record["comparison"]["second"]) if record["comparison"] else ("this model", "")
    )
    models = dict(zip(names, (answers, other), strict=True)) if other is not None else {names[0]: answers}
    collapse = record["collapse"]
    own = {kind: collapse["captions"][kind] for kind in PAIR_KINDS} if collapse["captions"] else {}
    kinds = {names[0]: {**own, "polarity": collapse["prompts"]["polarity"]}}
    if other is not None:
        kinds[names[1]] = record["comparison"]["second_collapse"]
    with atomic_path(folder / "similarity.png") as path:
        plot_cosine_histograms(kinds, path)
    with atomic_path(folder / "wordings.png") as path:
        auc = {name: _auc(model) for name, model in models.items()}
        plot_auc_by_wording([*TEMPLATE_NAMES, *WORDING_NAMES], auc, path, separators=[len(TEMPLATE_NAMES) - 1])
    with atomic_path(folder / "reliability.png") as path:
        plot_reliability(record["reliability"], path)


def write_evaluation_report(path: str | Path, record: dict[str, Any]) -> None:
    """Writes the page; it appears under its name only when complete.

    Args:
        path: ends in ``.html``; the figures lie in its folder and are embedded.
        record: the content of ``metrics.json``.
    """
    folder = Path(path).parent
    page = render_page(
        _TEMPLATES / "evaluation.html.jinja",
        {"cell": _cell, "limits": _limits},
        record=record,
        disclaimer=DISCLAIMER,
        figures={Path(name).stem: _embedded(folder / name) for name in FIGURES if (folder / name).is_file()},
        kind_titles=KIND_TITLES,
        pair_kinds=PAIR_KINDS,
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _auc(answers: Diagnostics) -> NDArray[np.float64]:
    """AUC of every template and perturbation, ``[T + W, C]``."""
    scores = np.concatenate([answers.template_logits, answers.wording_logits], axis=1)
    auc: NDArray[np.float64] = auc_by_wording(scores, answers.labels, np.ones((1, len(answers.ids))))[0]
    return auc


def _embedded(path: Path) -> dict[str, str | int]:
    """A figure as a data URI with its width in CSS pixels, at which its letters have the size of the page's."""
    with Image.open(path) as image:
        width = round(image.width / DPI * 110)
    return {"data": "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode(), "width": width}


def _cell(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def _limits(interval: list[float | None], digits: int = 3) -> str:
    low, high = interval
    return "–" if low is None or high is None else f"{_cell(low, digits)} to {_cell(high, digits)}"
