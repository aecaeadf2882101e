"""Temporary files of the server: all in one folder of ``work``, for its owner only, and never left behind."""

import multiprocessing.util
import os
import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock, Timeout

TEMPORARY = "tmp"
"""Folder in ``work`` for uploads that are being received, answers that are being sent, and files of libraries."""


def claim_work(work: Path) -> FileLock:
    """Makes ``work/tmp`` the empty temporary folder of this process and its children, which write for the owner only.

    Returns:
        The lock of the folder; it is held until the process ends.

    Raises:
        ValueError: if another server uses the folder.
    """
    os.umask(0o077)
    lock = FileLock(work / ".server.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise ValueError(f"--conf work: {work}: another server uses this folder; give another one") from None
    # The sockets between processes stay in the temporary folder of the system: a path has at most 107 characters there.
    multiprocessing.util.get_temp_dir()
    folder = work / TEMPORARY
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
    return lock


def remove_older(entries: Iterable[Path], seconds: float) -> int:
    """Removes files and folders that nobody has changed for so long, and returns their number."""
    removed = 0
    for entry in entries:
        try:
            if entry.lstat().st_mtime + seconds > time.time():
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
            removed += 1
        except OSError:  # Removed by the request it belongs to, or it stays for the next time.
            continue
    return removed
