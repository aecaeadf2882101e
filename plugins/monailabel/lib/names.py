"""Names in requests: ids of scans, labels and tags, which become names of files."""

import re

from fastapi import Request

from .usage_error import UsageError

_FILES = ("image", "id", "label", "tag")
"""Query parameters that become names of files."""


def check_names(request: Request) -> None:
    """Refuses an id that is long, is not printable, or reaches outside the folder; every route depends on it.

    Raises:
        UsageError: 400, with what an id may be.
    """
    longest = int(request.app.state.limits.id_characters)
    for name, value in (*request.query_params.multi_items(), *request.path_params.items()):
        if len(str(value).encode()) > longest:
            raise UsageError(400, f"{name}: expected at most {longest} characters, got {len(str(value))}")
        if not str(value).isprintable():
            raise UsageError(400, f"{name}: holds a line break or another character that cannot be printed")
        if name in _FILES and ("/" in value or "\\" in value or value.startswith(".")):
            raise UsageError(400, f"{name}: an id holds no path")


def is_id(text: str) -> bool:
    """Whether a new scan or tag may have this name."""
    return bool(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text))
