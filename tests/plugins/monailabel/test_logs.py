"""The log of the server says nothing of a request."""

import logging
from pathlib import Path

from plugins.monailabel.lib.logs import WithoutError, log_config


def test_an_error_that_reaches_uvicorn_is_logged_without_its_message(tmp_path: Path) -> None:
    config = log_config(tmp_path / "server.log")
    (name,) = config["loggers"]["uvicorn.error"]["filters"]
    assert config["filters"][name]["()"] is WithoutError
    error = FileNotFoundError(2, "No such file", "/scans/Doe^John.nii.gz")
    record = logging.LogRecord("uvicorn.error", logging.ERROR, "", 1, "Exception", (), (type(error), error, None))
    assert "Doe" in logging.Formatter().format(logging.makeLogRecord(record.__dict__))
    assert WithoutError().filter(record)
    assert "Doe" not in logging.Formatter().format(record)
