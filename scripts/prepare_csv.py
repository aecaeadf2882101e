"""Turns a table of scans and reports into a datalist with patient-disjoint splits, and a data card.

    python scripts/prepare_csv.py studies.csv --output data/mine
    python scripts/prepare_csv.py export.csv --output data/mine --scans /path/to/scans \\
        --columns id=Fall patient=PatNr findings=Befund impression=Beurteilung "label:Pleural effusion=Erguss"

Columns with a usual name (id, patient, image, findings, impression, report, anatomy, split, the 18 findings) need not
be named. Every scan is read once and checked. Scans stay where they are and are never changed. A run that was stopped
goes on where it was: give the same command again.
docs/train_on_your_data.md goes from here to a training run.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bundle.ctfindings.cli.error_lines import run_or_exit
from bundle.ctfindings.sources.csv_table import read_source
from bundle.ctfindings.sources.preparation.columns import FIELDS
from bundle.ctfindings.sources.preparation.command_line import (
    add_shared_options,
    add_table_options,
    run_source,
    table_settings,
)
from bundle.ctfindings.sources.preparation.make_datalist import Source


def read(options: argparse.Namespace) -> Source:
    """The table and what it says of its columns."""
    return read_source(options.table, options.mapping, dict(options.columns), options.scans)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, metavar="TABLE.csv", help="one row for each scan")
    parser.add_argument("--scans", type=Path, help="folder where paths of the table start (default: that of the table)")
    add_table_options(parser, list(FIELDS))
    add_shared_options(parser)
    run_or_exit(run_source, read, table_settings, parser.parse_args())


if __name__ == "__main__":
    main()
