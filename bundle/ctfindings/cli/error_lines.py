"""Running a workflow from the command line: an input that cannot be used ends it in one line, not in a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

Result = TypeVar("Result")

_PACKAGE = __name__.rsplit(".", 2)[0]


def run_or_exit(task: Callable[..., Result], *args: object) -> Result:
    """Calls ``task(*args)``; an error of ours becomes ``error: FILE: what is wrong; remedy`` on stderr and exit code 1.

    MONAI and Ignite wrap what a transform or handler raises, so the chain of causes is searched. Any other error passes
    as it is. Ctrl-C becomes a line and code 130.

    Raises:
        SystemExit: with the one line, or 130.
    """
    try:
        return task(*args)
    except KeyboardInterrupt:
        print("stopped by Ctrl-C", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        ours = input_error(error)
        if ours is None:
            raise
        raise SystemExit(_line(ours)) from None


def input_errors_in_one_line() -> None:
    """From now on an error of ours that nobody catches ends the program as in ``run_or_exit``: one line on stderr, exit
    code 1.

    For the command line: MONAI builds what a config names before it calls anything, and wraps in a ``RuntimeError``
    what that raises.
    """
    if sys.excepthook is not _one_line:
        _hooks.append(sys.excepthook)
        sys.excepthook = _one_line


_hooks: list[Callable[..., object]] = []
"""What was there before, for errors that are not ours."""


def _one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    ours = input_error(error)
    if ours is None:
        _hooks[-1](kind, error, trace)
    else:
        print(_line(ours), file=sys.stderr)


def _line(error: ValueError) -> str:
    return f"error: {' '.join(str(error).split())}"


def input_error(error: BaseException) -> ValueError | None:
    """The first error of ours in a chain of causes; None when there is none.

    A ValueError is ours when a function of this package raised it: all of these name the input and the remedy in one
    line. One that a library raised inside a function of ours is a fault of the program, and keeps its traceback.
    """
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, ValueError) and _raised_in(link).startswith(f"{_PACKAGE}."):
            return link
        link = link.__cause__ or link.__context__
    return None


def _raised_in(error: BaseException) -> str:
    """Name of the module whose line raised an error."""
    trace = error.__traceback__
    if trace is None:
        return ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    return str(trace.tb_frame.f_globals.get("__name__", ""))
