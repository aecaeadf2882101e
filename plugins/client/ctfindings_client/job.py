"""One piece of work beside the interface's thread: started, watched by a timer, cancelled. Work must not touch the MRML
scene.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from ctfindings_client.transport import Cancellation, Cancelled, Progress

STAGES = {
    "starting": "Connecting to the server",
    "packing": "Packing the scan",
    "sending": "Sending the scan",
    "waiting": "The server is working",
    "receiving": "Receiving the answer",
}
"""What is done while a job runs, in words, by the stage that it reports."""

Work = Callable[[Cancellation, Progress], Any]


class Job:
    """Runs work in a thread; what it returns or raises is handed over in the thread that calls ``deliver``.

    Args:
        work: called with a cancellation to check and a progress to report to.
        done: called with what the work returned.
        failed: called with what it raised; not called after ``cancel``.
    """

    def __init__(self, work: Work, done: Callable[[Any], None], failed: Callable[[Exception], None]) -> None:
        self._work = work
        self._done = done
        self._failed = failed
        self._cancellation = Cancellation()
        self._outcome: tuple[bool, Any] | None = None
        self._stage: tuple[str, float | None] = ("starting", None)
        # A daemon: a request that hangs must not keep Slicer from closing.
        self._thread = threading.Thread(target=self._run, name="CTFindings", daemon=True)
        self._thread.start()

    @property
    def stage(self) -> tuple[str, float | None]:
        """What is being done, and the part that is done, 0..1, where it is known."""
        return self._stage

    @property
    def cancelled(self) -> bool:
        """Whether ``cancel`` was called."""
        return self._cancellation.cancelled

    def cancel(self) -> None:
        """Ends the work; its result is dropped, even when it is complete."""
        self._cancellation.cancel()

    @property
    def over(self) -> bool:
        """Whether there is an outcome, or none will be wanted."""
        return self.cancelled or self._outcome is not None

    def deliver(self) -> None:
        """Hands the outcome of a job that is over to ``done`` or ``failed``; to neither after ``cancel``.

        When ``done`` itself fails, the log gets the traceback and ``failed`` a sentence, so that the reader is left
        with a line.
        """
        if self.cancelled or self._outcome is None:
            return
        good, value = self._outcome
        if not good:
            self._failed(value)
            return
        try:
            self._done(value)
        except Exception as error:  # whatever the scene or a view refuses
            logging.exception("CT Findings: an answer could not be shown")
            reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            self._failed(RuntimeError(f"The answer could not be shown ({reason}); the log says more."))

    def _report(self, stage: str, done: float | None) -> None:
        self._cancellation.check()
        self._stage = (stage, done)

    def _run(self) -> None:
        try:
            self._outcome = (True, self._work(self._cancellation, self._report))
        except Cancelled:
            return
        except Exception as error:  # handed to the interface's thread, which shows it
            self._outcome = (False, error)
