"""Client of the CT Findings app of a MONAI Label server: connect, upload a scan once, ask for findings and for
evidence.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import numpy as np

from ctfindings_client import multipart, nifti
from ctfindings_client.answers import Evidence, Findings, ListedScan, Scan, ServerInfo
from ctfindings_client.corrections import Corrections, agreement_rows
from ctfindings_client.record import Record, place_words
from ctfindings_client.transport import (
    Cancellation,
    Progress,
    Reply,
    ServerError,
    clean_address,
    ignore_progress,
    is_private,
    request,
)

API = 1
"""Version of the interface that this module speaks. The server names its own in ``models.<name>.config.api`` of
``/info/``.
"""

MODELS = ("findings", "evidence")
"""Models that the module asks for."""

UPLOAD_NAME = "scan.nii.gz"
"""The same for every scan: names of volumes may tell who the patient is."""

_CONNECT_SECONDS = 20.0


class Client:
    """Speaks to one server. A scan is uploaded once into a session of the server and every question refers to it.

    Args:
        address: of the server, such as ``http://127.0.0.1:8000``.
        cancellation: ends every request of this client.
        progress: told what the client is doing.

    Raises:
        ServerError: when the address is not valid.
    """

    def __init__(
        self,
        address: str,
        token: str = "",
        cancellation: Cancellation | None = None,
        progress: Progress = ignore_progress,
    ) -> None:
        self.address = clean_address(address)
        self.token = token
        self.cancellation = cancellation or Cancellation()
        self.progress = progress

    def sign_in(self, user: str, password: str) -> str:
        """The token that MONAI Label gives for a user; empty when the server asks for none.

        Raises:
            ServerError: when it refuses, or when the password would travel in the clear.
        """
        self._check_private("a password")
        form = urlencode({"username": user, "password": password, "grant_type": "password"}).encode("ascii")
        reply = self._request(
            "POST", "/auth/token", [form], "application/x-www-form-urlencoded", seconds=_CONNECT_SECONDS
        )
        self.token = str(_json(reply).get("access_token") or "")
        return self.token

    def use_key(self, key: str) -> str:
        """The key of the server as token of every request; ServerError when it would travel in the clear."""
        self._check_private("a key")
        self.token = key
        return key

    def _check_private(self, secret: str) -> None:
        if not is_private(self.address):
            raise ServerError(
                f"{self.address}: {secret} is only sent over https; ask who runs the server for an https address"
            )

    def connect(self) -> ServerInfo:
        """What the server is.

        Raises:
            ServerError: when it does not answer, is not a CT Findings server, or has another version of the interface.
        """
        return check_server(_json(self._request("GET", "/info/", seconds=_CONNECT_SECONDS)), self.address)

    def check_alive(self) -> None:
        """Raises a ServerError when nothing answers at the address any more; a server that is busy is alive."""
        try:
            self._request("GET", "/health", seconds=_CONNECT_SECONDS)
        except ServerError as error:
            if error.status == 0:
                raise

    def upload(self, scan: Scan) -> str:
        """Sends a scan and returns the server's session for it."""
        self.progress("packing", None)
        content = nifti.encode(scan.array, scan.affine)
        self.cancellation.check()
        return self.upload_file(content)

    def upload_file(self, content: bytes, name: str = UPLOAD_NAME) -> str:
        """Sends the bytes of a file of a format that the server knows by its suffix, and returns the server's session
        for it.
        """
        reply = self._form("PUT", "/session/", [multipart.Part("files", content, name)])
        session = _json(reply).get("session_id")
        if not isinstance(session, str) or not session:
            raise ServerError(f"{self.address}: the server took the scan but named no session for it")
        return session

    def scans(self) -> list[ListedScan]:
        """The scans that the server has, by id."""
        reply = self._request("GET", "/datastore/scans", seconds=_CONNECT_SECONDS)
        try:
            return [ListedScan.parse(entry) for entry in json.loads(reply.body)]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ServerError(f"{self.address}: the list of scans cannot be read ({error!r})") from error

    def scan(self, session: str = "", *, image: str = "") -> Scan:
        """The voxels of an uploaded scan, or of one that the server has as ``image``, as the server reads them."""
        _, file = self._infer("scan", session, image, {})
        return Scan(*_volume(file, "scan"))

    def has_session(self, session: str) -> bool:
        """Whether the server still keeps a session; it forgets them after a time and when it restarts."""
        try:
            self._request("GET", f"/session/{quote(session, safe='')}", seconds=_CONNECT_SECONDS)
        except ServerError as error:
            if error.status == 404:
                return False
            raise
        return True

    def delete(self, session: str) -> None:
        """Has the server delete an uploaded scan; one that it no longer has is not an error."""
        try:
            self._request("DELETE", f"/session/{quote(session, safe='')}", seconds=_CONNECT_SECONDS)
        except ServerError as error:
            if error.status != 404:
                raise

    def findings(self, session: str = "", *, image: str = "") -> Findings:
        """The findings of an uploaded scan, or of one that the server has as ``image``."""
        params, file = self._infer("findings", session, image, {})
        names = params.get("label_names")
        if not isinstance(params.get("record"), dict) or not isinstance(names, dict):
            raise ServerError(
                f"{self.address}: the answer holds no findings record; do server and module have the same version?"
            )
        array, affine = _volume(file, "anatomy map")
        try:
            record = Record.parse(params["record"])
        except ValueError as error:
            raise ServerError(f"{self.address}: {error}") from error
        label_names = {str(name): int(value) for name, value in names.items()}
        return Findings(record, array, affine, label_names, draft=str(params.get("draft_report") or ""))

    def evidence(self, session: str = "", *, image: str = "", finding: str = "", query: str = "") -> Evidence:
        """Where a finding of the table, or a free text, is seen in an uploaded scan, or in one that the server has as
        ``image``.
        """
        params, file = self._infer("evidence", session, image, {"finding": finding} if finding else {"query": query})
        heat, affine = _heat(file)
        try:
            return _evidence(params, heat, affine)
        except (KeyError, TypeError, ValueError) as error:
            raise ServerError(
                f"{self.address}: the answer about '{finding or query}' is not complete ({error!r})"
            ) from error

    def corrections(self, session: str = "", *, image: str = "") -> Corrections:
        """What readers said of a scan; with its ``problem`` where the server keeps none, or wants its key for it."""
        try:
            return self._corrections("GET", session, image)
        except ServerError as error:
            if error.status in (401, 403):
                return Corrections(problem="To correct the answers, connect with the key of the server.")
            if error.status == 404:
                return Corrections(problem="This server keeps no corrections; update it.")
            raise

    def correct(self, change: Mapping[str, Any], session: str = "", *, image: str = "") -> Corrections:
        """Says something of a scan, see ``corrections.finding_change``; gives all that the server now keeps of it."""
        return self._corrections("PUT", session, image, change)

    def agreement(self) -> list[list[str]]:
        """How often readers agree with the model; rows of ``corrections.AGREEMENT_COLUMNS``."""
        reply = self._request("GET", "/corrections/agreement", seconds=_CONNECT_SECONDS)
        try:
            return agreement_rows(_json(reply))
        except ValueError as error:
            raise ServerError(f"{self.address}: {error}") from error

    def _corrections(self, method: str, session: str, image: str, change: Any = None) -> Corrections:
        path = f"/corrections/?{urlencode({'image': image} if image else {'session_id': session})}"
        blocks = [] if change is None else [json.dumps(change).encode("utf-8")]
        reply = self._request(method, path, blocks, "application/json" if blocks else "")
        try:
            return Corrections.parse(_json(reply))
        except ValueError as error:
            raise ServerError(f"{self.address}: {error}") from error

    def _infer(self, model: str, session: str, image: str, params: Mapping[str, str]) -> tuple[dict[str, Any], bytes]:
        path = f"/infer/{model}?{urlencode({'image': image} if image else {'session_id': session})}"
        reply = self._form("POST", path, [multipart.Part("params", json.dumps(params).encode("utf-8"))])
        if not reply.content_type.startswith("multipart/"):
            raise ServerError(f"{self.address}: the model '{model}' answered without a file")
        try:
            parts = multipart.decode(reply.content_type, reply.body)
            answer = json.loads(next(part.content for part in parts if part.filename is None and part.name == "params"))
            file = next(part.content for part in parts if part.filename is not None)
        except (ValueError, StopIteration) as error:
            raise ServerError(
                f"{self.address}: the answer of the model '{model}' cannot be read ({error!r})"
            ) from error
        return answer, file

    def _form(self, method: str, path: str, parts: list[multipart.Part]) -> Reply:
        content_type, blocks = multipart.encode(parts)
        return self._request(method, path, blocks, content_type)

    def _request(
        self, method: str, path: str, blocks: list[bytes] | None = None, content_type: str = "", **options: Any
    ) -> Reply:
        headers = {"Content-Type": content_type} if content_type else {}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        return request(
            method,
            self.address,
            path,
            blocks=blocks or (),
            headers=headers,
            cancellation=self.cancellation,
            progress=self.progress,
            **options,
        )


def with_session(
    client: Client, session: str, scan: Scan | None, ask: Callable[[str], Any], uploaded: Callable[[str], None]
) -> Any:
    """Asks about a scan, and uploads it first when it never was, or when the server has forgotten it.

    Args:
        client: speaks to the server.
        session: of an earlier upload; empty without one.
        scan: to upload; None if the file that it came from has to be opened again.
        ask: takes a session and asks.
        uploaded: told the session of an upload, before the question is asked, which may fail.

    Returns:
        The answer.
    """
    if session:
        try:
            return ask(session)
        except ServerError as error:
            if error.status == 0 or client.has_session(session):
                raise
    if scan is None:
        raise ServerError("the server no longer has the file of this scan; open the file again")
    session = client.upload(scan)
    uploaded(session)
    return ask(session)


def check_server(info: Mapping[str, Any], address: str) -> ServerInfo:
    """Reads ``/info/`` and compares the server's interface with this module's.

    Raises:
        ServerError: says which side is older, or what is missing.
    """
    models = info.get("models")
    if not isinstance(models, dict):
        raise ServerError(f"{address}: this is not a MONAI Label server")
    missing = [name for name in MODELS if name not in models]
    if missing:
        served = ", ".join(sorted(models)) or "none"
        raise ServerError(
            f"{address}: the server has no model {' and '.join(missing)} (it has: {served}); "
            "start it with the CT Findings app"
        )
    config = models[MODELS[0]].get("config") or {}
    api = config.get("api")
    if api != API:
        older = (
            "this module; update the CT Findings extension"
            if isinstance(api, int) and api > API
            else "the server; update it"
        )
        raise ServerError(
            f"{address}: the server speaks interface {api} and this module interface {API}. "
            f"The older of the two is {older}"
        )
    return ServerInfo(str(config.get("bundle_version", "unknown")), str(config.get("weights_sha256", "unknown")))


def _json(reply: Reply) -> dict[str, Any]:
    try:
        value = json.loads(reply.body.decode("utf-8"))
    except ValueError as error:
        raise ServerError("what answers there is not a MONAI Label server: its answer is not JSON") from error
    return value if isinstance(value, dict) else {}


def _volume(file: bytes, what: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        return nifti.decode(file)
    except ValueError as error:
        raise ServerError(f"the {what} of the answer cannot be read: {error}") from error


def _heat(file: bytes) -> tuple[np.ndarray, np.ndarray]:
    """A heat map as 8 bits, 255 for 1.0, which is how the server stores it, and its affine."""
    try:
        stored = nifti.decode_stored(file)
    except ValueError as error:
        raise ServerError(f"the heat map of the answer cannot be read: {error}") from error
    if stored.array.dtype == np.uint8 and abs(255 * stored.slope - 1) < 1e-6 and stored.intercept == 0:
        return stored.array, stored.affine
    return np.rint(255 * np.clip(stored.scaled, 0, 1)).astype(np.uint8), stored.affine


def _evidence(params: Mapping[str, Any], heat: np.ndarray, affine: np.ndarray) -> Evidence:
    peak, box, probability = params.get("peak_mm"), params.get("box_mm"), params.get("probability")
    image, axis = params.get("image"), params.get("slice_axis")
    return Evidence(
        text=str(params["text"]),
        probability=None if probability is None else float(probability),
        heat=heat,
        strongest=int(heat.max(initial=0)),
        affine=affine,
        depth=tuple((float(level["z_mm"]), float(level["score"])) for level in params["depth"]),
        # The slice of the record, not the peak between two slices, is the one to show.
        peak_mm=None if peak is None else (float(peak[0]), float(peak[1]), float(params["z_mm"])),
        box_mm=None if box is None else (_point(box[0]), _point(box[1])),
        image=None if image is None else int(image),
        images=None if axis is None else heat.shape[2 - int(axis)],
        meaning=" ".join([str(params.get("meaning") or ""), *map(str, params.get("hints") or ())]).strip(),
        where=place_words(params),
    )


def _point(values: Any) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
