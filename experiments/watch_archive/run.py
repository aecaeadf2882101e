"""A watcher of Orthanc that is killed with -9 at random points: every series has its results once.

    python experiments/watch_archive/run.py --output docs/experiments/watch_archive/results.json

Makes small synthetic DICOM series, stores them in Orthanc on the loopback, and starts scripts/watch_archive.py with the
shipped weights again and again: ten times it is killed at a random moment after zero to two further series, then it may
end. Counted at the end: the objects of each series in Orthanc against the files that the watcher wrote, the objects
that Orthanc received although it had them, and the errors of dciodvfy. Linux only.
"""

import argparse
import csv
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import requests

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bundle.ctfindings.files.atomic_write import is_partial, write_text
from bundle.ctfindings.phantom.dataset import make_case
from bundle.ctfindings.phantom.write_dicom import write_series
from experiments.watch_archive.orthanc import Orthanc, running_orthanc

COARSER = (3, 3, 4)
"""Every how many voxels of a synthetic scan are kept along each axis, so that a series is answered in seconds."""


def make_series(folder: Path, count: int, seed: int) -> None:
    """Writes synthetic series of different patients, each in a folder of its own."""
    for index in range(count):
        case, hu, _, _, affine = make_case(seed=seed, index=index)
        x, y, z = COARSER
        coarse = np.ascontiguousarray(hu[::x, ::y, ::z].astype(np.int16))
        spacing = (case.spacing[0] * x, case.spacing[1] * y, case.spacing[2] * z)
        coarse_case = replace(case, spacing=spacing, image_count=coarse.shape[2])
        write_series(folder / f"series{index:02d}", coarse_case, coarse, affine @ np.diag([*COARSER, 1.0]))


def finished(output: Path) -> int:
    """Number of series in the journal."""
    journal = output / "journal.jsonl"
    return len(journal.read_bytes().splitlines()) if journal.is_file() else 0


def phase(output: Path) -> str:
    """What the watcher was doing when it was killed, by what it left."""
    journal = (output / "journal.jsonl").read_text(encoding="utf-8") if finished(output) else ""
    for folder in (output / "results").glob("*"):
        if is_partial(folder.name):  # Results move out of it when they are complete.
            if any(folder.glob("*/*")):
                return "writing results"
        elif folder.name not in journal:
            return "delivering"
    return "fetching or answering" if any((output / ".fetched").glob("*/*")) else "between two series"


def run_watcher(server: Orthanc, output: Path, kill: tuple[int, float] | None) -> str:
    """Runs the watcher; returns what it printed.

    ``kill`` is a number of series and a time in seconds: the watcher is killed that long after it finished so many
    series, or for 0 after it began to write results.
    """
    command = [sys.executable, str(ROOT / "scripts" / "watch_archive.py"), server.dicomweb, "--send", "back", "--once"]
    command += ["--output", str(output), "--quiet", "0", "--poll", "1"]

    def written() -> set[Path]:
        return set((output / "results").glob("*"))

    before, known = finished(output), written()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", cwd=ROOT)
    if kill is not None:
        count, seconds = kill
        while process.poll() is None and (finished(output) - before < count or (not count and written() <= known)):
            time.sleep(0.02)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
    said, _ = process.communicate()
    return str(said)


def check(server: Orthanc, output: Path, folder: Path) -> dict[str, Any]:
    """Objects in Orthanc against those of the results, and what dciodvfy says of those that Orthanc gives back."""
    with (output / "worklist.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    wrong, errors = [], []
    kinds: Counter[str] = Counter()
    for row in rows:
        wanted = {
            str(pydicom.dcmread(path).SOPInstanceUID): path.stem for path in (output / row["folder"]).glob("*.dcm")
        }
        query: dict[str, Any] = {"Level": "Instance", "Query": {"StudyInstanceUID": row["study"]}, "Expand": True}
        found = requests.post(f"{server.url}/tools/find", json=query, timeout=60).json()
        received = {}
        for instance in found:
            path = folder / f"{instance['ID']}.dcm"
            path.write_bytes(requests.get(f"{server.url}/instances/{instance['ID']}/file", timeout=60).content)
            header = pydicom.dcmread(path, stop_before_pixels=True)
            if header.Modality != "CT":
                received[str(header.SOPInstanceUID)] = header.Modality
                said = subprocess.run(
                    ["dciodvfy", str(path)], capture_output=True, encoding="utf-8", check=False
                ).stderr
                errors += [line for line in said.splitlines() if line.startswith("Error")]
        by_kind = Counter(received.values())
        kinds += by_kind
        if set(received) != set(wanted) or by_kind["SR"] != 1 or by_kind["OT"] != 1 or not by_kind["SEG"]:
            wrong.append({"series": row["series"], "received": dict(by_kind), "written": sorted(wanted.values())})
    return {
        "series": len(rows),
        "done": sum(row["status"] == "done" for row in rows),
        "series_with_wrong_objects": wrong,
        "objects": dict(kinds),
        "dciodvfy_errors": errors,
        "objects_received_again": server.log.read_text(errors="replace").lower().count("already stored"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="JSON file of the results")
    parser.add_argument("--series", type=int, default=20)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--longest", type=float, default=5.0, help="longest time from a step to a kill, in seconds")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if shutil.which("dciodvfy") is None:
        raise SystemExit("error: dciodvfy is missing; install Debian's package dicom3tools")
    drawn = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="ctfindings_") as temporary:
        folder = Path(temporary)
        make_series(folder / "series", options.series, options.seed)
        (folder / "received").mkdir()
        with running_orthanc(folder) as server:
            server.upload(folder / "series")
            kills = []
            output = folder / "output"
            for _ in range(options.kills):
                kill = drawn.randrange(3), drawn.uniform(0, options.longest)
                run_watcher(server, output, kill)
                reached = {"phase": phase(output), "series_finished": finished(output)}
                kills.append({"after_series": kill[0], "and_seconds": round(kill[1], 2), **reached})
                print(json.dumps(kills[-1]), flush=True)
            print(run_watcher(server, output, None), flush=True)
            again = run_watcher(server, output, None)
            result = check(server, output, folder / "received")
    result |= {"seed": options.seed, "kills": kills, "lines_of_a_further_run": len(again.splitlines())}
    write_text(options.output, json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
