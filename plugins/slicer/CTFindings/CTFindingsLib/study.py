"""The scans of the scene and their answers: what is asked of the server, and what of it is put into the scene.

Every question is prepared in the interface's thread (``ask_*`` gives the work), runs in any thread, and is shown in the interface's
thread again (``show_*``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import slicer
import slicer.util

from CTFindingsLib import anatomy, depth, heat, nodes, points, slices, tables
from CTFindingsLib.answers import Evidence, Findings, Scan, ServerInfo
from CTFindingsLib.client import Client, with_session
from CTFindingsLib.record import Record, Row
from CTFindingsLib.transport import Cancellation, Progress


class Studies:
    """Scans of the scene, with the server's session of each.

    Attributes:
        address: of the server.
        token: of the user that is signed in; empty without one.
        opacity: of the heat map, 0..1.
        floor: part of the strongest value below which no heat is drawn, 0..1.
    """

    def __init__(self) -> None:
        self.address = ""
        self.token = ""
        self.opacity = heat.DEFAULT_OPACITY
        self.floor = heat.DEFAULT_FLOOR
        self._sessions: dict[tuple[Any, ...], str] = {}
        self._images: dict[tuple[Any, ...], str] = {}

    def server_has(self, volume: Any, *, session: str = "", image: str = "") -> None:
        """Notes that the server has a volume already: in a session, or under an id of its own. It is then not uploaded."""
        known, name = (self._images, image) if image else (self._sessions, session)
        known[self._key(volume)] = name

    def ask_connection(self, user: str = "", password: str = "") -> Callable[[Cancellation, Progress], tuple[str, ServerInfo]]:
        """Work that signs in, where a user is given, and says what the server is: (token, server)."""
        address, token = self.address, self.token

        def work(cancellation: Cancellation, progress: Progress) -> tuple[str, ServerInfo]:
            client = Client(address, token, cancellation, progress)
            new_token = client.sign_in(user, password) if user else token
            return new_token, client.connect()

        return work

    def ask_findings(self, volume: Any) -> Callable[[Cancellation, Progress], tuple[tuple[Any, ...], str, Findings]]:
        """Work that gets the findings of a volume: (key of the scan, session, findings).

        Raises:
            ValueError: when the volume cannot be sent.
        """
        address, token, scan, key = self.address, self.token, read_scan(volume), self._key(volume)
        session, image = self._sessions.get(key, ""), self._images.get(key, "")

        def work(cancellation: Cancellation, progress: Progress) -> tuple[tuple[Any, ...], str, Findings]:
            client = Client(address, token, cancellation, progress)
            client.connect()
            if image:
                return key, session, client.findings(image=image)
            used, findings = with_session(client, session, lambda: scan, client.findings)
            return key, used, findings

        return work

    def ask_evidence(
        self, volume: Any, *, finding: str = "", query: str = ""
    ) -> Callable[[Cancellation, Progress], tuple[tuple[Any, ...], str, Evidence]]:
        """Work that gets the evidence of a finding, or of a free text, in a volume: (key of the scan, session, evidence).

        Raises:
            ValueError: when the volume cannot be sent.
        """
        address, token, scan, key = self.address, self.token, read_scan(volume), self._key(volume)
        session, image = self._sessions.get(key, ""), self._images.get(key, "")

        def work(cancellation: Cancellation, progress: Progress) -> tuple[tuple[Any, ...], str, Evidence]:
            client = Client(address, token, cancellation, progress)
            if image:
                return key, session, client.evidence(image=image, finding=finding, query=query)
            used, evidence = with_session(client, session, lambda: scan, lambda known: client.evidence(known, finding=finding, query=query))
            return key, used, evidence

        return work

    def show_findings(self, volume: Any, answer: tuple[tuple[Any, ...], str, Findings]) -> Record:
        """Puts anatomy, table, points and record of an answer into the scene; what an earlier answer left is removed."""
        key, session, findings = answer
        self._sessions[key] = session
        nodes.remove(volume)
        anatomy.show(volume, findings.labels, findings.affine, findings.label_names)
        points.show(volume, findings.record)
        tables.show(volume, findings.record)
        slices.overlay(volume, None, self.opacity)
        return findings.record

    def show_evidence(self, volume: Any, answer: tuple[tuple[Any, ...], str, Evidence]) -> Evidence:
        """Puts heat map, box and depth profile of an answer into the scene, and moves the views to its strongest point."""
        key, session, evidence = answer
        self._sessions[key] = session
        node = heat.show(volume, evidence.text, evidence.heat, evidence.affine, self.floor)
        heat.show_box(volume, evidence.text, evidence.box_mm)
        depth.show(volume, evidence.text, evidence.depth, None if evidence.peak_mm is None else evidence.peak_mm[2])
        slices.overlay(volume, node, self.opacity)
        if evidence.peak_mm is not None:
            slices.jump(evidence.peak_mm)
        return evidence

    def go_to(self, volume: Any, row: Row) -> None:
        """Moves the views to a finding by the record alone; heat of another finding is taken away. Needs no server."""
        heat.hide(volume)
        slices.overlay(volume, None, self.opacity)
        if row.peak_mm is not None:
            heat.show_box(volume, row.name, row.box_mm)
            slices.jump(row.peak_mm)

    def set_opacity(self, opacity: float) -> None:
        """Opacity of the heat map."""
        self.opacity = opacity
        slices.set_opacity(opacity)

    def set_floor(self, volume: Any, floor: float) -> None:
        """Part of the strongest value below which no heat is drawn."""
        self.floor = floor
        node = None if volume is None else heat.heat_of(volume)
        if node is not None:
            heat.set_floor(node, floor)

    def show_chart(self, volume: Any) -> None:
        """Brings the depth profile to the screen, in a layout that has a plot."""
        chart = nodes.find(volume, depth.CHART_ROLE)
        if chart is not None:
            slicer.modules.plots.logic().ShowChartInLayout(chart)

    def _key(self, volume: Any) -> tuple[Any, ...]:
        """Names a scan as long as its voxels and its place stay what they are."""
        return (self.address, volume.GetID(), volume.GetImageData().GetMTime(), nodes.affine_of(volume).tobytes())


def read_scan(volume: Any) -> Scan:
    """Voxels and place of a volume of the scene; the voxels are not copied.

    Raises:
        ValueError: when it is not one scan in scanner coordinates.
    """
    name = volume.GetName()
    if volume.GetImageData() is None or volume.GetImageData().GetNumberOfPoints() == 0:
        raise ValueError(f"{name}: the volume is empty")
    if volume.GetImageData().GetNumberOfScalarComponents() != 1:
        raise ValueError(f"{name}: the volume has several components; a CT has one")
    if volume.GetParentTransformNode() is not None:
        raise ValueError(f"{name}: the volume is moved by a transform; harden the transform first (Transforms module)")
    return Scan(slicer.util.arrayFromVolume(volume), nodes.affine_of(volume))
