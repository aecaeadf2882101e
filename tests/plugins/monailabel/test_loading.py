"""The server while it loads and when it ends."""

import asyncio
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

from joblib.externals.loky import get_reusable_executor
from starlette.testclient import TestClient

from plugins.monailabel.lib.loading import LoadingServer


def server(tmp_path: Path) -> LoadingServer:
    return LoadingServer(lambda tell: None, tmp_path)  # type: ignore[arg-type, return-value]


def test_it_is_alive_and_says_what_it_loads(tmp_path: Path) -> None:
    client = TestClient(server(tmp_path))
    assert client.get("/health").json() == {"status": "alive"}
    for path in ("/ready", "/info/"):
        answer = client.get(path)
        assert answer.status_code == 503 and "loads its libraries" in answer.json()["detail"]
        assert answer.headers["Retry-After"] == "3"


def test_files_and_processes_of_requests_are_gone_when_it_ends_and_other_processes_are_not(tmp_path: Path) -> None:
    for name in ("upload-1", "read-1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"voxels")
    (tmp_path / "ctfindings_map.nii.gz").write_bytes(b"voxels")
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent: list[str] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    reader = multiprocessing.get_context("forkserver").Process(target=time.sleep, args=(600,), daemon=True)
    reader.start()
    executor = get_reusable_executor(1)
    other = executor.submit(os.getpid).result()
    asyncio.run(server(tmp_path)({"type": "lifespan"}, receive, send))
    reader.join(60)
    assert reader.exitcode == -signal.SIGKILL
    assert executor.submit(os.getpid).result() == other
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert not list(tmp_path.iterdir())
