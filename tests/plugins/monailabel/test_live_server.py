"""The server through HTTP: the three models, sessions, errors of use, and many clients at once."""

import dataclasses
import io
import json
import resource
import socket
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import requests

from bundle.ctfindings import __version__
from bundle.ctfindings.anatomy import ANATOMIES
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.inference.service import AnsweredScan, load_service
from bundle.ctfindings.networks.checkpoint import sha256_of
from bundle.ctfindings.phantom.dataset import make_case
from bundle.ctfindings.phantom.write_dicom import write_series
from tests.plugins.monailabel.live_server import Answer, LiveServer

QUERY = "fluid around the left lung"


@pytest.fixture(scope="module")
def answered(bundle_root: Path, untrained_weights: Path, scans: dict[str, Path]) -> dict[str, AnsweredScan]:
    """The same scans without a server: what the answers have to be."""
    service = load_service(bundle_root, untrained_weights)
    return {name: service.answer_file(path) for name, path in scans.items()}


def probabilities(record: dict[str, Any]) -> list[float]:
    return [finding["probability"] for finding in record["findings"]]


def expected(scan: AnsweredScan) -> list[float]:
    return [finding.probability for finding in scan.record.findings]


def assert_refused(answer: Answer, status: int, *words: str) -> None:
    assert answer.status == status, answer.params
    assert list(answer.params) == ["detail"] and "\n" not in answer.params["detail"]
    for word in words:
        assert word in answer.params["detail"]


def test_info_names_the_models_and_the_versions_a_client_compares(server: LiveServer, untrained_weights: Path) -> None:
    info = server.get("/info/").json()
    assert info["version"] == __version__
    assert set(info["models"]) == {"findings", "findings_points", "evidence", "scan"}
    for model in info["models"].values():
        config = model["config"]
        assert (config["api"], config["bundle_version"], config["weights_sha256"]) == (
            1,
            __version__,
            sha256_of(untrained_weights),
        )
    assert info["models"]["evidence"]["config"]["query"] == ""
    assert info["models"]["evidence"]["type"] not in ("segmentation", "detection"), (
        "Slicer's own module would load it as a segmentation"
    )


def test_findings_are_the_record_and_the_anatomies_on_the_grid_of_the_scan(
    server: LiveServer, answered: dict[str, AnsweredScan], scans: dict[str, Path]
) -> None:
    answer = server.infer("findings", "image=first")
    record = answer.params["record"]
    assert [finding["name"] for finding in record["findings"]] == list(FINDING_NAMES)
    np.testing.assert_allclose(probabilities(record), expected(answered["first"]), atol=1e-4)
    assert record["scan"]["file"] == "first.nii.gz" and "not a diagnosis" in record["disclaimer"].lower()
    assert answer.params["label_names"] == {anatomy.name: anatomy.mask_id for anatomy in ANATOMIES}
    assert answer.params["draft_report"].startswith("DRAFT REPORT") and "first.nii.gz" in answer.params["draft_report"]
    scan, anatomy = nib.load(scans["first"]), answer.volume()
    assert anatomy.shape == scan.shape
    np.testing.assert_allclose(anatomy.affine, scan.affine, atol=1e-4)
    assert set(np.unique(answer.values())) <= set(range(7))
    assert server.infer("findings", "image=first", output="json").params["record"]["findings"] == record["findings"]


def test_the_scan_itself_is_given_in_hu_on_its_own_grid_without_encoding_it(
    server: LiveServer, scans: dict[str, Path]
) -> None:
    before = server.encoded()
    answer = server.infer("scan", "image=second")
    assert answer.status == 200 and answer.volume().get_data_dtype() == np.dtype("<i2")
    scan = nib.load(scans["second"])
    np.testing.assert_array_equal(answer.values(), np.maximum(np.asarray(scan.dataobj), -1024))
    np.testing.assert_allclose(answer.volume().affine, scan.affine, atol=1e-4)
    assert server.encoded() == before
    assert server.infer("scan", "image=second", output="json").status == 400
    refused = server.infer("scan", "image=truncated")
    assert (
        refused.status == 422
        and "truncated.nii.gz" in refused.params["detail"]
        and "/" not in refused.params["detail"].split(":")[0]
    )


def test_points_are_the_present_findings_at_their_evidence_in_lps(server: LiveServer) -> None:
    record = server.infer("findings", "image=first", output="json").params["record"]
    present = [finding for finding in record["findings"] if finding["present"] and finding["evidence"]]
    answer = server.infer("findings_points", "image=first")
    assert answer.name.endswith(".mrk.json")
    (markup,) = json.loads(answer.file)["markups"]
    assert markup["coordinateSystem"] == "LPS" and present, "untrained weights find something"
    points = {point["label"]: point["position"] for point in markup["controlPoints"]}
    assert set(points) == {f"{finding['name']} {finding['probability']:.2f}" for finding in present}
    for finding in present:
        x, y, z = finding["evidence"]["peak_mm"]
        np.testing.assert_allclose(points[f"{finding['name']} {finding['probability']:.2f}"], [-x, -y, z], atol=1e-3)


def test_evidence_of_a_finding_is_that_of_the_record(server: LiveServer) -> None:
    record = server.infer("findings", "image=first", output="json").params["record"]
    finding = next(finding for finding in record["findings"] if finding["name"] == "Pleural effusion")
    answer = server.infer("evidence", "image=first", {"finding": "Pleural effusion"})
    assert answer.params["probability"] == pytest.approx(finding["probability"], abs=1e-5)
    for key in ("anatomy", "anatomy_found", "threshold", "present", "not_assessed"):
        assert answer.params[key] == finding[key], key
    for key in ("notice", "warnings", "disclaimer"):
        assert answer.params[key] == record[key], key
    assert answer.params["nearest_findings"] is None
    for key in ("peak_mm", "z_mm", "slice_index", "box_mm"):
        assert (answer.params[key] is None) == (finding["evidence"][key] is None), key
        if answer.params[key] is not None:
            np.testing.assert_allclose(answer.params[key], finding["evidence"][key], atol=1e-3)


def test_evidence_of_free_text_is_a_heat_map_with_its_depth(server: LiveServer, scans: dict[str, Path]) -> None:
    answer = server.infer("evidence", "image=first", {"query": QUERY})
    params, heat = answer.params, answer.values()
    assert params["text"] == QUERY and params["probability"] is None and 0 <= params["score"] <= 1
    assert params["present"] is None and params["disclaimer"].startswith("Research only")
    assert params["asked"] == QUERY and 0 <= params["percentile"] <= 1 and "unrelated texts" in params["meaning"]
    assert len(params["nearest_findings"]) == 5 and params["anatomy_found"] in (True, False)
    scan = nib.load(scans["first"])
    assert heat.shape == scan.shape and heat.dtype.kind == "f" and heat.min() >= 0 and heat.max() <= 1
    heights = [layer["z_mm"] for layer in params["depth"]]
    assert heights == sorted(heights)
    best = max(params["depth"], key=lambda layer: layer["score"])["z_mm"]
    assert abs(best - params["z_mm"]) <= (heights[1] - heights[0])
    # Each layer of the profile is as strong as the heat on the slice through its centre, but for what interpolation
    # between tokens loses.
    inside = slice(1, -1)
    scores = np.asarray([layer["score"] for layer in params["depth"]])[inside]
    slices = np.round((np.asarray(heights)[inside] - scan.affine[2, 3]) / scan.affine[2, 2]).astype(int)
    strongest = heat.max(axis=(0, 1))[slices]
    np.testing.assert_allclose(strongest, scores, atol=0.02)
    assert np.corrcoef(scores, strongest)[0, 1] > 0.8


def test_nonsense_has_no_score_and_no_place_and_a_negation_is_asked_as_what_it_denies(server: LiveServer) -> None:
    nonsense = server.infer("evidence", "image=first", {"query": "asdf qwerty zxcv"})
    assert nonsense.params["score"] == 0 and nonsense.params["peak_mm"] is None and not nonsense.values().any()
    assert "means nothing" in nonsense.params["meaning"] and "None of its words" in nonsense.params["hints"][0]
    denied = server.infer("evidence", "image=first", {"query": f"no {QUERY}"}, output="json").params
    asked = server.infer("evidence", "image=first", {"query": QUERY}, output="json").params
    assert (denied["text"], denied["asked"]) == (f"no {QUERY}", QUERY)
    assert denied["score"] == asked["score"] and denied["peak_mm"] == asked["peak_mm"]


def test_a_second_question_does_not_encode_the_scan_again(server: LiveServer) -> None:
    server.infer("findings", "image=second", output="json")
    before = server.encoded()
    for query in ("a nodule in the right upper lobe", "calcified aorta"):
        assert server.infer("evidence", "image=second", {"query": query}).status == 200
    # The same content under another name is the same scan, and keeps its own name.
    server.infer("findings", "image=first", output="json")
    copy = server.infer("findings", "image=copy_of_first", output="json").params["record"]
    assert copy["scan"]["file"] == "copy_of_first.nii.gz"
    assert server.encoded() - before <= 1


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


def test_a_scan_sent_along_is_answered_and_not_kept(server: LiveServer, scans: dict[str, Path]) -> None:
    answer = server.infer("findings", "", files={"file": ("x.nii.gz", scans["first"].read_bytes())}, output="json")
    assert answer.status == 200 and len(answer.params["record"]["findings"]) == 18


@pytest.mark.parametrize(
    ("model", "target", "params", "status", "words"),
    [
        ("lungs", "image=first", None, 404, ["lungs", "findings_points"]),
        ("findings", "image=nobody", None, 404, ["nobody"]),
        ("findings", "image=../../etc/passwd", None, 400, ["path"]),
        ("findings", "session_id=../sessions", None, 404, ["session"]),
        ("findings", "", None, 400, ["image=ID"]),
        ("findings", "image=truncated", None, 422, ["truncated.nii.gz"]),
        ("findings", "image=eight_bit", None, 422, ["eight_bit.nii.gz", "all voxels"]),
        ("evidence", "image=first", {}, 400, ["finding", "query"]),
        ("evidence", "image=first", {"finding": "Gout"}, 400, ["Gout", "Pleural effusion"]),
        ("evidence", "image=first", {"query": "x" * 301}, 400, ["301", "300"]),
        ("evidence", "image=first", {"query": 7}, 400, ["query"]),
        ("evidence", "image=first", [1], 400, ["object"]),
        ("findings", "image=nobody", {"image": "/etc/passwd"}, 404, ["nobody"]),
    ],
)
def test_errors_of_use_are_a_status_and_a_sentence(
    server: LiveServer, model: str, target: str, params: Any, status: int, words: list[str]
) -> None:
    assert_refused(server.infer(model, target, params), status, *words)
    assert server.process.poll() is None


def test_params_that_are_no_json_are_refused(server: LiveServer) -> None:
    response = requests.post(f"{server.url}/infer/evidence?image=first", data={"params": "{"}, timeout=60)
    assert response.status_code == 400 and "JSON" in response.json()["detail"]


def test_corrupt_uploads_are_refused_and_leave_nothing(server: LiveServer, scans: dict[str, Path]) -> None:
    session = server.upload(("x.nii.gz", scans["first"].read_bytes()[:30_000]))
    assert_refused(server.infer("findings", f"session_id={session}"), 422, "scan.nii.gz")
    response = requests.put(f"{server.url}/session/", files={"files": ("virus.exe", b"MZ")}, timeout=60)
    assert response.status_code == 422 and "format" in response.json()["detail"]
    assert not server.left()


def test_other_routes_of_monai_label_answer_in_sentences_too(server: LiveServer) -> None:
    response = requests.post(f"{server.url}/activelearning/psychic", timeout=60)
    assert response.status_code == 400 and "psychic" in response.json()["detail"]
    assert server.get("/datastore/image?image=nobody").status_code == 404
    response = requests.put(
        f"{server.url}/datastore/image?image=..%2F..%2Fevil", files={"file": ("a.nii.gz", b"x")}, timeout=60
    )
    assert response.status_code == 400 and "path" in response.json()["detail"]
    response = requests.post(f"{server.url}/train/findings", json={"max_epochs": -1}, timeout=60)
    assert response.status_code == 400 and "max_epochs" in response.json()["detail"]
    assert server.get("/train/").status_code == 404, "nothing has been trained"
    image = server.get("/datastore/image?image=second")
    assert image.status_code == 200 and len(image.content) > 100_000
    assert requests.head(f"{server.url}/datastore/image?image=second", timeout=60).status_code == 200
    assert (
        requests.post(f"{server.url}/activelearning/random", timeout=60).json()["id"]
        in server.get("/datastore/?output=all").json()["objects"]
    )


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
    assert requests.post(f"{server.url}/activelearning/first", timeout=60).json()["id"] == "copy_of_first"
    assert requests.delete(f"{server.url}/datastore/label?id=second&tag=final", timeout=60).status_code == 200


def test_a_dicom_segmentation_lies_on_the_images_of_the_series(server: LiveServer, tmp_path: Path) -> None:
    case, hu, _, _, affine = make_case(seed=7, index=0)
    coarse = hu[::2, ::2, ::4].astype(np.int16)
    spacing = (case.spacing[0] * 2, case.spacing[1] * 2, case.spacing[2] * 4)
    case = dataclasses.replace(case, spacing=spacing, image_count=coarse.shape[2])
    write_series(tmp_path, case, coarse, affine @ np.diag([2.0, 2.0, 4.0, 1.0]))
    session = f"session_id={server.upload(*((path.name, path.read_bytes()) for path in sorted(tmp_path.iterdir())))}"
    names = {str(pydicom.dcmread(path).SOPInstanceUID) for path in tmp_path.iterdir()}
    for model, params, label in (
        ("findings", None, "ANATOMIES"),
        ("evidence", {"finding": "Pleural effusion"}, "EVIDENCE"),
        ("evidence", {"query": QUERY}, "EVIDENCE"),
    ):
        data = None if params is None else {"params": json.dumps(params)}
        answer = requests.post(f"{server.url}/infer/{model}?{session}&output=dicom_seg", data=data, timeout=300)
        assert answer.status_code == 200 and answer.headers["content-type"] == "application/dicom", answer.text
        segmentation = pydicom.dcmread(io.BytesIO(answer.content))
        assert segmentation.Modality == "SEG" and segmentation.ContentLabel == label
        series = segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence
        assert {str(each.ReferencedSOPInstanceUID) for each in series} <= names

    def asked(output: str) -> requests.Response:
        # The last question again: its answer has one map.
        return requests.post(f"{server.url}/infer/{model}?{session}&output={output}", data=data, timeout=300)

    answer = asked("dicom")
    assert answer.headers["content-type"] == "application/zip", answer.text
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        objects = {name: pydicom.dcmread(io.BytesIO(archive.read(name))) for name in archive.namelist()}
    assert {"report.dcm", "evidence-1.dcm", "capture.dcm"} <= set(objects)
    assert objects["evidence-1.dcm"] == segmentation, "the same object, alone or with others"
    for output, name, modality in (("dicom_sr", "report.dcm", "SR"), ("dicom_sc", "capture.dcm", "OT")):
        single = pydicom.dcmread(io.BytesIO(asked(output).content))
        assert (single.Modality, single.SOPInstanceUID) == (modality, objects[name].SOPInstanceUID)
    for model, target in (("findings", "image=first"), ("findings_points", session), ("scan", session)):
        assert server.infer(model, target, output="dicom_seg").status == 400
    refused = server.infer("findings", "image=first", output="dicom").params["detail"]
    assert "the scan is NIfTI without DICOM headers" in refused
    assert not server.left()


def test_web_pages_of_others_are_not_served(server: LiveServer) -> None:
    assert server.get("/info/", headers={"Host": "evil.example"}).status_code == 400
    assert "access-control-allow-origin" not in server.get("/info/", headers={"Origin": "http://evil.example"}).headers
    assert requests.post(f"{server.url}/reload", timeout=60).status_code in (404, 405)
    # A page needs no permission to send this one: it has no body.
    answer = requests.post(f"{server.url}/train/findings", headers={"Origin": "http://evil.example"}, timeout=60)
    assert answer.status_code == 403 and "pages of other sites" in answer.json()["detail"]


def test_a_client_that_is_killed_does_not_stop_the_server(server: LiveServer) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    for _ in range(3):
        with socket.create_connection((host, int(port))) as client:
            client.sendall(
                b"POST /infer/findings?image=first HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\nabc"
            )
    assert server.infer("findings", "image=first", output="json").status == 200


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


def test_fifty_requests_of_eight_clients_are_never_mixed(server: LiveServer, answered: dict[str, AnsweredScan]) -> None:
    """Two scans, three models, queries by finding and by text: each answer is that of its own scan and question."""
    server.infer("findings", "image=first", output="json")
    server.infer("findings", "image=second", output="json")
    wanted = {
        (name, query): server.infer("evidence", f"image={name}", {"query": query}, output="json").params["score"]
        for name in answered
        for query in (QUERY, "calcified aorta")
    }
    assert len(set(wanted.values())) == 4
    memory = server.memory_mb()

    def ask(number: int) -> bool:
        name = ("first", "second")[number % 2]
        kind = number % 5
        if kind == 0:
            record = server.infer("findings", f"image={name}", output="json").params["record"]
            return record["scan"]["file"] == f"{name}.nii.gz" and np.allclose(
                probabilities(record), expected(answered[name]), atol=1e-4
            )
        if kind == 1:
            found = server.infer("findings_points", f"image={name}").params["findings"]
            return found == pytest.approx(
                {f.name: f.probability for f in answered[name].record.findings if f.present}, abs=1e-4
            )
        query = (QUERY, "calcified aorta")[kind % 2]
        answer = server.infer("evidence", f"image={name}", {"query": query}, output="" if kind == 4 else "json")
        return answer.params["text"] == query and answer.params["score"] == pytest.approx(wanted[name, query], abs=1e-5)

    with ThreadPoolExecutor(8) as clients:
        assert all(clients.map(ask, range(50)))
    assert server.memory_mb() - memory < 300
    assert server.process.poll() is None


def test_eight_clients_at_one_new_scan_encode_it_once(server: LiveServer, scans: dict[str, Path]) -> None:
    image = nib.load(scans["first"])
    shifted = nib.Nifti1Image(np.asarray(image.dataobj)[:, :, :-3], image.affine)
    session = server.upload(("x.nii", shifted.to_bytes()))
    before = server.encoded()
    with ThreadPoolExecutor(8) as clients:
        answers = list(
            clients.map(lambda _: server.infer("findings", f"session_id={session}", output="json"), range(8))
        )
    assert server.encoded() == before + 1
    assert len({json.dumps(answer.params["record"]["findings"]) for answer in answers}) == 1


def test_real_scans_get_all_three_answers(server: LiveServer, shared_data: Path) -> None:
    for name in ("imlab_id001_ct_128x128x64.nii.gz", "ts_example_ct_3mm.nii.gz"):
        scan = shared_data / "ct" / name
        if not scan.is_file():
            pytest.skip(f"{name} is not in ../shared/data/ct")
        session = f"session_id={server.upload((name, scan.read_bytes()))}"
        findings = server.infer("findings", session)
        assert findings.volume().shape == nib.load(scan).shape and len(findings.params["record"]["findings"]) == 18
        assert json.loads(server.infer("findings_points", session).file)["markups"]
        heat = server.infer("evidence", session, {"query": QUERY})
        assert heat.volume().shape == nib.load(scan).shape
        np.testing.assert_allclose(heat.volume().affine, nib.load(scan).affine, atol=1e-3)
