"""The scans of the scene and their answers: what is asked of the server, and what of it is put into the scene.

Every question is prepared in the interface's thread (``ask_*`` gives the work), runs in any thread, and is shown in the
interface's thread again (``show_*``).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import slicer
import slicer.util

from ctfindings_client import anatomy, depth, heat, nodes, points, slices, tables
from ctfindings_client.answers import Evidence, Findings, Scan, ServerInfo
from ctfindings_client.client import Client, with_session
from ctfindings_client.corrections import Corrections
from ctfindings_client.record import Record, Row
from ctfindings_client.transport import Cancellation, Progress, ServerError


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
        # By a key whose first parts are the address of the server and the id of the volume.
        self._sessions: dict[tuple[Any, ...], str] = {}
        self._images: dict[tuple[Any, ...], str] = {}
        self._files: set[tuple[Any, ...]] = set()
        self._deleting: list[threading.Thread] = []

    def server_has(self, volume: Any, *, session: str = "", image: str = "") -> None:
        """Records that the server already has a volume, by session or by its own id, so it is not sent again."""
        known, name = (self._images, image) if image else (self._sessions, session)
        known[self._key(volume)] = name
        if session:  # A file: its voxels alone would be another scan to the server.
            self._files.add(self._key(volume))

    def uploaded(self, session: str) -> None:
        """Notes a session of the server that belongs to no volume yet, so that it can be deleted."""
        self._sessions[self.address, "", session] = session

    def forget(self, keep: Any = None) -> None:
        """Has the server delete the scans that were uploaded to it, without waiting; what it is not told, it deletes by
        itself later.

        Args:
            keep: volume whose session stays; None deletes all.
        """
        kept = None if keep is None else keep.GetID()
        self._delete(key for key in list(self._sessions) if key[1] != kept)

    def farewell(self, seconds: float) -> None:
        """``forget`` at the end of the program: waits as long as this for the server to hear it."""
        self.forget()
        end = time.monotonic() + seconds
        for thread in self._deleting:
            thread.join(max(0.0, end - time.monotonic()))

    def ask_connection(
        self, user: str = "", password: str = ""
    ) -> Callable[[Cancellation, Progress], tuple[str, ServerInfo]]:
        """Work that signs in, where a user is given, and says what the server is: (token, server). A password without a
        user is the key of the server.
        """
        address, token = self.address, self.token

        def work(cancellation: Cancellation, progress: Progress) -> tuple[str, ServerInfo]:
            client = Client(address, token, cancellation, progress)
            new_token = client.sign_in(user, password) if user else client.use_key(password) if password else token
            return new_token, client.connect()

        return work

    def ask_findings(self, volume: Any) -> Callable[[Cancellation, Progress], Findings]:
        """Work that gets the findings of a volume.

        Raises:
            ValueError: when the volume cannot be sent.
        """

        def ask(client: Client, session: str, image: str) -> Findings:
            findings = client.findings(session, image=image)
            return replace(findings, corrections=client.corrections(session, image=image))

        return self._ask(volume, ask, check=True)

    def ask_evidence(
        self, volume: Any, *, finding: str = "", query: str = ""
    ) -> Callable[[Cancellation, Progress], Evidence]:
        """Work that gets the evidence of a finding, or of a free text, in a volume.

        Raises:
            ValueError: when the volume cannot be sent.
        """
        return self._ask(
            volume, lambda client, session, image: client.evidence(session, image=image, finding=finding, query=query)
        )

    def ask_correction(self, volume: Any, change: Mapping[str, Any]) -> Callable[[Cancellation, Progress], Corrections]:
        """Work that has the server keep what a reader says of a volume, and gives all that it keeps.

        Raises:
            ValueError: when the volume cannot be sent.
        """
        return self._ask(volume, lambda client, session, image: client.correct(change, session, image=image))

    def ask_agreement(self) -> Callable[[Cancellation, Progress], list[list[str]]]:
        """Work that gets how often readers agree with the model."""
        address, token = self.address, self.token
        return lambda cancellation, progress: Client(address, token, cancellation, progress).agreement()

    def show_findings(self, volume: Any, findings: Findings) -> Record:
        """Puts anatomy, table, points and record of an answer into the scene, in place of an earlier answer."""
        nodes.remove(volume)
        anatomy.show(volume, findings.labels, findings.affine, findings.label_names)
        points.show(volume, findings.record)
        tables.show(volume, findings.record)
        self.show_only(volume)
        return findings.record

    def show_evidence(self, volume: Any, evidence: Evidence) -> Evidence:
        """Puts heat map, box and depth profile of an answer into the scene and moves the views to its peak."""
        heat.show(volume, evidence, self.floor)
        heat.show_box(volume, evidence.text, evidence.box_mm)
        depth.show(volume, evidence.text, evidence.depth, None if evidence.peak_mm is None else evidence.peak_mm[2])
        self.show_only(volume)
        if evidence.peak_mm is not None:
            slices.jump(evidence.peak_mm)
        return evidence

    def go_to(self, volume: Any, row: Row) -> None:
        """Moves the views to a finding by the record alone; heat of another finding is taken away. Needs no server."""
        heat.hide(volume)
        self.show_only(volume)
        if row.peak_mm is not None:
            heat.show_box(volume, row.name, row.box_mm)
            slices.jump(row.peak_mm)

    def show_only(self, volume: Any) -> None:
        """Shows a volume in the slice views with its own heat map, and hides what belongs to other volumes: all of it
        for None.
        """
        hidden = nodes.hide_others(volume)
        slices.take_away(hidden)
        depth.take_away(hidden)
        if volume is not None:
            slices.overlay(volume, heat.heat_of(volume), self.opacity)

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

    def _ask(
        self, volume: Any, ask: Callable[[Client, str, str], Any], *, check: bool = False
    ) -> Callable[[Cancellation, Progress], Any]:
        """Work that asks about a volume: ``ask`` takes a client, and a session or the server's own id of the scan."""
        address, token, scan, key = self.address, self.token, read_scan(volume), self._key(volume)
        session, image = self._sessions.get(key, ""), self._images.get(key, "")
        self._delete(
            old for old in list(self._sessions) if old[1] == key[1] and old != key
        )  # the volume was another scan then

        def uploaded(new: str) -> None:
            self._sessions[key] = new

        def work(cancellation: Cancellation, progress: Progress) -> Any:
            client = Client(address, token, cancellation, progress)
            if check:
                client.connect()
            if image:
                return ask(client, "", image)
            again = None if key in self._files else scan
            return with_session(client, session, again, lambda known: ask(client, known, ""), uploaded)

        return work

    def _delete(self, keys: Iterable[tuple[Any, ...]]) -> None:
        gone = {(key[0], self._sessions.pop(key)) for key in keys}
        gone -= {(key[0], session) for key, session in list(self._sessions.items())}
        if not gone:
            return
        token = self.token

        def work() -> None:
            for address, session in gone:
                try:
                    Client(address, token).delete(session)
                except ServerError as error:
                    logging.warning(
                        "CT Findings: the server was not told to delete a scan; it does so by itself later. %s", error
                    )

        thread = threading.Thread(target=work, name="CTFindings delete", daemon=True)
        thread.start()
        self._deleting = [*(thread for thread in self._deleting if thread.is_alive()), thread]

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
