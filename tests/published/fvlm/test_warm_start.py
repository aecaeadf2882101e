"""fVLM's image tower as the start of a training run on scans in RAS+."""

from pathlib import Path

import pytest
import torch

from bundle.ctfindings.networks.image.vit_tower import VisionTransformerTower
from bundle.ctfindings.published.fvlm.warm_start import tower_to_ras, warm_started_fvlm_tower


def test_a_warm_start_gives_the_tower_for_our_axes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no fVLM image tower found"):
        torch.save({"model": {"image.x": torch.zeros(1)}}, tmp_path / "other.pt")
        warm_started_fvlm_tower(tmp_path / "other.pt")
    with torch.device("meta"):
        whole = VisionTransformerTower().state_dict()
    shapes = {key: torch.zeros(1).expand(value.shape) for key, value in whole.items()}
    position = torch.rand(shapes["position"].shape)
    torch.save(
        {"model": {f"image.tower.{key}": value for key, value in {**shapes, "position": position}.items()}},
        tmp_path / "fvlm.pt",
    )
    started = warm_started_fvlm_tower(tmp_path / "fvlm.pt")
    assert torch.equal(started.position, position.flip(2, 3))


def test_a_tower_turned_to_our_axes_gives_mirrored_tokens() -> None:
    torch.manual_seed(0)
    tower = VisionTransformerTower(
        patch=(8, 4, 2), size=(16, 16, 16), width=12, depth=2, heads=2, perceptron=16, levels=(0,)
    ).eval()
    turned = VisionTransformerTower(
        patch=(8, 4, 2), size=(16, 16, 16), width=12, depth=2, heads=2, perceptron=16, levels=(0,)
    ).eval()
    turned.load_state_dict(tower_to_ras(tower.state_dict()))
    image = torch.rand(1, 1, 16, 16, 16)
    with torch.no_grad():
        (expected, _), (grid, _) = tower(image.flip(2, 3))
        (found, _), _ = turned(image)
    expected = expected[0].unflatten(0, grid).flip(0, 1).flatten(0, 2)
    torch.testing.assert_close(found[0], expected)
