"""Scans and a running server for the tests of the MONAI Label app; without MONAI Label they skip."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bundle.ctfindings.inference.service import AnsweredScan, load_service
from bundle.ctfindings.phantom.dataset import make_case
from tests.plugins.monailabel.live_server import LiveServer, running

if importlib.util.find_spec("monailabel") is None:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two synthetic scans of different patients, coarse so that the tests are quick."""
    folder = tmp_path_factory.mktemp("scans")
    paths = {}
    for index, name in enumerate(("first", "second")):
        _, hu, _, _, affine = make_case(seed=7, index=index)
        coarse = affine @ np.diag([2.0, 2.0, 1.0, 1.0])
        paths[name] = folder / f"{name}.nii.gz"
        nib.save(nib.Nifti1Image(hu[::2, ::2].astype(np.int16), coarse), paths[name])
    return paths


@pytest.fixture(scope="package")
def studies(scans: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of studies: two scans, the first one again under a patient's name, a truncated file and an 8-bit
    export.
    """
    folder = tmp_path_factory.mktemp("studies")
    for name, path in scans.items():
        (folder / f"{name}.nii.gz").write_bytes(path.read_bytes())
    (folder / "Doe_Jane.nii.gz").write_bytes(scans["first"].read_bytes())
    (folder / "truncated.nii.gz").write_bytes(scans["first"].read_bytes()[:50_000])
    image = nib.Nifti1Image(np.full((60, 60, 60), 200, np.uint8), np.diag([4.0, 4.0, 4.0, 1.0]))
    nib.save(image, folder / "eight_bit.nii.gz")
    return folder


@pytest.fixture(scope="package")
def server(
    bundle_root: Path, studies: Path, untrained_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveServer]:
    """A server on the folder of studies with untrained weights: its answers mean nothing but must arrive unchanged."""
    work = tmp_path_factory.mktemp("server")
    with running(bundle_root, studies, work, [("checkpoint", str(untrained_weights))]) as live:
        yield live


@pytest.fixture(scope="package")
def answered(bundle_root: Path, untrained_weights: Path, scans: dict[str, Path]) -> dict[str, AnsweredScan]:
    """The same scans without a server: what the answers have to be."""
    service = load_service(bundle_root, untrained_weights)
    return {name: service.answer_file(path) for name, path in scans.items()}
