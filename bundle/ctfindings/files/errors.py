"""Errors: one line that names the file, the problem and the remedy, and ends with a short code; and their causes.

MONAI, Ignite and process pools wrap what a component raises.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def coded(path: str | Path, problem: str, code: str) -> str:
    """``FILE: problem; remedy [code]`` in one line. Each code has a section in ``docs/troubleshooting.md``."""
    return f"{path}: {' '.join(problem.split())} [{code}]"


class ScanError(ValueError):
    """File that cannot be used, with a message from ``coded``.

    Its ``code`` is the same for all files that have the problem, to count by.
    """

    def __init__(self, path: str | Path, problem: str, code: str) -> None:
        super().__init__(coded(path, problem, code))
        self.code = code


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error itself, then the one that it was raised from or while handling, and so on."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def scan_error_in(error: BaseException) -> ScanError | None:
    """The first ScanError among the causes of an error."""
    return next((link for link in causes(error) if isinstance(link, ScanError)), None)


@contextmanager
def library_errors(path: str | Path, problem: str, code: str) -> Iterator[None]:
    """Every exception of a library in this block becomes a ScanError, with the exception as its cause.

    Put calls of the library into the block and nothing else, so that errors of this package keep their traceback.
    ``problem`` may contain ``{error}``, which stands for the message of the library.
    """
    try:
        yield
    except ScanError:
        raise
    except MemoryError as error:
        raise ScanError(path, "needs more memory than is free; use a machine with more", "out-of-memory") from error
    except Exception as error:
        shown = (" ".join(str(error).split()) or type(error).__name__)[:200]
        raise ScanError(path, problem.replace("{error}", shown), code) from error
