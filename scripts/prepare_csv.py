"""Converts a table of scans and reports to a datalist with patient-disjoint splits, and a data card.

    python scripts/prepare_csv.py studies.csv --output data/mine
    python scripts/prepare_csv.py export.csv --output data/mine --scans /path/to/scans \\
        --columns id=CaseNo patient=MRN findings=Findings impression=Conclusion "label:Pleural effusion=Effusion"

Columns with a usual name (id, patient, image, findings, impression, report, anatomy, split, the 18 findings) are found
by themselves. Every scan is read once and checked; scans are neither moved nor changed. If a run was stopped, the same
command resumes it. docs/train_on_your_data.md continues with training.
"""

import argparse
from pathlib import Path

from bundle.ctfindings.cli.error_lines import run_or_exit
from bundle.ctfindings.sources.preparation.columns import FIELDS
from bundle.ctfindings.sources.preparation.command_line import (
    add_shared_options,
    add_table_options,
    given_columns,
    run_source,
    table_settings,
)
from bundle.ctfindings.sources.preparation.source import Source
from bundle.ctfindings.sources.user_table import read_source


def read(options: argparse.Namespace) -> Source:
    """The table with its columns."""
    return read_source(options.table, given_columns(options), options.scans)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, metavar="TABLE.csv", help="one row per scan")
    parser.add_argument(
        "--scans", type=Path, help="folder that paths in the table are relative to (default: the folder of the table)"
    )
    add_table_options(parser, list(FIELDS))
    add_shared_options(parser)
    run_or_exit(run_source, read, table_settings, parser.parse_args())


if __name__ == "__main__":
    main()
