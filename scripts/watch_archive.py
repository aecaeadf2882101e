"""Watch an archive: find the findings of new chest CT series, and send them back as DICOM.

    python scripts/watch_archive.py /data/incoming --output results
    python scripts/watch_archive.py http://127.0.0.1:8042/dicom-web --output results --send back
    python scripts/watch_archive.py /data/incoming --output results --send dicom://PACS@127.0.0.1:4242 --once
    python scripts/watch_archive.py /data/incoming --output results --scheduler tcp://10.0.0.5:8786

Each new CT series gets a structured report, segmentations and a secondary capture, and a line in worklist.csv and
worklist.html. To resume a stopped watcher, run the same command again: nothing is done or sent twice.
docs/watch_archive.md is the guide. Research only: not for any decision about a patient.
"""

import argparse
import os
from functools import partial
from pathlib import Path

from bundle.ctfindings.cli.error_lines import run_or_exit
from bundle.ctfindings.files.folders import check_outside, check_writable
from bundle.ctfindings.files.worker import Worker, call_here
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.inference.batch.run_archive import Model, write_findings
from bundle.ctfindings.inference.watch.archives import DicomWebArchive, FolderArchive, search_from
from bundle.ctfindings.inference.watch.connections import check_address
from bundle.ctfindings.inference.watch.delivery import StoreDelivery, StowDelivery
from bundle.ctfindings.inference.watch.watcher import Pace, Watcher

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", metavar="ARCHIVE", help="folder of DICOM files, or address of a DICOMweb server")
    parser.add_argument("--output", type=Path, required=True, help="folder for results, worklist and journal")
    parser.add_argument(
        "--send",
        metavar="ADDRESS",
        help="DICOMweb server or dicom://AETITLE@HOST:PORT that gets the results; 'back' for ARCHIVE itself",
    )
    parser.add_argument("--once", action="store_true", help="end when no series is waiting")
    parser.add_argument("--poll", type=float, default=30, help="seconds between checks (default: %(default)s)")
    parser.add_argument(
        "--quiet",
        type=float,
        default=60,
        help="seconds without a new image after which a series counts as complete (default: %(default)s)",
    )
    parser.add_argument(
        "--search",
        nargs="+",
        default=[],
        metavar="KEYWORD=VALUE",
        help="CT series that are taken, such as BodyPartExamined=CHEST (default: all but other body parts)",
    )
    parser.add_argument(
        "--first",
        nargs="+",
        default=[],
        choices=FINDING_NAMES,
        metavar="FINDING",
        help="findings that come first in the worklist",
    )
    parser.add_argument(
        "--series_seconds", type=float, default=900, help="longest time for one series (default: %(default)s)"
    )
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="address of a Dask scheduler whose workers answer the series (docs/watch_archive.md)",
    )
    parser.add_argument(
        "--ckpt_path", type=Path, default=ROOT / "models" / "model.pt", help="checkpoint (default: that of the bundle)"
    )
    parser.add_argument(
        "--overlays", nargs="+", default=[], metavar="JSON", help="overlay configs, such as configs/networks/base.json"
    )
    parser.add_argument(
        "--insecure", action="store_true", help="allow addresses beyond this machine without encryption"
    )
    failed = run_or_exit(watch, parser.parse_args())
    if failed:
        raise SystemExit(f"error: {failed} series could not be used; worklist.csv gives the reasons")


def watch(options: argparse.Namespace) -> int:
    """Builds the watcher of the options and runs it; returns how many series failed."""
    os.umask(0o077)  # Results are data of patients.
    check_writable(options.output, "--output")
    search = search_from(options.search)
    remote = "://" in options.archive
    if remote:
        check_address(options.archive, "ARCHIVE", options.insecure)
    else:
        if not os.path.isdir(options.archive):
            raise SystemExit(f"error: {options.archive}: no such folder; check the path")
        check_outside(options.output, "--output", [options.archive])
    address = options.archive if options.send == "back" and remote else options.send or ""
    if address:
        check_address(address, "--send", options.insecure)
    archive = DicomWebArchive(options.archive, search) if remote else FolderArchive(Path(options.archive), search)
    delivery = None
    if address:
        delivery = StoreDelivery(address) if address.startswith("dicom:") else StowDelivery(address)
    model = Model(str(ROOT), str(options.ckpt_path.resolve()), tuple(options.overlays))
    seconds = options.series_seconds
    find = partial(call_here, write_findings, seconds) if options.scheduler else Worker(write_findings, seconds)
    watcher = Watcher(
        archive,
        delivery,
        address,
        options.output.resolve(),
        model,
        find,
        Pace(options.poll, options.quiet),
        options.first,
        options.scheduler,
    )
    return watcher.watch(options.once)


if __name__ == "__main__":
    main()
