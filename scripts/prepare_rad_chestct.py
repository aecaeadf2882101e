"""Turns a download of Rad-ChestCT into a datalist and a data card.

    python scripts/prepare_rad_chestct.py /path/to/Rad-ChestCT --output data/rad_chestct

Scans are .npz files of HU at 0.8 mm, whose axes run from head to feet, front to back and right to left: the datalist
says so, because the files do not. There are no reports. The labels are mapped onto the 18 findings, by default as in
the literature, which leaves 16. Scans stay where they are and are never changed. A run that was stopped goes on where
it was: give the same command again. docs/train_on_ct_rate.md says how a model trained on CT-RATE is evaluated on it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bundle.ctfindings.cli.error_lines import run_or_exit
from bundle.ctfindings.sources.preparation.command_line import add_shared_options, run_source
from bundle.ctfindings.sources.preparation.make_datalist import Source
from bundle.ctfindings.sources.preparation.splits import DEFAULT_FRACTIONS
from bundle.ctfindings.sources.preparation.study_records import Settings
from bundle.ctfindings.sources.rad_chestct import read_source


def read(options: argparse.Namespace) -> Source:
    """The download as the options describe it."""
    return read_source(options.folder, options.labels, options.labelling, options.splits == "test")


def settings(options: argparse.Namespace) -> Settings:
    """Rad-ChestCT has splits of its own, and no reports."""
    return Settings(DEFAULT_FRACTIONS, options.seed, snippets=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="RAD-CHESTCT", help="folder with the .npz files")
    parser.add_argument(
        "--labels",
        type=Path,
        nargs="+",
        default=[],
        metavar="CSV",
        help="label tables (default: img*Labels.csv below it)",
    )
    parser.add_argument(
        "--labelling",
        choices=("standard", "extended"),
        default="standard",
        help="standard: as published, 16 findings; extended: closer, 18 findings, compares with nobody (default %(default)s)",
    )
    parser.add_argument(
        "--splits",
        choices=("publisher", "test"),
        default="publisher",
        help="test puts all scans into test, as published evaluations do (default %(default)s)",
    )
    add_shared_options(parser, reports=False)
    run_or_exit(run_source, read, settings, parser.parse_args())


if __name__ == "__main__":
    main()
