"""The file that holds the key of the server; it is read before the libraries of the server are loaded."""

import secrets
from pathlib import Path


def key_from(file: Path) -> str:
    """The key in a file that only its owner may read; a new key if there is no such file.

    Raises:
        ValueError: if others may read it, it holds no key, or it cannot be read or written.
    """
    try:
        if not file.exists():
            file.touch(mode=0o600)
            file.write_text(secrets.token_urlsafe(32) + "\n", encoding="ascii")
        is_open = file.stat().st_mode & 0o077
        key = file.read_text(encoding="utf-8").strip()
    except OSError as error:
        problem = f"cannot be read or made ({error.strerror}); check its folder and the permissions"
        raise ValueError(f"--api-key {file}: {problem}") from error
    if is_open:
        raise ValueError(f"--api-key {file}: others may read it; chmod 600 closes it")
    if len(key) < 16 or not key.isascii() or len(key.split()) != 1:
        raise ValueError(f"--api-key {file}: expected one key of 16 or more ASCII characters; remove it for a new one")
    return key
