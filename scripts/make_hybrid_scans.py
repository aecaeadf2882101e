"""Draws findings into your own scans, to enlarge a small labelled set.

    python scripts/make_hybrid_scans.py /path/to/normal/scans data/hybrid --normal

Nodules, ground glass, consolidation, emphysema, atelectasis and effusions are drawn into the lungs with the noise of
the scan; calcifications too, if you give anatomy masks. Every scan is written unaltered beside its hybrids, as their
negative. Splits are by patient if you give a datalist that names the patients, otherwise by scan. Train on the result
with ``--datalist OUT/datalist.json``; docs/hybrid_scans.md says what that is good for. To resume a stopped run, run the
same command again.
"""

import argparse
import sys
from pathlib import Path

from bundle.ctfindings.cli.error_lines import run_or_exit
from bundle.ctfindings.cli.options import at_least
from bundle.ctfindings.files.folders import check_outside, check_writable
from bundle.ctfindings.inference.batch.run_archive import scans_of
from bundle.ctfindings.phantom.hybrid import HYBRID_FINDINGS, ORGAN_FINDINGS
from bundle.ctfindings.sources.hybrid_scans import HybridSettings, make_hybrids, summary


def make(options: argparse.Namespace) -> None:
    """Makes the scans and prints what failed, the counts by split, and the path of the datalist."""
    settings = HybridSettings(
        options.findings, options.per_finding, options.normal, options.anatomy_mapping, options.seed, options.split
    )
    check_writable(options.output, "OUT")
    check_outside(options.output, "OUT", [options.input])
    datalist, problems = make_hybrids(scans_of(options.input), options.output, settings, options.workers)
    for scan, problem in problems.items():
        print(f"warning: {scan}: {problem}", file=sys.stderr)
    for line in summary(datalist, options.findings):
        print(line)
    print(datalist)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path, metavar="FOLDER", help="folder of scans, or a datalist with anatomy masks")
    parser.add_argument("output", type=Path, metavar="OUT", help="folder to write")
    parser.add_argument(
        "--findings",
        nargs="+",
        default=list(HYBRID_FINDINGS),
        metavar="NAME",
        help=f"of {', '.join((*HYBRID_FINDINGS, *ORGAN_FINDINGS))} (default: all that need no mask)",
    )
    parser.add_argument(
        "--per-finding", type=int, default=1, help="hybrids of each scan and finding (default %(default)s)"
    )
    parser.add_argument(
        "--normal", action="store_true", help="your scans show none of the 18 findings: labels are 0, not unknown"
    )
    parser.add_argument(
        "--anatomy-mapping",
        default="ctfindings",
        help="mask ids: ctfindings, totalsegmentator, totalsegmentator_v1 or lung (default %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed (default %(default)s)")
    parser.add_argument(
        "--split",
        type=float,
        nargs=3,
        default=[0.6, 0.2, 0.2],
        metavar=("TRAINING", "VALIDATION", "TEST"),
        help="shares of the patients (default 0.6 0.2 0.2)",
    )
    parser.add_argument("--workers", type=at_least(1), default=1, help="number of processes (default %(default)s)")
    run_or_exit(make, parser.parse_args())


if __name__ == "__main__":
    main()
