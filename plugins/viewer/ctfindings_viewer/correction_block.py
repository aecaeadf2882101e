"""The part of the page where a reader corrects the answers: verdict and place of the selected finding, report of the
scan, and how often readers agree with the model.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from ctfindings_client import points, slices
from ctfindings_client.corrections import AGREEMENT_COLUMNS, Corrections, finding_change
from ctfindings_client.job import Job
from trame.widgets import html
from trame.widgets import vuetify3 as v
from trame_server.utils.asynchronous import create_task

from .fields import COMPACT

POLL_SECONDS = 0.1

_OFF = "busy || !!correction_problem"
_NO_FINDING = f"{_OFF} || !selected"


class CorrectionBlock:
    """What its buttons do, and what it shows.

    Args:
        viewer: with the scan, the questions to the server, and the table.
    """

    def __init__(self, viewer: Any) -> None:
        self.viewer, self.state = viewer, viewer.state
        self.corrections = Corrections()
        self.saving: Job | None = None
        self.state.update(
            {
                "reader": "",
                "report": "",
                "report_saved": "",
                "verdict": "",
                "verdict_place": False,
                "correction_problem": "",
                "agreement": None,
                "report_open": False,
            }
        )

    def build(self) -> None:
        """Adds the elements to the page that is being built."""
        with html.Div(classes="ct-block ct-corrections", v_if="has_scan", id="corrections"):
            with html.Div(classes="ct-line"):
                for name, said, hint in (
                    ("Confirm", "true", "The scan has the selected finding"),
                    ("Reject", "false", "The scan does not have the selected finding"),
                    ("Take back", "null", "Remove the correction of the selected finding"),
                ):
                    v.VBtn(
                        name,
                        title=hint,
                        click=(self.on_verdict, f"[{said}, reader]"),
                        disabled=(_NO_FINDING,),
                        variant="tonal",
                        size="small",
                        id=name.lower().replace(" ", "-"),
                    )
                v.VBtn(
                    "Set place here",
                    title="The selected finding is where the three slice views meet",
                    click=(self.on_place, "[reader]"),
                    disabled=(_NO_FINDING,),
                    variant="tonal",
                    size="small",
                    id="set-place",
                )
                v.VBtn(
                    "Report",
                    title="Report of the scan, name of the reader, agreement",
                    click="report_open = !report_open",
                    variant="tonal",
                    size="small",
                    id="open-report",
                )
            with html.Div(classes="ct-small"):
                html.Span("{{ correction_problem || verdict }}", id="verdict")
                v.VBtn(
                    "Go there", click=self.on_go, v_if="verdict_place", variant="text", size="x-small", id="go-there"
                )
            with html.Div(v_if="report_open"):
                self._build_report()

    def _build_report(self) -> None:
        with html.Div(classes="ct-line"):
            v.VTextarea(
                v_model="report",
                label="Report of this scan",
                rows=2,
                no_resize=True,
                disabled=("!!correction_problem",),
                id="report",
                **COMPACT,
            )
            v.VBtn(
                "Save",
                title="Save the report on the server",
                click=(self.on_report, "[report, reader]"),
                disabled=(f"{_OFF} || report === report_saved",),
                variant="tonal",
                id="save-report",
            )
        with html.Div(classes="ct-line"):
            v.VTextField(
                v_model="reader", label="Name of the reader", maxlength=64, __properties=["maxlength"], **COMPACT
            )
            v.VBtn(
                "Agreement",
                title="How often readers agree with the model, over all scans",
                click=self.on_agreement,
                disabled=(_OFF,),
                variant="tonal",
                id="show-agreement",
            )
        self._build_agreement()

    def unsaved(self, saved: str | None = None) -> str | None:
        """The report as it was typed; None if it is the saved one, by default that of the server."""
        text = str(self.state.report or "")
        return None if text == (self.corrections.report if saved is None else saved) else text

    def show(self, corrections: Corrections, unsaved: str | None = None) -> None:
        """Shows what the server keeps of the scan, and marks the places that readers set in the views. A report that
        was typed and not saved stays.
        """
        self.corrections = corrections
        if (volume := self.viewer.scene.volume) is not None:
            points.show_corrected(volume, corrections)
            self.viewer.scene.draw()
        self.state.correction_problem = corrections.problem
        self.state.report_saved = corrections.report
        self.state.report = corrections.report if unsaved is None else unsaved
        self.state.report_open = bool(self.state.report) or self.state.report_open
        self.show_finding()
        self.viewer.show_rows()

    def show_finding(self) -> None:
        """What was said of the selected finding."""
        name = self.state.selected
        self.state.verdict = self.corrections.line(name)
        self.state.verdict_place = self.corrections.place(name) is not None

    def on_verdict(self, present: bool | None, reader: str) -> None:
        """Keeps that the scan has, or has not, the selected finding; None forgets it. A place that was set stays."""
        self._send(finding_change(self.state.selected, present, reader=reader))

    def on_place(self, reader: str) -> None:
        """Keeps that the selected finding is where the slice views meet."""
        place = slices.here()
        if place is None:
            self.state.status = "The slice views do not meet at one point; show three directions."
            return
        self._send(finding_change(self.state.selected, True, place, reader))

    def on_go(self) -> None:
        """Moves the views to the place that a reader set."""
        place = self.corrections.place(self.state.selected)
        if place is not None:
            slices.jump(place)

    def on_report(self, text: str, reader: str) -> None:
        """Keeps the report of the scan; an empty one is forgotten."""
        self._send({"reader": reader, "report": text})

    def on_agreement(self) -> None:
        """Shows how often readers agree with the model, or hides it."""
        if self.state.agreement is not None:
            self.state.agreement = None
            return

        def done(rows: list[list[str]]) -> None:
            self.state.agreement = rows

        self.viewer.ask(self.viewer.studies.ask_agreement, done)

    def cancel(self) -> bool:
        """Ends a correction that is being sent, which the server may keep all the same; whether there was one."""
        job, self.saving = self.saving, None
        if job is not None:
            job.cancel()
        return job is not None

    def _send(self, change: Mapping[str, Any]) -> None:
        """Sends a correction beside the questions, so that none of them takes its place."""
        volume = self.viewer.scene.volume
        if not self.viewer.may_send():
            return
        try:
            work = self.viewer.studies.ask_correction(volume, change)
        except ValueError as error:
            self.viewer.fail(error)
            return

        def done(corrections: Corrections) -> None:
            if volume is not self.viewer.scene.volume:
                return  # the scan was closed meanwhile
            self.show(corrections, self.unsaved(change.get("report")))
            self.state.agreement = None
            self.viewer.show_list(corrected=bool(corrections.findings or corrections.report))
            self.state.status = "Saved on the server."

        def failed(error: Exception) -> None:
            if self.viewer.job is None:  # else the status line is that of a question
                self.viewer.fail(error)
            self.state.verdict = f"Not saved. {error}"

        self.saving = Job(work, done, failed)
        self.state.busy, self.state.failed, self.state.status = True, False, "Saving on the server ..."
        create_task(self._follow(self.saving))

    async def _follow(self, job: Job) -> None:
        """Follows a correction to its end."""
        while not job.over:
            await asyncio.sleep(POLL_SECONDS)
        if not job.cancelled:
            with self.state:
                self.saving = None
                self.state.busy = self.viewer.job is not None
                job.deliver()

    def _build_agreement(self) -> None:
        with html.Table(classes="ct-table", v_if="agreement && agreement.length", id="agreement"):
            with html.Thead(), html.Tr():
                for title in AGREEMENT_COLUMNS:
                    html.Th(title, scope="col")
            with html.Tbody(), html.Tr(v_for="row in agreement", key="row[0]"):
                html.Td("{{ cell }}", v_for="(cell, index) in row", key="index")
        html.Div("No finding has been corrected yet.", v_if="agreement && !agreement.length", classes="ct-small")
