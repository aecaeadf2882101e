"""Bodies of requests: one that is too large is refused, at once if it says so, and one that never arrives is given up.

FastAPI can limit bodies, too, but answers without a sentence.
"""

import asyncio

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import sentence
from .limits import Limits

_UPLOADS = ("/session", "/infer", "/datastore")
"""Beginnings of the addresses that take scans or labels."""


class BodyMiddleware:
    """Refuses a body larger than the limit of its address, and waits at most ``upload_seconds`` for all of it.

    Args:
        app: that is protected.
        limits: of the server.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app = app
        self.limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        upload = scope["path"].startswith(_UPLOADS)
        announced = Headers(scope=scope).get("content-length", "0")
        largest = self.limits.upload_bytes if upload else self.limits.request_bytes
        if not announced.isdigit() or int(announced) > largest:
            await sentence(413, self.limits.body_sentence(upload))(scope, receive, send)
            return
        deadline = asyncio.get_running_loop().time() + self.limits.upload_seconds
        arrived, size = False, 0

        async def receive_in_time() -> Message:
            nonlocal arrived, size
            if arrived:  # What follows is that the client leaves, which may take as long as the answer.
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                problem = f"the body of the request did not arrive within {self.limits.upload_seconds:g} s"
                raise HTTPException(408, f"{problem}; send it again") from None
            size += len(message.get("body", b""))
            if size > largest:
                raise HTTPException(413, self.limits.body_sentence(upload))
            arrived = message["type"] != "http.request" or not message.get("more_body", False)
            return message

        await self.app(scope, receive_in_time, send)
