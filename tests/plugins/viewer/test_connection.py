"""The line to the server, and who may talk to the viewer."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests

from tests.plugins.monailabel.live_server import LiveServer
from tests.ports import free_port

pytest.importorskip("selenium", reason="selenium is not installed")
pytest.importorskip("monailabel", reason="MONAI Label is not installed")

from tests.plugins.viewer.browser import NEEDS, Page

pytestmark = NEEDS


def test_nothing_came_from_another_machine(found: Page) -> None:
    page = found
    loaded: list[str] = []

    def has_key_images() -> bool:
        entries = "return performance.getEntriesByType('resource').map((entry) => entry.name)"
        loaded[:] = page.driver.execute_script(entries)
        return any("key-image" in name for name in loaded)

    page.until(has_key_images, "no key image was loaded")
    assert any("index" in name for name in loaded)
    assert [name for name in loaded if not name.startswith((page.address, "data:", "blob:"))] == []


def test_a_server_that_is_gone_is_said_in_words(page: Page, server: LiveServer) -> None:
    page.click("#change-server")
    page.set("address", f"http://127.0.0.1:{free_port()}")
    page.click("#connect")
    page.until(lambda: "no server answers there" in page.text("#server-line"), "nothing was said")
    page.set("address", server.url)
    page.click("#connect")
    page.until(lambda: page.text("#server-line").startswith("Connected"), "the viewer did not connect again")


def test_a_server_that_dies_is_noticed_while_the_page_rests_and_connected_again_when_it_is_back(
    page: Page, server: LiveServer
) -> None:
    """A gate stands between the viewer and the server, and is closed and opened again."""
    port = free_port()
    asked: list[str] = []

    def gate() -> ThreadingHTTPServer:
        class Gate(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                answer = server.get(self.path)
                self.send_response(answer.status_code)
                self.end_headers()
                self.wfile.write(answer.content)

            def log_message(self, *_: object) -> None:
                pass

        opened = ThreadingHTTPServer(("127.0.0.1", port), Gate)
        threading.Thread(target=opened.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return opened

    for opening in range(2):
        opened = gate()
        if opening == 0:
            page.click("#change-server")
            page.set("address", f"http://127.0.0.1:{port}")
            page.click("#connect")
        # The list of scans is the last thing that it asks for; until then, the line may be that of the server before.
        page.until(lambda: any("datastore" in path for path in asked), "the viewer did not ask")
        page.until(lambda: page.text("#server-line").startswith("Connected"), "the viewer did not connect")
        opened.shutdown()
        opened.server_close()
        asked.clear()
        with socket.socket() as held:  # Nobody else may take the port meanwhile.
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind(("127.0.0.1", port))
            page.until(lambda: "no server answers there" in page.text("#server-line"), "the end was not noticed")
    page.set("address", server.url)
    page.click("#connect")
    page.until(lambda: page.text("#server-line").startswith("Connected"), "the viewer did not connect again")


def test_pages_of_other_sites_are_refused(viewer: str) -> None:
    assert (
        requests.get(viewer + "/index.html", headers={"Origin": "https://evil.example.org"}, timeout=30).status_code
        == 403
    )
    assert requests.get(viewer + "/index.html", headers={"Host": "evil.example.org"}, timeout=30).status_code == 403
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    assert (
        requests.get(viewer + "/ws", headers={**upgrade, "Origin": "https://evil.example.org"}, timeout=30).status_code
        == 403
    )
