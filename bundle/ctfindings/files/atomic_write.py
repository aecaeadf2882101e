"""Atomic writes: a file appears under its name complete or not at all."""

import hashlib
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside ``path``, which is renamed to ``path`` on success and removed on failure.

    The temporary name keeps all suffixes, because writers choose the format by them. It is random, because processes of
    two machines that share a disk may have the same process id.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{uuid.uuid4().hex[:16]}.partial.{target.name}")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file in UTF-8, complete or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def staging_folder(target: Path) -> Iterator[Path]:
    """Yields an empty folder beside ``target``, for files that move there when all are complete; then removes it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".partial-", dir=target.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def is_partial(name: str) -> bool:
    """Whether a file or folder is what a killed process left of an atomic write; it may be deleted."""
    return re.match(r"\.(?:[0-9a-f]{16}\.partial\.|partial-)", name) is not None


def remove_partials(path: str | Path) -> None:
    """Deletes what killed processes left of atomic writes of a path; no process may be writing it."""
    target = Path(path)
    for left in target.parent.glob(f".*.partial.{target.name}"):
        if is_partial(left.name):
            left.unlink(missing_ok=True)


def safe_name(text: str) -> str:
    """File name for an id of any characters: the id itself if valid, else its valid part and a digest."""
    plain = re.sub(r"[^\w.-]+", "_", text)[:80].strip(".")
    return plain if plain == text else f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
