"""From the studies of a source to datalist, data card and ledger: scans read, copies dropped, splits drawn, files
written.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from bundle.ctfindings.sources.preparation.candidate import Candidate
from bundle.ctfindings.sources.preparation.data_card import data_card
from bundle.ctfindings.sources.preparation.ledger import Ledger
from bundle.ctfindings.sources.preparation.scan_facts import read_all_facts
from bundle.ctfindings.sources.preparation.study_records import (
    Settings,
    assemble,
    assign_splits,
    drop_copies,
    drop_unusable,
    studies,
)
from bundle.ctfindings.sources.preparation.write_outputs import JOURNAL, write_ledger, write_outputs


class Source(NamedTuple):
    """What a source found.

    Attributes:
        place: table or folder it is from; named in errors.
        name: of the data set.
        description: one sentence for the data card.
        origin: what the source says of itself on the card, such as columns and where labels come from.
        candidates: its studies.
        ledger: what it left out and noticed so far.
    """

    place: Path
    name: str
    description: str
    origin: dict[str, Any]
    candidates: Sequence[Candidate]
    ledger: Ledger


def make_datalist(source: Source, settings: Settings, output: Path, workers: int) -> tuple[Path, dict[str, Any]]:
    """Reads every scan once and writes the four files; a run that was stopped goes on where it was.

    Args:
        output: folder of the files; holds no results yet (``refuse_existing``).
        workers: processes that read scans.

    Returns:
        The datalist, and the data card as a record.

    Raises:
        ValueError: when a patient is in two splits, no study is left, or a worker was killed.
    """
    candidates, ledger = list(source.candidates), source.ledger
    assign_splits(candidates, settings, source.place)  # A patient in two splits is refused before hours of reading.
    reading = read_all_facts({each.image: each.stored for each in candidates}, output / JOURNAL, workers)
    facts = dict(tqdm(reading, desc="scans", total=len(candidates), unit="", disable=None))
    candidates = drop_copies(drop_unusable(candidates, facts, ledger), facts, ledger)
    if not candidates:
        written = write_ledger(output, ledger)
        raise ValueError(f"{source.place}: no study is left; {written} says why, remove it before the next run")
    records = list(
        tqdm(
            studies(candidates, settings, output, ledger), desc="reports", total=len(candidates), unit="", disable=None
        )
    )
    datalist = assemble(source.name, source.description, records, assign_splits(candidates, settings, source.place))
    labels = any(label != -1 for candidate in candidates for label in candidate.labels)
    origin = source.origin | {
        "labels": source.origin.get("labels", "table") + (", else report" if settings.labels_from_reports else "")
        if labels
        else ("report" if settings.labels_from_reports else "none"),
        "captions": "read from the reports by rules",
    }
    card = data_card(datalist, {candidate.id: facts[candidate.image] for candidate in candidates}, ledger, origin)
    return write_outputs(output, datalist, card, ledger), card
