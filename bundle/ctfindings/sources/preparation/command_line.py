"""The options that all preparing scripts share, and how they end."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from bundle.ctfindings.sources.preparation.make_datalist import Source, make_datalist
from bundle.ctfindings.sources.preparation.splits import DEFAULT_FRACTIONS, check_fractions
from bundle.ctfindings.sources.preparation.study_records import Settings
from bundle.ctfindings.sources.preparation.write_outputs import refuse_existing, summary


def add_shared_options(parser: argparse.ArgumentParser, reports: bool = True) -> None:
    """Adds --output, --seed, --workers, --name, --description, and --labels-from-reports where the source has reports."""
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        help="new folder for datalist.json, data_card.json, data_card.html, ledger.csv",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the splits and the patients' pseudonyms (default %(default)s)"
    )
    if reports:
        parser.add_argument(
            "--labels-from-reports",
            action="store_true",
            help="read labels that the tables leave unknown from the reports",
        )
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        help="processes that read scans (default: one for each core)",
    )
    parser.add_argument("--name", help="of the data set")
    parser.add_argument("--description", help="one sentence for the data card")


def add_table_options(parser: argparse.ArgumentParser, fields: Sequence[str]) -> None:
    """Adds --columns, --mapping, --fractions and --no-snippets, for sources with a table of any columns."""
    parser.add_argument(
        "--columns",
        type=field_and_column,
        nargs="+",
        default=[],
        metavar="FIELD=COLUMN",
        help=f"fields: {', '.join(fields)}, label:FINDING",
    )
    parser.add_argument("--mapping", type=Path, metavar="JSON", help="the same as an object in a file; --columns wins")
    parser.add_argument(
        "--fractions",
        type=float,
        nargs=3,
        default=list(DEFAULT_FRACTIONS),
        metavar="SHARE",
        help="default: 0.8 0.1 0.1",
    )
    parser.add_argument("--no-snippets", action="store_true", help="do not mine the slice references of reports")


def table_settings(options: argparse.Namespace) -> Settings:
    """What the options of a source with a table say.

    Raises:
        ValueError: when the fractions are no parts of one.
    """
    check_fractions(options.fractions)
    return Settings(tuple(options.fractions), options.seed, options.labels_from_reports, not options.no_snippets)


def field_and_column(text: str) -> tuple[str, str]:
    """FIELD=COLUMN as two texts, for argparse."""
    name, sign, column = text.partition("=")
    if not sign or not name.strip() or not column.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not FIELD=COLUMN")
    return name.strip(), column.strip()


def run_source(
    read: Callable[[argparse.Namespace], Source],
    settings: Callable[[argparse.Namespace], Settings],
    options: argparse.Namespace,
) -> None:
    """Reads a source, makes its datalist and prints the counts and the datalist's path.

    Raises:
        ValueError: when the source or the output cannot be used, or the disk is full. What was read stays in the
            journal.
    """
    refuse_existing(options.output)
    chosen = settings(options)
    try:
        source = read(options)
        source = source._replace(
            name=options.name or source.name, description=options.description or source.description
        )
        datalist, card = make_datalist(source, chosen, options.output, options.workers)
    except OSError as error:
        raise ValueError(
            f"{error.filename or options.output}: {error.strerror or error}; what was prepared is kept, make room or check the rights "
            "and give the same command again"
        ) from error
    for line in summary(card):
        print(line)
    print(datalist)
