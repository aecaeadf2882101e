"""Compares text towers: AUC, paraphrases and size after the same training.

    python experiments/text_tower/run.py --datalist data/synthetic_large --scans 600 150 250 --epochs 5 --seeds 0

The command resumes: finished runs are not repeated. docs/experiments/text_tower has the result, on which the default
text tower is based.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bundle.ctfindings.cli.error_lines import run_or_exit
from bundle.ctfindings.cli.options import config_setting
from experiments.harness.shown_command import shown_command
from experiments.text_tower.comparison import compare_text_towers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datalist", type=Path, required=True, help="datalist, or its folder")
    parser.add_argument(
        "--scans",
        type=int,
        nargs=3,
        metavar=("TRAINING", "VALIDATION", "TEST"),
        help="first scans of each split (default: all)",
    )
    parser.add_argument("--epochs", type=int, default=8, help="epochs of each run (default %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds, one run each (default %(default)s)")
    parser.add_argument(
        "--output",
        type=Path,
        default=ROOT / "docs" / "experiments" / "text_tower",
        help="folder of the page",
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=ROOT / "runs" / "experiments" / "text_tower",
        help="folder of the runs",
    )
    parser.add_argument("--cache", type=Path, default=ROOT / "cache", help="preprocessed scans (default %(default)s)")
    parser.add_argument("--resamples", type=int, default=1000, help="bootstrap resamples (default %(default)s)")
    parser.add_argument(
        "--set", type=config_setting, nargs="+", default=[], metavar="KEY=VALUE", help="config keys of all runs"
    )
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    keys = {"epochs": options.epochs, "cache_dir": str(options.cache.resolve()), **dict(options.set)}
    command = shown_command(sys.argv, {"--datalist": "FOLDER", "--output": None, "--work": None, "--cache": None})
    arguments = (
        options.seeds,
        options.datalist,
        options.output,
        options.work,
        keys,
        command,
        options.scans,
        options.resamples,
    )
    print(run_or_exit(compare_text_towers, *arguments))


if __name__ == "__main__":
    main()
