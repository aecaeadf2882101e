"""Who may talk to the viewer: pages that it served itself, under its own name; and what those pages may load, nothing
from elsewhere.
"""

from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

POLICY = "; ".join(
    [
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",  # Vue compiles its templates in the page
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' ws: wss: blob: data:",
        "worker-src 'self' blob:",
        "frame-ancestors 'none'",
        "form-action 'none'",
    ]
)
"""Content security policy of every answer. ``ws:`` names no host, because browsers differ in whether 'self' covers it.
"""


def allowed(host: str, origin: str | None, hosts: Collection[str]) -> bool:
    """Whether a request may be answered.

    A page of another site can open a WebSocket to this machine, and a name of its own can be made to point here. So the
    viewer is served under its own names only, by default those of the loopback, and an ``Origin``, which browsers send
    and pages cannot forge, must be that of the page itself.

    Args:
        host: header ``Host``.
        origin: header ``Origin``; None without one.
        hosts: names of this viewer.
    """
    return urlsplit(f"//{host}").hostname in hosts and (origin is None or urlsplit(origin).netloc == host)


def protect(server: Any, hosts: Collection[str]) -> None:
    """Puts the check and the policy in front of everything that a trame server answers."""
    from aiohttp import web

    @web.middleware
    async def guard(request: web.Request, handler: Any) -> web.StreamResponse:
        if not allowed(request.headers.get("Host", ""), request.headers.get("Origin"), hosts):
            raise web.HTTPForbidden(text="This viewer answers only to its own page.")
        return await handler(request)

    async def add_policy(_request: web.Request, response: web.StreamResponse) -> None:
        response.headers.setdefault("Content-Security-Policy", POLICY)
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
        response.headers.setdefault("Referrer-Policy", "no-referrer")
        # A page of another site can ask for a picture without an Origin; the browser must not show it there.
        response.headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")

    def on_bind(bound: Any) -> None:
        bound.app.middlewares.append(guard)
        bound.app.on_response_prepare.append(add_policy)

    server.controller.on_server_bind.add(on_bind)
