"""From the studies of a source to the files of a prepared folder: datalist, data card and ledger."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bundle.ctfindings.data.study_record import SPLITS
from bundle.ctfindings.files.atomic_write import write_text
from bundle.ctfindings.files.csv_table import write_table
from bundle.ctfindings.files.progress import progress_bar
from bundle.ctfindings.sources.preparation.data_card import data_card, render_card
from bundle.ctfindings.sources.preparation.datalist_settings import (
    CARD,
    DATALIST,
    JOURNAL,
    LEDGER,
    PAGE,
    DatalistSettings,
)
from bundle.ctfindings.sources.preparation.scan_facts import read_all_facts
from bundle.ctfindings.sources.preparation.source import Ledger, Source
from bundle.ctfindings.sources.preparation.splits import assign_splits
from bundle.ctfindings.sources.preparation.study_records import drop_copies, drop_unusable, study_records


def make_datalist(
    source: Source, settings: DatalistSettings, output: Path, workers: int
) -> tuple[Path, dict[str, Any]]:
    """Read every scan once and write the four files. A run that was stopped resumes.

    Returns the path of the datalist, and the data card as a record. ``output`` must contain no results. ValueError if a
    patient is in two splits, no study is left, or a worker was killed.
    """
    candidates, ledger = list(source.candidates), source.ledger
    # Before the reading: a patient in two splits is found early, and a study left out still names its patient's split.
    splits = assign_splits(candidates, settings.fractions, settings.seed, source.place)
    print(f"{len(candidates)} studies; each scan is read once", flush=True)
    reading = read_all_facts({each.image: each.stored for each in candidates}, output / JOURNAL, workers)
    facts = dict(progress_bar(reading, "scans", len(candidates), unit=""))
    candidates = drop_copies(drop_unusable(candidates, facts, ledger), facts, ledger)
    if not candidates:
        written = _write_ledger(output, ledger)
        raise ValueError(f"{source.place}: no study is left; {written} says why, remove it before the next run")
    building = study_records(candidates, settings, output, ledger)
    records = list(progress_bar(building, "reports", len(candidates), unit=""))
    datalist: dict[str, Any] = {"name": source.name, "description": source.description}
    datalist |= {split: [record for record in records if splits[record["id"]] == split] for split in SPLITS}
    labels = ["report"] if settings.labels_from_reports else []
    if any(label != -1 for candidate in candidates for label in candidate.labels):
        labels = [source.origin.get("labels", "table"), *(f"else {name}" for name in labels)]
    if settings.unmentioned_absent:
        labels.append("not mentioned counts as absent")
    origin = source.origin | {"labels": ", ".join(labels) or "none", "captions": "read from the reports by rules"}
    card = data_card(datalist, {candidate.id: facts[candidate.image] for candidate in candidates}, ledger, origin)
    _write_ledger(output, ledger)
    for name, text in {CARD: _json(card), PAGE: render_card(card), DATALIST: _json(datalist)}.items():
        write_text(output / name, text)  # The datalist is last: if it exists, the others are complete.
    return output / DATALIST, card


def _write_ledger(folder: Path, ledger: Ledger) -> Path:
    rows = [("left out", *entry) for entry in ledger.left_out] + [("flagged", *entry) for entry in ledger.flagged]
    write_table(folder / LEDGER, ["what", "line", "id", "reason", "detail"], rows)
    return folder / LEDGER


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def summary(card: Mapping[str, Any]) -> Iterator[str]:
    """Counts by split and by reason, line by line, for a terminal."""
    yield f"{'':<20}" + "".join(f"{split:>12}" for split in (*SPLITS, "all"))
    for name, of_all in card["counts"]["all"].items():
        if name == "examinations" and of_all == card["counts"]["all"]["studies"]:
            continue
        yield f"{name:<20}" + "".join(f"{card['counts'][split][name]:>12}" for split in (*SPLITS, "all"))
    for split in SPLITS:
        if not card["counts"][split]["studies"]:
            yield f"warning: {split} has no study"
    if never := card["never_absent"]:
        yield (
            f"warning: no training study is known to be without {', '.join(never)}: training learns nothing from the "
            "labels of these findings (docs/report_labels.md)"
        )
    for kind in ("left_out", "flagged"):
        for reason, count in card[kind].items():
            yield f"{kind.replace('_', ' ')}: {reason:<40}{count:>6}"
