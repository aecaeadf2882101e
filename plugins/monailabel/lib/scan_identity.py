"""Which scan is this? The SHA-256 of its content, computed again only when the files have changed."""

import hashlib
import threading
from collections import OrderedDict
from pathlib import Path

from bundle.ctfindings.files.folders import files_below

Signature = tuple[tuple[str, int, int, int], ...]
"""Name, size, time of change in ns and inode of every file of a scan."""


class ScanIdentity:
    """Digests of scans by path. Threads may share it.

    Args:
        remembered: how many paths are remembered.
    """

    def __init__(self, remembered: int = 10_000) -> None:
        self.remembered = remembered
        self._known: OrderedDict[str, tuple[Signature, str]] = OrderedDict()
        self._lock = threading.Lock()

    def digest(self, path: str | Path) -> tuple[Signature, str]:
        """Signature of the files and SHA-256 of their content.

        Args:
            path: a file, or a folder of DICOM.

        Raises:
            FileNotFoundError: when there is no such file.
        """
        path = Path(path)
        signature = signature_of(path)
        with self._lock:
            known = self._known.get(str(path))
        if known is None or known[0] != signature:
            known = (signature, _content_digest(path, signature))
            with self._lock:
                self._known[str(path)] = known
                while len(self._known) > self.remembered:
                    self._known.popitem(last=False)
        return known

    def known(self, path: Path) -> str | None:
        """The digest of a path without reading it; None if it was never computed, or the files changed since."""
        with self._lock:
            known = self._known.get(str(path))
        return known[1] if known is not None and path.exists() and signature_of(path) == known[0] else None


def signature_of(path: Path) -> Signature:
    """What tells, without reading it, that a file or the files of a folder have changed."""
    files = files_below(path) if path.is_dir() else [path]
    stats = [(file.relative_to(path).as_posix(), file.stat()) for file in files]
    return tuple((name, stat.st_size, stat.st_mtime_ns, stat.st_ino) for name, stat in stats)


def _content_digest(path: Path, signature: Signature) -> str:
    """Of a file its content; of a folder its names and the digests of their content, so that no two folders can be
    confused.
    """
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for name, *_ in signature:
        with (path / name).open("rb") as file:
            digest.update(hashlib.sha256(name.encode()).digest() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
