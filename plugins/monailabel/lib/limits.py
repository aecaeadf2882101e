"""Limits on what a request may cost: sizes, times and memory, each a named setting of ``--conf``."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from .usage_error import UsageError

MEANINGS = {
    "upload_mb": "largest body of an upload in MB",
    "request_kb": "largest body of any other request, and largest field of a form, in KB",
    "upload_files": "most files of a DICOM series, sent or in a zip",
    "upload_seconds": "time in which a body must arrive",
    "unpacked_mb": "largest unpacked size of an upload in MB",
    "member_mb": "largest unpacked size of one file in a zip in MB",
    "ratio": "largest ratio of unpacked to packed size",
    "read_seconds": "time in which a scan must be read and preprocessed",
    "read_mb": "memory of a process that reads a scan, in MB",
    "network_mvoxels": "largest scan on the grid of the network, in millions of voxels",
    "readers": "scans that are read and encoded at a time",
    "waiting": "requests that may wait for that; more get a 503",
    "connections": "open connections; more get a 503",
    "id_characters": "longest id of a scan, label or tag",
    "keep_hours": "age at which temporary files and unused fetched series are removed",
}


@dataclass(frozen=True)
class Limits:
    """The settings with their defaults; see ``MEANINGS``."""

    upload_mb: float = 2048
    request_kb: float = 256
    upload_files: float = 5000
    upload_seconds: float = 600
    unpacked_mb: float = 4096
    member_mb: float = 1024
    ratio: float = 250
    read_seconds: float = 120
    read_mb: float = 3072
    network_mvoxels: float = 64
    readers: float = 2
    waiting: float = 16
    connections: float = 128
    id_characters: float = 128
    keep_hours: float = 24

    @staticmethod
    def of(conf: Mapping[str, Any]) -> Limits:
        """The limits of ``--conf``; ValueError for a value that is not a positive number."""
        values = {}
        for name in {each.name for each in fields(Limits)} & set(conf):
            try:
                values[name] = float(conf[name])
            except ValueError:
                values[name] = -1.0
            if not 0 < values[name] <= 1e9:
                raise ValueError(
                    f"--conf {name}: expected a positive number, got {conf[name]!r}; it is the {MEANINGS[name]}"
                )
        return Limits(**values)

    @property
    def upload_bytes(self) -> int:
        """The largest body of an upload."""
        return int(self.upload_mb * 1e6)

    @property
    def request_bytes(self) -> int:
        """The largest body of any other request."""
        return int(self.request_kb * 1e3)

    def body_sentence(self, upload: bool) -> str:
        """What a client is told whose body is too large."""
        largest, name = (f"{self.upload_mb:g} MB", "upload_mb") if upload else (f"{self.request_kb:g} KB", "request_kb")
        return f"the request is larger than {largest}; send a smaller one, or ask the administrator to raise {name}"

    @property
    def field_sentence(self) -> str:
        """What a client is told whose form has a text that is too large."""
        problem = f"a field of the form is larger than {self.request_kb:g} KB"
        return f"{problem}; send a smaller one, or ask the administrator to raise request_kb"

    def check_zip(self, path: Path) -> None:
        """Refuses a zip by its directory, before anything is unpacked; Python unpacks no more than that declares.

        Raises:
            UsageError: 413, with the limit.
        """
        if not zipfile.is_zipfile(path):
            return
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.infolist()
        except (zipfile.BadZipFile, ValueError, OverflowError):
            return  # The reader says what is wrong with a damaged one.
        unpacked, packed = sum(each.file_size for each in members), max(path.stat().st_size, 1)
        largest = max((each.file_size for each in members), default=0)
        for found, limit, unit, name in (
            (len(members), self.upload_files, "files", "upload_files"),
            (unpacked / 1e6, self.unpacked_mb, "MB", "unpacked_mb"),
            (largest / 1e6, self.member_mb, "MB in one file", "member_mb"),
            (unpacked / packed, self.ratio, "times its packed size", "ratio"),
        ):
            if found > limit:
                problem = f"the zip holds {found:,.0f} {unit}; at most {limit:,.0f} are allowed"
                raise UsageError(413, f"{problem}; send one series, or ask the administrator to raise {name}")

    def check_size(self, path: Path, unpacked: int) -> None:
        """Refuses a packed file that unpacks to more than the limits, when so much of it is known.

        Raises:
            UsageError: 413, with the limit.
        """
        for found, limit, unit, name in (
            (unpacked / 1e6, self.unpacked_mb, "MB", "unpacked_mb"),
            (unpacked / max(path.stat().st_size, 1), self.ratio, "times its packed size", "ratio"),
        ):
            if found > limit:
                problem = f"the file unpacks to {found:,.0f} {unit}; at most {limit:,.0f} are allowed"
                raise UsageError(413, f"{problem}; send a smaller one, or ask the administrator to raise {name}")
