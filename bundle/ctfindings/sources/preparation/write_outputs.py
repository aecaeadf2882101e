"""The files that a preparation leaves: datalist, data card and ledger; complete or not at all, and never over existing
ones.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bundle.ctfindings.data.datalist import SPLITS
from bundle.ctfindings.files.atomic_write import atomic_path
from bundle.ctfindings.sources.preparation.data_card import render_card
from bundle.ctfindings.sources.preparation.ledger import Ledger

DATALIST, CARD, PAGE, LEDGER, JOURNAL = "datalist.json", "data_card.json", "data_card.html", "ledger.csv", "scans.jsonl"


def refuse_existing(folder: Path) -> None:
    """Refuses a folder that holds results already.

    Raises:
        ValueError: with the first of them.
    """
    for name in (DATALIST, CARD, PAGE, LEDGER):
        if (folder / name).exists():
            raise ValueError(f"{folder / name}: exists already; choose another --output or remove it")


def write_ledger(folder: Path, ledger: Ledger) -> Path:
    """Writes what was left out and noticed, one row each."""
    with atomic_path(folder / LEDGER) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["what", "line", "id", "reason", "detail"])
        writer.writerows(["dropped", *entry] for entry in ledger.dropped)
        writer.writerows(["noticed", *entry] for entry in ledger.noticed)
    return folder / LEDGER


def write_outputs(folder: Path, datalist: Mapping[str, Any], card: Mapping[str, Any], ledger: Ledger) -> Path:
    """Writes the four files, the datalist last: where it is, the others are whole.

    Returns:
        The datalist.
    """
    write_ledger(folder, ledger)
    texts = {CARD: _json(card), PAGE: render_card(card), DATALIST: _json(datalist)}
    for name, text in texts.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return folder / DATALIST


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def summary(card: Mapping[str, Any]) -> Iterator[str]:
    """Counts by split and reason, line by line, for a terminal."""
    yield f"{'':<20}" + "".join(f"{split:>12}" for split in (*SPLITS, "all"))
    for name in card["counts"]["all"]:
        yield f"{name:<20}" + "".join(f"{card['counts'][split][name]:>12}" for split in (*SPLITS, "all"))
    for split in SPLITS:
        if not card["counts"][split]["studies"]:
            yield f"warning: no study is in {split}"
    for kind in ("dropped", "noticed"):
        for reason, count in card[kind].items():
            yield f"{kind}: {reason:<40}{count:>6}"
