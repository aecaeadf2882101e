"""Limits of a request: what is too large, takes too long or has a name that cannot be is refused in words."""

import asyncio
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugins.monailabel.lib.compatibility import provide_storage_uids

provide_storage_uids()
from starlette.testclient import TestClient  # noqa: E402

from plugins.monailabel.lib.bodies import BodyMiddleware  # noqa: E402
from plugins.monailabel.lib.disclosure import disclosed  # noqa: E402
from plugins.monailabel.lib.limits import Limits  # noqa: E402
from plugins.monailabel.lib.server import create_server  # noqa: E402
from plugins.monailabel.lib.usage_error import UsageError  # noqa: E402

KEY = "the key of this server"
LIMITS = Limits(upload_mb=0.1, request_kb=10, upload_seconds=0.5, id_characters=40)


def client(required: bool = False) -> TestClient:
    return TestClient(create_server(["*"], LIMITS, KEY, required), raise_server_exceptions=False)


def pieces(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield b"x" * 1000


@pytest.mark.parametrize(
    ("path", "size", "words"),
    [("/session/", 200_000, "0.1 MB"), ("/infer/findings", 200_000, "upload_mb"), ("/train/x", 20_000, "request_kb")],
)
def test_a_body_that_is_announced_as_too_large_is_refused(path: str, size: int, words: str) -> None:
    answer = client().post(path, content=b"x" * size)
    assert answer.status_code == 413 and words in answer.json()["detail"]


def test_a_body_that_grows_too_large_is_refused() -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = client().put("/session/", content=pieces(500), headers=headers)
    assert answer.status_code == 413 and "0.1 MB" in answer.json()["detail"]


def test_a_field_of_a_form_that_is_too_large_is_refused_with_its_limit() -> None:
    answer = client().post("/infer/findings?image=a", files={"params": (None, "x" * 20_000)})
    assert answer.status_code == 413
    assert answer.json()["detail"] == (
        "a field of the form is larger than 10 KB; send a smaller one, or ask the administrator to raise request_kb"
    )


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/infer/findings?image=" + "x" * 400, "image: expected at most 40 characters, got 400"),
        ("/infer/findings?image=a%0Ab", "line break"),
        ("/infer/findings?session_id=a%00b", "line break"),
        ("/infer/findings?image=..%2Fa", "path"),
        ("/infer/" + "x" * 400, "model: expected at most 40"),
    ],
)
def test_names_that_cannot_be_are_refused(path: str, words: str) -> None:
    answer = client().post(path)
    assert answer.status_code == 400 and words in answer.json()["detail"]


def test_an_address_that_is_none_is_said_to_be_none() -> None:
    for method, path, status in (("GET", "/path/info/", 404), ("DELETE", "/health", 405), ("GET", "/logs", 404)):
        answer = client().request(method, path)
        assert answer.status_code == status and "/openapi.json" in answer.json()["detail"]


def test_who_has_no_key_learns_only_that_one_is_needed() -> None:
    server = client(required=True)
    for path in ("/info/", "/datastore/?output=all", "/openapi.json", "/train/"):
        answer = server.get(path)
        assert answer.status_code == 401 and "Authorization: Bearer" in answer.json()["detail"]
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert server.get("/health").json() == {"status": "alive"} and server.get("/ready").status_code == 200
    key = {"Authorization": f"Bearer {KEY}"}
    assert server.get("/openapi.json", headers=key).status_code == 200
    for wrong in ("Bearer other", "Basic YTpi", f"Bearer {KEY} "[:-2], "Bearer"):
        assert client().get("/openapi.json", headers={"Authorization": wrong}).status_code == 401


def test_a_zip_is_refused_by_its_directory(tmp_path: Path) -> None:
    path = tmp_path / "scan.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.dcm", bytes(3_000_000))
        archive.writestr("b.dcm", bytes(1000))
    for limits, words in (
        (Limits(ratio=1e4, member_mb=2), "member_mb"),
        (Limits(ratio=1e4, unpacked_mb=2), "unpacked_mb"),
        (Limits(ratio=1e4, upload_files=1), "upload_files"),
        (Limits(), "raise ratio"),
    ):
        with pytest.raises(UsageError, match=words) as refused:
            limits.check_zip(path)
        assert refused.value.status == 413
    Limits(ratio=1e4).check_zip(path)


def test_paths_are_never_shown_and_reports_only_to_readers() -> None:
    study = {"report": {"findings": "Clear lungs."}, "image": "/etc/passwd"}
    info = {"path": "/data/case1.nii.gz", "name": "case1.nii.gz", "ts": 1, "study": study, "details": ["line"]}
    content = {"objects": [{"info": info}], "model": "/data/run/model.pt"}
    assert disclosed(content, reader=False) == {
        "objects": [{"info": {"name": "case1.nii.gz", "ts": 1}}],
        "model": "model.pt",
    }
    assert disclosed(content, reader=True)["objects"][0]["info"]["study"] == study


def test_a_body_that_does_not_arrive_is_given_up() -> None:
    async def ask() -> Exception | None:
        async def app(scope: object, receive: object, send: object) -> None:
            await receive()  # type: ignore[operator]

        async def never() -> None:
            await asyncio.sleep(600)

        scope = {"type": "http", "path": "/session/", "headers": []}
        try:
            await BodyMiddleware(app, LIMITS)(scope, never, never)  # type: ignore[arg-type]
        except Exception as error:
            return error
        return None

    started = time.monotonic()
    error = asyncio.run(ask())
    assert getattr(error, "status_code", 0) == 408 and "did not arrive within 0.5 s" in str(error)
    assert time.monotonic() - started < 120
