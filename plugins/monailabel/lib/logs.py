"""Logging of the server: what happened and how long it took, without names of files, patients or images."""

import logging
from pathlib import Path
from typing import Any

SERVER_LOG = "ctfindings.server"


class WithoutError(logging.Filter):
    """Removes the error from a record: its message may repeat a request, and ``errors`` has logged its traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.exc_info = None
        return True


def log_config(file: str | Path, verbose: bool = False) -> dict[str, Any]:
    """Configuration for ``logging.config``: console and a file that is kept below 50 MB.

    Args:
        file: of the log.
        verbose: whether MONAI Label's own messages are kept; they hold names of files and ids of images.
    """
    handlers = ["console", "file"]
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"without_error": {"()": WithoutError}},
        "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
        "handlers": {
            "console": {"class": "logging.StreamHandler", "formatter": "plain"},
            "file": {
                "class": "logging.handlers.RotatingFileHandler",
                "formatter": "plain",
                "filename": str(file),
                "maxBytes": 10_000_000,
                "backupCount": 4,
                "delay": True,
            },
        },
        "root": {"level": "INFO" if verbose else "WARNING", "handlers": handlers},
        "loggers": {
            SERVER_LOG: {"level": "INFO"},
            "uvicorn.error": {"level": "INFO", "filters": ["without_error"]},
            "monailabel": {"level": "INFO" if verbose else "ERROR"},
            "task_train": {"level": "INFO"},
        },
    }
