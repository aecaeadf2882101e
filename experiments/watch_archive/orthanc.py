"""Orthanc on the loopback, with DICOMweb and C-STORE; Debian's packages orthanc and orthanc-dicomweb."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import requests

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


class Orthanc(NamedTuple):
    """Address of a running server, port of its DICOM node, and the file of its log."""

    url: str
    dicom_port: int
    log: Path

    @property
    def dicomweb(self) -> str:
        """Address of its DICOMweb service."""
        return f"{self.url}/dicom-web"

    def upload(self, folder: Path) -> None:
        """Stores all files below a folder."""
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            requests.post(f"{self.url}/instances", data=file.read_bytes(), timeout=60).raise_for_status()


def is_installed() -> bool:
    """Whether the program and its plug-in are there."""
    return shutil.which("Orthanc") is not None and PLUGIN.exists()


@contextmanager
def running_orthanc(folder: Path) -> Iterator[Orthanc]:
    """Starts Orthanc with its storage in ``folder``, and stops it again; RuntimeError if it does not start."""
    port, dicom_port = _free_port(), _free_port()
    config = {
        "Name": "test",
        "HttpPort": port,
        "DicomPort": dicom_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(config))
    server = Orthanc(f"http://127.0.0.1:{port}", dicom_port, folder / "orthanc.txt")
    with server.log.open("wb") as log:
        process = subprocess.Popen(["Orthanc", "--verbose", str(folder / "orthanc.json")], stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 120
            while True:
                try:
                    requests.get(f"{server.url}/system", timeout=10).raise_for_status()
                    break
                except requests.RequestException as error:
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise RuntimeError(server.log.read_text(errors="replace")[-2000:]) from error
                    time.sleep(0.2)
            yield server
        finally:
            process.terminate()
            process.wait(timeout=60)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
