"""Findings of chest CT scans on the command line: ``ct-findings SCAN... -o OUT -q "free text"``.

It runs the steps of ``configs/inference.json``, as ``monai.bundle run`` does. The arguments are checked before PyTorch
and MONAI are imported, so that a mistake is reported at once.
"""

import argparse
import glob
import os
import sys
import warnings
from pathlib import Path

from bundle.ctfindings.cli.argument_parser import SuggestingParser
from bundle.ctfindings.cli.error_lines import DEBUG, run_or_exit
from bundle.ctfindings.files.folders import check_literal, check_outside, check_writable
from bundle.ctfindings.reports.queries import check_queries

ROOT = Path(__file__).resolve().parents[2]
CONFIG = Path("configs", "inference.json")

DESCRIPTION = """Find 18 findings, and what you ask for as text, in chest CT scans. Research only: not a diagnosis.

  ct-findings scan.nii.gz -o results
  ct-findings scans/ "more/*.nii.gz" list.csv -o results -q "fluid around the lung" -q "air outside the lung"

Each scan gets a folder with findings.json, report.html and, if there is evidence to show, evidence.nii.gz. The file
findings.csv has one row per scan. A scan that cannot be used is listed with its reason and does not stop the others.
docs/troubleshooting.md explains the codes.
"""


def main() -> None:
    """Entry point of the console script ``ct-findings`` and of ``python -m bundle.ctfindings``."""
    parser = SuggestingParser("ct-findings", None, DESCRIPTION)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    scans = "NIfTI, NRRD or MetaImage file, folder or zip of DICOM, folder of scans, glob, or CSV with a column image"
    add("scans", nargs="+", metavar="SCAN", help=scans)
    add("-o", "--output", "--output_dir", type=Path, required=True, metavar="OUT", help="folder for the results")
    add("-q", "--query", action="append", default=[], metavar="TEXT", help="free text to look for; may be repeated")
    shown = "whose evidence maps are written (default: %(default)s)"
    add("--evidence", choices=("present", "all", "none"), default="present", help=shown)
    drafted = "also write draft_report.txt and show it in report.html"
    add("--draft-report", "--draft_report", action="store_true", help=drafted)
    add("--dicom_dir", "--dicom-dir", type=Path, metavar="DIR", help="also write DICOM objects of DICOM scans there")
    add("--anonymous", action="store_true", help="no patient and study attributes in DICOM objects")
    told = "findings of a scan that is unlike the training scans: withhold them (default), or warn and give them"
    add("--outside_domain", "--outside-domain", choices=("withhold", "warn"), help=told)
    add("--device", help="cpu, cuda or cuda:0 (default: cuda if there is one)")
    add("--bundle", type=Path, default=ROOT, metavar="ROOT", help="folder with configs and models (default: this one)")
    add("--ckpt_path", "--ckpt-path", type=Path, help="checkpoint (default: that of the bundle)")
    overlay = "configurations that the weights need, below --bundle, such as configs/networks/astra.json"
    add("--overlays", type=Path, nargs="+", default=[], metavar="JSON", help=overlay)
    add("--debug", action="store_true", help="show the error of the library behind a message")
    options = parser.parse_args()
    if not any(os.path.exists(scan) or glob.glob(scan, recursive=True) for scan in options.scans):
        parser.error(f"{options.scans[0]}: no such file or folder; check the path")
    if not (options.bundle / CONFIG).is_file():
        parser.error(f"{options.bundle}: has no configs/inference.json; give the root folder of the bundle as --bundle")
    for overlay in options.overlays:
        if not (options.bundle / overlay).is_file():
            parser.error(f"--overlays: {overlay}: no such file; check the path")
    if options.debug:
        os.environ[DEBUG] = "1"
    run_or_exit(_run, options)


def _run(options: argparse.Namespace) -> None:
    for option, folder in (("-o", options.output), ("--dicom_dir", options.dicom_dir)):
        if folder is not None:
            check_writable(folder, option)
            check_outside(folder, option, options.scans)
    check_queries(options.query)
    print("loading ...", file=sys.stderr, flush=True)
    warnings.filterwarnings("ignore")
    # Imported here: PyTorch and MONAI take seconds.
    from monai.bundle import ConfigParser

    # Tuples and paths: the parser would read references and expressions in a text, or in a text of a list.
    settings = {
        "bundle_root": check_literal(options.bundle, "--bundle"),
        "image": tuple(options.scans),
        "queries": tuple(options.query),
        "evidence": options.evidence,
        "draft_report": options.draft_report,
        "output_dir": options.output,
        "dicom_dir": options.dicom_dir,
        "anonymous": options.anonymous,
        "ckpt_path": options.ckpt_path,
        "outside_domain": options.outside_domain,
        "device": options.device,
    }
    parser = ConfigParser()
    parser.read_config([str(options.bundle / name) for name in (CONFIG, *options.overlays)])
    parser.update({key: value for key, value in settings.items() if value is not None})
    for steps in ("initialize", "run"):
        parser.get_parsed_content(steps)


if __name__ == "__main__":
    main()
