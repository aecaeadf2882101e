"""Turns a download of CT-RATE, version 1 or 2, into a datalist with patient-disjoint splits, and a data card.

    python scripts/prepare_ct_rate.py /path/to/CT-RATE --output data/ct_rate
    python scripts/prepare_ct_rate.py /path/to/valid --reports validation_reports.csv --labels
    valid_predicted_labels.csv \\
        --metadata validation_metadata.csv --output data/ct_rate_valid

Volumes in folders that end with _fixed (version 2) are in HU. The others (version 1) are raw: the datalist carries
slope, intercept and geometry of the metadata table, and whatever reads it applies them once. Every volume is read once
and checked; one that is in HU although a rescale was asked for is refused, and so is the reverse. Volumes stay where
they are and are never changed. A run that was stopped goes on where it was: give the same command again.
docs/train_on_ct_rate.md goes from here to a training run.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bundle.ctfindings.cli.error_lines import run_or_exit
from bundle.ctfindings.sources.ct_rate.source import Choices, read_source
from bundle.ctfindings.sources.preparation.command_line import add_shared_options, run_source
from bundle.ctfindings.sources.preparation.make_datalist import Source
from bundle.ctfindings.sources.preparation.splits import DEFAULT_FRACTIONS
from bundle.ctfindings.sources.preparation.study_records import Settings


def read(options: argparse.Namespace) -> Source:
    """The download as the options describe it."""
    tables = {"reports": options.reports, "labels": options.labels, "metadata": options.metadata, "skip": options.skip}
    choices = Choices(options.intensities, options.geometry, options.reconstructions, options.dev_share, options.seed)
    return read_source(options.folder, tables, choices)


def settings(options: argparse.Namespace) -> Settings:
    """CT-RATE has splits of its own, and no DICOM to look slices up in."""
    return Settings(DEFAULT_FRACTIONS, options.seed, options.labels_from_reports, snippets=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="CT-RATE", help="the download, or a folder with its volumes")
    for name, place in (
        ("reports", "radiology_text_reports/*_reports.csv"),
        ("labels", "multi_abnormality_labels/*_labels.csv"),
        ("metadata", "metadata/*_metadata.csv"),
    ):
        parser.add_argument(
            f"--{name}", type=Path, nargs="+", default=[], metavar="CSV", help=f"default: {place} below the folder"
        )
    parser.add_argument(
        "--skip", type=Path, nargs="+", default=[], metavar="TXT", help="names to leave out (default: metadata/*.txt)"
    )
    parser.add_argument(
        "--intensities",
        choices=("folder", "raw", "hu"),
        default="folder",
        help="raw: rescale by the metadata; hu: as they are; folder: hu where it ends with _fixed (default)",
    )
    parser.add_argument(
        "--geometry", choices=("table", "file"), default="table", help="of raw volumes (default %(default)s)"
    )
    parser.add_argument(
        "--reconstructions", choices=("all", "first"), default="all", help="of an examination (default %(default)s)"
    )
    parser.add_argument(
        "--dev-share", type=float, default=0.05, help="of the training patients, for validation (default %(default)s)"
    )
    add_shared_options(parser)
    run_or_exit(run_source, read, settings, parser.parse_args())


if __name__ == "__main__":
    main()
