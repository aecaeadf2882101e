"""The synthetic scan of the extension in Slicer's module Sample Data."""

from __future__ import annotations

import hashlib
import sys
import urllib.request
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bundle.ctfindings.phantom.example import example_case
from tests.plugins.slicer.program import Program


def _entry(
    category: str,
    sampleName: str,
    uris: str,
    fileNames: str,
    nodeNames: str,
    customDownloader: Any = None,
    thumbnailFileName: str | None = None,
    loadFileType: str = "VolumeFile",
    loadFiles: bool | None = None,
    loadFileProperties: Any = None,
    checksums: str | None = None,
) -> SimpleNamespace:
    """With the parameters of Slicer's ``registerCustomSampleDataSource``."""
    return SimpleNamespace(**locals())


@pytest.fixture
def entries(program: Program, packaged: Path, monkeypatch: pytest.MonkeyPatch) -> list[SimpleNamespace]:
    """What the packaged module registers once Slicer has started."""
    found: list[SimpleNamespace] = []

    class SampleDataLogic:
        @staticmethod
        def registerCustomSampleDataSource(**arguments: Any) -> None:
            found.append(_entry(**arguments))

    sample_data = ModuleType("SampleData")
    sample_data.SampleDataLogic = SampleDataLogic  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "SampleData", sample_data)
    for name in [name for name in sys.modules if name.split(".")[0] in ("CTFindings", "CTFindingsLib")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(packaged / "CTFindings"))
    import CTFindings

    CTFindings.CTFindings(SimpleNamespace())
    assert not found, "Sample Data may not be loaded yet"
    program.finish_start()
    for name in [name for name in sys.modules if name.split(".")[0] in ("CTFindings", "CTFindingsLib")]:
        monkeypatch.delitem(sys.modules, name)
    return found


def test_sample_data_has_the_synthetic_scan_of_the_extension(
    entries: list[SimpleNamespace], packaged: Path, tmp_path: Path
) -> None:
    (entry,) = entries
    copy = tmp_path / entry.fileNames
    urllib.request.urlretrieve(entry.uris, copy)  # as Slicer gets it
    assert entry.checksums == f"SHA256:{hashlib.sha256(copy.read_bytes()).hexdigest()}"
    assert copy.stat().st_size < 3_000_000 and Path(entry.thumbnailFileName).is_file()
    assert copy.name.endswith(".nii.gz") and entry.loadFileType == "VolumeFile"


def test_slicer_reads_the_scan_voxel_by_voxel(program: Program, entries: list[SimpleNamespace]) -> None:
    import slicer
    import slicer.util
    from ctfindings_client import nodes

    volume = program.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", entries[0].nodeNames)
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    program.scene.AddNode(storage)
    storage.SetFileName(urllib.request.url2pathname(entries[0].uris.removeprefix("file://")))
    assert storage.ReadData(volume)
    _, image, affine = example_case()
    assert np.array_equal(slicer.util.arrayFromVolume(volume), image.transpose())
    assert nodes.affine_of(volume) == pytest.approx(affine, abs=1e-4)
