"""What the page's buttons do. One question at a time runs in a thread; a newer one takes the place of an older one, but
never of a correction, which runs beside it.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ctfindings_client.answers import Evidence, ListedScan, Scan
from ctfindings_client.client import Client
from ctfindings_client.corrections import Corrections
from ctfindings_client.formats import scan_suffix
from ctfindings_client.job import Job, Work
from ctfindings_client.record import Record, evidence_line, next_order
from ctfindings_client.study import Studies
from ctfindings_client.transport import Cancellation, Progress, ServerError, clean_address
from trame_server.utils.asynchronous import create_task

from . import page, texts, uploads
from .correction_block import POLL_SECONDS, CorrectionBlock
from .display_bar import DisplayBar
from .key_images import KeyImages
from .places import Places
from .question_block import QuestionBlock
from .readout import Readout
from .scene import Scene, without_warnings

ALIVE_SECONDS = 5.0
"""How often the page looks whether the server is still there."""


class Viewer:
    """State of the page, the scene, and the questions to the server.

    Args:
        server: the trame server.
        address: of the CT Findings server.
        key: of that server; sent to no other.
    """

    def __init__(self, server: Any, address: str, key: str = "") -> None:
        self.server, self.state = server, server.state
        self.studies = Studies()
        self.studies.address = address
        self.keys = {address: key}
        self.listed: list[ListedScan] = []
        self.record: Record | None = None
        self.job: Any = None  # a Job while one runs
        self.job_started = 0.0
        self.order: tuple[int | None, bool] = (None, False)
        page.initial_state(self.state, address)
        self.correction_block = CorrectionBlock(self)
        self.display_bar = DisplayBar(self)
        self.readout = Readout(self)
        self.key_images = KeyImages(self)
        self.question_block = QuestionBlock(self)
        with without_warnings():
            self.scene = Scene(
                server,
                partial(page.decorate_view, self),
                self.on_moved,
                self.readout.show_mouse,
                self.display_bar.show_window,
            )
            page.build(server, self.scene.layout, self)
        uploads.serve(server, self.on_upload)
        self.key_images.serve()
        self.display_bar.watch()
        self.state.change("scan_id")(lambda **_: self.on_scan_chosen())

    def start(self, scan: Path | None) -> None:
        """Connects as soon as the page is served, and opens a scan where one is given."""

        async def begin() -> None:
            await self.server.ready
            self.on_connect(
                self.state.address, None if scan is None else lambda: self.on_upload(scan.read_bytes(), scan.name)
            )

        create_task(begin())
        create_task(self._follow_server())

    # --- server and scan

    async def _follow_server(self) -> None:
        """Keeps the line about the server true: says when it is gone, and connects again when it is back."""
        lost = ""
        while True:
            await asyncio.sleep(ALIVE_SECONDS)
            address = self.studies.address
            if self.job is not None or not (self.state.connected or address == lost):
                continue
            try:
                await asyncio.to_thread(Client(address, self.studies.token).check_alive)
            except ServerError as error:
                if self.state.connected and self.job is None and address == self.studies.address:
                    lost = address
                    with self.state:
                        self.refuse_server(error)
            else:
                if address == lost and self.job is None and address == self.studies.address:
                    lost = ""
                    with self.state:
                        self.on_connect(address)

    def on_connect(self, address: str, then: Callable[[], None] | None = None) -> None:
        """Tests an address, compares versions, and lists the server's scans."""
        self.state.address = address
        try:
            address = clean_address(address)
        except ServerError as error:
            self.refuse_server(error)
            return
        if address != self.studies.address:
            self.state.consent, self.state.scan_id = False, None
            self.close_scan("")
        self.studies.address, self.state.remote_line = address, texts.remote_line(address)
        self.studies.token = self.keys.get(address, "")
        self.state.server_error, self.state.server_line = "", "Connecting ..."

        def work(cancellation: Cancellation, progress: Progress) -> tuple[str, list[ListedScan]]:
            client = Client(self.studies.address, self.studies.token, cancellation, progress)
            return str(client.connect()), client.scans()

        def done(answer: tuple[str, list[ListedScan]]) -> None:
            self.state.server_line = f"Connected: {answer[0]}"
            self.listed = answer[1]
            self.show_list()
            self.state.connected, self.state.server_open = True, False
            if self.record is None:
                self.state.status = "" if self.scene.volume is not None else "Choose a scan."
            if then is not None:
                then()

        self.run(work, done, self.refuse_server)

    def show_list(self, **changes: Any) -> None:
        """The list of scans; ``changes`` are what is now known of the one that is open."""
        image = self.state.scan_id
        self.listed = [replace(scan, **changes) if scan.id == image else scan for scan in self.listed]
        self.state.scans = [
            {"title": scan.title, "value": scan.id, "props": {"subtitle": scan.line}} for scan in self.listed
        ]

    def refuse_server(self, error: Exception) -> None:
        """Says why there is no connection."""
        self.state.connected, self.state.scans, self.listed, self.state.server_open = False, [], [], True
        self.state.server_line, self.state.server_error = "", str(error)

    def on_scan_chosen(self) -> None:
        """Opens a scan of the server."""
        image = self.state.scan_id
        if not image:
            return

        def work(cancellation: Cancellation, progress: Progress) -> tuple[Scan, Corrections]:
            client = Client(self.studies.address, self.studies.token, cancellation, progress)
            return client.scan(image=image), client.corrections(image=image)

        self.open(work, image, lambda volume: self.studies.server_has(volume, image=image))

    def on_upload(self, content: bytes, name: str) -> None:
        """Opens a file: the server reads it, and keeps it for the questions that follow. Its name stays here."""
        if not self.may_send():
            return
        self.state.scan_id = None
        sent_as = "scan" + scan_suffix(name)
        session = ""

        def work(cancellation: Cancellation, progress: Progress) -> tuple[Scan, Corrections]:
            nonlocal session
            client = Client(self.studies.address, self.studies.token, cancellation, progress)
            session = client.upload_file(content, sent_as)
            self.studies.uploaded(session)
            return client.scan(session), client.corrections(session)

        self.open(work, name, lambda volume: self.studies.server_has(volume, session=session))

    def open(self, work: Work, name: str, note: Callable[[Any], None]) -> None:
        """Gets the voxels of a scan, with what readers said of it, and shows them; an earlier scan is first removed,
        also from the server.
        """
        self.close_scan(name)

        def done(answer: tuple[Scan, Corrections]) -> None:
            scan, corrections = answer
            note(self.scene.open(scan, "scan"))
            self.correction_block.show(corrections)
            self.state.has_scan = True
            self.state.status = "Press Find."
            self.readout.show_window()
            self.on_moved()

        def failed(error: Exception) -> None:
            self.studies.forget()
            self.state.scan_name = ""
            self.state.scan_id = None
            self.fail(error)

        self.run(work, done, failed)

    def close_scan(self, name: str) -> None:
        """Removes the scan that is open, also from the server; ``name`` is that of the next one, empty for none."""
        self.studies.forget()
        self.readout.places = None
        self.show_record(None)
        self.correction_block.show(Corrections())
        self.show_evidence_state(None)
        self.display_bar.end_distance()
        self.scene.clear()
        self.state.scan_name, self.state.has_scan = name, False

    # --- questions

    def on_find(self) -> None:
        """Shows what the model finds in the scan."""
        volume = self.scene.volume
        if volume is None:
            return

        def done(answer: Any) -> None:
            unsaved = self.correction_block.unsaved()
            self.display_bar.end_distance()
            self.readout.places = Places(answer.labels, answer.affine, answer.label_names)
            self.show_record(self.studies.show_findings(volume, answer))
            self.state.draft = answer.draft
            self.correction_block.show(answer.corrections, unsaved)
            self.show_evidence_state(None)
            present = sum(row.present for row in answer.record.rows)
            self.show_list(present=present, outside_domain=answer.record.outside_domain)
            self.scene.show_surfaces(answer)
            self.display_bar.on_visibility()
            first = texts.table_rows(self.record.rows)[0] if self.record is not None and self.record.rows else None
            if first is not None and first["present"]:
                self.on_finding_chosen(first["name"])

        self.ask(lambda: self.studies.ask_findings(volume), done)

    def on_finding_chosen(self, name: str) -> None:
        """Moves the views to a finding at once, then asks the server for its heat map."""
        volume = self.scene.volume
        row = next((row for row in self.record.rows if row.name == name), None) if self.record is not None else None
        if row is None or volume is None:
            return
        self.state.selected = name
        self.correction_block.show_finding()
        self.display_bar.follow(row)
        self.studies.go_to(volume, row)
        self.show_evidence_state(None)
        self.display_bar.on_visibility()
        self.on_moved()
        if row.peak_mm is None:
            self.drop()
            self.state.status = evidence_line(name, row.probability, None, meaning=row.obstacle)
            return
        self.ask(
            lambda: self.studies.ask_evidence(volume, finding=name), lambda answer: self.show_evidence(volume, answer)
        )

    def step(self, rows: int) -> None:
        """Goes to the finding so many rows below the selected one; from none, to the first or last."""
        names = [row["name"] for row in self.state.rows]
        if names:
            first = 0 if rows > 0 else -1
            at = names.index(self.state.selected) + rows if self.state.selected in names else first
            self.on_finding_chosen(names[at % len(names)])

    def ask(self, prepare: Callable[[], Work], done: Callable[[Any], None]) -> None:
        """Runs a question about the scan."""
        if not self.may_send():
            return
        try:
            work = prepare()
        except ValueError as error:
            self.fail(error)
            return
        self.run(work, done, self.fail)

    def may_send(self) -> bool:
        """Whether scans may go to the server: it is on this computer, or the user agreed."""
        if self.state.remote_line and not self.state.consent:
            self.fail(ValueError("Tick the consent box before scans are sent to that server."))
            return False
        return True

    # --- what runs beside the page

    def run(self, work: Work, done: Callable[[Any], None], failed: Callable[[Exception], None]) -> None:
        """Runs work in a thread, in place of what runs there, and shows how far it is."""
        self.drop()
        self.state.failed = False
        job = Job(work, done, failed)
        self.job, self.job_started = job, time.monotonic()
        self.state.busy, self.state.part = True, None
        create_task(self._watch(job))

    async def _watch(self, job: Job) -> None:
        """Follows a job to its end, or until another one takes its place."""
        while self.job is job and not job.over:
            with self.state:
                stage, part = job.stage
                self.state.part = None if part is None else round(100 * part)
                self.state.status = texts.progress_line(stage, time.monotonic() - self.job_started)
            await asyncio.sleep(POLL_SECONDS)
        if self.job is not job:
            return
        with self.state:
            self.rest()
            self.state.status = "" if self.record is None else self.record.summary
            job.deliver()  # may start the next job

    def on_cancel(self) -> None:
        """Ends what runs; what it would have shown is dropped."""
        if self.correction_block.cancel() or self.job is not None:
            self.drop()
            self.state.status = "Cancelled."
            if self.scene.volume is None:
                self.studies.forget()
                self.state.scan_name, self.state.scan_id = "", None
            if not self.state.connected:
                self.state.server_line = ""

    def drop(self) -> None:
        """Ends what runs without a word."""
        if self.job is not None:
            self.job.cancel()
        self.rest()

    def rest(self) -> None:
        """The page without a job."""
        self.job = None
        self.state.busy, self.state.part = self.correction_block.saving is not None, None

    def fail(self, error: Exception) -> None:
        """Shows an error in the status line."""
        self.state.failed, self.state.status = True, str(error)

    # --- what is shown

    def show_record(self, record: Record | None) -> None:
        """Fills the table, present findings first; None empties it."""
        self.record, self.order = record, (None, False)
        self.state.selected = self.state.draft = ""
        self.state.notice = "" if record is None else record.notice
        self.state.warnings = [] if record is None else list(record.warnings)
        self.show_rows()
        self.key_images.show()
        if record is not None:
            self.state.status = record.summary

    def show_rows(self) -> None:
        """The rows in their order."""
        column, descending = self.order
        self.state.sort_column, self.state.sort_descending = -1 if column is None else column, descending
        mark = self.correction_block.corrections.mark
        self.state.rows = [] if self.record is None else texts.table_rows(self.record.rows, column, descending, mark)

    def on_sort(self, column: int) -> None:
        """Sorts the table by a column; a second click turns the order around."""
        self.order = next_order(column, *self.order)
        self.show_rows()

    def show_evidence(self, volume: Any, answer: Any) -> None:
        """Shows heat map, box, depth profile and views of an answer."""
        evidence = self.studies.show_evidence(volume, answer)
        self.show_evidence_state(evidence)
        self.display_bar.on_visibility()
        self.on_moved()

    def show_evidence_state(self, evidence: Evidence | None) -> None:
        """What the page says of an answer; None empties it."""
        self.display_bar.show_heat(evidence)
        self.question_block.show(evidence)
        if evidence is not None:
            z_mm = None if evidence.peak_mm is None else evidence.peak_mm[2]
            self.state.status = evidence_line(
                evidence.text, evidence.probability, z_mm, evidence.image, evidence.images, where=evidence.where
            )

    def on_moved(self) -> None:
        """Names where the views stand."""
        if not hasattr(self, "scene") or self.scene.volume is None:
            return
        self.readout.show_standing()
        self.readout.show_mouse()
        self.question_block.show_curve()
