"""Cached tokens of the frozen network: the model computes from them what it computes from the image."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigWorkflow
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
from bundle.ctfindings.published.astra import frozen_tokens
from bundle.ctfindings.published.astra.frozen_tokens import FrozenTokensd
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


TOWER = {
    "_target_": "bundle.ctfindings.networks.ResNetTower",
    "width": 16,
    "blocks": [1, 1, 1, 1],
    "channels": [2, 2, 2, 2],
}


@pytest.mark.parametrize("last", ["objective", "frozen"])
@pytest.mark.parametrize(("objective", "drawn"), [("ca_gcl", "RandCaptionsd"), ("place", "RandObservationsd")])
def test_an_objective_trains_on_cached_tokens_before_or_after_the_overlay(
    objective: str,
    drawn: str,
    last: str,
    scans: Path,
    cache: Path,
    bundle_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.save({"image.tower.network.x": torch.zeros(1)}, tmp_path / "astra.pt")
    tower = ResNetTower(16, blocks=TOWER["blocks"], channels=TOWER["channels"])
    monkeypatch.setattr(frozen_tokens, "_tower", lambda path: tower)
    overlays = [f"objectives/{objective}", "networks/astra_frozen"]
    files = ["train", "networks/astra", *(overlays if last == "frozen" else overlays[::-1])]
    paths = {"bundle_root": bundle_root, "datalist": scans, "cache_dir": cache, "output_dir": tmp_path / "run"}
    workflow = ConfigWorkflow(
        config_file=[str(bundle_root / "configs" / f"{name}.json") for name in files],
        workflow_type="train",
        logging_file=False,
        frozen_weights=str(tmp_path / "astra.pt"),
        image_tower=TOWER,
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
    assert steps == ["CastToTyped", drawn]
    assert parsed("selection_metric") in parsed("validate#evaluator").state.metrics


def test_the_command_without_weights_ends_in_one_line(bundle_root: Path, tmp_path: Path) -> None:
    datalist = tmp_path / "datalist.json"
    datalist.write_text('{"training": [{"id": "a", "image": "a.nii.gz"}], "validation": []}')
    result = commands.run(["scripts/encode_scans.py", datalist, "--weights", tmp_path / "none.pt"])
    assert result.returncode != 0 and "none.pt: no such checkpoint" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
