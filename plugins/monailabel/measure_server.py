"""How long a running server takes, asked through HTTP as a client does, and with the answers checked to be those of the
scan.

    python plugins/monailabel/measure_server.py --server http://127.0.0.1:8000 SCAN [SCAN ...] [--questions 5] [--output
    times.json]

For each scan: seconds from the first byte of ``findings`` sent to the last byte of its answer (the scan is read and
encoded), and the median over further questions on the encoded scan, each with its heat map unpacked no further than
HTTP does: a finding, a free text that was not asked before, and the same without the map (``output=json``). Scans are
uploaded into sessions first, which is timed apart. On a busy machine, ``--process PID`` of a server on this one adds
the processor time it took for a question (Linux only). Research only; nothing is written on the server but the
sessions, which are deleted at the end.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
from lib.scan_files import scan_suffix

SECONDS = 600
TEXTS = (
    "fluid around the lung",
    "a round opacity in the upper lobe",
    "calcified coronary arteries",
    "an enlarged heart",
    "thickened septa",
)


def timed(task: Callable[[], requests.Response]) -> tuple[float, requests.Response]:
    """Seconds until the whole answer was there, and the answer.

    Raises:
        SystemExit: when the server refuses.
    """
    started = time.perf_counter()
    response = task()
    seconds = time.perf_counter() - started
    if not response.ok:
        raise SystemExit(f"error: {response.url}: HTTP {response.status_code}: {response.text[:300]}")
    return seconds, response


def processor_seconds(process: int | None) -> float:
    """Processor time of a process so far, in seconds; 0 without one."""
    if process is None:
        return 0.0
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(server: str, scan: Path, questions: int, process: int | None) -> dict[str, Any]:
    """Times of one scan in seconds, and the size of its map in bytes."""
    http = requests.Session()

    def ask(model: str, params: dict[str, str], output: str = "all") -> tuple[float, requests.Response]:
        url = f"{server}/infer/{model}?session_id={session}&output={output}"
        return timed(lambda: http.post(url, data={"params": json.dumps(params)}, timeout=SECONDS))

    name = f"scan{scan_suffix(scan.name) or scan.suffix}"
    with scan.open("rb") as file:
        upload, answer = timed(lambda: http.put(f"{server}/session/", files={"files": (name, file)}, timeout=SECONDS))
    session = answer.json()["session_id"]
    try:
        first, _ = ask("findings", {})
        again, answer = ask("findings", {}, "json")
        record = answer.json()["record"]
        names = [finding["name"] for finding in record["findings"]][:questions]
        before = processor_seconds(process)
        by_finding = [ask("evidence", {"finding": finding}) for finding in names]
        by_text = [ask("evidence", {"query": text}) for text in TEXTS[:questions]]
        processor = (processor_seconds(process) - before) / (len(by_finding) + len(by_text))
        alone = [ask("evidence", {"finding": finding}, "json") for finding in names]
    finally:
        http.delete(f"{server}/session/{session}", timeout=SECONDS)
    return {
        "shape": record["scan"]["shape"],
        "upload": upload,
        "first answer": first,
        "findings again, json": again,
        "finding": statistics.median(seconds for seconds, _ in by_finding),
        "free text": statistics.median(seconds for seconds, _ in by_text),
        "finding, json": statistics.median(seconds for seconds, _ in alone),
        "slowest question": max(seconds for seconds, _ in (*by_finding, *by_text)),
        "processor": processor,
        "map bytes": round(statistics.median(len(response.content) for _, response in by_finding)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", nargs="+", type=Path, help="scans, as the server reads them")
    parser.add_argument("--server", default="http://127.0.0.1:8000", help="%(default)s by default")
    parser.add_argument(
        "--questions", type=int, default=5, help="further questions of each kind, 1 to 5; %(default)s by default"
    )
    parser.add_argument("--process", type=int, help="process of a server on this machine, for its processor time")
    parser.add_argument("--output", type=Path, help="also write the figures as JSON")
    options = parser.parse_args()
    if not 1 <= options.questions <= len(TEXTS):
        raise SystemExit(f"error: --questions {options.questions}: give 1 to {len(TEXTS)}")
    missing = [str(scan) for scan in options.scans if not scan.is_file()]
    if missing:
        raise SystemExit(f"error: {missing[0]}: no such file")
    if options.process is not None and not Path(f"/proc/{options.process}/stat").is_file():
        raise SystemExit(f"error: --process {options.process}: there is no such process on this machine")
    rows: list[dict[str, Any]] = []
    columns = (
        "upload",
        "first answer",
        "finding",
        "free text",
        "finding, json",
        "slowest question",
        *(["processor"] if options.process else []),
    )
    print(f"{'scan':<18}" + "".join(f"{column:>18}" for column in columns) + f"{'map, kB':>10}")
    for scan in options.scans:
        try:
            row = measure(options.server.rstrip("/"), scan, options.questions, options.process)
        except requests.ConnectionError:
            raise SystemExit(
                f"error: {options.server}: no server answers there; start plugins/monailabel/start_server.py"
            ) from None
        rows.append(row)
        shape = " x ".join(str(size) for size in row["shape"])
        print(
            f"{shape:<18}"
            + "".join(f"{row[column]:>17.3f}s" for column in columns)
            + f"{row['map bytes'] / 1000:>10.0f}",
            flush=True,
        )
    if options.output:
        machine = {"processor": platform.machine(), "system": platform.system(), "python": sys.version.split()[0]}
        options.output.write_text(json.dumps({"machine": machine, "scans": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
