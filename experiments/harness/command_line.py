"""Options that the experiments on the synthetic scans have in common."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.ctfindings.cli.options import config_setting

ROOT = Path(__file__).resolve().parents[2]

SHOWN_FOLDERS: Mapping[str, str | None] = {"--datalist": "FOLDER", "--output": None, "--work": None, "--cache": None}
"""How a page shows the options of ``experiment_parser`` that name folders, see ``shown_command``."""


def experiment_parser(description: str | None, name: str, seeds: Sequence[int]) -> argparse.ArgumentParser:
    """A parser of what every experiment that trains takes: data, runs, seeds, folders and config keys.

    Args:
        description: Help text of the script.
        name: Folder of the page in ``docs/experiments``.
        seeds: Seeds that run by default.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datalist", type=Path, required=True, help="datalist, or its folder")
    add_split_counts(parser, "--scans", "(default: all)")
    parser.add_argument("--epochs", type=int, default=8, help="epochs of each run (default %(default)s)")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=list(seeds), help="seeds, one run each (default %(default)s)"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "experiments" / name, help="folder of the page")
    parser.add_argument("--work", type=Path, help="folder for the runs (default: runs/experiments/<name of output>)")
    parser.add_argument("--cache", type=Path, default=ROOT / "cache", help="preprocessed scans (default %(default)s)")
    parser.add_argument("--resamples", type=int, default=1000, help="bootstrap resamples (default %(default)s)")
    parser.add_argument(
        "--set", type=config_setting, nargs="+", default=[], metavar="KEY=VALUE", help="config keys of all runs"
    )
    return parser


def add_split_counts(parser: argparse.ArgumentParser, option: str, words: str) -> None:
    """An option for the number of scans of each split, as ``reduced_datalist`` takes it; words end its help."""
    help_text = f"first scans of each split {words}"
    parser.add_argument(option, type=int, nargs=3, metavar=("TRAINING", "VALIDATION", "TEST"), help=help_text)


def work_folder(options: argparse.Namespace) -> Path:
    """The folder for the runs: the one that was given, or one with the name of the page's folder."""
    return Path(options.work or ROOT / "runs" / "experiments" / options.output.name)


def training_keys(options: argparse.Namespace) -> dict[str, Any]:
    """Config keys of all runs: epochs, the cache of preprocessed scans, and those of ``--set``."""
    return {"epochs": options.epochs, "cache_dir": str(options.cache.resolve()), **dict(options.set)}
