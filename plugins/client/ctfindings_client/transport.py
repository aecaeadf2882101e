"""HTTP over the standard library: one request with progress, cancellation and readable errors.

``http.client`` rather than ``urllib.request``: cancelling has to close the socket of a request that waits for its
answer.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 900.0
"""Longer than the 600 s after which MONAI Label itself gives up, so that its own message arrives."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Names of this computer."""

_BLOCK = 1 << 20

Progress = Callable[[str, "float | None"], None]
"""Called with what is being done and the part that is done, 0..1, or None where that is not known."""


class ServerError(Exception):
    """A request failed; the text is for the user. ``status`` is the HTTP status, 0 when there was none."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Cancelled(Exception):
    """The user cancelled the request."""


@dataclass(frozen=True)
class Reply:
    """Content type and bytes of an answer."""

    content_type: str
    body: bytes


class Cancellation:
    """Cancels a request from another thread by closing its socket."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled = False
        self._connection: http.client.HTTPConnection | None = None

    @property
    def cancelled(self) -> bool:
        """Whether ``cancel`` was called."""
        return self._cancelled

    def cancel(self) -> None:
        """Ends the running request, and every later one that is given this object."""
        with self._lock:
            self._cancelled = True
            connection = self._connection
        sock = None if connection is None else connection.sock
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits on it; close alone does not
            except OSError:
                return  # the other side was faster

    def check(self) -> None:
        """Raises ``Cancelled`` after ``cancel``."""
        if self._cancelled:
            raise Cancelled("cancelled")

    def watch(self, connection: http.client.HTTPConnection | None) -> None:
        """The connection that ``cancel`` closes; None once it is closed."""
        with self._lock:
            self._connection = connection
        if connection is not None:
            self.check()


def ignore_progress(stage: str, done: float | None) -> None:
    """Reports to nobody."""


def clean_address(address: str) -> str:
    """A server address as ``scheme://host:port/path`` without a slash at its end, scheme and host in small letters;
    ``http`` where no scheme is given.

    Raises:
        ServerError: when it is not an address of a web server.
    """
    text = address.strip().rstrip("/")
    if text and "://" not in text:
        text = f"http://{text}"
    try:
        parts = urlsplit(text)
        usable = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and (parts.port or 1) > 0
            and len(text.split()) == 1
        )
    except ValueError:
        usable = False
    if not usable or parts.netloc.endswith(":") or parts.username or parts.query or parts.fragment:
        raise ServerError(f"'{address.strip()}' is not a server address; an example is http://127.0.0.1:8000")
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path}"


def is_local(address: str) -> bool:
    """Whether an address is on this computer, so that nobody has to agree before a scan is sent. A tunnel that begins
    here is, too.

    Raises:
        ServerError: when it is not an address.
    """
    return urlsplit(clean_address(address)).hostname in LOOPBACK


def is_private(address: str) -> bool:
    """Whether what is sent to an address cannot be read on the way: it is encrypted or stays on this computer.

    Raises:
        ServerError: when it is not an address.
    """
    return is_local(address) or urlsplit(clean_address(address)).scheme == "https"


def request(
    method: str,
    address: str,
    path: str,
    *,
    blocks: Sequence[bytes] = (),
    headers: Mapping[str, str] | None = None,
    seconds: float = ANSWER_SECONDS,
    cancellation: Cancellation | None = None,
    progress: Progress = ignore_progress,
) -> Reply:
    """Sends one request and reads its whole answer.

    Args:
        method: GET, POST, PUT or DELETE.
        address: of the server, from ``clean_address``.
        path: from ``/`` on, with the query string.
        blocks: bytes of the body in order.
        headers: further headers.
        seconds: for which the connection may be silent.
        cancellation: ends the request from another thread.
        progress: told ``"sending"``, ``"waiting"`` and ``"receiving"``.

    Raises:
        ServerError: for no connection, a broken one, or a status that is not 2xx.
        Cancelled: when it was cancelled.
    """
    cancellation = cancellation or Cancellation()
    parts = urlsplit(address)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=CONNECT_SECONDS)
    length = sum(len(block) for block in blocks)
    sent_headers = {"Accept": "*/*", "Connection": "close", **(headers or {})}
    if blocks:
        sent_headers["Content-Length"] = str(length)
    try:
        cancellation.check()
        connection.connect()
        cancellation.watch(connection)
        connection.sock.settimeout(seconds)
        early = _send(connection, method, parts.path + path, sent_headers, blocks, length, progress)
        progress("waiting", None)
        response = connection.getresponse()
        body = _receive(response, progress)
        cancellation.check()
    except (OSError, http.client.HTTPException) as error:
        cancellation.check()
        raise ServerError(_no_answer(error, address)) from error
    finally:
        cancellation.watch(None)
        connection.close()
    if not 200 <= response.status < 300:
        raise ServerError(_refusal(response, body, address), response.status)
    if early is not None:
        raise ServerError(_no_answer(early, address)) from early
    return Reply(response.getheader("Content-Type", ""), body)


def _send(
    connection: http.client.HTTPConnection,
    method: str,
    target: str,
    headers: Mapping[str, str],
    blocks: Sequence[bytes],
    length: int,
    progress: Progress,
) -> OSError | None:
    """Sends head and body. A server that refuses an upload closes early: its answer is then still to be read."""
    connection.putrequest(method, target, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    sent = 0
    try:
        for block in blocks:
            view = memoryview(block)
            for start in range(0, len(view), _BLOCK):
                connection.send(view[start : start + _BLOCK])
                sent += len(view[start : start + _BLOCK])
                progress("sending", sent / length)
    except (BrokenPipeError, ConnectionResetError) as error:
        return error
    return None


def _receive(response: http.client.HTTPResponse, progress: Progress) -> bytes:
    total = response.length
    blocks: list[bytes] = []
    received = 0
    while True:
        block = response.read(_BLOCK)
        if not block:
            break
        blocks.append(block)
        received += len(block)
        progress("receiving", received / total if total else None)
    if total is not None and received < total:
        raise http.client.IncompleteRead(b"", total - received)
    return b"".join(blocks)


def _no_answer(error: Exception, address: str) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"{address}: the server's certificate is not trusted ({error.verify_message}); "
            "ask the administrator of the server for a valid one"
        )
    if isinstance(error, ssl.SSLError):
        return f"{address}: no encrypted connection; does the server speak http rather than https?"
    if isinstance(error, ConnectionRefusedError):
        return f"{address}: no server answers there. Is it started, and is the port right?"
    if isinstance(error, socket.gaierror):
        return f"{address}: unknown host name; check the spelling"
    if isinstance(error, TimeoutError):  # also socket.timeout, from Python 3.10
        return f"{address}: no answer in time"
    if isinstance(error, socket.timeout):
        return f"{address}: no answer in time"
    if isinstance(error, http.client.BadStatusLine) and not isinstance(error, http.client.RemoteDisconnected):
        return f"{address}: what answers there is no web server; does it need https rather than http?"
    return f"{address}: the connection broke before the answer was complete ({error or type(error).__name__})"


def _refusal(response: http.client.HTTPResponse, body: bytes, address: str) -> str:
    status = response.status
    if 300 <= status < 400:
        return (
            f"{address}: the server points to {response.getheader('Location', 'another address')}; enter that address"
        )
    try:
        detail = json.loads(body.decode("utf-8"))["detail"]
    except (ValueError, KeyError, TypeError):
        detail = None
    if isinstance(detail, str) and detail and status not in (401, 403):
        return f"The server says: {detail}"
    known = {
        401: "the server asks for a user name and a password, or for its key alone",
        403: "the server does not allow this for the user that is signed in",
        404: "the server does not know this request; is it MONAI Label with the CT Findings app?",
        413: "the scan is larger than the server, or a proxy before it, accepts",
        502: "a proxy answers, but the MONAI Label server behind it does not",
        503: "the server is busy or shutting down; try again",
        504: "a proxy gave up waiting for the MONAI Label server; its time limit is too short",
    }
    return f"{address}: {known.get(status, f'the server failed ({response.reason}); its log says why')} (HTTP {status})"
