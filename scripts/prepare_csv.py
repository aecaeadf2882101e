"""Turns a table of scans and reports into a datalist with patient-disjoint splits, and a data card.

    python scripts/prepare_csv.py studies.csv --output data/mine
    python scripts/prepare_csv.py export.csv --output data/mine --scans /path/to/scans \\
        --columns id=Fall patient=PatNr findings=Befund impression=Beurteilung "label:Pleural effusion=Erguss"

Columns with a usual name (id, patient, image, findings, impression, report, anatomy, split, the 18 findings) need not be named. Every
scan is read once and checked. Scans stay where they are and are never changed. A run that was stopped goes on where it was: give the
same command again.
docs/train_on_your_data.md goes from here to a training run.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tqdm import tqdm  # noqa: E402

from bundle.ctfindings.data.atomic import atomic_path  # noqa: E402
from bundle.ctfindings.data.csv_table import read_table  # noqa: E402
from bundle.ctfindings.data.sources.csv_source import FIELDS, load_mapping, map_columns, notice_unlisted, read_candidates  # noqa: E402
from bundle.ctfindings.data.sources.data_card import data_card, render_card  # noqa: E402
from bundle.ctfindings.data.sources.drops import Ledger  # noqa: E402
from bundle.ctfindings.data.sources.preparation import Settings, assemble, assign_splits, drop_unusable, studies  # noqa: E402
from bundle.ctfindings.data.sources.scan_facts import read_all_facts  # noqa: E402
from bundle.ctfindings.data.sources.splits import DEFAULT_FRACTIONS, SPLITS, check_fractions  # noqa: E402
from bundle.ctfindings.engines.running import run_or_exit  # noqa: E402

DATALIST, CARD, PAGE, LEDGER, JOURNAL = "datalist.json", "data_card.json", "data_card.html", "ledger.csv", "scans.jsonl"


def prepare(options: argparse.Namespace) -> None:
    """Reads the table, checks the scans and writes the four files."""
    output: Path = options.output
    for name in (DATALIST, CARD, PAGE, LEDGER):
        if (output / name).exists():
            raise SystemExit(f"error: {output / name}: exists already; choose another --output or remove it")
    check_fractions(options.fractions)
    settings = Settings(tuple(options.fractions), options.seed, options.labels_from_reports, not options.no_snippets)
    table = read_table(options.table)
    given = load_mapping(options.mapping) if options.mapping else {}
    mapping = map_columns(table, given | dict(options.columns))
    folder: Path = options.scans or options.table.resolve().parent
    if not folder.is_dir():
        raise SystemExit(f"error: {folder}: there is no such folder; check --scans")
    ledger = Ledger()
    candidates = read_candidates(table, mapping, folder, ledger)
    if options.scans:
        notice_unlisted(candidates, table, mapping, folder, ledger)
    assign_splits(candidates, settings, options.table)  # A patient in two splits is refused before hours of reading.
    paths = [candidate.image for candidate in candidates]
    reading = read_all_facts(paths, output / JOURNAL, options.workers)
    facts = dict(tqdm(reading, desc="scans", total=len(paths), unit="", disable=None))
    candidates = drop_unusable(candidates, facts, ledger)
    if not candidates:
        write_ledger(output / LEDGER, ledger)
        raise SystemExit(f"error: {options.table}: no row is left; {output / LEDGER} says why, remove it before the next run")
    records = list(tqdm(studies(candidates, settings, output, ledger), desc="reports", total=len(candidates), unit="", disable=None))
    splits = assign_splits(candidates, settings, options.table)
    datalist = assemble(options.name or options.table.stem, options.description, records, splits)
    shares = " / ".join(f"{share:g}" for share in options.fractions)
    origin = {
        "table": f"{options.table.name}, {len(table.rows)} rows",
        "columns": {**mapping.fields, **{f"label {finding}": column for finding, column in mapping.labels.items()}},
        "patients": "from the table" if "patient" in mapping.fields else "unknown: each study counts as a patient of its own",
        "splits": f"the table's where it names one, else drawn by patient ({shares}, seed {options.seed})",
        "labels": "table, else report" if settings.labels_from_reports else "table" if mapping.labels else "none",
        "captions": "read from the reports by rules",
    }
    card = data_card(datalist, {candidate.id: facts[candidate.image] for candidate in candidates}, ledger, origin)
    write_ledger(output / LEDGER, ledger)
    write_text(output / CARD, json.dumps(card, indent=1, ensure_ascii=False) + "\n")
    write_text(output / PAGE, render_card(card))
    write_text(output / DATALIST, json.dumps(datalist, indent=1, ensure_ascii=False) + "\n")  # Last: where it is, the others are whole.
    print_summary(card)
    print(output / DATALIST)


def write_text(path: Path, text: str) -> None:
    """Writes a file that appears complete or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_ledger(path: Path, ledger: Ledger) -> None:
    """Writes what was left out and noticed, one row each."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["what", "line", "id", "reason", "detail"])
        writer.writerows(["dropped", *entry] for entry in ledger.dropped)
        writer.writerows(["noticed", *entry] for entry in ledger.noticed)


def print_summary(card: dict) -> None:
    """Counts by split and reason."""
    print(f"{'':<20}" + "".join(f"{split:>12}" for split in (*SPLITS, "all")))
    for name in card["counts"]["all"]:
        print(f"{name:<20}" + "".join(f"{card['counts'][split][name]:>12}" for split in (*SPLITS, "all")))
    for split in SPLITS:
        if not card["counts"][split]["studies"]:
            print(f"warning: no study is in {split}; with few patients name the splits in a column of the table")
    for kind in ("dropped", "noticed"):
        for reason, count in card[kind].items():
            print(f"{kind}: {reason:<40}{count:>6}")


def pair(text: str) -> tuple[str, str]:
    """FIELD=COLUMN as two texts."""
    name, sign, column = text.partition("=")
    if not sign or not name.strip() or not column.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not FIELD=COLUMN")
    return name.strip(), column.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, metavar="TABLE.csv", help="one row for each scan")
    parser.add_argument("--output", type=Path, required=True, help="folder for datalist.json, data_card.json, data_card.html, ledger.csv")
    parser.add_argument("--scans", type=Path, help="folder where paths of the table start (default: that of the table)")
    parser.add_argument(
        "--columns", type=pair, nargs="+", default=[], metavar="FIELD=COLUMN", help=f"fields: {', '.join(FIELDS)}, label:FINDING"
    )
    parser.add_argument("--mapping", type=Path, metavar="JSON", help="the same as an object in a file; --columns wins")
    parser.add_argument("--fractions", type=float, nargs=3, default=list(DEFAULT_FRACTIONS), metavar="SHARE", help="default: 0.8 0.1 0.1")
    parser.add_argument("--seed", type=int, default=0, help="of the splits and the patients' pseudonyms (default %(default)s)")
    parser.add_argument("--labels-from-reports", action="store_true", help="read labels that the table leaves unknown from the reports")
    parser.add_argument("--no-snippets", action="store_true", help="do not mine slice references of DICOM studies")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that read scans (default: one for each core)")
    parser.add_argument("--name", help="of the data set (default: the table's)")
    parser.add_argument("--description", default="", help="one sentence for the data card")
    options = parser.parse_args()
    try:
        run_or_exit(prepare, options)
    except OSError as error:
        raise SystemExit(f"error: {error.filename or options.output}: {error.strerror}; check the path, its rights and the disk") from None


if __name__ == "__main__":
    main()
