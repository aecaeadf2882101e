"""A stand-in for the CT Findings app of MONAI Label: it answers as the HTTP interface says, with files that the bundle
wrote.

Requests are taken apart by the standard library's mail parser, which shares no code with the module's own.
"""

from __future__ import annotations

import email
import email.policy
import itertools
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

CONFIG = {"api": 1, "bundle_version": "0.1.0", "weights_sha256": "ab" * 32}


class StandInServer:
    """Serves one scan's answers on the loopback.

    Args:
        findings: params and file of the model ``findings``.
        evidence: takes the params of a request and gives params and file.

    Attributes:
        requests: (method, path, headers, body) in the order of arrival.
        sessions: content of each upload by session id; the ids count on.
        images: content of the scans that the server has by itself.
        config: of the models in ``/info/``.
        models: that it has.
        failures: (status, body) by path prefix, sent instead of an answer.
        gate: answers of ``/infer`` wait until it is set.
        kept: answers to corrections wait until it is set, though they are kept at once.
        token: that requests must carry; empty for none.
        points: file of the model ``findings_points``.
        corrections: what readers said, of the one scan there is.
    """

    def __init__(self, findings: tuple[dict, bytes], evidence: Callable[[dict], tuple[dict, bytes]]) -> None:
        self.findings = findings
        self.evidence = evidence
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.sessions: dict[str, bytes] = {}
        self._numbers = itertools.count()
        self.images: dict[str, bytes] = {}
        self.config: dict[str, Any] = dict(CONFIG)
        self.models = ["findings", "findings_points", "evidence"]
        self.failures: dict[str, tuple[int, bytes]] = {}
        self.gate = threading.Event()
        self.gate.set()
        self.kept = threading.Event()
        self.kept.set()
        self.token = ""
        self.points = b""
        self.corrections: dict[str, Any] = {"findings": {}, "report": None}
        server = self

        class Handler(BaseHTTPRequestHandler):
            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True  # the client cancelled

            def log_message(self, *_: Any) -> None: ...

            def do_GET(self) -> None:
                self._answer()

            do_POST = do_PUT = do_DELETE = do_GET

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.title(): value for name, value in self.headers.items()}
                server.requests.append((self.command, self.path, headers, body))
                status, content_type, reply = server.answer(self.command, self.path, headers, body)
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        """Stops serving."""
        self.gate.set()
        self.kept.set()
        self._http.shutdown()
        self._http.server_close()

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, str, bytes]:
        """Status, content type and body."""
        parts = urlsplit(path)
        for prefix, (status, text) in self.failures.items():
            if parts.path.startswith(prefix):
                return status, "application/json", text
        if parts.path == "/auth/":
            return (200, *_json({"enabled": bool(self.token)}))
        if parts.path == "/auth/token":
            user = parse_qs(body.decode())
            good = user["username"] == ["ann"] and user["password"] == ["s&cret"]
            return (
                (200, *_json({"access_token": self.token, "token_type": "bearer"}))
                if good
                else (401, *_json({"detail": "no"}))
            )
        if self.token and headers.get("Authorization") != f"Bearer {self.token}":
            return (401, *_json({"detail": "Not authenticated"}))
        if parts.path == "/info/":
            return (
                200,
                *_json({"version": "0.1.0", "models": {name: {"config": self.config} for name in self.models}}),
            )
        if parts.path == "/session/" and method == "PUT":
            session = f"session-{next(self._numbers)}"
            self.sessions[session] = _form(headers, body)["files"][1]
            return (200, *_json({"session_id": session, "session_info": {}}))
        if parts.path.startswith("/session/"):
            session = parts.path.removeprefix("/session/")
            known = session in self.sessions
            if method == "DELETE":
                self.sessions.pop(session, None)
            return (200, *_json({})) if known else (404, *_json({"detail": "Session Not Found"}))
        if parts.path == "/datastore/scans":
            known = {"date": "2026-11-29", "present": None, "outside_domain": None, "corrected": False}
            return (200, *_json([{"id": name, **known} for name in sorted(self.images)]))
        if parts.path == "/corrections/agreement":
            counts = {"confirmed": 1, "rejected": 0, "added": 2, "both_absent": 0, "not_assessed": 0, "placed": 0}
            return (
                200,
                *_json({"findings": [{"finding": "Hernia", **counts}, {"finding": "X", **dict.fromkeys(counts, 0)}]}),
            )
        keys = parse_qs(parts.query)
        image, session = keys.get("image", [""])[0], keys.get("session_id", [""])[0]
        if image and image not in self.images:
            return (404, *_json({"detail": f"image {image} is not in the datastore"}))
        if not image and session not in self.sessions:
            return (404, *_json({"detail": f"session {session} is unknown"}))
        if parts.path == "/corrections/":
            if method == "PUT":
                self._correct(json.loads(body))
                self.kept.wait()
            return (200, *_json(self.corrections))
        self.gate.wait()
        params = json.loads(_form(headers, body)["params"][1])
        if parts.path == "/infer/scan":
            return (200, *_multipart({}, self.images[image] if image else self.sessions[session], "scan.nii.gz"))
        if parts.path == "/infer/findings_points":
            return (200, *_multipart({}, self.points, "findings.mrk.json"))
        answer = self.findings if parts.path == "/infer/findings" else self.evidence(params)
        return (200, *_multipart(*answer))

    def _correct(self, change: dict[str, Any]) -> None:
        said = {"reader": change["reader"], "time": "2026-11-29T13:00:00+00:00"}
        for name, value in change.get("findings", {}).items():
            earlier = self.corrections["findings"].pop(name, {})
            if value is not None:
                place = {"place_mm": earlier["place_mm"]} if value["present"] and earlier.get("place_mm") else {}
                self.corrections["findings"][name] = {**place, **value, **said}
        if "report" in change:
            self.corrections["report"] = {"text": change["report"], **said}


def _json(value: Any) -> tuple[str, bytes]:
    return "application/json", json.dumps(value).encode()


def _multipart(params: dict, file: bytes, name: str = "tmp1.nii.gz") -> tuple[str, bytes]:
    """As requests_toolbelt writes it, which is what MONAI Label uses."""
    mark = b"--0f1e2d"
    head = b'\r\nContent-Disposition: form-data; name="params"\r\nContent-Type: application/json\r\n\r\n'
    disposition = f'\r\nContent-Disposition: form-data; name="image"; filename="{name}"'
    middle = disposition.encode() + b"\r\nContent-Type: application/octet-stream\r\n\r\n"
    body = mark + head + json.dumps(params).encode() + b"\r\n" + mark + middle + file + b"\r\n" + mark + b"--\r\n"
    return "multipart/form-data; boundary=0f1e2d", body


def _form(headers: dict[str, str], body: bytes) -> dict[str, tuple[str | None, bytes]]:
    head = f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + body, policy=email.policy.HTTP)
    form = {}
    for part in message.iter_parts():
        name = part.get_param("name", header="Content-Disposition")
        form[str(name)] = (part.get_filename(), part.get_payload(decode=True))
    return form
