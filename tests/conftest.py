"""What every test gets: no network, one thread per worker, the bundle's root, and the real scans where they are at hand."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
NO_NETWORK = Path(__file__).resolve().parent / "no_network"

# Read by torch, OpenMP, matplotlib and the hub clients when they are first imported, and inherited by the processes that tests start.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(NO_NETWORK), os.environ.get("PYTHONPATH")]))
if "PYTEST_XDIST_WORKER" in os.environ:
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
        os.environ[variable] = "1"


def _load_guard() -> ModuleType:
    spec = importlib.util.spec_from_file_location("no_network_guard", NO_NETWORK / "sitecustomize.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)  # importing it puts the guards in place
    return module


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Iterator[ModuleType]:
    """Refuse sockets to other machines, here and in the processes that tests start."""
    guard = _load_guard()
    yield guard
    guard.allow()


@pytest.fixture(scope="session")
def bundle_root() -> Path:
    """The repository root, which is the bundle root."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real scans beside the checkout; the test is skipped where it is absent. They are never copied into the project."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real scans beside the checkout (../shared/data)")
    return folder
