"""Errors as HTTP answers: a status and one sentence, never a bare 500."""

from __future__ import annotations

import errno
import logging
import uuid

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

from .logs import SERVER_LOG

logger = logging.getLogger(SERVER_LOG)


class UsageError(Exception):
    """A request that cannot be answered.

    Args:
        status: of HTTP, 4xx; 502 when a server behind this one failed, 507 when the disk is full.
        sentence: what was wrong, and what would be right.
    """

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = " ".join(sentence.split())


def answer_errors(app: FastAPI) -> None:
    """Registers an answer for every error that can reach the server."""

    @app.exception_handler(UsageError)
    async def usage(request: Request, error: UsageError) -> JSONResponse:
        return _sentence(error.status, error.sentence)

    @app.exception_handler(RequestValidationError)
    async def validation(request: Request, error: RequestValidationError) -> JSONResponse:
        problems = [
            f"{'.'.join(str(part) for part in problem['loc'][1:])}: {problem['msg']}" for problem in error.errors()
        ]
        return _sentence(422, f"the request cannot be read: {'; '.join(problems)[:300]}")

    @app.exception_handler(MONAILabelException)
    async def monailabel(request: Request, error: MONAILabelException) -> JSONResponse:
        if isinstance(error, ImageNotFoundException | LabelNotFoundException):
            return _sentence(404, error.msg)
        by_user = error.error in (MONAILabelError.INVALID_INPUT, MONAILabelError.APP_INIT_ERROR)
        return _sentence(400, error.msg) if by_user else _internal(error)

    @app.exception_handler(requests.RequestException)
    async def behind(request: Request, error: requests.RequestException) -> JSONResponse:
        logger.error("a server behind this one failed: %s", type(error).__name__)
        return _sentence(
            502,
            f"the DICOMweb server or the realm of the users did not answer ({type(error).__name__}); is it running?",
        )

    @app.exception_handler(OSError)
    async def system(request: Request, error: OSError) -> JSONResponse:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            logger.error("no space left for the answer or upload")
            return _sentence(507, "no space is left on the server's disk; ask its administrator, then try again")
        return _internal(error)

    @app.exception_handler(Exception)
    async def other(request: Request, error: Exception) -> JSONResponse:
        return _internal(error)


def _sentence(status: int, sentence: str) -> JSONResponse:
    return JSONResponse({"detail": sentence}, status_code=status)


def _internal(error: Exception) -> JSONResponse:
    """A fault of the program: the log has the traceback under the number that the client gets."""
    number = uuid.uuid4().hex[:8]
    logger.error("internal error %s", number, exc_info=error)
    return _sentence(500, f"internal error {number}; the server's log says more under this number")
