"""The shared folder arrives whole at a hub."""

import base64
import hashlib
import http.server
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.scripts.conftest import NAME, names_in


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the Hugging Face Hub as an upload of a folder needs, on this machine."""

    repo = f"someone/{NAME}"

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, content: Any = None, status: int = 200) -> None:
        body = json.dumps({} if content is None else content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    @property
    def hub(self) -> Any:
        return self.server

    def do_GET(self) -> None:
        self._answer(
            {"id": self.repo, "sha": "0" * 40, "siblings": [], "tags": [], "downloads": 0, "likes": 0, "private": True}
        )

    def do_PUT(self) -> None:
        self.hub.stored[self.path.rsplit("/", 1)[1]] = self._body()
        self._answer()

    def do_POST(self) -> None:
        body = self._body()
        self.hub.tokens.add(self.headers.get("Authorization"))
        if self.path.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            modes = [
                {"path": file["path"], "uploadMode": "lfs" if file["size"] > 1e6 else "regular", "shouldIgnore": False}
                for file in files
            ]
            self._answer({"files": modes})
        elif self.path.endswith("/info/lfs/objects/batch"):
            where = f"http://127.0.0.1:{self.server.server_address[1]}/store"
            wanted = json.loads(body)["objects"]
            actions = [{**item, "actions": {"upload": {"href": f"{where}/{item['oid']}"}}} for item in wanted]
            self._answer({"transfer": "basic", "objects": actions})
        elif "/commit/main" in self.path:
            self.hub.commits += [json.loads(line) for line in body.splitlines()]
            address = f"http://127.0.0.1/{self.repo}/commit/{'1' * 40}"
            self._answer({"success": True, "commitUrl": address, "commitOid": "1" * 40, "hookOutput": ""})
        elif "/tag/" in self.path:
            self.hub.tag_names.append(json.loads(body)["tag"])
            self._answer()
        else:
            self._answer({"url": f"http://127.0.0.1/{self.repo}", "id": self.repo, "name": self.repo})


@pytest.fixture
def hub() -> Iterator[Any]:
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.commits, server.stored, server.tokens, server.tag_names = [], {}, set(), []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_the_upload_command_of_the_docs_brings_every_file_to_the_hub(
    hub: Any, staged: Path, tmp_path: Path, bundle_root: Path
) -> None:
    version = json.loads((staged / "configs" / "metadata.json").read_text(encoding="utf-8"))["version"]
    documented = (bundle_root / "docs" / "sharing.md").read_text(encoding="utf-8")
    command = next(
        line for line in documented.splitlines() if line.startswith("python -c") and "push_to_hf_hub" in line
    )
    filled = command.replace("USER", "someone").replace("OUT_DIR", str(tmp_path / "out")).replace("VERSION", version)
    shutil.copytree(staged, tmp_path / "out" / NAME)
    environment = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_address[1]}",
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": "hf_standin",
        "HF_HOME": str(tmp_path / "home"),
    }
    arguments = shlex.split(filled)
    result = subprocess.run(
        [sys.executable, *arguments[1:]],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    arrived = {}
    for entry in hub.commits:
        if entry["key"] == "file":
            arrived[entry["value"]["path"]] = hashlib.sha256(base64.b64decode(entry["value"]["content"])).hexdigest()
        elif entry["key"] == "lfsFile":
            assert hashlib.sha256(hub.stored[entry["value"]["oid"]]).hexdigest() == entry["value"]["oid"]
            arrived[entry["value"]["path"]] = entry["value"]["oid"]
    expected = {name: hashlib.sha256((staged / name).read_bytes()).hexdigest() for name in names_in(staged)}
    card = arrived.pop("README.md")
    assert arrived == expected and card
    assert hub.tag_names == [version] and hub.tokens == {"Bearer hf_standin"}
