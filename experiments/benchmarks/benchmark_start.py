"""Start-up of ``ct-findings``: its own imports beside those of MONAI, and ten scans in one start beside their work.

    python experiments/benchmarks/benchmark_start.py [--scans 10] [--output docs/evaluation/benchmark_start.json]

Imports: ``python -X importtime`` of ``import monai.bundle``, and of ``ct-findings`` on one scan with a query. Own
imports are the modules of the second that the first does not import, also given by package. Scans: synthetic chest CTs
in one command; the wall time from start to exit is compared with the sum of the stages that findings.json records. The
targets are 2 s of own imports, and 2.0 times the work.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bundle.ctfindings.cli.error_lines import run_or_exit
from bundle.ctfindings.phantom.dataset import make_case, write_nifti
from experiments.benchmarks.measurement import ROOT, write_record

QUERY = "fluid around the lung"


def import_seconds(arguments: Sequence[str]) -> dict[str, float]:
    """Seconds of each module itself, without those that it imports, of ``python -X importtime ARGUMENTS``."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], cwd=ROOT, check=True, capture_output=True, encoding="utf-8"
    )
    lines = [
        line.removeprefix("import time:").split("|") for line in done.stderr.splitlines() if "import time:" in line
    ]
    return {name.strip(): int(own) / 1e6 for own, _, name in lines if own.strip().isdecimal()}


def own_imports(scan: Path, output: Path) -> dict[str, Any]:
    """Seconds of ``import monai.bundle``, and of what ``ct-findings`` imports beyond it, by package."""
    monai = import_seconds(["-c", "import monai.bundle"])
    command = import_seconds(["-m", "bundle.ctfindings", str(scan), "-o", str(output), "-q", QUERY])
    own = {name: seconds for name, seconds in command.items() if name not in monai}
    packages: Counter[str] = Counter()
    for name, seconds in own.items():
        packages[name.split(".")[0]] += seconds  # type: ignore[assignment]
    return {
        "monai_bundle_seconds": round(sum(monai.values()), 2),
        "own_seconds": round(sum(own.values()), 2),
        "own_seconds_by_package": {name: round(seconds, 2) for name, seconds in packages.most_common(12)},
    }


def many_scans(folder: Path, output: Path) -> dict[str, Any]:
    """Wall time of ``ct-findings`` on the scans of a folder, and the sum of the stages of their records."""
    command = [sys.executable, "-m", "bundle.ctfindings", str(folder), "-o", str(output), "-q", QUERY]
    started = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall = time.perf_counter() - started
    records = [json.loads(path.read_text(encoding="utf-8")) for path in output.rglob("findings.json")]
    work = sum(record["seconds"]["total"] for record in records)
    return {
        "scans": len(records),
        "wall_seconds": round(wall, 1),
        "work_seconds": round(work, 1),
        "wall_over_work": round(wall / work, 2),
    }


def run(options: argparse.Namespace) -> None:
    """Makes the scans, measures, prints and writes the record."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for index in range(options.scans):
            _, hu, _, _, affine = make_case(0, index)
            write_nifti(folder / "scans" / f"{index}.nii.gz", hu, affine)
        scans = many_scans(folder / "scans", folder / "many")
        imports = own_imports(folder / "scans" / "0.nii.gz", folder / "one")
    record = {"imports": imports, "many_scans": scans, "load_average": round(os.getloadavg()[0], 1)}
    print(json.dumps(record, indent=2))
    write_record(options.output, record)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=10, help="number of synthetic scans (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    run_or_exit(run, parser.parse_args())


if __name__ == "__main__":
    main()
