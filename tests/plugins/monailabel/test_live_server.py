"""The server through HTTP: the answers of its models."""

import dataclasses
import io
import json
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import requests

from bundle.ctfindings import __version__
from bundle.ctfindings.anatomy import ANATOMIES
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.inference.service import AnsweredScan
from bundle.ctfindings.networks.checkpoint import sha256_of
from bundle.ctfindings.phantom.dataset import make_case
from bundle.ctfindings.phantom.write_dicom import write_series
from tests.plugins.monailabel.live_server import QUERY, LiveServer, expected, probabilities


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
    copy = server.infer("findings", "image=Doe_Jane", output="json").params["record"]
    assert copy["scan"]["file"] == "Doe_Jane.nii.gz"
    assert server.encoded() - before <= 1


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
    for model, target in (("findings", "image=first"), ("findings_points", session), ("scan", session)):
        assert server.infer(model, target, output="dicom_seg").status == 400
    refused = server.infer("findings", "image=first", output="dicom").params["detail"]
    assert "the scan is NIfTI without DICOM headers" in refused
    assert not server.left()


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
