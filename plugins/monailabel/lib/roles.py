"""Who may call a route, when MONAI Label's authentication is switched on."""

import requests
from fastapi import Depends
from jwt import InvalidTokenError
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC, from_token
from starlette.authentication import (
    AuthCredentials,
    AuthenticationBackend,
    AuthenticationError,
    BaseUser,
    SimpleUser,
    UnauthenticatedUser,
)
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection

from .api_key import OPEN

USER = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))
ANNOTATOR = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))
ADMIN = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ADMIN))


class TokenBackend(AuthenticationBackend):
    """Refuses a request without a valid token before its body is read, which may be gigabytes; roles are checked later,
    by the routes.
    """

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser]:
        if conn.url.path in (*OPEN, "/openapi.json") or conn.url.path.startswith("/auth"):
            return AuthCredentials(), UnauthenticatedUser()
        scheme, _, token = conn.headers.get("Authorization", "").partition(" ")
        try:
            user = await run_in_threadpool(from_token, token if scheme.lower() == "bearer" else "")
        except InvalidTokenError as error:
            raise AuthenticationError("a valid token is needed; send it as 'Authorization: Bearer TOKEN'") from error
        except requests.RequestException:  # The route says that the realm does not answer.
            return AuthCredentials(), UnauthenticatedUser()
        return AuthCredentials(), SimpleUser(user.username)
