"""Render synthetic chest CTs with masks, reports and a datalist.

    python scripts/make_synthetic_scans.py --output data/synthetic_large --training 2000 --validation 200 --test 300

Train on them with ``--datalist data/synthetic_large/datalist.json``. To resume a stopped run, run the same command
again.
"""

import argparse
from pathlib import Path

from bundle.ctfindings.cli.error_lines import run_or_exit
from bundle.ctfindings.cli.options import at_least
from bundle.ctfindings.phantom.dataset import make_dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--training", type=int, default=480, help="training scans (default %(default)s)")
    parser.add_argument("--validation", type=int, default=120, help="validation scans (default %(default)s)")
    parser.add_argument("--test", type=int, default=300, help="test scans (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the scans (default %(default)s)")
    parser.add_argument("--workers", type=at_least(1), help="number of processes (default: one per core)")
    parser.add_argument("--dicom", action="store_true", help="also write each scan as a DICOM series")
    options = parser.parse_args()
    counts = (options.training, options.validation, options.test)
    print(run_or_exit(make_dataset, options.output, *counts, options.seed, options.workers, options.dicom))


if __name__ == "__main__":
    main()
