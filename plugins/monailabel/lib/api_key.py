"""The key of the server: who sends it may read what others may not, and where it is required nobody is served without.

It travels as ``Authorization: Bearer KEY``, like the tokens of MONAI Label's own authentication, which is used instead
when it is switched on.
"""

import secrets

from fastapi import Request
from monailabel.config import settings
from starlette.authentication import (
    AuthCredentials,
    AuthenticationBackend,
    AuthenticationError,
    BaseUser,
    SimpleUser,
    UnauthenticatedUser,
)
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse

from .errors import sentence

READER = "reader"
OPEN = ("/", "/health", "/ready")
"""Addresses that say nothing of scans and are served to all."""


class KeyBackend(AuthenticationBackend):
    """Recognizes the key of a request, for Starlette's ``AuthenticationMiddleware``.

    Args:
        key: of the server.
        required: whether requests without it are refused.
    """

    def __init__(self, key: str, required: bool) -> None:
        self.key = key
        self.required = required

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser]:
        scheme, _, sent = conn.headers.get("Authorization", "").partition(" ")
        if scheme and not (scheme.lower() == "bearer" and secrets.compare_digest(sent.encode(), self.key.encode())):
            raise AuthenticationError("the key of the request is not that of this server")
        if scheme:
            return AuthCredentials([READER]), SimpleUser(READER)
        if self.required and conn.url.path not in OPEN:
            raise AuthenticationError("this server asks for its key; send it as 'Authorization: Bearer KEY'")
        return AuthCredentials(), UnauthenticatedUser()


def refuse_key(_: HTTPConnection, error: Exception) -> JSONResponse:
    """The answer to a missing or wrong key."""
    return sentence(401, str(error), {"WWW-Authenticate": "Bearer"})


def is_reader(request: Request) -> bool:
    """Whether a request may see reports and study records: with the key, or a role of MONAI Label's authentication."""
    return bool(settings.MONAI_LABEL_AUTH_ENABLE) or READER in request.auth.scopes
