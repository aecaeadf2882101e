"""The client against a server that answers as the HTTP interface says, with the bundle's own answers."""

from __future__ import annotations

import threading
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from ctfindings_client.client import API, Client, Scan, check_server, with_session
from ctfindings_client.job import Job
from ctfindings_client.transport import ServerError

from bundle.ctfindings.anatomy import ANATOMIES
from tests.plugins.slicer.conftest import QUERY, BundleAnswer
from tests.plugins.slicer.stand_in_server import CONFIG, StandInServer


@pytest.fixture
def scan(bundle_answer: BundleAnswer) -> Scan:
    return Scan(bundle_answer.hu.T, bundle_answer.affine)


def test_connecting_names_bundle_and_weights(server: StandInServer) -> None:
    assert str(Client(server.address).connect()) == "CT Findings 0.1.0, weights abababab"


def test_findings_and_evidence_are_those_of_the_bundle(
    server: StandInServer, scan: Scan, bundle_answer: BundleAnswer
) -> None:
    client = Client(server.address)
    session = client.upload(scan)
    findings = client.findings(session)
    assert findings.record.data == bundle_answer.record
    assert findings.label_names == {anatomy.name: anatomy.mask_id for anatomy in ANATOMIES}
    np.testing.assert_array_equal(findings.labels.T, np.asarray(nib.load(bundle_answer.labels).dataobj))

    entry = bundle_answer.present()[0]
    evidence = client.evidence(session, finding=entry["name"])
    assert evidence.probability == pytest.approx(entry["probability"])
    assert evidence.peak_mm == pytest.approx([*entry["evidence"]["peak_mm"][:2], entry["evidence"]["z_mm"]])
    assert evidence.heat.dtype == np.uint8, "the map stays as small as it came"
    np.testing.assert_allclose(evidence.heat.T / 255, bundle_answer.maps[entry["name"]], atol=1e-6)
    assert evidence.strongest == evidence.heat.max()
    assert (evidence.image, evidence.images) == (entry["evidence"]["image"], bundle_answer.hu.shape[2])
    assert client.evidence(session, query=QUERY).probability is None


def test_nothing_but_voxels_and_place_leaves_the_computer(server: StandInServer, scan: Scan) -> None:
    client = Client(server.address)
    client.findings(client.upload(scan))
    sent = b"".join(path.encode() + str(headers).encode() + body for _, path, headers, body in server.requests)
    assert b'filename="scan.nii.gz"' in sent
    header = nib.Nifti1Image.from_bytes(__import__("gzip").decompress(server.sessions["session-0"])).header
    for field in ("descrip", "db_name", "aux_file", "intent_name"):
        assert header[field].item() == b""


def test_scans_that_the_server_has_are_listed_given_and_asked_about_without_an_upload(
    server: StandInServer, bundle_answer: BundleAnswer
) -> None:
    server.images = {"second": b"", "first": bundle_answer.scan.read_bytes()}
    client = Client(server.address)
    assert [(scan.id, scan.line) for scan in client.scans()] == [
        ("first", "2026-11-29, not asked yet"),
        ("second", "2026-11-29, not asked yet"),
    ]
    scan = client.scan(image="first")
    np.testing.assert_array_equal(scan.array.T, bundle_answer.hu)
    np.testing.assert_allclose(scan.affine, bundle_answer.affine, atol=1e-4)
    assert client.findings(image="first").record.data == bundle_answer.record
    assert client.evidence(image="first", query=QUERY).text == QUERY
    assert not server.sessions
    with pytest.raises(ServerError, match="not in the datastore"):
        client.findings(image="third")


def test_a_file_is_sent_as_it_is_and_can_be_looked_at(server: StandInServer, bundle_answer: BundleAnswer) -> None:
    client = Client(server.address)
    session = client.upload_file(bundle_answer.scan.read_bytes(), "scan.nii.gz")
    assert server.sessions[session] == bundle_answer.scan.read_bytes()
    np.testing.assert_array_equal(client.scan(session).array.T, bundle_answer.hu)


def test_a_forgotten_scan_is_sent_again_once(server: StandInServer, scan: Scan) -> None:
    client, noted = Client(server.address), []
    with_session(client, "forgotten", scan, client.findings, noted.append)
    assert list(server.sessions) == noted
    with_session(client, noted[0], scan, client.findings, noted.append)
    assert len(noted) == len(server.sessions) == 1
    with pytest.raises(ServerError, match="open the file again"):
        with_session(client, "forgotten", None, client.findings, noted.append)
    assert len(noted) == 1


def test_a_deleted_scan_is_gone_and_deleting_it_again_is_no_error(server: StandInServer, scan: Scan) -> None:
    client = Client(server.address)
    session = client.upload(scan)
    client.delete(session)
    assert not client.has_session(session)
    client.delete(session)
    server.failures["/session/"] = (500, b"broken")
    with pytest.raises(ServerError, match="HTTP 500"):
        client.delete(session)


def test_an_error_about_a_known_scan_is_shown_and_nothing_is_sent_again(server: StandInServer, scan: Scan) -> None:
    client = Client(server.address)
    session = client.upload(scan)
    server.failures["/infer/"] = (400, b'{"detail": "the scan cannot be read"}')
    with pytest.raises(ServerError, match="The server says: the scan cannot be read"):
        with_session(client, session, scan, client.findings, lambda _: pytest.fail("the scan was sent again"))
    assert len(server.sessions) == 1


def test_an_upload_is_noted_though_the_question_about_it_fails(server: StandInServer, scan: Scan) -> None:
    client, noted = Client(server.address), []
    server.failures["/infer/"] = (400, b'{"detail": "the scan cannot be read"}')
    with pytest.raises(ServerError, match="cannot be read"):
        with_session(client, "", scan, client.findings, noted.append)
    assert noted == list(server.sessions) == ["session-0"]


@pytest.mark.parametrize(
    ("kind", "slope", "values", "shown"),
    [
        ("u1", 1 / 255, [0, 51, 255], [0, 51, 255]),
        ("f4", 1, [0, 0.2, 1], [0, 51, 255]),
        ("u1", 1 / 100, [0, 20, 100], [0, 51, 255]),
    ],
)
def test_heat_is_8_bits_however_it_is_stored(
    server: StandInServer, kind: str, slope: float, values: list[float], shown: list[int]
) -> None:
    image = nib.Nifti1Image(np.array([[values]]).astype(kind), np.eye(4))
    image.header.set_slope_inter(slope, 0)
    params = {"text": "x", "probability": None, "depth": [], "peak_mm": None, "box_mm": None}
    server.evidence = lambda _: (params, image.to_bytes())
    server.images["known"] = b""
    evidence = Client(server.address).evidence(image="known", query="x")
    assert evidence.heat.dtype == np.uint8
    assert evidence.heat.ravel().tolist() == shown and evidence.strongest == 255


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({"detail": "x"}, "not a MONAI Label server"),
        ({"models": {"spleen": {}}}, "no model findings and evidence .it has: spleen."),
        ({"models": {"findings": {"config": CONFIG}}}, "no model evidence"),
        (
            {"models": {name: {"config": {**CONFIG, "api": API + 1}} for name in ("findings", "evidence")}},
            "update the CT Findings extension",
        ),
        ({"models": {name: {"config": {}} for name in ("findings", "evidence")}}, "older of the two is the server"),
    ],
)
def test_servers_that_do_not_fit_are_refused_with_what_to_do(info: dict[str, Any], message: str) -> None:
    with pytest.raises(ServerError, match=message):
        check_server(info, "http://server")


def test_an_answer_of_another_schema_is_refused(server: StandInServer, scan: Scan) -> None:
    client = Client(server.address)
    session = client.upload(scan)
    server.findings[0]["record"] = {**server.findings[0]["record"], "schema_version": "2.0"}
    with pytest.raises(ServerError, match=r"schema 2\.0"):
        client.findings(session)


def test_signing_in_gives_the_token_that_later_requests_carry(server: StandInServer) -> None:
    server.token = "t0ken"
    with pytest.raises(ServerError, match="asks for a user name and a password"):
        Client(server.address).connect()
    client = Client(server.address)
    assert client.sign_in("ann", "s&cret") == "t0ken"
    client.connect()
    with pytest.raises(ServerError, match="asks for a user name and a password"):
        Client(server.address).sign_in("ann", "wrong")


def test_the_key_of_a_server_is_sent_with_every_request(server: StandInServer) -> None:
    server.token = "t0ken"
    client = Client(server.address)
    assert client.use_key("t0ken") == "t0ken"
    client.connect()


def test_a_password_or_key_is_not_sent_in_the_clear() -> None:
    client = Client("http://pacs.example.org:8000")
    with pytest.raises(ServerError, match="a password is only sent over https"):
        client.sign_in("ann", "s&cret")
    with pytest.raises(ServerError, match="a key is only sent over https"):
        client.use_key("t0ken")
    assert client.token == ""


def test_a_server_that_is_gone_is_not_alive_and_one_that_refuses_is(server: StandInServer) -> None:
    server.token = "t0ken"
    Client(server.address).check_alive()
    with pytest.raises(ServerError, match="no server answers"):
        Client("http://127.0.0.1:9").check_alive()


def test_a_job_hands_over_its_outcome_and_nothing_after_cancel(server: StandInServer, scan: Scan) -> None:
    done: list[Any] = []
    failed: list[Exception] = []

    def work(cancellation: Any, progress: Any) -> Any:
        client = Client(server.address, "", cancellation, progress)
        return client.findings(client.upload(scan))

    job = Job(work, done.append, failed.append)
    job._thread.join(30)
    assert job.over
    job.deliver()
    assert len(done) == 1 and not failed

    server.gate.clear()
    job = Job(work, done.append, failed.append)
    for _ in range(600):
        if job.stage[0] == "waiting" and len(server.sessions) == 2:
            break
        threading.Event().wait(0.05)
    job.cancel()
    job._thread.join(10)
    assert not job._thread.is_alive()
    job.deliver()
    assert len(done) == 1 and not failed


def test_a_job_that_fails_hands_over_why() -> None:
    failed: list[Exception] = []

    def work(cancellation: Any, progress: Any) -> Any:
        raise ServerError("broken")

    job = Job(work, lambda value: pytest.fail("it did not fail"), failed.append)
    job._thread.join(10)
    job.deliver()
    assert [str(error) for error in failed] == ["broken"]


def test_an_answer_that_cannot_be_shown_is_a_sentence_and_a_traceback_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failed: list[Exception] = []

    def show(value: Any) -> None:
        raise KeyError("lung")

    job = Job(lambda cancellation, progress: 1, show, failed.append)
    job._thread.join(10)
    job.deliver()
    assert [str(error) for error in failed] == ["The answer could not be shown (KeyError: 'lung'); the log says more."]
    assert caplog.records[0].exc_info is not None
