"""Image towers: HU windows, and tokens on known grids from the convolutional and the transformer tower."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from torch import Tensor

from bundle.ctfindings.networks.image.hounsfield_windows import HounsfieldWindows
from bundle.ctfindings.networks.image.image_encoder import ImageEncoder
from bundle.ctfindings.networks.image.image_tower import ConvolutionalTower
from bundle.ctfindings.networks.image.token_levels import EncodeLevelsd, weights_digest
from bundle.ctfindings.networks.image.vit_tower import VisionTransformerTower

AnyTower = ConvolutionalTower | VisionTransformerTower


def _scan(*size: int, batch: int = 1, seed: int = 0) -> Tensor:
    return torch.rand(batch, 1, *size, generator=torch.Generator().manual_seed(seed))


def test_windows_map_hounsfield_units_to_minus_one_and_one() -> None:
    windows = HounsfieldWindows((-1000, 1000), ((-1000, -300), (-150, 250), (-1000, 1000)))
    hounsfield = torch.tensor([-1000.0, -650.0, -300.0, 50.0, 150.0, 1000.0])
    image = ((hounsfield + 1000) / 2000).view(1, 1, 6, 1, 1)
    lung, soft, wide = windows(image)[0].flatten(1)
    torch.testing.assert_close(lung, torch.tensor([-1.0, 0.0, 1.0, 1.0, 1.0, 1.0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(soft, torch.tensor([-1.0, -1.0, -1.0, 0.0, 0.5, 1.0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(wide, torch.tensor([-1.0, -0.65, -0.3, 0.05, 0.15, 1.0]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(16, 16, 16), (24, 8, 16)])
def test_every_level_has_as_many_tokens_as_its_grid_has_cells(tower: AnyTower, size: tuple[int, int, int]) -> None:
    levels, grids = tower(_scan(*size, batch=2))
    assert len(levels) == len(grids) == 3
    for level, grid in zip(levels, grids, strict=True):
        assert level.shape == (2, int(np.prod(grid)), tower.width)
    assert [cells * edge for cells, edge in zip(grids[0], tower.stride, strict=True)] == list(size)


def test_convolutional_levels_halve_the_grid() -> None:
    _, grids = ConvolutionalTower(patch=2, channels=(8, 8, 8, 4), heads=2, width=4)(_scan(16, 8, 24))
    assert grids == [[8, 4, 12], [4, 2, 6], [2, 1, 3]]


def test_cached_levels_are_those_of_inference_and_move_nothing_in_the_tower() -> None:
    tower = ConvolutionalTower(patch=2, channels=(8, 8, 8, 4), heads=2, width=4).train()
    step, scan = EncodeLevelsd(tower), {"image": MetaTensor(_scan(16, 8, 24)[0])}
    found = step(scan)
    assert tower.training and weights_digest(tower) == step.weights
    tower.eval()
    assert all(torch.equal(found[name], value) for name, value in step(scan).items() if name != "image")


def test_patch_is_a_power_of_two() -> None:
    levels, grids = ConvolutionalTower(patch=4, channels=(8, 8, 8, 4), heads=2, width=4)(_scan(16, 16, 32))
    assert grids[0] == [4, 4, 8] and levels[0].shape == (1, 128, 4)
    with pytest.raises(ValueError, match="patch: expected a power of two from 2 on, got 6"):
        ConvolutionalTower(patch=6)


def test_a_configuration_for_a_tower_without_units_in_its_stem_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected four channels and blocks \(stem, fine, middle, coarse\)"):
        ConvolutionalTower(blocks=(1, 2, 2))


def test_multiple_gives_one_number_for_each_axis(tower: AnyTower) -> None:
    assert len(tower.multiple) == 3
    assert all(multiple % edge == 0 for multiple, edge in zip(tower.multiple, tower.stride, strict=True))
    tower(_scan(*tower.multiple))


def test_scan_in_a_batch_gives_the_tokens_it_gives_alone(tower: AnyTower) -> None:
    tower.eval()
    scans = _scan(16, 16, 16, batch=2)
    together, _ = tower(scans)
    for index in range(2):
        alone, _ = tower(scans[index : index + 1])
        for level, reference in zip(together, alone, strict=True):
            torch.testing.assert_close(level[index], reference[0], atol=1e-5, rtol=1e-4)


def test_tokens_are_in_c_order_of_the_grid(tower: AnyTower) -> None:
    tower.eval()
    scan = _scan(16, 16, 16)
    changed = scan.clone()
    changed[..., 8:10, 4:6, 14:16] = 1 - changed[..., 8:10, 4:6, 14:16]
    levels, grids = tower(scan)
    other, _ = tower(changed)
    difference = (levels[0] - other[0])[0].detach().norm(dim=1).view(*grids[0])
    strongest = np.unravel_index(int(difference.argmax()), tuple(grids[0]))
    changed_token = [voxel // edge for voxel, edge in zip((8, 4, 14), tower.stride, strict=True)]
    # Convolutions spread a change to the neighbours; a wrong order of axes would put it elsewhere.
    assert np.abs(np.subtract(strongest, changed_token)).max() <= 1


def test_gradient_reaches_every_parameter(tower: AnyTower) -> None:
    levels, _ = tower(_scan(16, 16, 16))
    sum((level * torch.randn_like(level)).sum() for level in levels).backward()
    for name, parameter in tower.named_parameters():
        if "norm_cross_attn" in name:  # MONAI's block has this one for cross-attention only
            continue
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    first = tower.stem[0] if isinstance(tower, ConvolutionalTower) else tower.embed
    assert first.weight.grad.abs().sum() > 0


def test_evaluation_is_repeatable(tower: AnyTower) -> None:
    tower.eval()
    scan = _scan(16, 16, 16)
    torch.testing.assert_close(tower(scan)[0][0], tower(scan)[0][0], atol=0, rtol=0)


def test_tower_compiles_to_torchscript(tower: AnyTower) -> None:
    tower.eval()
    scan = _scan(24, 8, 16)
    levels, grids = tower(scan)
    scripted_levels, scripted_grids = torch.jit.script(tower)(scan)
    assert scripted_grids == grids
    for level, scripted in zip(levels, scripted_levels, strict=True):
        torch.testing.assert_close(scripted, level, atol=1e-6, rtol=1e-5)


def test_encoder_says_which_extents_fit(tower: AnyTower) -> None:
    x, y, z = tower.multiple
    with pytest.raises(ValueError, match=rf"{x} x {y + 1} x {z} voxels .* multiples of {x}, {y} and {z}"):
        ImageEncoder(tower, 8, heads=2)(_scan(x, y + 1, z))


@pytest.fixture
def transformer() -> VisionTransformerTower:
    torch.manual_seed(0)
    return VisionTransformerTower(
        patch=(8, 4, 2), size=(16, 16, 8), width=12, depth=4, heads=2, perceptron=16, levels=(0, 2)
    ).eval()


def test_transformer_levels_are_the_normalised_output_and_the_named_blocks(transformer: VisionTransformerTower) -> None:
    outputs: list[Tensor] = []
    for block in transformer.blocks:
        block.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    levels, _ = transformer(_scan(16, 16, 8))
    torch.testing.assert_close(levels[0], F.layer_norm(outputs[3], (12,)))
    assert levels[1] is outputs[0] and levels[2] is outputs[2]


def test_position_embedding_is_resized_trilinearly_to_other_scans(transformer: VisionTransformerTower) -> None:
    torch.nn.init.zeros_(transformer.embed.weight)
    torch.nn.init.zeros_(transformer.embed.bias)
    seen: list[Tensor] = []
    transformer.blocks[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        transformer.position.copy_(torch.arange(4.0).expand(1, 12, 2, 4, 4))
    transformer(_scan(16, 16, 8))
    torch.testing.assert_close(seen[0][0].view(2, 4, 4, 12)[1, 2, :, 0], torch.arange(4.0))
    transformer(_scan(8, 16, 16))
    # Eight cells over four: the centre of cell i lies at (i + 1/2) / 2 - 1/2, and the ends are held.
    expected = torch.tensor([0.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0])
    torch.testing.assert_close(seen[1][0].view(1, 4, 8, 12)[0, 3, :, 5], expected)


def test_transformer_drops_out_in_training_only(transformer: VisionTransformerTower) -> None:
    scan = _scan(16, 16, 8)
    transformer.train()
    assert not torch.equal(transformer(scan)[0][0], transformer(scan)[0][0])


def test_transformer_with_windows_reads_a_channel_for_each() -> None:
    tower = VisionTransformerTower(
        (-1000, 1000), ((-1000, -300), (-150, 250)), (4, 4, 4), (8, 8, 8), 8, depth=1, heads=2, perceptron=8, levels=()
    )
    assert tower.embed.in_channels == 2
    levels, grids = tower(_scan(8, 8, 8))
    assert len(levels) == 1 and grids == [[2, 2, 2]]


def test_transformer_refuses_a_size_that_is_no_multiple_of_its_patch() -> None:
    with pytest.raises(ValueError, match=r"multiples of patch \(8, 4, 2\), got \(30, 16, 16\)"):
        VisionTransformerTower(patch=(8, 4, 2), size=(30, 16, 16))


def test_transformer_refuses_a_level_that_is_no_block() -> None:
    with pytest.raises(ValueError, match="blocks from 0 to 3"):
        VisionTransformerTower(patch=(8, 8, 8), size=(8, 8, 8), width=8, heads=2, depth=4, levels=(4,))


@pytest.mark.parametrize("name", ["base", "fvlm_tower"])
def test_network_overlay_replaces_named_keys_and_fits_its_own_scan(bundle_root, name: str) -> None:  # type: ignore[no-untyped-def]
    overlay = ConfigParser.load_config_file(str(bundle_root / "configs" / "networks" / f"{name}.json"))
    train = ConfigParser.load_config_file(str(bundle_root / "configs" / "train.json"))
    assert {key.partition("#")[0] for key in overlay} - {"_desc_"} <= set(train)
    parser = ConfigParser(train | overlay)
    with torch.device("meta"):
        tower = parser.get_parsed_content("image_tower")
        levels, grids = tower.eval()(torch.empty(1, 1, *overlay["roi_size"]))
    divisible = np.broadcast_to(overlay["divisible"], 3)
    assert (divisible % np.asarray(tower.multiple) == 0).all()
    pitch = [edge * mm for edge, mm in zip(tower.stride, overlay["spacing"], strict=True)]
    assert levels[0].shape[1] == np.prod(grids[0])
    if name == "base":
        assert pitch[2] <= 12
    else:
        assert grids == [[11, 16, 7]] * 4 and pitch == [32, 16, 48]
        assert levels[0].shape == (1, 1232, 768)
