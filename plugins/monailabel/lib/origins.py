"""Whose web pages may use the server: a browser sends the requests of any page, with the page's origin, also to this
machine.
"""

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class OriginMiddleware:
    """Refuses a request that a page of another site has sent, before anything is done for it.

    Without permission of CORS a page cannot read the answer, but the request would have been carried out. Programs that
    are not browsers send no ``Origin``.

    Args:
        app: that is protected.
        allowed: origins, such as ``https://viewer.example.org``, that may use the server besides its own.
    """

    def __init__(self, app: ASGIApp, allowed: Sequence[str]) -> None:
        self.app = app
        self.allowed = frozenset(allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            headers = Headers(scope=scope)
            origin = headers.get("origin")
            if not (origin is None or origin in self.allowed or urlsplit(origin).netloc == headers.get("host")):
                sentence = "pages of other sites may not use this server; MONAI_LABEL_CORS_ORIGINS names those that may"
                await JSONResponse({"detail": sentence}, status_code=403)(scope, receive, send)
                return
        await self.app(scope, receive, send)
