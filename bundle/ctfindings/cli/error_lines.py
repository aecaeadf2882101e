"""Errors of the command line: an input that cannot be used ends the program with one line, not with a traceback."""

import logging
import os
import sys
from collections.abc import Callable
from traceback import walk_tb
from types import TracebackType
from typing import TypeVar

from bundle.ctfindings.files.errors import causes

Result = TypeVar("Result")

DEBUG = "CTFINDINGS_DEBUG"
"""Environment variable: if it is set, input errors keep their traceback, with the error of the library behind them."""

_PACKAGE = __name__.rsplit(".", 2)[0]


def one_line_errors() -> None:
    """Makes every uncaught input error of this process one line on stderr, with exit code 1; Ctrl-C, with code 130.

    Call it first in a workflow (``initialize``). Other errors keep their traceback. Ignite logs the message of every
    error that ends a run; it is not repeated.
    """
    sys.excepthook = _print_and_exit
    logging.getLogger("ignite.engine.engine").setLevel(logging.CRITICAL)


def _print_and_exit(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    ending = _ending(error)
    if ending is not None and not os.environ.get(DEBUG):
        raise ending
    sys.__excepthook__(kind, error, trace)


def run_or_exit(task: Callable[..., Result], *args: object) -> Result:
    """Calls ``task(*args)`` for a script; input errors and Ctrl-C become a SystemExit as in ``one_line_errors``."""
    try:
        return task(*args)
    except (Exception, KeyboardInterrupt) as error:
        ending = _ending(error)
        if ending is None or os.environ.get(DEBUG):
            raise
        raise ending from None


def _ending(error: BaseException) -> SystemExit | None:
    """The end of the program: a line, or a code whose line was printed. None for an error of the program.

    What the operating system refuses, such as a file that may not be read or a full disk, is an error of the input.
    """
    if isinstance(error, KeyboardInterrupt):
        print("stopped by Ctrl-C", file=sys.stderr)
        return SystemExit(130)
    ours = input_error(error)
    if ours is None and isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return SystemExit(f"error: {where}{error.strerror}; check the path, its permissions and the disk")
    return None if ours is None else SystemExit(f"error: {' '.join(str(ours).split())}")


def input_error(error: BaseException) -> ValueError | None:
    """The first input error in a chain of causes; None without one. MONAI and Ignite wrap what a component raises.

    An input error is a ValueError that this package raised: all of these name the input and the remedy. A ValueError
    that a library raised is an error of the program.
    """
    for link in causes(error):
        modules = [str(frame.f_globals.get("__name__")) for frame, _ in walk_tb(link.__traceback__)]
        if isinstance(link, ValueError) and modules and modules[-1].startswith(f"{_PACKAGE}."):
            return link
    return None
