"""The ASGI application: MONAI Label's routes that make sense here, ours in place of some, hosts, origins and errors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI, Request
from monailabel.config import settings
from monailabel.endpoints import login
from monailabel.interfaces.utils.app import app_instance
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from .compatibility import check_tokens_with_named_algorithms
from .errors import UsageError, answer_errors
from .origins import OriginMiddleware
from .routes import router
from .stock_routes import router as stock_router

_NAMES = ("image", "id", "label", "tag")
"""Query parameters that become names of files."""


def create_server(allowed_hosts: Sequence[str]) -> FastAPI:
    """The application that uvicorn serves.

    MONAI Label's own application is not used: its inference blocks every other request, it answers an unknown image
    with a bare 500, lets every web page call it, and can be reloaded by anyone. Its routes for logs, whole-slide
    images, OHIF, a DICOM proxy, batches, scores and weights are left out.

    Args:
        allowed_hosts: names in the ``Host`` header that are served; ``*`` for all.
    """
    app = FastAPI(
        title="CT Findings",
        openapi_url="/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
        dependencies=[Depends(_refuse_paths)],
    )
    check_tokens_with_named_algorithms()
    app.include_router(router)
    app.include_router(stock_router)
    if settings.MONAI_LABEL_AUTH_ENABLE:
        app.include_router(login.router)
    answer_errors(app)
    origins = [str(origin).rstrip("/") for origin in settings.MONAI_LABEL_CORS_ORIGINS]
    if origins:
        app.add_middleware(CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"])
    app.add_middleware(OriginMiddleware, allowed=origins)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(allowed_hosts))
    return app


@asynccontextmanager
async def _lifespan(_: FastAPI) -> AsyncIterator[None]:
    app = app_instance()
    app.server_mode(True)
    app.on_init_complete()
    yield


def _refuse_paths(request: Request) -> None:
    """Ids become names of files in MONAI Label; one with a path in it would reach outside the datastore."""
    for name in _NAMES:
        for value in request.query_params.getlist(name):
            if "/" in value or "\\" in value or "\0" in value or value.startswith("."):
                raise UsageError(400, f"{name}: an id holds no path")
