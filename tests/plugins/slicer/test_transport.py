"""One request: its progress, its end by the user, and the sentence for everything that can go wrong on the way."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from ctfindings_client.transport import (
    Cancellation,
    Cancelled,
    ServerError,
    clean_address,
    is_local,
    is_private,
    request,
)

Answer = Callable[[socket.socket, bytes], None]


@pytest.fixture
def raw_server() -> Iterator[Callable[[Answer], str]]:
    """A server of one connection that does with it what the test says, once the head of the request is there."""
    listeners = []

    def serve(answer: Answer) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def run() -> None:
            connection, _ = listener.accept()
            with connection:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += connection.recv(65536)
                answer(connection, head)

        threading.Thread(target=run, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield serve
    for listener in listeners:
        listener.close()


def _reply(status: str, body: bytes = b"", *headers: str) -> Answer:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return lambda connection, head: connection.sendall("\r\n".join(lines).encode() + body)


@pytest.mark.parametrize(
    ("typed", "address"),
    [
        (" http://127.0.0.1:8000/ ", "http://127.0.0.1:8000"),
        ("server:8000", "http://server:8000"),
        ("https://pacs.example.org/label/", "https://pacs.example.org/label"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("HTTPS://PACS.example.org/Label", "https://pacs.example.org/Label"),
    ],
)
def test_addresses_are_taken_as_they_are_typed(typed: str, address: str) -> None:
    assert clean_address(typed) == address


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "http://",
        "ftp://server",
        "http://server:port",
        "http://user:secret@server",
        "http://server/?a=b",
        "hello world",
    ],
)
def test_what_is_no_address_is_refused_with_an_example(typed: str) -> None:
    with pytest.raises(ServerError, match=r"an example is http://127\.0\.0\.1:8000"):
        clean_address(typed)


@pytest.mark.parametrize(
    ("address", "local", "private"),
    [
        ("http://127.0.0.1:8000", True, True),
        ("127.0.0.1:8000", True, True),
        ("HTTP://LocalHost:8000/", True, True),
        ("https://localhost", True, True),
        ("http://[::1]:8000", True, True),
        ("https://pacs.example.org", False, True),
        ("Https://pacs.example.org", False, True),
        ("http://pacs.example.org:8000", False, False),
        ("pacs.example.org:8000", False, False),
        ("http://127.0.0.1.example.org", False, False),
        ("http://localhost.example.org", False, False),
    ],
)
def test_which_addresses_are_on_this_computer_and_which_cannot_be_read_on_the_way(
    address: str, local: bool, private: bool
) -> None:
    assert (is_local(address), is_private(address)) == (local, private)


def test_the_path_of_the_address_comes_before_that_of_the_request(raw_server: Callable[[Answer], str]) -> None:
    heads = []
    address = raw_server(lambda connection, head: (heads.append(head), _reply("200 OK")(connection, head)))  # type: ignore[func-returns-value]
    request("GET", f"{address}/label", "/info/")
    assert heads[0].startswith(b"GET /label/info/ HTTP/1.1")


def test_progress_tells_how_much_is_sent_and_received(raw_server: Callable[[Answer], str]) -> None:
    sent, received = b"s" * 3_000_000, b"r" * 2_500_000

    def answer(connection: socket.socket, head: bytes) -> None:
        left = len(sent) - len(head.partition(b"\r\n\r\n")[2])
        while left:
            left -= len(connection.recv(65536))
        _reply("200 OK", received)(connection, head)

    stages: list[tuple[str, float | None]] = []
    reply = request(
        "PUT", raw_server(answer), "/", blocks=[sent[:7], sent[7:]], progress=lambda *stage: stages.append(stage)
    )
    assert reply.body == received
    parts = [part for stage, part in stages if stage == "sending"]
    assert len(parts) > 2 and parts == sorted(parts) and parts[-1] == 1  # type: ignore[type-var]
    assert ("waiting", None) in stages and stages[-1] == ("receiving", 1.0)


def test_cancelling_ends_a_request_that_waits() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        cancellation = Cancellation()
        threading.Timer(0.3, cancellation.cancel).start()
        started = time.monotonic()
        with pytest.raises(Cancelled):
            request("GET", f"http://127.0.0.1:{silent.getsockname()[1]}", "/", cancellation=cancellation)
        assert time.monotonic() - started < 60


def test_a_cancelled_request_is_not_sent() -> None:
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(Cancelled):
        request("GET", "http://127.0.0.1:9", "/", cancellation=cancellation)


def test_silence_ends_with_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(ServerError, match="no answer in time"):
        request("GET", f"http://127.0.0.1:{silent.getsockname()[1]}", "/", seconds=0.2)


def test_a_server_that_is_not_there_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ServerError, match=f"127.0.0.1:{port}: no server answers there") as caught:
        request("GET", f"http://127.0.0.1:{port}", "/")
    assert caught.value.status == 0


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            _reply("400 Bad Request", json.dumps({"detail": "the query is empty"}).encode()),
            "The server says: the query is empty",
        ),
        (
            _reply("500 Internal Server Error", b"Internal Server Error"),
            "the server failed .*its log says why.*HTTP 500",
        ),
        (_reply("401 Unauthorized", b'{"detail": "Not authenticated"}'), "asks for a user name and a password"),
        (_reply("413 Payload Too Large", b"<html>"), "larger than the server, or a proxy"),
        (_reply("502 Bad Gateway", b"<html>nginx"), "a proxy answers, but the MONAI Label server behind it does not"),
        (_reply("504 Gateway Timeout", b"<html>nginx"), "a proxy gave up waiting"),
        (_reply("302 Found", b"", "Location: https://other/"), "points to https://other/; enter that address"),
        (lambda connection, head: connection.sendall(b"SSH-2.0-OpenSSH_9\r\n"), "no web server"),
        (
            lambda connection, head: connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"),
            "broke before the answer was complete",
        ),
        (lambda connection, head: None, "broke before the answer was complete"),
    ],
    ids=["detail", "500", "401", "413", "502", "504", "redirect", "ssh", "cut", "closed"],
)
def test_every_failure_is_a_sentence_for_the_user(
    raw_server: Callable[[Answer], str], answer: Answer, message: str
) -> None:
    with pytest.raises(ServerError, match=message):
        request("GET", raw_server(answer), "/info/")


def test_the_reason_of_a_refused_upload_is_read_though_the_server_hung_up(raw_server: Callable[[Answer], str]) -> None:
    def refuse(connection: socket.socket, head: bytes) -> None:
        _reply("400 Bad Request", b'{"detail": "too large"}')(connection, head)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass

    with pytest.raises(ServerError, match="too large"):
        request("PUT", raw_server(refuse), "/", blocks=[b"x" * 5_000_000])
