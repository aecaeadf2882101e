"""Hostile requests against a live server, while a reader asks ordinary questions; and eight clients at once.

    python experiments/hostile_requests/run.py --output docs/evaluation/hostile_requests.json

Starts the server on two synthetic scans with the shipped weights. Measured: the status and sentence of each attack, the
memory of the server with its processes (shared pages once), the slowest ordinary question meanwhile, and what is left
in the folders and the log. Linux only.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil
import requests

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bundle.ctfindings.files.atomic_write import write_text
from bundle.ctfindings.phantom.dataset import make_case
from experiments.hostile_requests.attacks import MARK, attacks

CONF = {"read_seconds": "30", "upload_seconds": "20"}
"""Shorter than the defaults, so that the run ends soon."""
QUERIES = ("fluid around the left lung", "calcified aorta")


class Watch(threading.Thread):
    """Samples the memory of the server and asks it an ordinary question every second, until it is stopped."""

    def __init__(self, url: str, process: int) -> None:
        super().__init__(daemon=True)
        self.url, self.process = url, psutil.Process(process)
        self.megabytes: list[float] = []
        self.seconds: list[float] = []
        self.failed = 0
        self.ended = threading.Event()
        self.sampler = threading.Thread(target=self._sample, daemon=True)

    def run(self) -> None:
        self.sampler.start()
        while not self.ended.wait(1):
            started = time.perf_counter()
            self.failed += ask(self.url, "first", QUERIES[0]).status_code != 200
            self.seconds.append(time.perf_counter() - started)
        self.sampler.join()

    def _sample(self) -> None:
        while not self.ended.wait(0.1):
            total = 0
            for process in [self.process, *self.process.children(recursive=True)]:
                try:
                    total += process.memory_full_info().pss
                except psutil.NoSuchProcess:
                    continue
            self.megabytes.append(total / 1e6)


def ask(url: str, image: str, query: str) -> requests.Response:
    """An ordinary question."""
    return requests.post(
        f"{url}/infer/evidence?image={image}&output=json", data={"params": json.dumps({"query": query})}, timeout=120
    )


def contents(folder: Path) -> dict[str, str]:
    """The files of a folder, with the digests of their contents."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


def attacked(url: str, scan: bytes) -> list[dict[str, Any]]:
    """Every attack with its answer."""
    answers = []
    for name, attack in attacks(scan).items():
        started = time.perf_counter()
        status, text = attack(url)
        try:
            said = json.loads(text)["detail"]
        except (ValueError, KeyError, TypeError):
            said = text
        refused = (400 <= status < 500 or status == 0) and isinstance(said, str) and 10 < len(said) < 400
        answers.append(
            {
                "attack": name,
                "status": status,
                "sentence": said[:400] if isinstance(said, str) else str(said)[:400],
                "seconds": round(time.perf_counter() - started, 1),
                "refused": bool(refused and "\n" not in said and "root:" not in said),
            }
        )
        print(json.dumps(answers[-1]), flush=True)
    return answers


def mixed(url: str) -> tuple[int, int]:
    """Fifty questions of eight clients about two scans: how many were answered, and how many with another's answer."""
    cases = [(image, query) for image in ("first", "second") for query in QUERIES]
    wanted = {case: ask(url, *case).json() for case in cases}
    assert len({answer["score"] for answer in wanted.values()}) == len(cases), "the questions must differ"
    keys = ("text", "score", "peak_mm", "depth")

    def check(number: int) -> bool:
        case = cases[number % len(cases)]
        answer = ask(url, *case).json()
        return all(answer.get(key) == wanted[case][key] for key in keys)

    with ThreadPoolExecutor(8) as clients:
        right = list(clients.map(check, range(50)))
    return len(right), right.count(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--port", type=int, default=8017)
    args = parser.parse_args()
    url = f"http://127.0.0.1:{args.port}"
    with tempfile.TemporaryDirectory() as folder:
        studies, work = Path(folder) / "studies", Path(folder) / "work"
        studies.mkdir()
        for index, name in enumerate(("first", "second")):
            _, hu, _, _, affine = make_case(seed=7, index=index)
            image = nib.Nifti1Image(hu[::2, ::2].astype(np.int16), affine @ np.diag([2.0, 2.0, 1.0, 1.0]))
            nib.save(image, studies / f"{name}.nii.gz")
        command = [sys.executable, str(ROOT / "plugins/monailabel/start_server.py"), "--studies", str(studies)]
        command += ["--port", str(args.port)]
        for key, value in {"work": str(work), **CONF}.items():
            command += ["--conf", key, value]
        began = time.perf_counter()
        with (Path(folder) / "output.txt").open("wb") as output:
            server = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            answering = ready = 0.0
            while not ready:
                try:
                    status = requests.get(f"{url}/ready", timeout=10).status_code
                    answering = answering or time.perf_counter() - began
                    ready = time.perf_counter() - began if status == 200 else 0.0
                except requests.ConnectionError:
                    assert server.poll() is None, (Path(folder) / "output.txt").read_text()
                time.sleep(0.1)
            starting = psutil.Process(server.pid).cpu_times()
            ask(url, "first", QUERIES[0])
            ask(url, "second", QUERIES[0])
            before = {"studies": contents(studies), "datastores": contents(work / "datastores")}
            watch = Watch(url, server.pid)
            watch.start()
            answers = attacked(url, (studies / "first.nii.gz").read_bytes())
            watch.ended.set()
            watch.join()
            asked, wrong = mixed(url)
            left = [str(path.relative_to(work)) for path in (work / "tmp").rglob("*") if path.is_file()]
            left += [str(path.relative_to(work)) for path in (work / "sessions").rglob("*") if path.is_file()]
            after = {"studies": contents(studies), "datastores": contents(work / "datastores")}
            log = (work / "server.log").read_text() + (Path(folder) / "output.txt").read_text()
        finally:
            server.terminate()
            server.wait(60)
        ended_with = [path.name for path in (work / "tmp").rglob("*")]
    result = {
        "settings": CONF,
        "attacks": answers,
        "refused": sum(answer["refused"] for answer in answers),
        "memory_mb_at_most": round(max(watch.megabytes)),
        "question_seconds": {
            "asked": len(watch.seconds),
            "failed": watch.failed,
            "median": round(float(np.median(watch.seconds)), 2),
            "slowest": round(max(watch.seconds), 2),
        },
        "left_behind": left,
        "left_after_sigterm": ended_with,
        "changed": [name for name in before if before[name] != after[name]],
        "mark_in_log": log.count(MARK),
        "eight_clients": {"asked": asked, "mixed": wrong},
        "start_seconds": {
            "first_answer": round(answering, 1),
            "ready": round(ready, 1),
            "processor_of_server": round(starting.user + starting.system, 1),
            "load_average": round(os.getloadavg()[0], 1),
        },
    }
    write_text(args.output, json.dumps(result, indent=1))
    print(json.dumps({key: value for key, value in result.items() if key != "attacks"}, indent=1))


if __name__ == "__main__":
    main()
