"""The server as a user starts it: a process on a free port of the loopback, asked through HTTP."""

import gzip
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email import message_from_bytes
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import requests

from bundle.ctfindings.inference.service import AnsweredScan
from tests.ports import free_port

QUERY = "fluid around the left lung"
START_SECONDS = 900
"""A busy machine imports the libraries slowly."""


@dataclass
class Answer:
    """One answer: status, params, and the file."""

    status: int
    params: Any
    name: str = ""
    file: bytes = b""

    def volume(self) -> nib.Nifti1Image:
        return nib.Nifti1Image.from_bytes(gzip.decompress(self.file))

    def values(self) -> np.ndarray:
        return np.asarray(self.volume().dataobj)


@dataclass
class LiveServer:
    """A running server."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path
    work: Path

    def get(self, path: str, **keys: Any) -> requests.Response:
        return requests.get(self.url + path, timeout=120, **keys)

    def infer(
        self, model: str, target: str, params: Mapping[str, Any] | None = None, output: str = "", **keys: Any
    ) -> Answer:
        """``target`` is ``image=ID`` or ``session_id=ID``, or empty when a file is sent along."""
        query = "&".join(filter(None, [target, f"output={output}" if output else ""]))
        data = {"params": json.dumps(params)} if params is not None else None
        response = requests.post(f"{self.url}/infer/{model}?{query}", data=data, timeout=300, **keys)
        return parsed(response)

    def upload(self, *files: tuple[str, bytes]) -> str:
        response = requests.put(f"{self.url}/session/", files=[("files", file) for file in files], timeout=120)
        assert response.status_code == 200, response.text
        return str(response.json()["session_id"])

    def encoded(self) -> int:
        """How many scans the server has encoded so far."""
        return self.log.read_text(encoding="utf-8").count(" encoded in ")

    def left(self) -> list[str]:
        """Temporary files that no request needs any more; those of the last one go within moments of its answer."""
        deadline = time.monotonic() + 60
        while True:
            found = [path.name for path in (self.work / "tmp").rglob("*") if path.is_file()]
            if not found or time.monotonic() > deadline:
                return found
            time.sleep(0.1)

    def memory_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return float(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def parsed(response: requests.Response) -> Answer:
    """An answer of ``/infer``, multipart or JSON."""
    kind = response.headers.get("content-type", "")
    if not kind.startswith("multipart/"):
        return Answer(response.status_code, response.json())
    message = message_from_bytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + response.content)
    answer = Answer(response.status_code, None)
    for part in message.get_payload():
        if part.get_filename():
            answer.name, answer.file = str(part.get_filename()), part.get_payload(decode=True)
        else:
            answer.params = json.loads(part.get_payload(decode=True))
    return answer


def probabilities(record: dict[str, Any]) -> list[float]:
    return [finding["probability"] for finding in record["findings"]]


def expected(scan: AnsweredScan) -> list[float]:
    return [finding.probability for finding in scan.record.findings]


def assert_refused(answer: Answer, status: int, *words: str) -> None:
    assert answer.status == status, answer.params
    assert list(answer.params) == ["detail"] and "\n" not in answer.params["detail"]
    for word in words:
        assert word in answer.params["detail"]


@contextmanager
def running(
    bundle_root: Path, studies: str | Path, work: Path, conf: Sequence[tuple[str, str]]
) -> Iterator[LiveServer]:
    """Starts the server, and stops it again."""
    port = free_port()
    launcher = bundle_root / "plugins" / "monailabel" / "start_server.py"
    command = [sys.executable, str(launcher), "--studies", str(studies), "--port", str(port)]
    for key, value in [("work", str(work)), *conf]:
        command += ["--conf", key, value]
    work.mkdir(parents=True, exist_ok=True)
    with (work / "output.txt").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=work)
        server = LiveServer(f"http://127.0.0.1:{port}", process, work / "server.log", work)
        try:
            deadline = time.monotonic() + START_SECONDS
            while True:
                try:
                    if server.get("/").status_code == 200:
                        break
                except requests.ConnectionError:
                    pass
                text = (work / "output.txt").read_text(errors="replace")[-3000:]
                assert process.poll() is None, text
                assert time.monotonic() < deadline, text
                time.sleep(0.2)
            yield server
        finally:
            process.terminate()
            process.wait(timeout=300)
