"""Converts a download of CT-RATE, version 1 or 2, to a datalist with patient-disjoint splits, and a data card.

    python scripts/prepare_ct_rate.py /path/to/CT-RATE --output data/ct_rate
    python scripts/prepare_ct_rate.py /path/to/valid --reports validation_reports.csv \\
        --labels valid_predicted_labels.csv --metadata validation_metadata.csv --output data/ct_rate_valid

Volumes in folders that end with _fixed (version 2) are in HU. The others (version 1) are raw: the datalist contains the
slope, intercept and geometry of the metadata table, and they are applied once when a volume is read. Every volume is
read once and checked: a volume in HU that would be rescaled again is rejected, and so is a raw one without a rescale.
Volumes are neither moved nor changed. If a run was stopped, the same command resumes it. docs/train_on_ct_rate.md
continues with training.
"""

import argparse
from pathlib import Path

from bundle.ctfindings.cli.error_lines import run_or_exit
from bundle.ctfindings.sources.ct_rate.source import CtRateOptions, read_source
from bundle.ctfindings.sources.preparation.command_line import add_shared_options, run_source
from bundle.ctfindings.sources.preparation.datalist_settings import DatalistSettings
from bundle.ctfindings.sources.preparation.source import Source


def read(options: argparse.Namespace) -> Source:
    """The download as the options describe it."""
    tables = {"reports": options.reports, "labels": options.labels, "metadata": options.metadata, "skip": options.skip}
    chosen = CtRateOptions(
        options.intensities, options.geometry, options.reconstructions, options.dev_share, options.seed
    )
    return read_source(options.folder, tables, chosen)


def settings(options: argparse.Namespace) -> DatalistSettings:
    """CT-RATE has its own splits, and no DICOM headers to resolve slice references."""
    return DatalistSettings(
        seed=options.seed,
        labels_from_reports=options.labels_from_reports,
        snippets=False,
        unmentioned_absent=options.unmentioned_absent,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="CT-RATE", help="the download, or a folder with its volumes")
    for name, place in (
        ("reports", "radiology_text_reports/*_reports.csv"),
        ("labels", "multi_abnormality_labels/*_labels.csv"),
        ("metadata", "metadata/*_metadata.csv"),
    ):
        parser.add_argument(
            f"--{name}", type=Path, nargs="+", default=[], metavar="CSV", help=f"default: {place} in the folder"
        )
    parser.add_argument(
        "--skip",
        type=Path,
        nargs="+",
        default=[],
        metavar="TXT",
        help="lists of volumes to skip (default: metadata/*.txt)",
    )
    parser.add_argument(
        "--intensities",
        choices=("folder", "raw", "hu"),
        default="folder",
        help="raw: rescale by the metadata; hu: no rescale; folder: hu if the folder ends with _fixed (default)",
    )
    parser.add_argument(
        "--geometry",
        choices=("table", "file"),
        default="table",
        help="source of the geometry of raw volumes (default %(default)s)",
    )
    parser.add_argument(
        "--reconstructions",
        choices=("all", "first"),
        default="all",
        help="volumes of an examination to use (default %(default)s)",
    )
    parser.add_argument(
        "--dev-share",
        type=float,
        default=0.05,
        help="share of the training patients for validation (default %(default)s)",
    )
    add_shared_options(parser)
    run_or_exit(run_source, read, settings, parser.parse_args())


if __name__ == "__main__":
    main()
