"""The list of a DICOMweb server, read with the real client from a server on the loopback."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from bundle.ctfindings.inference.watch.archives import DicomWebArchive

pytest.importorskip("dicomweb_client", reason="dicomweb-client is not installed")

PAGE = 2


class Lists(ThreadingHTTPServer):
    """Five series, two a page; without ``pages``, all of them whatever ``offset`` says. It breaks after 9 requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pages, self.asked = True, 0


class _Handler(BaseHTTPRequestHandler):
    server: Lists

    def do_GET(self) -> None:
        self.server.asked += 1
        offset = int(parse_qs(urlsplit(self.path).query)["offset"][0])
        numbers = range(5)[offset : offset + PAGE] if self.server.pages else range(5)
        values = {"0020000D": "1.2", "00201209": 40}
        series = [{"0020000E": f"1.2.{number}", **values} for number in numbers]
        content = [{tag: {"vr": "UI", "Value": [value]} for tag, value in each.items()} for each in series]
        self.send_response(200 if self.server.asked < 10 else 500)
        self.send_header("Content-Type", "application/dicom+json")
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def server() -> Iterator[Lists]:
    with Lists() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize(("pages", "requests"), [(True, 4), (False, 2)])
def test_every_series_is_listed_once_from_a_server_with_pages_and_from_one_that_knows_none(
    pages: bool, requests: int, server: Lists
) -> None:
    server.pages = pages
    archive = DicomWebArchive(f"http://127.0.0.1:{server.server_port}/dicom-web", {"Modality": "CT"})
    assert [series.uid for series in archive.listed()] == [f"1.2.{number}" for number in range(5)]
    assert server.asked == requests
