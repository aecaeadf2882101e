"""Atomic files: a file appears under its name complete, or not at all."""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path beside ``path``; on success it is renamed to ``path``, on failure it is removed.

    The temporary name keeps all suffixes, because writers choose the format by them. It is drawn: processes of two
    machines that share a disk may have one number.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{uuid.uuid4().hex[:16]}.partial.{target.name}")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def safe_name(text: str) -> str:
    """A file name for an id of any characters: the id itself where it is one, else what can be kept of it and a digest."""
    plain = re.sub(r"[^\w.-]+", "_", text)[:80].strip(".")
    return plain if plain == text else f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
