"""The ASGI application: MONAI Label's routes that make sense here, ours in place of some, hosts, origins and errors."""

from collections.abc import Sequence

from fastapi import Depends, FastAPI
from monailabel.config import settings
from monailabel.endpoints import login
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from .api_key import KeyBackend, refuse_key
from .bodies import BodyMiddleware
from .compatibility import check_tokens_with_named_algorithms
from .correction_routes import router as correction_router
from .errors import answer_errors
from .limits import Limits
from .names import check_names
from .origins import OriginMiddleware
from .roles import TokenBackend
from .routes import router
from .stock_routes import router as stock_router


def create_server(
    allowed_hosts: Sequence[str], limits: Limits | None = None, key: str = "", key_required: bool = False
) -> FastAPI:
    """The application that uvicorn serves.

    MONAI Label's own application is not used: its inference blocks every other request, it answers an unknown image
    with a bare 500, lets every web page call it, and can be reloaded by anyone. Its routes for logs, whole-slide
    images, OHIF, a DICOM proxy, batches, scores and weights are left out.

    Args:
        allowed_hosts: names in the ``Host`` header that are served; ``*`` for all.
        limits: on requests; the defaults without.
        key: of the server, unused if MONAI Label's authentication is on.
        key_required: whether nobody is served without the key.
    """
    limits = limits or Limits()
    app = FastAPI(
        title="CT Findings",
        openapi_url="/openapi.json",
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(check_names)],
        form_limits={"max_files": int(limits.upload_files), "max_fields": 20, "max_part_size": limits.request_bytes},
    )
    app.state.limits = limits
    check_tokens_with_named_algorithms()
    app.include_router(router)
    app.include_router(stock_router)
    app.include_router(correction_router)
    if settings.MONAI_LABEL_AUTH_ENABLE:
        app.include_router(login.router)
    answer_errors(app, limits)
    app.add_middleware(BodyMiddleware, limits=limits)
    backend = TokenBackend() if settings.MONAI_LABEL_AUTH_ENABLE else KeyBackend(key, key_required)
    app.add_middleware(AuthenticationMiddleware, backend=backend, on_error=refuse_key)
    origins = [str(origin).rstrip("/") for origin in settings.MONAI_LABEL_CORS_ORIGINS]
    if origins:
        app.add_middleware(CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"])
    app.add_middleware(OriginMiddleware, allowed=origins)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(allowed_hosts))
    return app
