"""The part of the panel where a reader corrects the answers: verdict and place of the selected finding, report of the
scan, and how often readers agree with the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import qt

from ctfindings_client import slices
from ctfindings_client.corrections import AGREEMENT_COLUMNS, Corrections, finding_change
from ctfindings_client.job import Job
from CTFindingsLib.i18n import _

POLL_MILLISECONDS = 100


class CorrectionsPanel:
    """Wires the section *Corrections* of the panel.

    Args:
        widget: of the module, with its user interface, its volume and its questions to the server.
    """

    def __init__(self, widget: Any) -> None:
        self.widget, self.ui = widget, widget.ui
        self.corrections = Corrections()
        self.finding = self.draft = ""
        self.saving: Job | None = None
        self.timer = qt.QTimer()
        self.timer.setInterval(POLL_MILLISECONDS)
        self.timer.connect("timeout()", self.onTimer)
        self.ui.confirmButton.connect("clicked(bool)", self.onConfirm)
        self.ui.rejectButton.connect("clicked(bool)", self.onReject)
        self.ui.takeBackButton.connect("clicked(bool)", self.onTakeBack)
        self.ui.placeButton.connect("clicked(bool)", self.onPlace)
        self.ui.saveReportButton.connect("clicked(bool)", self.onReport)
        self.ui.copyDraftButton.connect("clicked(bool)", self.onCopyDraft)
        self.ui.agreementButton.connect("clicked(bool)", self.onAgreement)

    def show(self, corrections: Corrections, unsaved: str | None = None) -> None:
        """Shows what the server keeps of the scan, but a report that was typed and not saved stays."""
        self.corrections = corrections
        self.ui.reportTextEdit.plainText = corrections.report if unsaved is None else unsaved
        self.widget.table.mark(corrections.mark)
        self.choose(self.finding)

    def unsaved(self, saved: str | None = None) -> str | None:
        """The report as it was typed; None if it is the saved one, by default that of the server."""
        text = str(self.ui.reportTextEdit.plainText)
        return None if text == (self.corrections.report if saved is None else saved) else text

    def choose(self, finding: str) -> None:
        """The finding that the buttons speak of; empty for none."""
        self.finding = finding
        self.ui.verdictLabel.text = self.corrections.line(finding)
        self.enable()

    def enable(self) -> None:
        """Which buttons can be pressed."""
        busy = self.widget.job is not None or self.saving is not None
        ready = self.widget.record is not None and not busy and not self.corrections.problem
        self.ui.confirmButton.enabled = ready and bool(self.finding)
        self.ui.rejectButton.enabled = ready and bool(self.finding)
        self.ui.takeBackButton.enabled = ready and bool(self.finding)
        self.ui.placeButton.enabled = ready and bool(self.finding)
        self.ui.saveReportButton.enabled = ready
        self.ui.agreementButton.enabled = ready
        self.ui.copyDraftButton.enabled = bool(self.draft)

    def onConfirm(self, _checked: bool = False) -> None:
        """The scan has the selected finding; a place that was set stays."""
        self._send(finding_change(self.finding, True, reader=self._reader()))

    def onReject(self, _checked: bool = False) -> None:
        """The scan does not have the selected finding."""
        self._send(finding_change(self.finding, False, reader=self._reader()))

    def onTakeBack(self, _checked: bool = False) -> None:
        """Forgets what was said of the selected finding."""
        self._send(finding_change(self.finding, None))

    def onPlace(self, _checked: bool = False) -> None:
        """The selected finding is where the slice views meet."""
        place = slices.here()
        if place is None:
            self.ui.verdictLabel.text = _("The slice views do not meet at one point; show three directions.")
            return
        self._send(finding_change(self.finding, True, place, self._reader()))

    def onReport(self, _checked: bool = False) -> None:
        """Keeps the report of the scan; an empty one is forgotten."""
        self._send({"reader": self._reader(), "report": self.ui.reportTextEdit.plainText})

    def onCopyDraft(self, _checked: bool = False) -> None:
        """Puts the draft report of the server on the clipboard."""
        qt.QApplication.clipboard().setText(self.draft)
        self.ui.statusLabel.text = _("The draft report was copied. Research only: read and correct it.")

    def onAgreement(self, _checked: bool = False) -> None:
        """Shows how often readers agree with the model."""

        def done(rows: list[list[str]]) -> None:
            counts = [f"{row[0]}: {', '.join(map(_count, row[1:], AGREEMENT_COLUMNS[1:]))}" for row in rows]
            self.ui.agreementLabel.text = "\n".join(counts) or _("No finding has been corrected yet.")

        self.widget.ask(self.widget.volume, self.widget.logic.ask_agreement, done)

    def onTimer(self) -> None:
        """Shows what became of a correction once it is over."""
        job = self.saving
        if job is not None and job.over:
            self.saving = None
            self.timer.stop()
            self.widget.enable()
            job.deliver()

    def cancel(self) -> bool:
        """Ends a correction that is being sent, which the server may keep all the same; whether there was one."""
        job = self.saving
        if job is None:
            return False
        job.cancel()
        self.onTimer()
        return True

    def _reader(self) -> str:
        return str(self.ui.readerLineEdit.text).strip()

    def _send(self, change: Mapping[str, Any]) -> None:
        """Sends a correction beside the questions, so that none of them takes its place."""
        volume = self.widget.volume
        if not self.widget.maySend():
            return
        try:
            work = self.widget.logic.ask_correction(volume, change)
        except ValueError as error:
            self.ui.statusLabel.text = str(error)
            return

        def done(corrections: Corrections) -> None:
            if self.widget.volume is volume:
                self.show(corrections, self.unsaved(change.get("report")))
                self.ui.statusLabel.text = _("Saved on the server.")

        def failed(error: Exception) -> None:
            self.ui.statusLabel.text = str(error)
            # The line above is that of a question, if one runs.
            self.ui.verdictLabel.text = _("Not saved. {reason}").format(reason=error)

        self.saving = Job(work, done, failed)
        self.ui.statusLabel.text = _("Saving on the server ...")
        self.timer.start()
        self.widget.enable()


def _count(number: str, title: str) -> str:
    return f"{number} {title.lower()}"
