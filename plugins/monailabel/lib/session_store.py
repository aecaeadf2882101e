"""Uploaded scans that nobody uses any more: found on disk, because a server that was stopped has forgotten them."""

import json
import logging
import shutil
import time
import uuid
from pathlib import Path

from monailabel.utils.sessions import Sessions

from .logs import SERVER_LOG

logger = logging.getLogger(SERVER_LOG)


def is_session_id(text: str) -> bool:
    """Whether a text has the form of a session's id, and so can name no other folder."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def remove_expired(sessions: Sessions) -> int:
    """Removes sessions that have not been used for as long as they were to live, and returns their number.

    A session whose record is missing or torn goes when its folder has not changed for the time that a session lives, so
    that one that is being made stays. MONAI Label's own cleaning stops at such a session, and does nothing before the
    first upload to a new process.

    Args:
        sessions: of the running server; its folder may hold those of servers before.
    """
    now = time.time()
    store = Path(sessions.store_path)
    expired = [folder for folder in _folders(store) if is_session_id(folder.name) and _end_of(folder, sessions) < now]
    for folder in expired:
        sessions.pop(folder.name, None)
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            logger.error("an expired scan could not be removed from %s; remove it by hand", folder.parent.name)
    return len(expired)


def _folders(parent: Path) -> list[Path]:
    return [path for path in parent.iterdir() if path.is_dir() and not path.is_symlink()] if parent.is_dir() else []


def _end_of(folder: Path, sessions: Sessions) -> float:
    """When a session ends, in seconds since 1970. Its record on disk is older than what the server knows when the disk
    was full.
    """
    known = sessions.get(folder.name)
    try:
        record = json.loads((folder / "meta.info").read_text(encoding="utf-8"))
        used, lives = float(record["last_access_ts"]), float(record["expiry"])
    except (OSError, ValueError, KeyError, TypeError):
        used, lives = _changed(folder), float(sessions.expiry)
    return max(used, known.last_access_ts if known is not None else 0.0) + lives


def _changed(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:  # Its client has deleted it meanwhile.
        return 0.0
