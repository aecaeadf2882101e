"""The server through HTTP: what is sent to it, what it keeps, and what it leaves alone."""

import json
import resource
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import requests

from tests.plugins.monailabel.live_server import QUERY, LiveServer, assert_refused, probabilities


def test_a_session_is_answered_like_the_datastore_and_forgets_the_name_of_the_file(
    server: LiveServer, scans: dict[str, Path]
) -> None:
    session = server.upload(("Doe_John.nii.gz", scans["second"].read_bytes()))
    answer = server.infer("findings", f"session_id={session}", output="json")
    wanted = server.infer("findings", "image=second", output="json").params["record"]
    assert probabilities(answer.params["record"]) == probabilities(wanted)
    assert "Doe" not in json.dumps(answer.params) and "Doe" not in server.log.read_text()
    assert requests.delete(f"{server.url}/session/{session}", timeout=60).status_code == 200
    assert_refused(server.infer("findings", f"session_id={session}"), 404, "session")


def test_the_log_does_not_name_a_scan_of_the_datastore(server: LiveServer) -> None:
    for output in ("json", "all"):
        assert server.infer("findings", "image=Doe_Jane", output=output).status == 200
    assert server.get("/datastore/image?image=Doe_Jane").status_code == 200
    assert "Doe_Jane" in server.get("/datastore/?output=all").json()["objects"]
    log = server.log.read_text(encoding="utf-8")
    assert "encoded in" in log and "Doe" not in log


def test_a_scan_sent_along_is_answered_and_not_kept(server: LiveServer, scans: dict[str, Path]) -> None:
    answer = server.infer("findings", "", files={"file": ("x.nii.gz", scans["first"].read_bytes())}, output="json")
    assert answer.status == 200 and len(answer.params["record"]["findings"]) == 18


def test_corrupt_uploads_are_refused_and_leave_nothing(server: LiveServer, scans: dict[str, Path]) -> None:
    session = server.upload(("x.nii.gz", scans["first"].read_bytes()[:30_000]))
    assert_refused(server.infer("findings", f"session_id={session}"), 422, "scan.nii.gz")
    response = requests.put(f"{server.url}/session/", files={"files": ("virus.exe", b"MZ")}, timeout=60)
    assert response.status_code == 422 and "format" in response.json()["detail"]
    assert not server.left()


def test_the_folder_of_scans_is_only_read(server: LiveServer, studies: Path) -> None:
    before = {path.name: path.read_bytes() for path in studies.iterdir()}
    file = {"file": ("x.nii.gz", before["second.nii.gz"])}
    for refused in (
        requests.put(f"{server.url}/datastore/image?image=third", files=file, timeout=60),
        requests.put(f"{server.url}/datastore/image?image=first", files={"file": ("x.nii.gz", b"1234567")}, timeout=60),
        requests.delete(f"{server.url}/datastore/image?id=first", timeout=60),
    ):
        assert refused.status_code == 403 and "--writable" in refused.json()["detail"]
    assert {path.name: path.read_bytes() for path in studies.iterdir()} == before and not server.left()


def test_a_label_is_kept_if_it_is_an_anatomy_mask_on_the_grid_of_its_scan(server: LiveServer, studies: Path) -> None:
    scan = nib.load(studies / "second.nii.gz")
    mask = np.ones(scan.shape, np.uint8)

    def saved(array: np.ndarray, affine: np.ndarray) -> requests.Response:
        label = {"label": ("x.nii", nib.Nifti1Image(array, affine).to_bytes())}
        return requests.put(f"{server.url}/datastore/label?image=second&tag=final", files=label, timeout=120)

    moved = scan.affine + np.array([[0, 0, 0, 5.0], [0] * 4, [0] * 4, [0] * 4])
    for array, affine, words in (
        (mask[:-1], scan.affine, "its grid"),
        (mask, moved, "lies elsewhere"),
        (mask * 200, scan.affine, "mapped ids"),
        (mask / np.float32(3), scan.affine, "integers"),
    ):
        answer = saved(array, affine)
        assert answer.status_code == 422 and words in answer.json()["detail"]
    assert server.get("/datastore/label?label=second&tag=final").status_code == 404
    assert saved(mask, scan.affine).json() == {"image": "second", "label": "second"}
    kept = server.get("/datastore/label?label=second&tag=final").content
    np.testing.assert_array_equal(np.asarray(nib.Nifti1Image.from_bytes(kept).dataobj), mask)
    assert requests.post(f"{server.url}/activelearning/first", timeout=60).json()["id"] == "Doe_Jane"
    assert requests.delete(f"{server.url}/datastore/label?id=second&tag=final", timeout=60).status_code == 200


@pytest.mark.skipif(
    not hasattr(resource, "prlimit"), reason="the limit of another process's files can be set on Linux only"
)
def test_a_disk_that_takes_no_more_loses_nothing(server: LiveServer, scans: dict[str, Path]) -> None:
    """Files above 60 kB cannot be written for a while: the same path through the code as a full disk, without needing
    one.
    """
    content = nib.load(scans["first"]).to_bytes()[:900_000]
    session = server.upload(("x.nii.gz", scans["second"].read_bytes()))
    before = server.infer("evidence", f"session_id={session}", {"query": QUERY})
    _, hard = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
    size = 1 + max(60_000, server.log.stat().st_size)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size, hard))
    try:
        upload = requests.put(f"{server.url}/session/", files={"files": ("y.nii", content)}, timeout=120)
        assert upload.status_code == 507 and "disk" in upload.json()["detail"]
        assert server.infer("evidence", f"session_id={session}", {"query": QUERY}, output="json").status == 200
    finally:
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
    assert not server.left()
    assert server.infer("evidence", f"session_id={session}", {"query": QUERY}).file == before.file
    assert server.infer("findings", "image=second", output="json").status == 200
