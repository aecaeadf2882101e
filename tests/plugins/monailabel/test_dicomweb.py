"""Scans from a DICOMweb server: Orthanc on the loopback, where Debian's packages orthanc and orthanc-dicomweb are
installed.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import requests

from bundle.ctfindings.inference.batch import run_archive
from bundle.ctfindings.inference.batch.run_archive import Model
from bundle.ctfindings.inference.service import load_service
from bundle.ctfindings.inference.watch.archives import DicomWebArchive
from bundle.ctfindings.inference.watch.connections import Unreachable
from bundle.ctfindings.inference.watch.delivery import StoreDelivery, StowDelivery
from bundle.ctfindings.inference.watch.watcher import Pace, Watcher
from bundle.ctfindings.phantom.dataset import make_case
from bundle.ctfindings.phantom.write_dicom import write_series
from bundle.ctfindings.scan.load_scan import load_scan
from experiments.watch_archive.orthanc import Orthanc, is_installed, running_orthanc
from tests.enhanced_ct import images_of, write_enhanced
from tests.inference.watch.fabricated import Killed, Service
from tests.plugins.monailabel.live_server import running

pytestmark = pytest.mark.skipif(
    not is_installed(),
    reason="Orthanc with its DICOMweb plug-in is not installed (apt-get install orthanc orthanc-dicomweb)",
)


@pytest.fixture(scope="module")
def server_of_images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as server:
        yield server


@pytest.fixture
def orthanc(server_of_images: Orthanc) -> Orthanc:
    """The server without images."""
    for study in requests.get(f"{server_of_images.url}/studies", timeout=60).json():
        requests.delete(f"{server_of_images.url}/studies/{study}", timeout=60).raise_for_status()
    return server_of_images


@pytest.mark.slow
def test_a_series_of_a_dicomweb_server_is_answered_by_its_uid(
    orthanc: Orthanc, bundle_root: Path, untrained_weights: Path, tmp_path: Path
) -> None:
    case, hu, _, _, affine = make_case(seed=7, index=2)
    coarse = np.ascontiguousarray(hu[::3, ::3].astype(np.int16))
    folder = tmp_path / "series"
    wide = replace(case, spacing=(case.spacing[0] * 3, case.spacing[1] * 3, case.spacing[2]))
    write_series(folder, wide, coarse, affine @ np.diag([3.0, 3.0, 1.0, 1.0]))
    orthanc.upload(folder)
    uid = str(pydicom.dcmread(next(folder.iterdir()), stop_before_pixels=True).SeriesInstanceUID)

    with running(bundle_root, orthanc.dicomweb, tmp_path / "work", [("checkpoint", str(untrained_weights))]) as server:
        assert server.get("/info/").json()["datastore"]["total"] == 1
        assert list(server.get("/datastore/?output=all").json()["objects"]) == [uid], (
            "a series is listed before it was fetched"
        )
        answer = server.infer("findings", f"image={uid}")
        assert answer.status == 200, answer.params
        wanted = load_service(bundle_root, untrained_weights, text=False).answer_file(folder)
        np.testing.assert_allclose(
            [finding["probability"] for finding in answer.params["record"]["findings"]],
            [finding.probability for finding in wanted.record.findings],
            atol=1e-4,
        )
        assert (
            answer.params["record"]["scan"]["format"] == "DICOM" and answer.volume().shape == wanted.record.scan.shape
        )
        assert server.infer("evidence", f"image={uid}", {"query": "fluid"}).status == 200
        unknown = server.infer("findings", "image=1.2.3.4")
        assert unknown.status == 404 and "1.2.3.4" in unknown.params["detail"]
        assert server.infer("findings", "image=nobody").status == 404
        label = requests.put(
            f"{server.url}/datastore/label?image={uid}&tag=final", files={"label": ("x.nii.gz", b"x")}, timeout=60
        )
        assert label.status_code == 400 and "read-only" in label.json()["detail"]
        training = requests.post(f"{server.url}/train/findings", json={}, timeout=60)
        assert training.status_code == 400 and "0 scans have a correction" in training.json()["detail"]
        assert len(requests.get(f"{orthanc.url}/series", timeout=60).json()) == 1, "nothing was written to the archive"
        cached = [
            path.name
            for path in (tmp_path / "work" / "dicomweb").glob("*/*")
            if path.is_dir() and path.name != "labels"
        ]
        assert cached == [uid], "no half series is left in the cache"


def test_an_enhanced_ct_of_a_dicomweb_server_is_listed_and_fetched(
    orthanc: Orthanc, tmp_path: Path, hu: np.ndarray, affine: np.ndarray, write_dicom: Callable[..., Path]
) -> None:
    single = write_dicom(tmp_path / "single", hu, affine)
    write_enhanced(tmp_path / "upload" / "whole", images_of(single), SeriesInstanceUID="1.2.3")
    write_enhanced(tmp_path / "upload" / "short", images_of(single)[:4], SeriesInstanceUID="1.2.4")
    orthanc.upload(tmp_path / "upload")
    archive = DicomWebArchive(orthanc.dicomweb, {"Modality": "CT"})
    (series,) = archive.listed()
    assert series.uid == "1.2.3" and archive.listed() == [series]
    (tmp_path / "fetched").mkdir()
    archive.fetching(series)(tmp_path / "fetched")
    np.testing.assert_array_equal(np.asarray(load_scan(tmp_path / "fetched")), np.asarray(load_scan(single)))


def test_series_of_other_body_parts_of_a_dicomweb_server_are_left_out(
    orthanc: Orthanc, tmp_path: Path, hu: np.ndarray, affine: np.ndarray, write_dicom: Callable[..., Path]
) -> None:
    images = images_of(write_dicom(tmp_path / "single", hu, affine))
    nothing = {"BodyPartExamined": "", "SeriesDescription": "", "StudyDescription": ""}
    for uid, headers in {
        "1.2.3": {},
        "1.2.4": {"BodyPartExamined": "HEAD"},
        "1.2.5": {"StudyDescription": "CT knee", "StudyInstanceUID": "1.2.6"},
    }.items():
        write_enhanced(tmp_path / "upload" / uid, images, SeriesInstanceUID=uid, **nothing | headers)
    orthanc.upload(tmp_path / "upload")
    listed = DicomWebArchive(orthanc.dicomweb, {"Modality": "CT"}).listed()
    assert {series.uid: series.left_out for series in listed} == {
        "1.2.3": "",
        "1.2.4": "BodyPartExamined names HEAD",
        "1.2.5": "StudyDescription names KNEE",
    }


def test_a_watcher_sends_results_back_once(
    orthanc: Orthanc,
    tmp_path: Path,
    hu: np.ndarray,
    affine: np.ndarray,
    write_dicom: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_archive, "load_service", lambda *_, **__: None)  # The stand-in for the service needs none.
    for number in (1, 2):
        orthanc.upload(write_dicom(tmp_path / str(number), hu[:8, :8, :6], affine, number=number))
    (tmp_path / "model.pt").write_bytes(b"weights")
    sent: list[int] = []

    class KilledAfterSending(StowDelivery):
        def send(self, files: Sequence[Path]) -> int:
            sent.append(super().send(files))
            if len(sent) == 1:
                raise Killed
            return sent[-1]

    def start() -> Watcher:
        archive, delivery = DicomWebArchive(orthanc.dicomweb, {"Modality": "CT"}), KilledAfterSending(orthanc.dicomweb)
        model = Model(".", str(tmp_path / "model.pt"))
        return Watcher(archive, delivery, orthanc.dicomweb, tmp_path / "output", model, Service(), Pace(0.0, 0.0))

    watcher = start()
    with pytest.raises(Killed):
        watcher.watch(once=True)
    watcher.close()
    assert start().watch(once=True) == 0
    assert sent == [2, 0, 2], "what arrived before the kill is not sent again"

    def instances() -> int:
        return int(requests.get(f"{orthanc.url}/statistics", timeout=60).json()["CountInstances"])

    assert instances() == 2 * 6 + 4
    files = sorted((tmp_path / "output").glob("results/*/*.dcm"))
    assert StoreDelivery(f"dicom://ORTHANC@127.0.0.1:{orthanc.dicom_port}").send(files) == 4
    assert instances() == 2 * 6 + 4, "the same object by C-STORE is no second copy"
    for gone in (StoreDelivery("dicom://ORTHANC@127.0.0.1:1"), StowDelivery("http://127.0.0.1:1/dicom-web")):
        with pytest.raises(Unreachable):
            gone.send(files)
