"""Options that the preparing scripts share, and how the scripts run and end."""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from bundle.ctfindings.cli.options import at_least
from bundle.ctfindings.sources.preparation.columns import load_mapping
from bundle.ctfindings.sources.preparation.datalist_settings import DatalistSettings, check_is_new
from bundle.ctfindings.sources.preparation.source import Source
from bundle.ctfindings.sources.preparation.splits import DEFAULT_FRACTIONS, check_fractions


def add_shared_options(parser: argparse.ArgumentParser, reports: bool = True) -> None:
    """Add the options of every source. ``reports``: whether the source has reports to read labels from."""
    add = parser.add_argument
    files = "datalist.json, data_card.json, data_card.html, ledger.csv"
    add("--output", type=Path, required=True, help=f"new folder for {files}")
    add("--seed", type=int, default=0, help="random seed of splits and patient pseudonyms (default %(default)s)")
    if reports:
        labels = "read labels that the tables leave unknown from the reports"
        add("--labels-from-reports", action="store_true", help=labels)
        absent = "with it: a finding that a report does not mention is absent (docs/report_labels.md names the risk)"
        add("--unmentioned-absent", action="store_true", help=absent)
    workers = "processes that read scans (default: one per core)"
    add("--workers", type=at_least(1), default=os.cpu_count() or 1, help=workers)
    add("--name", help="name of the data set")
    add("--description", help="one sentence for the data card")


def add_table_options(parser: argparse.ArgumentParser, fields: Sequence[str]) -> None:
    """Add the options of a source with a table of any columns."""
    add = parser.add_argument
    known = f"fields: {', '.join(fields)}, label:FINDING"
    add("--columns", type=_field_and_column, nargs="+", default=[], metavar="FIELD=COLUMN", help=known)
    add("--mapping", type=Path, metavar="JSON", help="the same as a JSON object in a file; --columns takes precedence")
    shares = "shares of training, validation and test (default: 0.8 0.1 0.1)"
    add("--fractions", type=float, nargs=3, default=list(DEFAULT_FRACTIONS), metavar="SHARE", help=shares)
    add("--no-snippets", action="store_true", help="do not extract the slice references of reports")


def table_settings(options: argparse.Namespace) -> DatalistSettings:
    """Settings from the options of a source with a table. Raises ValueError if the fractions do not add up to 1."""
    check_fractions(options.fractions)
    return DatalistSettings(
        tuple(options.fractions),
        options.seed,
        options.labels_from_reports,
        not options.no_snippets,
        options.unmentioned_absent,
    )


def given_columns(options: argparse.Namespace) -> dict[str, str]:
    """Column by field, from --mapping and --columns."""
    return (load_mapping(options.mapping) if options.mapping else {}) | dict(options.columns)


def _field_and_column(text: str) -> tuple[str, str]:
    """FIELD=COLUMN as two texts, for argparse."""
    name, sign, column = text.partition("=")
    if not sign or not name.strip() or not column.strip():
        raise argparse.ArgumentTypeError(f"expected FIELD=COLUMN, got {text!r}")
    return name.strip(), column.strip()


def run_source(
    read: Callable[[argparse.Namespace], Source],
    settings: Callable[[argparse.Namespace], DatalistSettings],
    options: argparse.Namespace,
) -> None:
    """Read a source, make its datalist, and print the counts and the path of the datalist.

    ValueError if the source or the output cannot be used, or the disk is full. Finished scans stay in the journal.
    """
    check_is_new(options.output)
    chosen = settings(options)
    if chosen.unmentioned_absent and not chosen.labels_from_reports:
        raise ValueError("--unmentioned-absent has no effect without --labels-from-reports; add it")
    try:
        source = read(options)
        name, description = options.name or source.name, options.description or source.description
        source = source._replace(name=name, description=description)
        # Imported here: MONAI takes seconds, and a mistake in the arguments or tables was found by now.
        from bundle.ctfindings.sources.preparation.make_datalist import make_datalist, summary

        datalist, card = make_datalist(source, chosen, options.output, options.workers)
    except OSError as error:
        raise ValueError(
            f"{error.filename or options.output}: {error.strerror or error}; what was prepared is kept. Free disk "
            "space or check the permissions, then run the same command again to resume"
        ) from error
    for line in summary(card):
        print(line)
    print(datalist)
