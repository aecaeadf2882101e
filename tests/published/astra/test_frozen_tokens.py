"""Cached tokens of the frozen network: the model computes from them what it computes from the image."""

import json
import re
import runpy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.data import MetaTensor
from monai.transforms import Compose, RandShiftIntensityd, Transform

from bundle.ctfindings.data.batches import prepare_token_batch
from bundle.ctfindings.data.datalist import load_studies
from bundle.ctfindings.data.loaders import cached_dataset, fill_cache
from bundle.ctfindings.data.transforms import RandTranslated
from bundle.ctfindings.networks.image.image_encoder import ImageEncoder
from bundle.ctfindings.networks.image.resnet_tower import ResNetTower
from bundle.ctfindings.networks.vision_language import VisionLanguageModel
from bundle.ctfindings.phantom.dataset import make_dataset
from bundle.ctfindings.published.astra import checkpoint, frozen_tokens
from bundle.ctfindings.published.astra.frozen_tokens import FrozenTokensd
from bundle.ctfindings.training.parameter_groups import parameter_groups
from tests import commands
from tests.networks.conftest import encoder, make_image, make_model  # noqa: F401


def test_the_model_computes_from_cached_tokens_what_it_computes_from_the_image(
    make_model: Callable[[], VisionLanguageModel],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    tower = ResNetTower(8, blocks=(1, 1, 1, 1), channels=(2, 2, 2, 2))
    model = make_model()
    model.image = ImageEncoder(tower, 8, heads=2, body_threshold=0.5)
    model.eval()
    torch.save({"image.tower.network.x": torch.zeros(1)}, tmp_path / "astra.pt")
    monkeypatch.setattr(frozen_tokens, "_tower", lambda path: tower)
    image = MetaTensor(torch.rand(1, 48, 48, 24))
    study = FrozenTokensd(tmp_path / "astra.pt")({"image": image})
    assert study["third_stage"].dtype == torch.float16 and study["third_stage"].shape == (8, 2, 2, 2)
    with torch.no_grad():
        expected = model(image.as_tensor()[None])["logits"]
        monkeypatch.setattr(tower, "features", None)  # The network must not run again.
        batch = {name: value[None] for name, value in study.items()} | {"labels": torch.zeros(1, 18)}
        given, _, _, inputs = prepare_token_batch(batch)
        found = model(given, **inputs)["logits"]
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0.01)
    assert float(expected.std()) > 0.05


@pytest.mark.parametrize(
    "step",
    [
        RandShiftIntensityd("image", 0.1),
        RandTranslated(["anatomy", "finding_masks"], (2, 2, 2), 0.5),
        Compose([RandShiftIntensityd("image", 0.1)]),
    ],
)
def test_augmentation_of_the_image_or_its_masks_is_refused_when_its_tokens_are_cached(
    step: Transform, tmp_path: Path
) -> None:
    torch.save({"image.tower.network.x": torch.zeros(1)}, tmp_path / "astra.pt")
    steps = [FrozenTokensd(tmp_path / "astra.pt")]
    with pytest.raises(ValueError, match=f"{type(step).__name__} changes the scan, but its tokens are cached"):
        cached_dataset([], steps, [step], tmp_path)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("synthetic"), training=2, validation=2, test=0, seed=3, workers=1)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def write_thin_weights(path: Path, monkeypatch: pytest.MonkeyPatch, channels: Sequence[int]) -> Path:
    """A converted checkpoint of a network with one block in each stage, which ``frozen_tower`` then builds."""

    class Thin(ResNetTower):
        def __init__(self, width: int = 64) -> None:
            super().__init__(width, blocks=(1, 1, 1, 1), channels=channels)

    monkeypatch.setattr(checkpoint, "ResNetTower", Thin)
    torch.manual_seed(0)
    torch.save({f"{checkpoint.NETWORK}{name}": value for name, value in Thin().network.state_dict().items()}, path)
    return path


OBJECTIVES = sorted(
    path.stem for path in (Path(__file__).resolve().parents[3] / "configs" / "objectives").glob("*.json")
)


@pytest.mark.parametrize(
    ("objective", "last"), [*((name, "frozen") for name in OBJECTIVES), ("ca_gcl", "objective"), ("place", "objective")]
)
def test_an_objective_trains_on_cached_tokens_before_or_after_the_overlay(
    objective: str,
    last: str,
    scans: Path,
    cache: Path,
    bundle_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights = write_thin_weights(tmp_path / "astra.pt", monkeypatch, channels=(2, 2, 2, 2))
    overlays = [f"objectives/{objective}", "networks/astra_frozen"]
    files = ["train", "networks/astra", *(overlays if last == "frozen" else overlays[::-1])]
    paths = {"bundle_root": bundle_root, "datalist": scans, "cache_dir": cache, "output_dir": tmp_path / "run"}
    workflow = ConfigWorkflow(
        config_file=[str(bundle_root / "configs" / f"{name}.json") for name in files],
        workflow_type="train",
        logging_file=False,
        frozen_weights=str(weights),
        network_size=[80, 80, 56],
        batch_size=2,
        epochs=1,
        val_interval=1,
        **{key: str(path) for key, path in paths.items()},
    )
    workflow.initialize()
    parsed = workflow.parser.get_parsed_content
    datasets = [parsed(f"{part}#dataset") for part in ("train", "validate")]
    assert set(fill_cache(datasets)) == {study["id"] for study in load_studies(scans)}
    monkeypatch.setattr(ResNetTower, "features", None)  # The cache is full: the network must not run again.
    workflow.run()
    steps = [type(step).__name__ for step in datasets[0].transform.transforms]
    overlay = json.loads((bundle_root / "configs" / "objectives" / f"{objective}.json").read_text())
    added = [step["_target_"].rpartition(".")[2] for step in overlay.get("+augmentation", ())]
    assert steps == ["CastToTyped", *added]
    assert parsed("selection_metric") in parsed("validate#evaluator").state.metrics


def test_training_above_a_network_of_random_weights_is_refused(
    scans: Path, bundle_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = write_thin_weights(tmp_path / "astra.pt", monkeypatch, channels=(2, 2, 2, 2))
    thin = {"_target_": "bundle.ctfindings.networks.ResNetTower", "blocks": [1] * 4, "channels": [2] * 4}
    parser = ConfigParser()
    parser.read_config([str(bundle_root / "configs" / f"{name}.json") for name in ("train", "networks/merlin")])
    parser.update({"bundle_root": str(bundle_root), "datalist": str(scans), "image_tower": thin})
    network, loss = parser.get_parsed_content("network"), parser.get_parsed_content("loss")
    with pytest.raises(ValueError, match=r"ResNetTower is frozen and has random weights; add .*astra_frozen\.json"):
        parameter_groups(network, loss)
    tower = {f"image.tower.{name}": value for name, value in network.image.tower.state_dict().items()}
    network.load_state_dict(tower, strict=False)
    assert parameter_groups(network, loss)
    assert checkpoint.frozen_tower(weights).loaded


def test_scans_are_encoded_once_and_take_the_size_that_was_stated(
    scans: Path,
    bundle_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # As wide as the published network where the cache keeps its output.
    weights = write_thin_weights(tmp_path / "astra.pt", monkeypatch, channels=(2, 2, 256, 512))
    script = bundle_root / "scripts" / "encode_scans.py"
    asked = [str(script), str(scans), "--weights", str(weights), "--cache-dir", str(tmp_path / "cache")]
    monkeypatch.setattr(sys, "argv", asked)
    runpy.run_path(str(script), run_name="__main__")
    first = capsys.readouterr().out
    assert "2 scans encoded, 0 already encoded, 0 failed" in first
    files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files if path.stat().st_size > 1e6)
    assert re.search(r"2 scans, 0\.1 GB when complete", first) and size == pytest.approx(
        2 * runpy.run_path(str(script))["_bytes_per_scan"]([224, 224, 160], [8, 8, 4]), rel=0.05
    )
    monkeypatch.setattr(ResNetTower, "features", None)  # What is encoded is not encoded again.
    runpy.run_path(str(script), run_name="__main__")
    assert "0 scans encoded, 2 already encoded, 0 failed" in capsys.readouterr().out


def test_the_command_without_weights_ends_in_one_line(bundle_root: Path, tmp_path: Path) -> None:
    datalist = tmp_path / "datalist.json"
    datalist.write_text('{"training": [{"id": "a", "image": "a.nii.gz"}], "validation": []}')
    result = commands.run(["scripts/encode_scans.py", datalist, "--weights", tmp_path / "none.pt"])
    assert result.returncode != 0 and "none.pt: no such checkpoint" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
