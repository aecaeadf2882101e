"""The log of the server says nothing of a request."""

import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

from plugins.monailabel.lib.compatibility import provide_storage_uids

provide_storage_uids()
from starlette.testclient import TestClient  # noqa: E402

from plugins.monailabel.lib.logs import SERVER_LOG, WithoutError, log_config  # noqa: E402
from plugins.monailabel.lib.server import create_server  # noqa: E402

_LOGGED = """
import logging.config, sys
from plugins.monailabel.lib.logs import SERVER_LOG, log_config
logging.config.dictConfig(log_config(sys.argv[1], verbose=len(sys.argv) > 2))
for name in ("monailabel.datastore.local", "another.library"):
    logging.getLogger(name).info("Doe_Jane.nii.gz is read")
logging.getLogger(SERVER_LOG).info("encoded")
"""


def test_an_error_that_reaches_uvicorn_is_logged_without_its_message(tmp_path: Path) -> None:
    config = log_config(tmp_path / "server.log")
    (name,) = config["loggers"]["uvicorn.error"]["filters"]
    assert config["filters"][name]["()"] is WithoutError
    error = FileNotFoundError(2, "No such file", "/scans/Doe^John.nii.gz")
    record = logging.LogRecord("uvicorn.error", logging.ERROR, "", 1, "Exception", (), (type(error), error, None))
    assert "Doe" in logging.Formatter().format(logging.makeLogRecord(record.__dict__))
    assert WithoutError().filter(record)
    assert "Doe" not in logging.Formatter().format(record)


def test_messages_of_libraries_are_kept_only_if_they_are_asked_for(tmp_path: Path, bundle_root: Path) -> None:
    """MONAI Label's name files of patients and ids of images. In a process of its own, whose logging is its own."""
    for options, names in (([], 0), (["verbose"], 2)):
        file = tmp_path / f"{names}.log"
        command = [sys.executable, "-c", _LOGGED, str(file), *options]
        done = subprocess.run(command, cwd=bundle_root, capture_output=True, encoding="utf-8", timeout=300, check=True)
        for said in (file.read_text(encoding="utf-8"), done.stderr):
            assert "encoded" in said and said.count("Doe") == names


def test_a_fault_of_the_program_is_logged_without_what_the_client_sent(caplog: pytest.LogCaptureFixture) -> None:
    app = create_server(["*"])

    @app.get("/fault")
    def fault(name: str) -> None:
        raise KeyError(name)

    answer = TestClient(app, raise_server_exceptions=False).get("/fault?name=Doe")
    assert answer.status_code == 500 and "Doe" not in answer.text
    (number,) = re.findall("^internal error ([0-9a-f]{8});", answer.json()["detail"])
    (record,) = [record for record in caplog.records if record.name == SERVER_LOG]
    assert f"internal error {number}: KeyError" in record.getMessage() and "in fault" in record.getMessage()
    assert "Doe" not in logging.Formatter().format(record)
