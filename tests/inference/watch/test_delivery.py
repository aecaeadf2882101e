"""Delivery of results with stand-ins for the server and the node: what is refused, and what stops answering."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pydicom
import pytest

from bundle.ctfindings.inference.watch import delivery
from bundle.ctfindings.inference.watch.connections import Unreachable
from bundle.ctfindings.inference.watch.delivery import StoreDelivery, StowDelivery


@pytest.fixture
def files(tmp_path: Path, hu: np.ndarray, affine: np.ndarray, write_dicom: Callable[..., Path]) -> list[Path]:
    """Three objects."""
    return sorted(write_dicom(tmp_path / "objects", hu[:8, :8, :3], affine).iterdir())


class DicomWeb:
    """A DICOMweb server that has some objects, and refuses others for want of space."""

    def __init__(self, kept: Sequence[Path], refused: Sequence[Path] = ()) -> None:
        self.kept, self.refused = (
            [str(pydicom.dcmread(file).SOPInstanceUID) for file in files] for files in (kept, refused)
        )
        self.sent: list[str] = []

    def search_for_instances(self, study: str, series: str) -> list[dict[str, Any]]:
        return [{"00080018": {"vr": "UI", "Value": [uid]}} for uid in self.kept]

    def store_instances(self, objects: Sequence[pydicom.Dataset]) -> pydicom.Dataset:
        self.sent += [str(each.SOPInstanceUID) for each in objects]
        answer = pydicom.Dataset()
        if failed := [uid for uid in self.sent if uid in self.refused]:
            answer.FailedSOPSequence = [pydicom.Dataset() for _ in failed]
            for item, uid in zip(answer.FailedSOPSequence, failed, strict=True):
                item.ReferencedSOPInstanceUID, item.FailureReason = uid, 0xA700
        return answer


def stow(server: DicomWeb, monkeypatch: pytest.MonkeyPatch) -> StowDelivery:
    monkeypatch.setattr(delivery, "dicomweb_client", lambda url: server)
    return StowDelivery("https://pacs.example.org/dicom-web")


def test_a_server_gets_the_objects_that_it_lacks(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    server = DicomWeb(kept=files[:1])
    assert stow(server, monkeypatch).send(files) == 2
    assert server.sent == [str(pydicom.dcmread(file).SOPInstanceUID) for file in files[1:]]
    server.sent, server.kept = [], server.kept + server.sent
    assert stow(server, monkeypatch).send(files) == 0 and not server.sent


def test_an_object_that_a_server_refuses_is_an_error(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    server = DicomWeb(kept=[], refused=files[1:])
    with pytest.raises(ValueError, match=r"refused 2 objects \(reason 0xa700\)") as refused:
        stow(server, monkeypatch).send(files)
    assert not isinstance(refused.value, Unreachable), "the server answers; something is wrong with the objects"


def store(monkeypatch: pytest.MonkeyPatch, status: int | None, established: bool = True) -> StoreDelivery:
    """A delivery to a node that answers each object with a status."""
    association = SimpleNamespace(is_established=established, release=lambda: None)
    association.send_c_store = lambda image: {} if status is None else {"Status": status}
    delivery = StoreDelivery("dicom://PACS@127.0.0.1:104")
    monkeypatch.setattr(delivery.node, "associate", lambda *_, **__: association)
    return delivery


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xB007])
def test_an_object_that_a_node_stored_with_a_warning_is_stored(
    files: list[Path], monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    pytest.importorskip("pynetdicom")
    assert store(monkeypatch, status).send(files) == 3


@pytest.mark.parametrize(
    ("status", "established", "error", "problem"),
    [
        (0xA700, True, ValueError, "refused an object .status 0xa700"),
        (0xC000, True, ValueError, "refused an object .status 0xc000"),
        (0x0122, True, ValueError, "refused an object .status 0x0122"),
        (None, True, Unreachable, "stopped answering"),
        (0x0000, False, Unreachable, "accepts no association"),
    ],
)
def test_an_object_that_a_node_did_not_store_is_an_error(
    files: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    status: int | None,
    established: bool,
    error: type[ValueError],
    problem: str,
) -> None:
    pytest.importorskip("pynetdicom")
    with pytest.raises(error, match=problem) as failed:
        store(monkeypatch, status, established).send(files)
    assert type(failed.value) is error
