"""Make anatomy masks for the scans of a datalist, and a datalist that includes them.

    python scripts/make_anatomy_masks.py datalist.json --output data/with_masks

Masks come from the MONAI bundle wholeBody_ct_segmentation if its folder is given (--bundle), else from TotalSegmentator
if it is installed with its weights, else from thresholds and shape for the lungs and the network's anatomy head for the
other anatomies. A study that has a mask keeps it. Scans and the given datalist are not changed. To resume a stopped
run, run the same command again. docs/masks.md compares the sources.
"""

import argparse
import os
from pathlib import Path

from bundle.ctfindings.cli.error_lines import run_or_exit
from bundle.ctfindings.cli.options import at_least
from bundle.ctfindings.inference.batch.add_masks import mask_datalist
from bundle.ctfindings.inference.batch.mask_sources import choose_source

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datalist", type=Path, metavar="DATALIST")
    parser.add_argument("--output", type=Path, required=True, help="folder for datalist.json and anatomy/")
    parser.add_argument(
        "--source",
        choices=("auto", "totalsegmentator", "bundle", "classical"),
        default="auto",
        help="auto: the bundle of --bundle, else TotalSegmentator, else classical (default: %(default)s)",
    )
    parser.add_argument("--bundle", type=Path, metavar="FOLDER", help="MONAI bundle wholeBody_ct_segmentation")
    parser.add_argument("--fast", action="store_true", help="TotalSegmentator at 3 mm")
    parser.add_argument("--replace", action="store_true", help="replace the masks that studies have")
    parser.add_argument(
        "--workers", type=at_least(1), default=os.cpu_count() or 1, help="number of processes (default: one per core)"
    )
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="address of a Dask scheduler whose workers make the masks (docs/scaling.md)",
    )
    options = parser.parse_args()
    if options.fast and options.source in ("bundle", "classical"):
        parser.error(f"--fast is an option of TotalSegmentator and has no effect with --source {options.source}")
    source = run_or_exit(choose_source, ROOT, options.bundle, options.source, options.fast)
    print(f"source: {source.name}")
    report = run_or_exit(
        mask_datalist, options.datalist, options.output, source, options.replace, options.workers, options.scheduler
    )
    print(
        f"{report.made} masks made, {report.kept} kept from earlier runs, {report.given} studies have their own, "
        f"{len(report.problems)} failed"
    )
    for study, problem in sorted(report.problems.items()):
        print(f"failed: {study}: {problem}")
    print(report.datalist)
    if report.problems:
        raise SystemExit(f"error: {len(report.problems)} studies have no mask; they are in the datalist without one")


if __name__ == "__main__":
    main()
