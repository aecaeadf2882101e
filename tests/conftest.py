"""What every test gets: no network, one thread per worker, the bundle's root, and the real scans where they are at
hand.
"""

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest_plugins = ["tests.small_scan"]

ROOT = Path(__file__).resolve().parent.parent
NO_NETWORK = Path(__file__).resolve().parent / "no_network"

# Read by torch, OpenMP, matplotlib and the hub clients when they are first imported, and inherited by the processes
# that tests start.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(NO_NETWORK), os.environ.get("PYTHONPATH")]))
if "PYTEST_XDIST_WORKER" in os.environ:
    for variable in (
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
    ):
        os.environ[variable] = "1"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Used by ``pytest -n`` alone."""
    from tests.scheduling import ByFile

    return ByFile(config, log)


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
    """The folder of real scans beside the checkout; the test is skipped where it is absent. They are never copied into
    the project.
    """
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real scans beside the checkout (../shared/data)")
    return folder


@pytest.fixture(scope="session")
def untrained_weights(tmp_path_factory: pytest.TempPathFactory, bundle_root: Path) -> Path:
    """A checkpoint of the network of ``configs/inference.json`` as the bundle ships it, but with random weights."""
    import torch
    from monai.bundle import ConfigParser

    from bundle.ctfindings.networks.checkpoint import save_bundle_weights
    from bundle.ctfindings.networks.classifier import PromptBank
    from bundle.ctfindings.networks.text.prompts import template_bank
    from bundle.ctfindings.networks.vision_language import VisionLanguageModel

    parser = ConfigParser()
    parser.read_config(bundle_root / "configs" / "inference.json")
    parser["bundle_root"] = str(bundle_root)
    torch.manual_seed(0)
    classifier = parser.get_parsed_content("network_def")
    image = classifier.image
    torch.nn.init.ones_(image.tower.context_gain)
    model = VisionLanguageModel(image, parser.get_parsed_content("text_tower")(), classifier.scorer)
    bank = PromptBank(image.embedding)
    with torch.no_grad():
        bank.prompts.copy_(template_bank(model.text))
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    save_bundle_weights(path, model, bank)
    return path


@pytest.fixture(scope="session")
def phantom_scan(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A synthetic scan and its anatomy mask, as NIfTI."""
    import nibabel as nib

    from bundle.ctfindings.phantom.dataset import make_case

    folder = tmp_path_factory.mktemp("phantom")
    _, hu, anatomy, _, affine = make_case(seed=0, index=0)
    nib.save(nib.Nifti1Image(hu, affine), folder / "scan.nii.gz")
    nib.save(nib.Nifti1Image(anatomy, affine), folder / "anatomy.nii.gz")
    return folder / "scan.nii.gz", folder / "anatomy.nii.gz"
