"""Findings of a synthetic scan with the shipped weights, as run by ``make demo``.

    python scripts/demo.py

Renders a chest CT with known findings, runs ``configs/inference.json`` on it with two free-text queries, and prints the
rendered findings beside the predicted ones.
"""

import argparse
import json
import math
import shlex
import subprocess
import sys
from pathlib import Path

from bundle.ctfindings.phantom.case import Case
from bundle.ctfindings.phantom.dataset import write_nifti
from bundle.ctfindings.phantom.example import RENDERED, example_case

ROOT = Path(__file__).resolve().parent.parent

QUERIES = ["fluid around the lung", "a heart that is too large"]
OUTPUT = Path("output") / "demo"
NOTES = """A finding counts as found wherever its evidence lies; the distance is that of the evidence from the
nearest rendered centre. Misses and false alarms are expected: the thresholds are chosen for the best F1,
and the weights learned from synthetic scans only. docs/README.md gives the sensitivity and specificity
of each finding."""


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    scan = OUTPUT / "example.nii.gz"
    (ROOT / OUTPUT).mkdir(parents=True, exist_ok=True)
    case, image, affine = example_case()
    write_nifti(ROOT / scan, image, affine)
    print(f"{scan}: a synthetic chest CT with {', '.join(RENDERED).lower()}\n", flush=True)

    options = {
        "config_file": "configs/inference.json",
        "image": str(scan),
        "queries": repr(QUERIES),
        "output_dir": str(OUTPUT),
    }
    command = [
        sys.executable,
        "-m",
        "monai.bundle",
        "run",
        *(part for name, value in options.items() for part in (f"--{name}", value)),
    ]
    finished = subprocess.run(command, cwd=ROOT)
    if finished.returncode:
        return finished.returncode

    folder = OUTPUT / "example"
    record = json.loads((ROOT / folder / "findings.json").read_text(encoding="utf-8"))
    print("\n" + comparison(case, record))
    print("\n" + NOTES)
    print(f"\nOpen {folder / 'report.html'} in a browser to see the slices. For your own scan:\n")
    example = f"{python_shown()} -m monai.bundle run --config_file configs/inference.json --image SCAN"
    print(f"    {example} --queries \"['fluid around the lung']\"")
    return 0


def python_shown() -> str:
    """This Python as a command of the repository root: the environment need not be active."""
    python = Path(sys.executable)
    return shlex.quote(str(python.relative_to(ROOT) if python.is_relative_to(ROOT) else python))


def comparison(case: Case, record: dict) -> str:
    """Rendered and predicted findings as a table: heights of the centres and of the evidence, and their distance."""
    head = f"{'Finding':<36} {'rendered':<8} {'found':<5} {'prob':>5}  {'rendered at z mm':<16} {'evidence at':>11}"
    head = f"{head} {'distance':>9}"
    lines = [head, "-" * len(head)]
    for finding in record["findings"]:
        sites = [site for site in case.sites if site.finding == finding["name"]]
        centres = [site.center_mm for site in sites if site.center_mm]
        heights = ", ".join(f"{centre[2]:.0f}" for centre in centres)
        height, distance, evidence = "", "", finding["evidence"]
        if finding["present"] and evidence:
            height = f"{evidence['z_mm']:.0f}"
            if centres:
                distance = f"{min(math.dist(centre, evidence['peak_mm']) for centre in centres):.0f} mm"
        rendered, found = "yes" if sites else "-", {True: "YES", False: "-", None: "?"}[finding["present"]]
        line = f"{finding['name']:<36} {rendered:<8} {found:<5} {finding['probability']:>5.2f}  {heights:<16}"
        lines.append(f"{line} {height:>11} {distance:>9}".rstrip())
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
