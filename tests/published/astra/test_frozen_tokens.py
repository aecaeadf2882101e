"""Cached tokens of the frozen network: the model computes from them what it computes from the image."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import RandShiftIntensityd

from bundle.ctfindings.data.batches import prepare_token_batch
from bundle.ctfindings.data.loaders import cached_dataset
from bundle.ctfindings.networks.image.image_encoder import ImageEncoder
from bundle.ctfindings.networks.image.resnet_tower import ResNetTower
from bundle.ctfindings.networks.vision_language import VisionLanguageModel
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


def test_augmentation_of_the_image_is_refused_when_its_tokens_are_cached(tmp_path: Path) -> None:
    torch.save({"image.tower.network.x": torch.zeros(1)}, tmp_path / "astra.pt")
    steps = [FrozenTokensd(tmp_path / "astra.pt")]
    with pytest.raises(ValueError, match="RandShiftIntensityd changes the scan, but its tokens are cached"):
        cached_dataset([], steps, [RandShiftIntensityd("image", 0.1)], tmp_path)


def test_the_command_without_weights_ends_in_one_line(bundle_root: Path, tmp_path: Path) -> None:
    datalist = tmp_path / "datalist.json"
    datalist.write_text('{"training": [{"id": "a", "image": "a.nii.gz"}], "validation": []}')
    result = commands.run(["scripts/encode_scans.py", datalist, "--weights", tmp_path / "none.pt"])
    assert result.returncode != 0 and "none.pt: no such checkpoint" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
