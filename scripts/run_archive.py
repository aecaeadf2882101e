"""Find the findings of all scans of a datalist or folder: one findings.json per scan, and one table.

    python scripts/run_archive.py SCANS --output results --workers 4
    python scripts/run_archive.py datalist.json --output results --scheduler tcp://10.0.0.5:8786

To resume a stopped run, run the same command again: finished scans are skipped. Failed scans are listed with their
reason and do not stop the others. docs/scaling.md describes runs on several machines. Research only: not for any
decision about a patient.
"""

import argparse
from collections import Counter
from pathlib import Path

from bundle.ctfindings.cli.error_lines import run_or_exit
from bundle.ctfindings.cli.options import at_least
from bundle.ctfindings.files.folders import check_outside, check_writable
from bundle.ctfindings.inference.batch.run_archive import Model, run_archive, scans_of

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="SCANS", help="datalist or folder of scans")
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        help="folder for scans/FOLDER/findings.json, findings.csv, run.json and journal.jsonl",
    )
    parser.add_argument(
        "--splits", nargs="+", default=[], metavar="SPLIT", help="splits of the datalist (default: all)"
    )
    parser.add_argument(
        "--ckpt_path", type=Path, default=ROOT / "models" / "model.pt", help="checkpoint (default: that of the bundle)"
    )
    parser.add_argument(
        "--overlays", nargs="+", default=[], metavar="JSON", help="overlay configs, such as configs/networks/base.json"
    )
    parser.add_argument("--workers", type=at_least(1), default=1, help="number of processes (default: %(default)s)")
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="address of a Dask scheduler whose workers are used instead"
    )
    parser.add_argument(
        "--dicom_dir", type=Path, metavar="DIR", help="also write DICOM objects of DICOM scans, in DIR/FOLDER"
    )
    parser.add_argument("--anonymous", action="store_true", help="no patient and study attributes in DICOM objects")
    options = parser.parse_args()
    for option, folder in (("--output", options.output), ("--dicom_dir", options.dicom_dir)):
        if folder is not None:
            run_or_exit(check_writable, folder, option)
            run_or_exit(check_outside, folder, option, [options.source])
    studies = run_or_exit(scans_of, options.source, tuple(options.splits))
    model = Model(str(ROOT), str(options.ckpt_path.resolve()), tuple(options.overlays))
    arguments = (options.workers, options.scheduler, options.dicom_dir, options.anonymous)
    report = run_or_exit(run_archive, studies, options.output, model, *arguments)
    print(f"{report.done} scans done, {report.kept} kept from earlier runs, {len(report.problems)} failed")
    for reason, count in Counter(report.problems.values()).most_common(20):
        print(f"failed: {count} x {reason}")
    for reason, count in Counter(report.without_dicom.values()).most_common(20):
        print(f"no DICOM objects: {count} x {reason}")
    print(report.summary)
    if report.problems:
        raise SystemExit(
            f"error: {len(report.problems)} of {len(studies)} scans could not be used; the table gives the reasons"
        )


if __name__ == "__main__":
    main()
