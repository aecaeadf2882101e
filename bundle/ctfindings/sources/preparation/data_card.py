"""The data card of a datalist: its contents, its origin and what was left out, as a record and as an HTML page."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bundle.ctfindings.data.study_record import SPLITS, report_text
from bundle.ctfindings.files.html_page import render_page
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.sources.preparation.scan_facts import HU_PERCENTILES, ScanFacts
from bundle.ctfindings.sources.preparation.source import Ledger

SCHEMA = "1.0"
_TEMPLATES = Path(__file__).parent / "templates"
_QUANTILES = (0, 5, 50, 95, 100)
AXES = ("left-right", "back-front", "bottom-top")


def data_card(
    datalist: Mapping[str, Any], facts: Mapping[str, ScanFacts], ledger: Ledger, origin: Mapping[str, Any]
) -> dict[str, Any]:
    """Summarize a datalist by counts and quantiles only: no id, file name or report text.

    ``facts`` are by study id. ``origin`` describes the source, such as its tables, columns and origin of the labels.
    """
    every = [study for split in SPLITS for study in datalist[split]]
    studies = {split: datalist[split] for split in SPLITS} | {"all": every}
    known = [facts[study["id"]] for study in every]
    reports = [text for study in every if (text := report_text(study.get("report")))]
    prevalence = {
        finding: {split: _label_counts(part, index) for split, part in studies.items()}
        for index, finding in enumerate(FINDING_NAMES)
    }
    return {
        "schema": SCHEMA,
        "name": datalist["name"],
        "description": datalist["description"],
        "origin": dict(origin),
        "counts": {split: _counts(part) for split, part in studies.items()},
        "prevalence": prevalence,
        # Known in a split, but never present or never absent.
        "without_auc": {
            split: [
                name for name, by in prevalence.items() if (by[split]["present"] == 0) != (by[split]["absent"] == 0)
            ]
            for split in SPLITS
        },
        # ``label_balance`` gives the positives of these findings no weight.
        "never_absent": [
            name for name, by in prevalence.items() if by["training"]["present"] and not by["training"]["absent"]
        ],
        "scans": {
            "format": dict(Counter(each.format for each in known).most_common()),
            "orientation": dict(Counter(each.orientation for each in known).most_common()),
            "extent_mm": {
                axis: _quantiles([each.extent_mm[place] for each in known]) for place, axis in enumerate(AXES)
            },
            "finest_spacing_mm": _quantiles([min(each.spacing_mm) for each in known]),
            "coarsest_spacing_mm": _quantiles([max(each.spacing_mm) for each in known]),
            "voxels_million": _quantiles([float(np.prod(each.shape)) / 1e6 for each in known]),
            "hu": {
                f"percentile {share}": _quantiles([each.hu[place] for each in known])
                for place, share in enumerate(HU_PERCENTILES)
            },
            "with_warnings": sum(bool(each.warnings) for each in known),
        },
        "texts": {
            "report_characters": _quantiles([len(text) for text in reports]),
            "report_words": _quantiles([len(text.split()) for text in reports]),
        },
        "quantiles": [f"{share} %" for share in _QUANTILES],
        **ledger.counts(),
    }


def _counts(studies: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    return {
        "studies": len(studies),
        "examinations": len({study.get("examination", study["id"]) for study in studies}),
        "patients": len({study["patient"] for study in studies}),
        "with report": sum(bool(report_text(study.get("report"))) for study in studies),
        "with labels": sum(any(label != -1 for label in study.get("labels", ())) for study in studies),
        "with anatomy mask": sum("anatomy" in study for study in studies),
        "with finding masks": sum("finding_masks" in study for study in studies),
        "with snippets": sum(bool(study.get("snippets")) for study in studies),
        "snippets": sum(len(study.get("snippets", ())) for study in studies),
    }


def _label_counts(studies: Sequence[Mapping[str, Any]], index: int) -> dict[str, int]:
    values = Counter(study["labels"][index] if "labels" in study else -1 for study in studies)
    return {"present": values[1], "absent": values[0], "unknown": values[-1]}


def _quantiles(values: Sequence[float]) -> list[float]:
    """Minimum, 5 %, median, 95 % and maximum; empty without values."""
    return [round(float(value), 2) for value in np.percentile(values, _QUANTILES)] if len(values) else []


def render_card(card: Mapping[str, Any]) -> str:
    """The card as a self-contained HTML page without scripts."""
    return render_page(_TEMPLATES / "data_card.html.jinja", card=card, splits=SPLITS)
