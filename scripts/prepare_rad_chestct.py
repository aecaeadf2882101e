"""Converts a download of Rad-ChestCT to a datalist and a data card.

    python scripts/prepare_rad_chestct.py /path/to/Rad-ChestCT --output data/rad_chestct

Scans are .npz files of HU at 0.8 mm whose axes run from head to feet, front to back and right to left; the datalist
contains this geometry, because the files do not. There are no reports. The labels are mapped to the 18 findings, by
default as in the literature, which covers 16 of them. Scans are neither moved nor changed. If a run was stopped, the
same command resumes it. docs/train_on_ct_rate.md describes how to evaluate a model trained on CT-RATE on Rad-ChestCT.
"""

import argparse
from pathlib import Path

from bundle.ctfindings.cli.error_lines import run_or_exit
from bundle.ctfindings.sources.preparation.command_line import add_shared_options, run_source
from bundle.ctfindings.sources.preparation.datalist_settings import DatalistSettings
from bundle.ctfindings.sources.preparation.source import Source
from bundle.ctfindings.sources.rad_chestct import read_source


def read(options: argparse.Namespace) -> Source:
    """The download as the options describe it."""
    return read_source(options.folder, options.labels, options.labelling, options.splits == "test")


def settings(options: argparse.Namespace) -> DatalistSettings:
    """Rad-ChestCT has its own splits, and no reports."""
    return DatalistSettings(seed=options.seed, snippets=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="RAD-CHESTCT", help="folder with the .npz files")
    parser.add_argument(
        "--labels",
        type=Path,
        nargs="+",
        default=[],
        metavar="CSV",
        help="label tables (default: img*Labels.csv in the folder)",
    )
    parser.add_argument(
        "--labelling",
        choices=("standard", "extended"),
        default="standard",
        help="standard: published mapping, 16 findings; extended: 18 findings, not comparable (default %(default)s)",
    )
    parser.add_argument(
        "--splits",
        choices=("publisher", "test"),
        default="publisher",
        help="test: all scans are the test split, as in published evaluations (default %(default)s)",
    )
    add_shared_options(parser, reports=False)
    run_or_exit(run_source, read, settings, parser.parse_args())


if __name__ == "__main__":
    main()
