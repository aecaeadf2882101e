"""Anatomy masks for the scans of a datalist, and a datalist that has them.

    python scripts/make_anatomy_masks.py datalist.json --output data/with_masks

Masks come from TotalSegmentator where it is installed with its weights, from a MONAI bundle wholeBody_ct_segmentation
where its folder is given (--bundle), else from threshold and shape for the lungs and the network's anatomy head for the
rest. A study that has a mask keeps it. Scans and the given datalist are never changed. A run that was stopped goes on
where it was: give the same command again. docs/masks.md says how good each source is.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bundle.ctfindings.cli.error_lines import run_or_exit  # noqa: E402
from bundle.ctfindings.inference.batch.add_masks import mask_datalist  # noqa: E402
from bundle.ctfindings.inference.batch.mask_sources import choose_source  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datalist", type=Path, metavar="DATALIST")
    parser.add_argument("--output", type=Path, required=True, help="folder for datalist.json and anatomy/")
    parser.add_argument(
        "--source",
        choices=("auto", "totalsegmentator", "bundle", "classical"),
        default="auto",
        help="default: %(default)s",
    )
    parser.add_argument("--bundle", type=Path, metavar="FOLDER", help="MONAI bundle wholeBody_ct_segmentation")
    parser.add_argument("--fast", action="store_true", help="TotalSegmentator at 3 mm")
    parser.add_argument("--replace", action="store_true", help="also for studies that have a mask")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one for each core)"
    )
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="of a Dask cluster, whose workers make the masks (docs/scaling.md)"
    )
    options = parser.parse_args()
    source = run_or_exit(choose_source, ROOT, options.bundle, options.source, options.fast)
    print(f"source: {source.name}")
    report = run_or_exit(
        mask_datalist, options.datalist, options.output, source, options.replace, options.workers, options.scheduler
    )
    print(
        f"{report.made} masks made, {report.kept} of an earlier run, {report.given} studies brought theirs, {len(report.problems)} failed"
    )
    for study, problem in sorted(report.problems.items()):
        print(f"failed: {study}: {problem}")
    print(report.datalist)
    if report.problems:
        raise SystemExit(f"error: {len(report.problems)} studies have no mask; the datalist has them without one")


if __name__ == "__main__":
    main()
