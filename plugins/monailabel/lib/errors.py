"""Errors as HTTP answers: a status and one sentence, never a bare 500."""

import errno
import logging
import traceback
import uuid
from collections.abc import Mapping

import requests
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from monailabel.interfaces.exception import (
    ImageNotFoundException,
    LabelNotFoundException,
    MONAILabelError,
    MONAILabelException,
)
from starlette.exceptions import HTTPException

from .limits import Limits
from .logs import SERVER_LOG
from .usage_error import UsageError

logger = logging.getLogger(SERVER_LOG)


def answer_errors(app: FastAPI, limits: Limits) -> None:
    """Registers an answer for every error that can reach the server."""

    @app.exception_handler(UsageError)
    async def usage(request: Request, error: UsageError) -> JSONResponse:
        return sentence(error.status, error.sentence)

    @app.exception_handler(HTTPException)
    async def routing(request: Request, error: HTTPException) -> JSONResponse:
        """Starlette's own, which says only "Not Found"; those of MONAI Label have their words."""
        if error.status_code in (404, 405) and error.detail in ("Not Found", "Method Not Allowed"):
            problem = "this address is not part of the interface" if error.status_code == 404 else "wrong method"
            return sentence(error.status_code, f"{problem}; /openapi.json lists the addresses and methods")
        if error.status_code == 429:  # MONAI Label's own message names no remedy.
            return sentence(429, "a training is already running; wait for it, or stop it with DELETE /train/")
        if error.status_code == 400 and "exceeded maximum size" in str(error.detail):  # Starlette's, of a form.
            return sentence(413, limits.field_sentence)
        return sentence(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    async def validation(request: Request, error: RequestValidationError) -> JSONResponse:
        problems = [
            f"{'.'.join(str(part) for part in problem['loc'][1:])}: {problem['msg']}" for problem in error.errors()
        ]
        return sentence(422, f"the request cannot be read: {'; '.join(problems)[:300]}")

    @app.exception_handler(MONAILabelException)
    async def monailabel(request: Request, error: MONAILabelException) -> JSONResponse:
        if isinstance(error, ImageNotFoundException | LabelNotFoundException):
            return sentence(404, error.msg)
        by_user = error.error in (MONAILabelError.INVALID_INPUT, MONAILabelError.APP_INIT_ERROR)
        return sentence(400, error.msg) if by_user else _internal(error)

    @app.exception_handler(requests.RequestException)
    async def behind(request: Request, error: requests.RequestException) -> JSONResponse:
        logger.error("a server behind this one failed: %s", type(error).__name__)
        return sentence(
            502,
            f"the DICOMweb server or the realm of the users did not answer ({type(error).__name__}); is it running?",
        )

    @app.exception_handler(OSError)
    async def system(request: Request, error: OSError) -> JSONResponse:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            logger.error("no space left for the answer or upload")
            return sentence(507, "no space is left on the server's disk; ask its administrator, then try again")
        return _internal(error)

    @app.exception_handler(Exception)
    async def other(request: Request, error: Exception) -> JSONResponse:
        return _internal(error)


def sentence(status: int, text: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An error as every client expects it; a busy server says when to come back."""
    wait = {"Retry-After": "10"} if status == 503 else {}
    return JSONResponse({"detail": text}, status_code=status, headers={**wait, **(headers or {})})


def _internal(error: Exception) -> JSONResponse:
    """A fault of the program: the log has the traceback under the number that the client gets."""
    number = uuid.uuid4().hex[:8]
    # Without the message of the error, which may repeat what the client sent.
    frames = "".join(traceback.format_tb(error.__traceback__))
    logger.error("internal error %s: %s\n%s", number, type(error).__name__, frames)
    return sentence(500, f"internal error {number}; the server's log says more under this number")
