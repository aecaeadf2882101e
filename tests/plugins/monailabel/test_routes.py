"""The routes without a network: whose requests are answered, what is kept of them, and that a slow archive holds up
nobody else.
"""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from plugins.monailabel.lib.compatibility import provide_storage_uids

provide_storage_uids()
from monailabel.config import settings  # noqa: E402
from monailabel.interfaces.utils.app import apps  # noqa: E402
from monailabel.utils.async_tasks.task import AsyncTask  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

from plugins.monailabel.lib.datastores import FolderDatastore, SeriesDatastore  # noqa: E402
from plugins.monailabel.lib.server import create_server  # noqa: E402

UID = "1.2.840.10008.1"
KEY = "the key of this server"
READER = {"Authorization": f"Bearer {KEY}"}


class Archive:
    """A DICOMweb server with one series of a patient, which can be slow or gone, and takes nothing."""

    base_url = "http://127.0.0.1/dicom-web"

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.asked, self.may_answer = threading.Event(), threading.Event()
        self.may_answer.set()
        self.searches: list[Any] = []

    def search_for_series(self, search_filters: Any, **_: Any) -> list[Any]:
        self.searches.append(search_filters)
        self.asked.set()
        assert self.may_answer.wait(60)
        if self.error is not None:
            raise self.error
        described = {
            "0008103E": {"vr": "LO", "Value": ["Chest, axial"]},
            "00080020": {"vr": "DA", "Value": ["20260102"]},
        }
        patient = {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "Doe^Jane"}]}}
        uids = {"0020000E": {"vr": "UI", "Value": [UID]}, "0020000D": {"vr": "UI", "Value": ["1.2"]}}
        return [{**uids, **described, **patient}]


def served(datastore: Any, monkeypatch: pytest.MonkeyPatch, **more: Any) -> TestClient:
    app = SimpleNamespace(
        **{
            "datastore": lambda: datastore,
            "info": lambda: {"datastore": datastore.status()},
            "sessions": lambda: None,
            "server_mode": lambda _: None,
            "on_init_complete": lambda: None,
            "on_save_label": lambda *_: None,
            "_trainers": {},
            **more,
        }
    )
    monkeypatch.setitem(apps, f"{settings.MONAI_LABEL_APP_DIR}{settings.MONAI_LABEL_STUDIES}", app)
    return TestClient(create_server(["*"], key=KEY), raise_server_exceptions=False, headers={"Host": "127.0.0.1:8000"})


@pytest.fixture
def archive() -> Archive:
    return Archive()


@pytest.fixture
def series(archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A server on the archive, whose requests share one event loop."""
    with served(SeriesDatastore(archive, {"Modality": "CT"}, str(tmp_path)), monkeypatch) as client:
        yield client


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """A server on a folder with one scan, ``case1``."""
    (tmp_path / "case1.nii.gz").write_bytes(b"voxels")
    return served(FolderDatastore(str(tmp_path), extensions=["*.nii.gz"]), monkeypatch)


# Origins


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "http://127.0.0.1:8000.evil.example", ""]
)
def test_a_page_of_another_site_cannot_make_the_server_act(folder: TestClient, tmp_path: Path, origin: str) -> None:
    before = sorted(tmp_path.iterdir())
    for method, path in [
        ("POST", "/train/findings"),
        ("POST", "/activelearning/random"),
        ("GET", "/info/"),
        ("OPTIONS", "/info/"),
    ]:
        answer = folder.request(method, path, headers={"Origin": origin})
        assert answer.status_code == 403 and "MONAI_LABEL_CORS_ORIGINS" in answer.json()["detail"]
    sent = folder.put("/datastore/image?image=x", files={"file": ("x.nii.gz", b"voxels")}, headers={"Origin": origin})
    assert sent.status_code == 403 and sorted(tmp_path.iterdir()) == before


def test_programs_and_pages_of_the_server_itself_are_answered(folder: TestClient) -> None:
    assert folder.get("/info/").status_code == 200
    assert folder.get("/info/", headers={"Origin": "http://127.0.0.1:8000"}).status_code == 200


def test_a_page_that_the_settings_name_is_answered_and_may_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = "https://viewer.example.org"
    monkeypatch.setattr(settings, "MONAI_LABEL_CORS_ORIGINS", [f"{page}/"])
    client = served(FolderDatastore(str(tmp_path), extensions=["*.nii.gz"]), monkeypatch)
    answer = client.get("/info/", headers={"Origin": page})
    assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == page
    asks_first = client.options("/infer/findings", headers={"Origin": page, "Access-Control-Request-Method": "POST"})
    assert asks_first.status_code == 200 and asks_first.headers["access-control-allow-origin"] == page
    assert client.get("/info/", headers={"Origin": "https://other.example.org"}).status_code == 403


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/train/"),
        ("POST", "/batch/infer/findings"),
        ("POST", "/scoring/dice"),
        ("GET", "/datastore/dataset"),
        ("PUT", "/model/findings"),
        ("DELETE", "/model/findings"),
    ],
)
def test_routes_that_nothing_here_uses_are_not_served(folder: TestClient, method: str, path: str) -> None:
    assert folder.request(method, path).status_code in (404, 405)


# DICOMweb


@pytest.mark.parametrize("path", ["/info/", "/datastore/?output=all", "/datastore/"])
def test_a_slow_dicomweb_server_holds_up_nobody_else(series: TestClient, archive: Archive, path: str) -> None:
    archive.may_answer.clear()
    with ThreadPoolExecutor(2) as clients:
        try:
            slow = clients.submit(series.get, path)
            assert archive.asked.wait(60)
            assert clients.submit(series.get, "/").result(timeout=60).status_code == 200
            assert not slow.done()
        finally:
            archive.may_answer.set()
        assert slow.result(timeout=60).status_code == 200


def test_segmentations_of_the_archive_are_not_searched_for(series: TestClient, archive: Archive) -> None:
    assert series.get("/info/").json()["datastore"] == {"total": 1, "completed": 0, "label_tags": {}}
    assert list(series.get("/datastore/?output=all").json()["objects"]) == [UID]
    assert series.get("/datastore/?output=train").json() == []
    assert archive.searches == [{"Modality": "CT"}] * 2, "listed once, with a second page that brings nothing, and kept"


def test_a_series_is_listed_by_its_description_and_day_and_without_the_patient(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datastore = SeriesDatastore(archive, {"Modality": "CT"}, str(tmp_path))
    client = served(datastore, monkeypatch, corrections=SimpleNamespace(has=lambda image, path: False))
    answer = client.get("/datastore/scans")
    assert "Doe" not in answer.text
    (listed,) = answer.json()
    assert (listed["id"], listed["description"], listed["date"]) == (UID, "Chest, axial", "2026-01-02")
    assert datastore.about("1.2.3") == ("", "")


@pytest.mark.parametrize("path", ["/info/", "/datastore/?output=all"])
def test_a_dicomweb_server_that_is_gone_is_named_with_502(series: TestClient, archive: Archive, path: str) -> None:
    archive.error = requests.ConnectionError("refused")
    answer = series.get(path)
    assert answer.status_code == 502 and "DICOMweb" in answer.json()["detail"]
    archive.error = None
    assert series.get(path).status_code == 200


def test_a_realm_that_is_gone_is_502_too(series: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> Any:
        raise requests.ConnectionError("refused")

    (app,) = [app for app in apps.values() if isinstance(app, SimpleNamespace)]
    monkeypatch.setattr(app, "info", gone)
    answer = series.get("/info/")
    assert answer.status_code == 502 and "ConnectionError" in answer.json()["detail"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_series_is_not_fetched_to_be_given_as_a_file(series: TestClient, archive: Archive, method: str) -> None:
    assert series.request(method, f"/datastore/image?image={UID}").status_code == 404
    assert not archive.searches


def test_labels_and_study_records_of_a_series_are_refused_in_words(
    series: TestClient, archive: Archive, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    info = {"info": json.dumps({"study": {"report": {"findings": "Clear lungs."}}})}
    for answer in (
        series.put(f"/datastore/label?image={UID}&tag=final", files={"label": ("x.nii.gz", b"voxels")}),
        series.put(f"/datastore/image?image={UID}", files={"file": ("x.nii.gz", b"voxels")}),
        series.put(f"/datastore/image/info?image={UID}", data=info),
    ):
        assert answer.status_code == 400 and "PUT /corrections/" in answer.json()["detail"]
    assert sorted(tmp_path.rglob("*")) == before and not archive.searches
    assert series.get(f"/datastore/label?label={UID}&tag=final").status_code == 404 and not archive.searches


# Study records


@pytest.mark.parametrize(
    ("info", "words"),
    [
        ('{"study": {', "not valid JSON"),
        ("[1]", "not a JSON object"),
        ('{"study": [0, 1]}', "study is not an object"),
        ('{"study": {"label": [0]}}', "unknown field 'label'; known are patient, report, captions, labels, snippets"),
        (json.dumps({"study": {"labels": [0] * 17}}), "labels of study case1: expected 18 values"),
        (json.dumps({"study": {"labels": [2] * 18}}), "labels of study case1: expected 18 values"),
        (json.dumps({"study": {"labels": [[0]] * 18}}), "labels of study case1: expected 18 values"),
        ('{"study": {"labels": 1}}', "labels of study case1: expected 18 values"),
        ('{"study": {"report": "Clear lungs."}}', "report of study case1: expected an object"),
        ('{"study": {"captions": {"lung": "Clear lungs."}}}', "caption of lung of study case1"),
        ('{"study": {"snippets": [{"text": ""}]}}', "snippet of study case1"),
        ('{"study": {"snippets": 3}}', "snippet of study case1"),
    ],
)
def test_a_study_record_that_training_could_not_read_is_refused_when_it_is_sent(
    folder: TestClient, info: str, words: str
) -> None:
    answer = folder.put("/datastore/image/info?image=case1", data={"info": info})
    assert (
        answer.status_code == 400 and words in answer.json()["detail"] and answer.json()["detail"].startswith("info: ")
    )
    assert "study" not in folder.get("/datastore/image/info?image=case1").json()


def test_a_second_training_is_refused_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AsyncTask, "run", lambda *_, **__: (None, "++++++++++ Train Task is Already Running"))
    trainers = {"findings": SimpleNamespace(check=lambda *_: None)}
    client = served(FolderDatastore(str(tmp_path)), monkeypatch, _trainers=trainers)
    answer = client.post("/train/findings", json={})
    assert answer.status_code == 429
    assert answer.json()["detail"] == "a training is already running; wait for it, or stop it with DELETE /train/"


def test_a_whole_study_record_is_kept(folder: TestClient) -> None:
    study = {
        "id": "x",
        "image": "/etc/passwd",
        "patient": 7,
        "labels": [0, 1, -1] * 6,
        "report": {"findings": "Clear lungs."},
        "captions": {"lung": {"text": "Clear lungs.", "normal": True}},
        "snippets": [{"text": "a nodule", "z_mm": None}],
    }
    assert (
        folder.put("/datastore/image/info?image=case1", data={"info": json.dumps({"study": study})}).status_code == 200
    )
    shown = folder.get("/datastore/image/info?image=case1", headers=READER).json()
    assert shown["study"] == study and shown["name"] == "case1.nii.gz" and "path" not in shown
    for path in ("image/info?image=case1", "?output=all"):
        assert "Clear lungs." not in folder.get(f"/datastore/{path}").text
    assert "Clear lungs." not in folder.post("/activelearning/first").text
    assert (
        folder.put("/datastore/image/info?image=nobody", data={"info": json.dumps({"study": study})}).status_code == 404
    )


def test_params_of_uploads_that_are_no_json_are_refused_before_anything_is_kept(
    folder: TestClient, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    for path, part in [("image?image=x", "file"), ("label?image=case1&tag=final", "label")]:
        answer = folder.put(f"/datastore/{path}", files={part: ("x.nii.gz", b"voxels")}, data={"params": "{"})
        assert answer.status_code == 400 and "params" in answer.json()["detail"]
    assert sorted(tmp_path.rglob("*")) == before
