"""Time per scan at inference of this checkout and of another commit, in turn, with the weights of each.

    python experiments/benchmarks/benchmark_commits.py COMMIT SCAN [SCAN ...] [--rounds 3] [--output FILE.json]

Each round answers the 18 findings of every scan with the one code and then with the other, in a process that has
answered every scan once before. The ratio of the means over scans and rounds carries over to other hardware better
than the seconds do. The folder of each scan stays out of the record. Quiet cores are needed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bundle.ctfindings.cli.error_lines import run_or_exit
from experiments.benchmarks.measurement import ROOT, write_record

_ANSWER = """
import json, sys, time
from bundle.ctfindings.inference.service import load_service
service = load_service(".", "models/model.pt", text=False)
seconds = []
for timed in (False, True):
    for scan in sys.argv[1:]:
        started = time.perf_counter()
        service.answer_file(scan)
        seconds += [time.perf_counter() - started] * timed
print(json.dumps(seconds))
"""
"""Prints the seconds of each scan; every commit since the first that has a service can run it."""


def seconds_per_scan(checkout: Path, scans: Sequence[Path]) -> list[float]:
    """Seconds from the file of each scan to its answers, with the code and weights of a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", _ANSWER, *map(str, scans)]
    done = subprocess.run(command, cwd=checkout, env=environment, check=True, stdout=subprocess.PIPE, encoding="utf-8")
    found: list[float] = json.loads(done.stdout.splitlines()[-1])
    return found


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """A folder with the files of a commit, which is removed afterwards. ValueError if there is no such commit."""
    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder) / "checkout"
        git = ["git", "-C", str(ROOT), "worktree"]
        added = subprocess.run(
            [*git, "add", "--detach", str(checkout), commit], check=False, capture_output=True, encoding="utf-8"
        )
        if added.returncode:
            raise ValueError(f"{commit}: git cannot check it out: {added.stderr.strip().splitlines()[-1]}")
        try:
            yield checkout
        finally:
            subprocess.run([*git, "remove", "--force", str(checkout)], check=True)


def compare(commit: str, scans: Sequence[Path], rounds: int) -> dict[str, Any]:
    """Seconds per scan of both, and the ratio of this checkout to the commit."""
    if rounds < 1:
        raise ValueError(f"--rounds: expected at least 1, got {rounds}")
    scans = [scan.resolve(strict=True) for scan in scans]
    times: dict[str, list[list[float]]] = {"commit": [], "checkout": []}
    with checked_out(commit) as other:
        for _ in range(rounds):
            for name, folder in (("commit", other), ("checkout", ROOT)):
                times[name].append(seconds_per_scan(folder, scans))
    mean = {name: sum(map(sum, found)) / rounds / len(scans) for name, found in times.items()}
    own = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, encoding="utf-8")
    return {
        "commit": commit,
        "checkout": own.stdout.strip(),
        "scans": [scan.name for scan in scans],
        "rounds": rounds,
        "seconds_per_scan": {name: round(value, 3) for name, value in mean.items()},
        "seconds": {name: [[round(value, 3) for value in row] for row in found] for name, found in times.items()},
        "ratio": round(mean["checkout"] / mean["commit"], 3),
        "load_average": round(os.getloadavg()[0], 1),
    }


def run(options: argparse.Namespace) -> None:
    """Measures, prints and writes the record."""
    record = compare(options.commit, options.scans, options.rounds)
    print(f"{record['seconds_per_scan']} s per scan, ratio {record['ratio']}")
    write_record(options.output, record)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", help="commit, branch or tag to compare with")
    parser.add_argument("scans", type=Path, nargs="+", metavar="SCAN", help="NIfTI, NRRD or MetaImage file")
    parser.add_argument("--rounds", type=int, default=3, help="times that both are measured (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    run_or_exit(run, parser.parse_args())


if __name__ == "__main__":
    main()
