"""Renders the findings of real reports as synthetic scans, to study real prose with images whose findings are known.

    python experiments/harness/make_report_scans.py REPORTS.csv [MORE.csv ...] --output data/report_scans --counts 1000
    200 300

The output folder contains the texts of the reports: keep it where their licence allows. Train on it with ``--datalist
FOLDER/datalist.json``.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bundle.ctfindings.cli.error_lines import run_or_exit
from experiments.harness.report_scans import make_report_scans


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "reports",
        type=Path,
        nargs="+",
        help="CSV tables of reports; their 18 label columns are used where present",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--counts",
        type=int,
        nargs=3,
        required=True,
        metavar=("TRAINING", "VALIDATION", "TEST"),
        help="scans of each split",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="random seed of the draw and of the scans (default %(default)s)"
    )
    parser.add_argument("--workers", type=int, help="processes (default: one per core)")
    options = parser.parse_args()
    given = (options.reports, options.output, options.counts, options.seed, options.workers)
    print(run_or_exit(make_report_scans, *given))


if __name__ == "__main__":
    main()
