"""3D Slicer module CT Findings: what the model sees in a chest CT, how sure it is, and where. No diagnosis.

The panel is ``Resources/UI/CTFindings.ui``. ``ctfindings_client`` holds everything that needs no Qt; the widget
below only wires it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import qt
import slicer
import slicer.util
import vtk
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

from ctfindings_client import anatomy, depth, export, heat, nodes, points, tables
from ctfindings_client.corrections import Corrections
from ctfindings_client.job import STAGES, Job
from ctfindings_client.record import NOTICE, Record, Row, evidence_line
from ctfindings_client.study import Studies
from ctfindings_client.transport import Cancellation, Progress, ServerError, clean_address
from CTFindingsLib import sample_data, selftest
from CTFindingsLib.consent import Consent
from CTFindingsLib.corrections_panel import POLL_MILLISECONDS, CorrectionsPanel
from CTFindingsLib.findings_table import FindingsTable
from CTFindingsLib.i18n import _, translate

DEFAULT_ADDRESS = "http://127.0.0.1:8000"
HELP_ADDRESS = "https://github.com/Project-MONAI/MONAILabel"
ADDRESS_SETTING = "CTFindings/serverAddress"
FAREWELL_SECONDS = 2.0
"""How long closing the module waits for the server to hear that uploaded scans are no longer needed."""


class CTFindings(ScriptedLoadableModule):
    """What Slicer's module list shows."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("CT Findings")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Quantification")]
        self.parent.dependencies = []
        self.parent.contributors = ["CT Findings developers"]
        self.parent.helpText = _(
            "Scores 18 findings of a chest CT with a vision-language model, shows where each is seen, and answers free "
            'text. Needs a <a href="{server}">MONAI Label</a> server with the CT Findings app. <b>{notice}</b>'
        ).format(server=HELP_ADDRESS, notice=NOTICE)
        self.parent.acknowledgementText = _("Built on MONAI, MONAI Label and 3D Slicer, with the findings of CT-RATE.")
        slicer.app.connect("startupCompleted()", sample_data.register)


class CTFindingsLogic(ScriptedLoadableModuleLogic, Studies):
    """Everything the module does, without Qt; see ``Studies``."""

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        Studies.__init__(self)
        self.address = DEFAULT_ADDRESS


class CTFindingsWidget(ScriptedLoadableModuleWidget, slicer.util.VTKObservationMixin):
    """The panel. One question at a time runs beside it; a newer one takes the place of an older one."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        slicer.util.VTKObservationMixin.__init__(self)
        self.logic: CTFindingsLogic
        self.record: Record | None = None
        self.job: Job | None = None
        self.job_started = 0.0
        self.line_before = ""
        self.consent = Consent()

    def setup(self) -> None:
        """Builds the panel; Slicer calls it when the module is opened first."""
        ScriptedLoadableModuleWidget.setup(self)
        panel = slicer.util.loadUI(self.resourcePath("UI/CTFindings.ui"))
        self.layout.addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        self.logic = CTFindingsLogic()
        self.corrections = CorrectionsPanel(self)
        self.table = FindingsTable(self.ui.findingsTable, self.onFindingChosen, lambda: self.corrections.choose(""))
        self.timer = qt.QTimer()
        self.timer.setInterval(POLL_MILLISECONDS)
        self.timer.connect("timeout()", self.onTimer)

        self.ui.serverLineEdit.text = slicer.util.settingsValue(ADDRESS_SETTING, DEFAULT_ADDRESS)
        self.ui.connectButton.connect("clicked(bool)", self.onConnect)
        self.ui.volumeSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.onVolumeChanged)
        self.ui.findButton.connect("clicked(bool)", self.onFind)
        self.ui.cancelButton.connect("clicked(bool)", self.onCancel)
        self.ui.queryLineEdit.connect("returnPressed()", self.onAsk)
        self.ui.askButton.connect("clicked(bool)", self.onAsk)
        self.ui.chartButton.connect("clicked(bool)", self.onShowChart)
        self.ui.opacitySlider.connect("valueChanged(double)", self.onOpacity)
        self.ui.floorSlider.connect("valueChanged(double)", self.onFloor)
        self.ui.anatomyCheckBox.connect("toggled(bool)", self.onVisibility)
        self.ui.pointsCheckBox.connect("toggled(bool)", self.onVisibility)
        self.ui.boxCheckBox.connect("toggled(bool)", self.onVisibility)
        self.ui.exportButton.connect("clicked(bool)", self.onExport)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeRemovedEvent, self.onNodeRemoved)
        self.onVolumeChanged(self.volume)

    def cleanup(self) -> None:
        """Ends what runs and has the server delete uploads; Slicer calls it when it closes or reloads the module."""
        self.onCancel()
        self.removeObservers()
        self.logic.farewell(FAREWELL_SECONDS)

    @property
    def volume(self) -> Any:
        """The chosen scan, or None."""
        return self.ui.volumeSelector.currentNode()

    def onConnect(self, _checked: bool = False) -> None:
        """Tests the address, signs in where a user is named, and compares versions."""
        self.takeAddress()
        self.ui.serverStatusLabel.text = _("Connecting ...")
        work = self.logic.ask_connection(self.ui.userLineEdit.text.strip(), self.ui.passwordLineEdit.text)

        def done(answer: Any) -> None:
            self.logic.token, server = answer
            self.ui.serverStatusLabel.text = _("Connected: {server}").format(server=server)

        def failed(error: Exception) -> None:
            self.ui.serverStatusLabel.text = str(error)

        self.start(work, done, failed)

    def onFind(self, _checked: bool = False) -> None:
        """Sends the scan and shows what the model finds in it."""
        volume = self.volume
        self.takeAddress()
        if volume is None or not self.maySend():
            return

        def done(answer: Any) -> None:
            unsaved = self.corrections.unsaved()
            self.showRecord(self.logic.show_findings(volume, answer), answer.draft)
            self.corrections.show(answer.corrections, unsaved)
            self.onVisibility()
            if self.table.rows and self.table.rows[0].present:
                self.table.select(0)

        self.ask(volume, lambda: self.logic.ask_findings(volume), done)

    def onFindingChosen(self, row: Row) -> None:
        """Moves the views to a finding at once, then asks the server for its heat map."""
        volume = self.volume
        self.corrections.choose(row.name)
        self.logic.go_to(volume, row)
        self.onVisibility()
        if row.peak_mm is None:
            self.drop()
            self.ui.statusLabel.text = evidence_line(row.name, row.probability, None, meaning=row.obstacle)
        elif self.maySend():
            self.ask(
                volume,
                lambda: self.logic.ask_evidence(volume, finding=row.name),
                lambda answer: self.showEvidence(volume, answer),
            )

    def onAsk(self, _checked: bool = False) -> None:
        """Takes the views to what answers a free text; its depth profile is then at hand."""
        volume, query = self.volume, " ".join(self.ui.queryLineEdit.text.split())
        self.takeAddress()
        if volume is None or not query or not self.maySend():
            return

        def done(answer: Any) -> None:
            self.ui.findingsTable.clearSelection()
            self.showEvidence(volume, answer)

        self.ask(volume, lambda: self.logic.ask_evidence(volume, query=query), done)

    def onCancel(self, _checked: bool = False) -> None:
        """Ends what runs; what it would have shown is dropped."""
        if self.corrections.cancel() or self.job is not None:
            self.drop()
            self.ui.statusLabel.text = _("Cancelled.")

    def onTimer(self) -> None:
        """Shows progress, and the outcome once there is one."""
        job = self.job
        if job is None:
            return
        if job.over:
            self.rest()  # first: showing the outcome may start the next job
            job.deliver()
            return
        stage, part = job.stage
        seconds = time.monotonic() - self.job_started
        self.ui.progressBar.setRange(0, 0 if part is None else 100)
        self.ui.progressBar.setValue(0 if part is None else round(100 * part))
        self.ui.statusLabel.text = _("{stage} ({seconds:.0f} s) ...").format(stage=STAGES[stage], seconds=seconds)

    def onVolumeChanged(self, volume: Any) -> None:
        """Shows a scan with what the scene already holds about it, and nothing of another one."""
        self.drop()
        self.logic.forget(keep=volume)
        self.logic.show_only(volume)
        try:
            record = None if volume is None else tables.stored_record(volume)
        except ValueError as error:
            record, text = None, str(error)
        else:
            text = _("Choose a scan.") if volume is None else _("Press Find.")
        self.showRecord(record)
        self.onVisibility()
        if record is None:
            self.ui.statusLabel.text = text
        self.enable()

    def onShowChart(self, _checked: bool = False) -> None:
        """Brings the depth profile to the screen."""
        self.logic.show_chart(self.volume)

    def onOpacity(self, value: float) -> None:
        """Opacity of the heat map."""
        self.logic.set_opacity(value)

    def onFloor(self, value: float) -> None:
        """From which value heat is drawn."""
        self.logic.set_floor(self.volume, value)

    def onVisibility(self, _checked: bool = False) -> None:
        """Shows and hides anatomy, points and box."""
        if self.volume is None:
            return
        boxes = {
            anatomy.ROLE: self.ui.anatomyCheckBox,
            points.ROLE: self.ui.pointsCheckBox,
            heat.BOX_ROLE: self.ui.boxCheckBox,
        }
        for role, box in boxes.items():
            node = nodes.find(self.volume, role)
            if node is not None and node.GetDisplayNode() is not None:
                node.GetDisplayNode().SetVisibility(box.checked)

    def onExport(self, _checked: bool = False) -> None:
        """Writes record, table and scene into a new folder."""
        if self.record is None:
            return
        try:
            with slicer.util.WaitCursor():
                folder = export.export(self.ui.exportPathLineEdit.currentPath, self.record)
                line = _("Exported to {folder}").format(folder=folder)
        except export.ExportError as error:
            line = str(error)
        self.ui.statusLabel.text = line

    def onSceneClose(self, _caller: Any = None, _event: Any = None) -> None:
        """Drops what belongs to a scene that is being closed, also on the server."""
        self.drop()
        self.logic.forget()
        self.showRecord(None)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeRemoved(self, _caller: Any, _event: Any, node: Any) -> None:
        """Takes away what belongs to a scan that was removed from the scene."""
        if (
            node.IsA("vtkMRMLScalarVolumeNode")
            and not nodes.is_one(node)
            and not (slicer.mrmlScene.IsClosing() or slicer.mrmlScene.IsImporting())
        ):
            nodes.remove_orphans()
            self.enable()

    def takeAddress(self) -> None:
        """Reads the address field; another server means another token, also when one is still on its way from the
        server before.
        """
        address = self.ui.serverLineEdit.text.strip() or DEFAULT_ADDRESS
        with contextlib.suppress(ServerError):  # what is not an address is refused when it is used
            address = clean_address(address)
        if address != self.logic.address:
            self.drop()
            self.logic.forget()
            self.logic.address, self.logic.token = address, ""
            self.ui.serverStatusLabel.text = _("Not connected")
        slicer.app.settings().setValue(ADDRESS_SETTING, address)

    def maySend(self) -> bool:
        """Asks once for each server outside this computer whether the scan may be sent there."""
        try:
            return self.consent.given(self.logic.address)
        except ServerError as error:
            self.ui.statusLabel.text = str(error)
            return False

    def ask(self, volume: Any, prepare: Callable[[], Any], show: Callable[[Any], None]) -> None:
        """Runs a question about a scan; the answer is dropped when the scan has gone meanwhile."""
        try:
            work = prepare()
        except ValueError as error:
            self.ui.statusLabel.text = str(error)
            return

        def done(answer: Any) -> None:
            if slicer.mrmlScene.IsNodePresent(volume):
                self.ui.statusLabel.text = "" if self.record is None else self.record.summary
                show(answer)

        def failed(error: Exception) -> None:
            self.ui.statusLabel.text = str(error)

        self.start(work, done, failed)

    def start(
        self,
        work: Callable[[Cancellation, Progress], Any],
        done: Callable[[Any], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Runs work beside the panel, in place of what runs there."""
        self.drop()
        self.job = Job(work, done, failed)
        self.job_started, self.line_before = time.monotonic(), self.ui.statusLabel.text
        self.timer.start()
        self.enable()

    def drop(self) -> None:
        """Ends what runs without a word."""
        if self.job is not None:
            self.job.cancel()
            if self.ui.serverStatusLabel.text == _("Connecting ..."):
                self.ui.serverStatusLabel.text = _("Not connected.")
        self.rest()

    def rest(self) -> None:
        """The panel without a job; its line says again what it said before."""
        if self.job is not None:
            self.ui.statusLabel.text = self.line_before
        self.job = None
        self.timer.stop()
        self.enable()

    def showRecord(self, record: Record | None, draft: str = "") -> None:
        """Fills the table; None empties it. The draft is that of the server, empty if it sent none."""
        self.record = record
        self.table.fill(() if record is None else record.rows)
        self.corrections.finding, self.corrections.draft = "", draft
        # What the server keeps of a scan that the scene remembers is not known before it is asked.
        problem = "" if record is None else _("Press Find to see and change what the server keeps of this scan.")
        self.corrections.show(Corrections(problem=problem))
        self.ui.bannerLabel.text = "" if record is None else record.notice
        self.ui.bannerLabel.visible = bool(self.ui.bannerLabel.text)
        self.ui.warningsLabel.text = "" if record is None else "\n".join(record.warnings)
        if record is not None:
            self.ui.statusLabel.text = record.summary
        self.enable()

    def showEvidence(self, volume: Any, answer: Any) -> None:
        """Shows heat map, box and views of an answer, and says in a line what it is."""
        evidence = self.logic.show_evidence(volume, answer)
        self.onVisibility()
        z_mm = None if evidence.peak_mm is None else evidence.peak_mm[2]
        place = (z_mm, evidence.image, evidence.images)
        line = evidence_line(evidence.text, evidence.probability, *place, evidence.meaning, evidence.where)
        self.ui.statusLabel.text = f"{line} {NOTICE}"
        self.enable()

    def enable(self) -> None:
        """Which buttons can be pressed."""
        busy, chosen = self.job is not None or self.corrections.saving is not None, self.volume is not None
        self.ui.progressBar.visible = busy
        self.ui.cancelButton.enabled = busy
        self.ui.connectButton.enabled = not busy
        self.ui.findButton.enabled = chosen and not busy
        self.ui.askButton.enabled = chosen and not busy
        self.ui.exportButton.enabled = self.record is not None and not busy
        self.corrections.enable()
        self.ui.chartButton.enabled = chosen and not busy and nodes.find(self.volume, depth.CHART_ROLE) is not None


class CTFindingsTest(ScriptedLoadableModuleTest):
    """Self-test of Slicer's developer mode: no server, a made-up scan and answer."""

    def setUp(self) -> None:
        """Starts from an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        """Runs all tests of the class."""
        self.setUp()
        self.test_answer_reaches_the_scene()

    def test_answer_reaches_the_scene(self) -> None:
        """An answer becomes segments, points, table and heat map, and the views stand at its evidence."""
        selftest.answer_reaches_the_scene(self, CTFindingsLogic())
