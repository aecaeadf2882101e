"""Progress bars: live in a terminal, a line now and then in a log."""

import sys
from typing import Any

from tqdm import tqdm

SECONDS_BETWEEN_LINES_OF_A_LOG = 30


def progress_bar(items: Any = None, label: str = "", total: int | None = None, **options: Any) -> Any:
    """``tqdm`` over ``items``, on standard error. Without a label, no bar is shown.

    Args:
        items: what to iterate over; None for a bar that the caller updates.
        label: text in front of the bar.
        total: number of items, if ``items`` has no length.
        options: further options of ``tqdm``.
    """
    seconds = 0.1 if sys.stderr.isatty() else SECONDS_BETWEEN_LINES_OF_A_LOG
    return tqdm(items, label, total, disable=not label, mininterval=seconds, maxinterval=seconds, **options)


def say(text: str) -> None:
    """Prints text on standard output, above the progress bar if there is one."""
    tqdm.write(text)
    sys.stdout.flush()
