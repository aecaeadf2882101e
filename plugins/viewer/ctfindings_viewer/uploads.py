"""Files from the browser: a POST to the viewer itself, which keeps them in memory only."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web
from ctfindings_client.formats import SCAN_SUFFIXES, scan_suffix

LARGEST_BYTES = 2_000_000_000
"""Of an upload; a chest CT of 1,000 slices of 512 x 512 has half a gigabyte."""

PATH = "/upload"
_SCRIPTS = "ctfindings_viewer"


def serve(server: Any, received: Callable[[bytes, str], None]) -> None:
    """Adds the route to a trame server, and the script that uses it to its page.

    Args:
        server: the trame server.
        received: called with content and name of a file.
    """

    async def upload(request: web.Request) -> web.Response:
        name = request.query.get("name", "")
        if not scan_suffix(name):
            return web.Response(
                status=415,
                text=f"{name}: unknown format; give {', '.join(SCAN_SUFFIXES)} (a zip holds one DICOM series).",
            )
        content = bytearray()
        async for block in request.content.iter_chunked(1 << 20):
            content += block
            if len(content) > LARGEST_BYTES:
                return web.Response(status=413, text=f"{name}: larger than {LARGEST_BYTES / 1e9:.0f} GB.")
        with server.state:
            received(bytes(content), name)
        return web.Response(status=204)

    folder = str(Path(__file__).with_name("static"))
    server.enable_module({"serve": {_SCRIPTS: folder}, "scripts": [f"{_SCRIPTS}/upload.js"]})
    server.controller.on_server_bind.add(lambda bound: bound.app.router.add_post(PATH, upload))
