"""Uploaded scans go when they were not used for long, also those of a server that was stopped and those that were never
whole.
"""

import json
import os
import time
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from plugins.monailabel.lib.compatibility import provide_storage_uids

provide_storage_uids()
from monailabel.utils.sessions import Sessions  # noqa: E402

from plugins.monailabel.lib import application  # noqa: E402
from plugins.monailabel.lib.limits import Limits  # noqa: E402
from plugins.monailabel.lib.session_store import is_session_id  # noqa: E402

HOUR = 3600


@pytest.fixture
def app(tmp_path: Path) -> Any:
    """What a server that was just started knows: the folder, and no session."""
    options = SimpleNamespace(work=tmp_path, limits=Limits(keep_hours=1))
    return SimpleNamespace(_sessions=Sessions(str(tmp_path / "sessions"), HOUR), options=options)


def clean_up(app: Any) -> None:
    application.CTFindingsApp.cleanup_sessions(app)


def left_by_another_server(app: Any, used: float, meta: str | None = None) -> Path:
    """A session on disk, last used so many seconds ago; with the text of its record where that is not whole."""
    folder = Path(app._sessions.store_path) / str(uuid.uuid4())
    folder.mkdir(parents=True)
    (folder / "scan.nii.gz").write_bytes(b"voxels")
    when = int(time.time() - used)
    record = {
        "name": folder.name,
        "path": str(folder),
        "image": str(folder / "scan.nii.gz"),
        "meta": {},
        "create_ts": when,
    }
    whole = json.dumps({**record, "last_access_ts": when, "expiry": HOUR})
    (folder / "meta.info").write_text(whole if meta is None else meta)
    os.utime(folder, (when, when))
    return folder


def test_a_server_removes_the_expired_scans_of_the_one_before_it(app: Any) -> None:
    old, young = left_by_another_server(app, 2 * HOUR), left_by_another_server(app, HOUR / 2)
    clean_up(app)
    assert not old.exists() and young.exists()


@pytest.mark.parametrize("meta", ["", "{", "[]", "{}", '{"last_access_ts": null, "expiry": 3600}'])
def test_a_torn_record_neither_stops_the_cleaning_nor_keeps_its_scan(app: Any, meta: str) -> None:
    torn, being_made = left_by_another_server(app, 2 * HOUR, meta), left_by_another_server(app, 0, meta)
    old = left_by_another_server(app, 2 * HOUR)
    clean_up(app)
    assert not torn.exists() and not old.exists()
    assert being_made.exists(), "its record is written after its scan"


def test_a_session_without_a_record_goes_with_its_scan(app: Any) -> None:
    folder = left_by_another_server(app, 2 * HOUR)
    (folder / "meta.info").unlink()
    os.utime(folder, (0, 0))
    clean_up(app)
    assert not folder.exists()


def test_a_session_in_use_stays_although_its_record_could_not_be_written(app: Any) -> None:
    folder = left_by_another_server(app, 2 * HOUR)
    session = app._sessions.get_session(folder.name, update_ts=False)
    session.last_access_ts = int(time.time())
    clean_up(app)
    assert folder.exists()
    session.last_access_ts = 0
    clean_up(app)
    assert not folder.exists() and folder.name not in app._sessions


@pytest.mark.parametrize("kept", ["tmp", "dicomweb/0a1b2c"])
def test_temporary_files_and_fetched_series_go_after_their_time(app: Any, tmp_path: Path, kept: str) -> None:
    old, young = tmp_path / kept / "1.2.3", tmp_path / kept / "1.2.4"
    for folder in (old, young):
        folder.mkdir(parents=True)
        (folder / "scan.nii.gz").write_bytes(b"voxels")
    for folder in (old, old.parent):  # That of the server stays, whenever it was changed.
        os.utime(folder, (0, 0))
    clean_up(app)
    assert not old.exists() and young.exists()


def test_folders_that_are_no_sessions_are_left_alone(app: Any) -> None:
    folder = Path(app._sessions.store_path) / "my own"
    folder.mkdir(parents=True)
    os.utime(folder, (0, 0))
    clean_up(app)
    assert folder.exists()


def test_an_error_does_not_end_the_thread_that_cleans(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise PermissionError("sessions")

    monkeypatch.setattr(application, "remove_expired", fail)
    clean_up(app)


@pytest.mark.parametrize(
    "text", ["..", "", "meta.info", "6BA7B810-9DAD-11D1-80B4-00C04FD430C8", "6ba7b8109dad11d180b400c04fd430c8"]
)
def test_what_is_no_id_of_a_session_is_none(text: str) -> None:
    assert not is_session_id(text)
    assert is_session_id("6ba7b810-9dad-11d1-80b4-00c04fd430c8")
