"""The server answers from its first second: it says that it loads, and then hands over to the application."""

import logging
import multiprocessing
import shutil
import threading
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import uvicorn
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from .logs import SERVER_LOG

logger = logging.getLogger(SERVER_LOG)

Progress = Callable[[str], None]


class LoadingServer:
    """An ASGI application in front of one that takes its time to load.

    Args:
        load: makes the application, in a thread; it is given a function that is told what is being loaded.
        temporary: folder of the files of requests, which are removed when the server ends.
    """

    def __init__(self, load: Callable[[Progress], ASGIApp], temporary: Path) -> None:
        self.load = load
        self.temporary = temporary
        self.app: ASGIApp | None = None
        self.doing = "libraries"
        self.error: Exception | None = None
        self._started = time.monotonic()

    def run(self, config: uvicorn.Config) -> None:
        """Serves until it is stopped; raises the error of a load that failed."""
        server = uvicorn.Server(config)

        def load() -> None:
            try:
                self.app = self.load(self._tell)
            except Exception as error:
                self.error, server.should_exit = error, True
            else:
                logger.info("ready after %.1f s", time.monotonic() - self._started)

        threading.Thread(target=load, name="load", daemon=True).start()
        server.run()
        if self.error is not None:
            raise self.error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif self.app is not None:
            await self.app(scope, receive, send)
        elif scope["path"] == "/health":
            await JSONResponse({"status": "alive"})(scope, receive, send)
        else:
            seconds = time.monotonic() - self._started
            problem = f"the server loads its {self.doing} ({seconds:.0f} s so far); try again in a few seconds"
            await JSONResponse({"detail": problem}, 503, {"Retry-After": "3"})(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        assert message["type"] == "lifespan.shutdown"
        for process in multiprocessing.active_children():
            if isinstance(process, ForkServerProcess):  # A reader of a scan; libraries have other kinds.
                process.kill()
        for entry in self.temporary.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
        await send({"type": "lifespan.shutdown.complete"})

    def _tell(self, doing: str) -> None:
        self.doing = doing
