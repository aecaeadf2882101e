"""Corrections of readers: kept whole with who, when and weights, refused in words, and read by the next training and by
active learning.
"""

import json
import math
import os
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from monai.bundle import ConfigParser
from starlette.testclient import TestClient

from bundle.ctfindings.data.datalist import load_datalist
from bundle.ctfindings.findings import FINDING_NAMES, finding_index
from bundle.ctfindings.inference.findings_record import (
    DomainAnswer,
    FindingAnswer,
    FindingsRecord,
    ModelInfo,
    ScanInfo,
)
from plugins.monailabel.lib.compatibility import provide_storage_uids

provide_storage_uids()
from plugins.monailabel.lib.admission import Admission  # noqa: E402
from plugins.monailabel.lib.corrections import CorrectionStore  # noqa: E402
from plugins.monailabel.lib.datastores import FolderDatastore, SeriesDatastore  # noqa: E402
from plugins.monailabel.lib.doubt import doubt_of  # noqa: E402
from plugins.monailabel.lib.least_sure import LeastSure  # noqa: E402
from plugins.monailabel.lib.options import OWN_BUNDLE, Options  # noqa: E402
from plugins.monailabel.lib.scan_identity import ScanIdentity  # noqa: E402
from plugins.monailabel.lib.taught_studies import taught_studies, write_datalist  # noqa: E402
from plugins.monailabel.lib.train_task import FineTuning  # noqa: E402
from plugins.monailabel.lib.usage_error import UsageError  # noqa: E402
from tests.plugins.monailabel.test_routes import READER, UID, Archive, served  # noqa: E402

NODULE, EFFUSION, HERNIA = "Lung nodule", "Pleural effusion", "Hiatal hernia"
AFFINE = [[-1.0, 0, 0, 50], [0, 2, 0, -80], [0, 0, 3, -100], [0, 0, 0, 1]]
WEIGHTS = "a" * 64


def answer(probability: float = 0.1, inside: bool = True, **others: float) -> FindingsRecord:
    """A record of a scan of 100 x 80 x 60 voxels; findings by their first word in lower case have other numbers."""
    findings = [
        FindingAnswer(name, value := others.get(name.split()[0].lower(), probability), 0.5, value >= 0.5, "lung")
        for name in FINDING_NAMES
    ]
    scan = ScanInfo("scan", "NIfTI", (100, 80, 60), (1, 2, 3), "LAS", AFFINE, (100, 160, 180))
    domain = DomainAnswer(1.0 if inside else 5.0, 2.0, inside, {})
    return FindingsRecord(scan, ModelInfo("b", "1", WEIGHTS, "n"), findings, domain=domain)


class Service:
    """Answers without a network: ``answers`` by the name of the file; others cannot be read."""

    def __init__(self) -> None:
        self.answers = dict.fromkeys(("case1.nii.gz", UID), answer(pleural=0.9, hiatal=0.8))
        self.asked: list[str] = []
        self.admission = Admission()

    def answered(self, path: Any) -> Any:
        self.asked.append(Path(path).name)
        if Path(path).name not in self.answers:
            raise UsageError(422, "cannot be read")
        return SimpleNamespace(record=self.answers[Path(path).name])

    def doubt(self, path: Path) -> Any:
        return doubt_of(self.answers[path.name]) if path.name in self.asked and path.name in self.answers else None

    def digest(self, path: Path) -> str:
        return ScanIdentity().digest(path)[1]

    def write_scan(self, path: Path, file: Path) -> None:
        images = [path] if path.is_file() else sorted(path.iterdir())
        file.write_bytes(b"without a header: " + b" ".join(image.read_bytes() for image in images))


@pytest.fixture
def datastore(tmp_path: Path) -> FolderDatastore:
    (tmp_path / "scans").mkdir()
    for name in ("case1", "case2", "case3", "case4"):
        (tmp_path / "scans" / f"{name}.nii.gz").write_bytes(b"voxels")
    return FolderDatastore(str(tmp_path / "scans"), extensions=["*.nii.gz"])


@pytest.fixture
def store(tmp_path: Path) -> CorrectionStore:
    return CorrectionStore(tmp_path / "corrections", Service().digest)


@pytest.fixture
def case1(datastore: FolderDatastore) -> Path:
    return Path(datastore.get_image_uri("case1"))


@pytest.fixture
def client(
    datastore: FolderDatastore, case1: Path, store: CorrectionStore, monkeypatch: pytest.MonkeyPatch
) -> TestClient:
    session = SimpleNamespace(image=str(case1), last_access_ts=0, to_str=lambda: "{}")
    sessions = SimpleNamespace(get_session=lambda *_, **__: session, store_path=str(store.folder.parent / "sessions"))
    return served(datastore, monkeypatch, corrections=store, service=Service(), sessions=lambda: sessions)


def put(client: TestClient, change: Any, target: str = "image=case1", **keys: Any) -> Any:
    return client.put(f"/corrections/?{target}", json=change, headers=READER, **keys)


def test_a_correction_is_kept_with_reader_time_and_weights_and_the_next_training_reads_it(
    client: TestClient, datastore: FolderDatastore, case1: Path, store: CorrectionStore, tmp_path: Path
) -> None:
    place = [10.0, 20.0, -40.0]
    findings = {EFFUSION: {"present": True}, HERNIA: {"present": False}, NODULE: {"present": True, "place_mm": place}}
    sent = {"reader": "A. Reader", "findings": findings, "report": "Left pleural effusion. No hiatal hernia."}
    kept = put(client, sent).json()
    assert client.get("/corrections/?image=case1", headers=READER).json() == kept == store.read("case1", case1)
    assert [path.name for path in store.folder.iterdir()] == ["case1.json"], "one file a scan, and nothing half-written"
    nodule = kept["findings"][NODULE]
    assert (nodule["reader"], nodule["weights_sha256"]) == ("A. Reader", WEIGHTS) and nodule["time"].endswith("+00:00")
    assert nodule["model"] == {"present": False, "probability": 0.1} and nodule["place_mm"] == place

    datastore.update_image_info("case2", {"study": {"labels": [0] * 18, "patient": "P2"}})
    datastore.update_image_info("case3", {"study": {"labels": [1] * 18}})
    put(client, {"findings": {NODULE: {"present": False}}}, "image=case3")  # case3 cannot be read: refused, not kept
    counts = write_datalist(tmp_path / "lists" / "datalist.json", taught_studies(datastore, store), 0.3)
    assert counts == {"training": 2, "validation": 1}
    read = [study for split in counts for study in load_datalist(tmp_path / "lists" / "datalist.json", split)]
    by_id = {study["id"]: study for study in read}
    assert set(by_id) == {"case1", "case2", "case3"}
    corrected = by_id["case1"]
    expected = [-1] * 18
    expected[finding_index(EFFUSION)], expected[finding_index(HERNIA)], expected[finding_index(NODULE)] = 1, 0, 1
    assert corrected["labels"].tolist() == expected and corrected["image"] == datastore.get_image_uri("case1")
    assert corrected["report"]["findings"].startswith("Left pleural") and "effusion" in corrected["captions"]["lung"]
    assert corrected["sites"] == [{"finding": NODULE, "center_mm": place}]
    assert [snippet["z_mm"] for snippet in corrected["snippets"]] == [-40.0]
    assert by_id["case2"]["labels"].tolist() == [0] * 18 and by_id["case2"]["patient"] == "P2"


def test_any_text_is_kept(store: CorrectionStore, case1: Path) -> None:
    text = "Erguss, \u00fcberall \ud800"  # half of a character, as a client may send it
    store.change("case1", case1, {"report": text}, answer())
    assert store.read("case1", case1)["report"]["text"] == text


def test_a_verdict_without_a_place_keeps_the_place_and_one_with_null_removes_it(client: TestClient) -> None:
    def said(**value: Any) -> Any:
        return put(client, {"findings": {NODULE: value}}).json()["findings"][NODULE]["place_mm"]

    place = [10.0, 20.0, -40.0]
    assert said(present=True, place_mm=place) == place
    assert said(present=True) == place, "a client that never saw the place confirms"
    assert said(present=True, place_mm=None) is None
    said(present=True, place_mm=place)
    assert said(present=False) is None
    assert said(present=True) is None, "the place of a finding that was rejected is gone"


def test_another_scan_under_the_same_name_has_no_corrections_until_somebody_makes_one(
    client: TestClient, datastore: FolderDatastore, case1: Path, store: CorrectionStore
) -> None:
    def shown() -> Any:
        return client.get("/corrections/?image=case1", headers=READER).json()

    def listed() -> bool:
        return bool(client.get("/datastore/scans").json()[0]["corrected"])

    strategy = LeastSure(Service(), store)  # type: ignore[arg-type]
    put(client, {"findings": {NODULE: {"present": True}}, "report": "A nodule."})
    first = shown()
    assert listed() and len(taught_studies(datastore, store)) == 1 and strategy({}, datastore) is None
    case1.write_bytes(b"voxels of another patient")
    assert (shown()["findings"], shown()["report"], listed()) == ({}, None, False)
    assert taught_studies(datastore, store) == []
    offered = strategy({}, datastore)
    assert offered is not None and offered["id"] == "case1"
    put(client, {"findings": {NODULE: None}, "report": ""})
    case1.write_bytes(b"voxels")
    assert shown() == first, "what was said of the first scan is there as long as the second one has no correction"
    case1.write_bytes(b"voxels of another patient")
    put(client, {"findings": {HERNIA: {"present": False}}})
    assert set(shown()["findings"]) == {HERNIA} and shown()["report"] is None and listed()
    (study,) = taught_studies(datastore, store)
    assert "report" not in study and study["labels"].count(-1) == 17
    case1.write_bytes(b"voxels")
    assert shown()["findings"] == {} and not listed()


class Restarted(Service):
    """The service of a server that started just now; it notes which scans it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    def digest(self, path: Path) -> str:
        self.read.append(path.name)
        return super().digest(path)


def test_a_list_reads_no_corrected_scan_whose_files_are_those_of_the_correction(
    client: TestClient, case1: Path, datastore: FolderDatastore, store: CorrectionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(client, {"report": "A nodule."})
    service = Restarted()
    restarted = CorrectionStore(store.folder, service.digest)
    client = served(datastore, monkeypatch, corrections=restarted, service=service)
    assert client.get("/datastore/scans").json()[0]["corrected"] and service.read == []
    assert LeastSure(service, restarted)({}, datastore) is None and service.read == []  # type: ignore[arg-type]
    os.utime(case1, ns=(0, 0))
    assert client.get("/datastore/scans").json()[0]["corrected"] and service.read == ["case1.nii.gz"]


def test_what_was_said_of_an_earlier_content_is_set_aside_and_removed_with_the_scan(
    client: TestClient, case1: Path, store: CorrectionStore
) -> None:
    def earlier() -> list[dict[str, Any]]:
        return [json.loads(file.read_text(encoding="utf-8")) for file in store.folder.glob("earlier/case1/*.json")]

    first = put(client, {"report": "A nodule."}).json()
    case1.write_bytes(b"the same voxels with another header")
    put(client, {"report": ""})
    assert earlier() == [], "nothing was said of the new content yet"
    second = put(client, {"findings": {HERNIA: {"present": False}}}).json()
    assert earlier() == [first] and store.all() == [second]
    put(client, {"findings": {HERNIA: None}})
    case1.write_bytes(b"voxels")
    put(client, {"report": "No nodule."})
    case1.write_bytes(b"another header again")
    put(client, {"report": "A cyst."})
    assert {record["report"]["text"] for record in earlier()} == {"A nodule.", "No nodule."}
    store.forget("case1")
    assert earlier() == [] and store.all() == []


def test_a_record_of_an_earlier_version_which_has_no_digest_is_of_its_scan(
    client: TestClient, datastore: FolderDatastore, store: CorrectionStore
) -> None:
    put(client, {"report": "A nodule."})
    (file,) = store.folder.glob("*.json")
    record = json.loads(file.read_text(encoding="utf-8"))
    del record["scan_sha256"], record["scan_files"]
    file.write_text(json.dumps(record), encoding="utf-8")
    assert client.get("/corrections/?image=case1", headers=READER).json() == record
    service = Restarted()
    case1 = Path(datastore.get_image_uri("case1"))
    assert CorrectionStore(store.folder, service.digest).has("case1", case1) and service.read == [], "read for nothing"
    assert len(taught_studies(datastore, store)) == 1


def test_the_copy_of_a_series_that_has_grown_is_written_again_with_its_next_correction(
    store: CorrectionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Archive()
    series = SeriesDatastore(archive, {"Modality": "CT"}, str(tmp_path / "cache"))
    folder = Path(series._datastore.image_path()) / UID
    folder.mkdir(parents=True)
    (folder / "1.dcm").write_bytes(b"1")
    client = served(series, monkeypatch, corrections=store, service=Service())
    put(client, {"report": "Half a chest."}, f"image={UID}")
    copy = store.kept_scan(UID)
    assert copy.read_bytes() == b"without a header: 1"
    (folder / "2.dcm").write_bytes(b"2")
    put(client, {"report": ""}, f"image={UID}")
    assert copy.read_bytes() == b"without a header: 1", "the copy is that of the record beside it"
    put(client, {"findings": {NODULE: {"present": True}}}, f"image={UID}")
    assert copy.read_bytes() == b"without a header: 1 2"
    (study,) = taught_studies(series, store)
    assert study["image"] == str(copy) and "report" not in study


def test_a_change_keeps_what_it_does_not_name_and_what_is_taken_back_is_gone(
    client: TestClient, store: CorrectionStore
) -> None:
    put(client, {"findings": {NODULE: {"present": True}}, "report": "A nodule."})
    kept = put(client, {"findings": {HERNIA: {"present": False}}}).json()
    assert set(kept["findings"]) == {NODULE, HERNIA} and kept["report"]["text"] == "A nodule."
    kept = put(client, {"findings": {NODULE: None}, "report": ""}).json()
    assert set(kept["findings"]) == {HERNIA} and kept["report"] is None
    put(client, {"findings": {HERNIA: None}})
    assert not store.has("case1", None) and list(store.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"findings": {"Appendicitis": {"present": True}}}, "finding 'Appendicitis' is unknown"),
        ({"findings": {NODULE: {"present": 1}}}, 'Lung nodule: expected {"present": true}'),
        ({"findings": {NODULE: "yes"}}, 'Lung nodule: expected {"present": true}'),
        ({"findings": [NODULE]}, "findings: expected an object"),
        ({"findings": {NODULE: {"present": True, "size": 3}}}, "unknown field 'size'; known are present, place_mm"),
        ({"findings": {NODULE: {"present": True, "place_mm": [50.6, 0, 0]}}}, "lies outside the scan"),
        ({"findings": {NODULE: {"present": True, "place_mm": [0, 0, 80.0]}}}, "lies outside the scan"),
        ({"findings": {NODULE: {"present": True, "place_mm": [0, 0]}}}, "expected three numbers"),
        ({"findings": {NODULE: {"present": True, "place_mm": [0, 0, 10**400]}}}, "expected three numbers"),
        ({"findings": {NODULE: {"present": True, "place_mm": [0, 0, math.nan]}}}, "expected three numbers"),
        ({"findings": {NODULE: {"present": False, "place_mm": [0, 0, 0]}}}, "an absent finding has no place"),
        ({"report": "x" * 20_001}, "at most 20,000 characters"),
        ({"report": ["x"]}, "report: expected a text"),
        ({"reader": "a\nb"}, "reader: expected a name"),
        ({"patient": "Doe"}, "unknown field 'patient'; known are reader, findings, report"),
    ],
)
def test_a_correction_that_cannot_be_is_refused_in_words(
    client: TestClient, store: CorrectionStore, change: Any, words: str
) -> None:
    content = json.dumps(change).encode()
    refused = client.put(
        "/corrections/?image=case1", content=content, headers={**READER, "Content-Type": "application/json"}
    )
    assert refused.status_code == 400 and words in refused.json()["detail"]
    assert not store.folder.exists()


def test_corrections_need_the_key_and_a_scan_that_there_is(
    client: TestClient, case1: Path, store: CorrectionStore
) -> None:
    put(client, {"report": "Clear lungs."})
    for refused in (
        client.get("/corrections/?image=case1"),
        client.get("/corrections/agreement"),
        client.put("/corrections/?image=case1", json={"report": "x"}),
    ):
        assert refused.status_code == 401 and "key" in refused.json()["detail"] and "Clear" not in refused.text
    assert put(client, {"report": "x"}, "image=nobody").status_code == 404
    assert put(client, {"report": "x"}, "").status_code == 400
    assert put(client, [1]).status_code == 422
    assert store.read("case1", case1)["report"]["text"] == "Clear lungs."


def test_an_uploaded_scan_is_kept_with_its_first_correction_and_goes_with_the_last(
    client: TestClient, store: CorrectionStore, datastore: FolderDatastore
) -> None:
    target = "session_id=12345678-1234-4234-8234-123456789abc"
    kept = put(client, {"findings": {NODULE: {"present": True}}}, target).json()
    scan = store.kept_scan(kept["scan"])
    assert scan.read_bytes() == b"without a header: voxels" and scan.parent.parent == store.folder
    (study,) = taught_studies(datastore, store)
    assert (study["id"], study["image"]) == (f"upload-{sha256(b'voxels').hexdigest()[:16]}", str(scan))
    assert client.get(f"/corrections/?{target}", headers=READER).json() == kept
    put(client, {"findings": {NODULE: None}}, target)
    assert not scan.exists() and taught_studies(datastore, store) == []


def test_agreement_counts_by_finding_what_was_confirmed_rejected_and_added(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = answer(pleural=0.9, hiatal=0.8)
    silent = [replace(each, present=None) if each.name == "Bronchiectasis" else each for each in record.findings]
    monkeypatch.setattr(Service, "answered", lambda *_: SimpleNamespace(record=replace(record, findings=silent)))
    said = {EFFUSION: {"present": True}, HERNIA: {"present": False}, NODULE: {"present": True, "place_mm": [0, 0, 0]}}
    put(client, {"findings": {**said, "Emphysema": {"present": False}, "Bronchiectasis": {"present": True}}})
    content = client.get("/corrections/agreement", headers=READER).json()
    rows = {row.pop("finding"): row for row in content["findings"]}
    none = {"confirmed": 0, "rejected": 0, "added": 0, "both_absent": 0, "not_assessed": 0, "placed": 0}
    assert content["scans"] == 1 and len(rows) == 18 and rows["Atelectasis"] == none
    assert rows[EFFUSION] == {**none, "confirmed": 1} and rows[HERNIA] == {**none, "rejected": 1}
    assert rows[NODULE] == {**none, "added": 1, "placed": 1} and rows["Emphysema"] == {**none, "both_absent": 1}
    assert rows["Bronchiectasis"] == {**none, "not_assessed": 1}, "the model neither agrees nor misses"


def test_the_list_says_what_the_model_found_and_what_was_corrected(client: TestClient, tmp_path: Path) -> None:
    listed = client.get("/datastore/scans").json()
    assert [scan["id"] for scan in listed] == ["case1", "case2", "case3", "case4"]
    assert {(scan["present"], scan["outside_domain"], scan["corrected"]) for scan in listed} == {(None, None, False)}
    put(client, {"report": "x"})
    listed = client.get("/datastore/scans").json()
    assert str(tmp_path) not in str(listed) and len(listed[0]["date"]) == 10
    assert (listed[0]["present"], listed[0]["outside_domain"], listed[0]["corrected"]) == (2, False, True)


def test_the_least_sure_scan_is_offered_those_outside_the_domain_first_and_none_that_is_corrected(
    datastore: FolderDatastore, store: CorrectionStore
) -> None:
    service = Service()
    service.answers |= {f"case{n}.nii.gz": answer(p, n != 3) for n, p in ((2, 0.45), (3, 0.01))}
    strategy = LeastSure(service, store)  # type: ignore[arg-type]
    first = strategy({"encode": 1}, datastore)
    assert first is not None and (first["id"], first["compared"], first["waiting"]) == ("case1", 1, 3)
    found = strategy({}, datastore)  # case4 cannot be read
    assert found is not None and (found["id"], found["outside_domain"], found["compared"]) == ("case3", True, 3)
    store.change("case3", Path(datastore.get_image_uri("case3")), {"report": "x"}, answer())
    found = strategy({}, datastore)
    assert found is not None and found["id"] == "case2" and service.asked.count("case4.nii.gz") == 1
    Path(datastore.get_image_uri("case4")).write_bytes(b"another scan")
    strategy({}, datastore)
    assert service.asked.count("case4.nii.gz") == 2
    assert found["entropy"] == pytest.approx(-0.45 * np.log2(0.45) - 0.55 * np.log2(0.55), abs=1e-5)
    for name in ("case1", "case2"):
        store.change(name, Path(datastore.get_image_uri(name)), {"report": "x"}, answer())
    assert strategy({}, datastore) is None
    with pytest.raises(UsageError, match="encode: expected a number from 0 to 100, got 'x'"):
        strategy({"encode": "x"}, datastore)


@pytest.mark.parametrize(
    ("overlays", "first", "used"),
    [
        ("", "configs/train.json", {"epochs": 2, "batch_size": 3, "learning_rate": 0.1}),
        ("configs/networks/astra.json", "configs/adapt.json", {}),
    ],
)
def test_a_frozen_tower_gets_an_adapted_head_and_others_are_fine_tuned(
    overlays: str, first: str, used: dict[str, Any], tmp_path: Path, store: CorrectionStore
) -> None:
    training = FineTuning(Options.of({"work": str(tmp_path), "overlays": overlays}), store)
    settings = {"max_epochs": 2, "batch_size": 8, "learning_rate": 0.1, "val_split": 0.2}
    configs, keys = training.workflow(tmp_path / "run", settings, 3)
    assert configs[0] == first and {key: keys[key] for key in used} == used
    parser = ConfigParser()
    parser.read_config([str(OWN_BUNDLE / name) for name in configs])
    assert set(keys) <= set(parser.get()), "every key is one of the workflow"
