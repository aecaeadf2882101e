"""Scans from a DICOMweb server: Orthanc on the loopback, where Debian's packages orthanc and orthanc-dicomweb are
installed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import requests

from bundle.ctfindings.inference.service import load_service
from bundle.ctfindings.phantom.dataset import make_case
from bundle.ctfindings.phantom.write_dicom import write_series
from tests.plugins.monailabel.live_server import free_port, running

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")

pytestmark = pytest.mark.skipif(
    shutil.which("Orthanc") is None or not PLUGIN.exists(),
    reason="Orthanc with its DICOMweb plug-in is not installed (apt-get install orthanc orthanc-dicomweb)",
)


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    config = {
        "Name": "test",
        "HttpPort": port,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "StorageDirectory": str(tmp_path / "storage"),
        "IndexDirectory": str(tmp_path / "storage"),
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (tmp_path / "orthanc.json").write_text(json.dumps(config))
    with (tmp_path / "orthanc.txt").open("wb") as log:
        process = subprocess.Popen(["Orthanc", str(tmp_path / "orthanc.json")], stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + 120
            while True:
                try:
                    requests.get(f"{url}/system", timeout=10).raise_for_status()
                    break
                except requests.RequestException:
                    assert process.poll() is None and time.monotonic() < deadline, (
                        tmp_path / "orthanc.txt"
                    ).read_text()[-2000:]
                    time.sleep(0.2)
            yield url
        finally:
            process.terminate()
            process.wait(timeout=60)


@pytest.mark.slow
def test_a_series_of_a_dicomweb_server_is_answered_by_its_uid(
    orthanc: str, bundle_root: Path, untrained_weights: Path, tmp_path: Path
) -> None:
    case, hu, _, _, affine = make_case(seed=7, index=2)
    coarse = np.ascontiguousarray(hu[::3, ::3].astype(np.int16))
    folder = tmp_path / "series"
    wide = replace(case, spacing=(case.spacing[0] * 3, case.spacing[1] * 3, case.spacing[2]))
    write_series(folder, wide, coarse, affine @ np.diag([3.0, 3.0, 1.0, 1.0]))
    for file in sorted(folder.iterdir()):
        requests.post(f"{orthanc}/instances", data=file.read_bytes(), timeout=60).raise_for_status()
    uid = str(pydicom.dcmread(next(folder.iterdir()), stop_before_pixels=True).SeriesInstanceUID)

    with running(
        bundle_root, f"{orthanc}/dicom-web", tmp_path / "work", [("checkpoint", str(untrained_weights))]
    ) as server:
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
        assert len(requests.get(f"{orthanc}/series", timeout=60).json()) == 1, "nothing was written to the archive"
        cached = [
            path.name
            for path in (tmp_path / "work" / "dicomweb").glob("*/*")
            if path.is_dir() and path.name != "labels"
        ]
        assert cached == [uid], "no half series is left in the cache"
