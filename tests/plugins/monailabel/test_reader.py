"""The process that reads a scan: killed at its limits, and its errors are those of the one that asked."""

import gzip
import multiprocessing
import os
import resource
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from bundle.ctfindings.files.errors import ScanError
from plugins.monailabel.lib.compatibility import provide_storage_uids
from plugins.monailabel.lib.limits import Limits
from plugins.monailabel.lib.options import Options
from plugins.monailabel.lib.reader import Reader, check_scan, preprocess
from plugins.monailabel.lib.usage_error import UsageError
from tests.commands import load_libraries

SCAN = Path("scans/case1.nii.gz")


def spin(path: Path, limits: Limits) -> None:
    with tempfile.NamedTemporaryFile(delete=False) as file:
        file.write(b"voxels")
    while True:
        pass


def eat(path: Path, limits: Limits) -> int:
    return int(np.ones(2_000_000_000, np.uint8).sum())


def die(path: Path, limits: Limits) -> None:
    os._exit(3)


def refuse(path: Path, limits: Limits) -> None:
    raise ScanError(path, "is no CT", "no-ct")


def fail(path: Path, limits: Limits) -> None:
    raise KeyError(str(path))


def double(path: Path, limits: Limits, number: int) -> int:
    return 2 * number


def surroundings(path: Path, limits: Limits) -> tuple[list[bool], list[tuple[int, int]]]:
    """Whether output and errors of the process go nowhere, and its limits."""
    nowhere = os.stat(os.devnull)
    kinds = (resource.RLIMIT_DATA, resource.RLIMIT_FSIZE, resource.RLIMIT_CPU, resource.RLIMIT_CORE)
    silent = [os.path.samestat(os.fstat(stream), nowhere) for stream in (1, 2)]
    return silent, [resource.getrlimit(kind) for kind in kinds]


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Reader:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    load_libraries()
    return Reader(Limits(read_seconds=300, read_mb=1500))


def test_work_is_done_in_another_process_that_is_ended_at_its_limits(reader: Reader, tmp_path: Path) -> None:
    others = multiprocessing.active_children()
    assert reader.run(double, SCAN, 21) == 42
    with pytest.raises(UsageError, match=r"^case1.nii.gz: reading it took longer than 3 s and was ended") as stopped:
        Reader(Limits(read_seconds=3, read_mb=1500)).run(spin, SCAN)
    assert stopped.value.status == 413
    for work, status, words in (
        (eat, 413, "case1.nii.gz: reading it needs more than 1500 MB"),
        (die, 413, "case1.nii.gz"),
        (refuse, 422, "case1.nii.gz: is no CT [no-ct]"),
    ):
        with pytest.raises(UsageError) as refused:
            reader.run(work, SCAN)
        assert refused.value.status == status and refused.value.sentence.startswith(words)
    with pytest.raises(RuntimeError, match="KeyError") as bug:
        reader.run(fail, SCAN)
    assert "case1" not in str(bug.value)
    assert set(multiprocessing.active_children()) <= set(others) and not list(tmp_path.glob("read-*"))


@pytest.mark.usefixtures("reader")
def test_the_process_prints_nowhere_and_has_limits_of_its_own() -> None:
    """Libraries print what they find in a file, which may name a patient, and a core dump would hold the scan."""
    silent, limits = Reader(Limits(read_seconds=300, read_mb=1500, unpacked_mb=2)).run(surroundings, SCAN)
    assert silent == [True, True]
    assert limits == [(limit, limit) for limit in (1_500_000_000, 2_000_000, 601, 0)]


def test_a_scan_that_is_too_large_for_the_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scan.nii").write_bytes(b"voxels")

    def preprocessing(data: Any) -> dict[str, Any]:
        scan = SimpleNamespace(shape=(1, 2, 2, 2), affine=torch.eye(4), meta={})
        return {"image": torch.zeros(1, 10, 10, 20), "scan": scan}

    assert preprocess(tmp_path / "scan.nii", Limits(network_mvoxels=0.002), preprocessing)["image"].numel() == 2000
    with pytest.raises(UsageError, match=r"^scan\.nii: .* at most 0\.001 are allowed") as refused:
        preprocess(tmp_path / "scan.nii", Limits(network_mvoxels=0.001), preprocessing)
    assert refused.value.status == 413


def test_a_file_that_unpacks_to_too_much_is_refused_by_its_header(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(gzip.compress(nib.Nifti1Image(np.zeros((200, 200, 250), np.int16), np.eye(4)).to_bytes()))
    for limits, words in (
        (Limits(), "times its packed size; at most 250 are allowed; .* raise ratio"),
        (Limits(ratio=1e6, unpacked_mb=19), "unpacks to 20 MB; at most 19 are allowed; .* raise unpacked_mb"),
    ):
        with pytest.raises(UsageError, match=words) as refused:
            check_scan(path, limits)
        assert refused.value.status == 413


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.nrrd", b"NRRD0004\ntype: short\ndata file: /etc/passwd\n\n"),
        ("a.nrrd", b"NRRD0004\n" + b"# comment\n" * 10_000 + b"data file: /etc/passwd\n\n"),
        ("a.mha", b"ObjectType = Image\nNDims = 3\nDimSize = 9 9 9\nElementDataFile = /etc/passwd\n"),
    ],
)
def test_a_header_cannot_name_a_file_of_the_server(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ScanError, match="names another file"):
        check_scan(tmp_path / name, Limits())


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize(
    ("label", "words"),
    [
        (b"abc", "is a text file, not a scan"),
        (nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)).to_bytes(), "its grid"),
    ],
    ids=["three bytes", "another grid"],
)
def test_no_training_starts_on_a_label_that_is_no_mask(
    scans: dict[str, Path], tmp_path: Path, label: bytes, words: str
) -> None:
    """Such a label never comes through the server, but a folder may hold one from before."""
    provide_storage_uids()
    from plugins.monailabel.lib.corrections import CorrectionStore
    from plugins.monailabel.lib.datastores import FolderDatastore
    from plugins.monailabel.lib.train_task import FineTuning

    folder, file = tmp_path / "scans", tmp_path / "label.nii"
    folder.mkdir()
    for name in ("a", "b", "c"):
        (folder / f"{name}.nii.gz").write_bytes(scans["first"].read_bytes())
    datastore = FolderDatastore(str(folder), extensions=["*.nii.gz", "*.nii"])
    for name in ("a", "b"):
        datastore.update_image_info(name, {"study": {"labels": [1] * 18}})
    file.write_bytes(label)
    datastore.save_label("c", str(file), "final", {})
    training = FineTuning(Options.of({"work": str(tmp_path / "work")}), CorrectionStore(tmp_path / "none", str))
    with pytest.raises(UsageError, match=f"c.nii: .*{words}"):
        training({}, datastore)
    assert not (tmp_path / "work").exists()
