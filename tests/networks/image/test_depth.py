"""Depth rows: their place in the world, their pitch in every shipped geometry, and the same answer however the scan is
stored.
"""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose
from torch import Tensor

from bundle.ctfindings.data.snippet_targets import SnippetTargetsd
from bundle.ctfindings.data.transforms import KeepGeometryd, RandTranslated, image_pipeline
from bundle.ctfindings.networks.image.depth import TEMPERATURE, DepthStem, depth_logits, depth_positions, depth_profile
from bundle.ctfindings.networks.image.image_encoder import ImageEncoder
from bundle.ctfindings.networks.image.pooling import depth_rows
from bundle.ctfindings.networks.vision_language import VisionLanguageModel

FINEST_MM = 12.0


def affine_of(
    spacing: tuple[float, float, float] = (4, 4, 3), origin: tuple[float, float, float] = (0, 0, 0)
) -> Tensor:
    affine = torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
    affine[:3, 3] = torch.tensor(origin)
    return affine[None]


def noise(*shape: int) -> Tensor:
    return torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "network", [None, "networks/base.json", "networks/fvlm_tower.json"], ids=["default", "base", "fvlm"]
)
def test_depth_rows_are_12_mm_or_finer_in_every_geometry(bundle_root: Path, network: str | None) -> None:
    parser = ConfigParser()
    parser.read_config([str(bundle_root / "configs" / name) for name in ("train.json", network) if name is not None])
    parser["bundle_root"] = str(bundle_root)
    with torch.device("meta"):
        encoder = parser.get_parsed_content("network_def#image")
    assert isinstance(encoder, ImageEncoder)
    spacing, roi = parser.get_parsed_content("spacing"), parser.get_parsed_content("roi_size")
    assert encoder.depth_patch * spacing[2] <= FINEST_MM
    assert roi[2] % encoder.depth_patch == 0
    rows = depth_positions(affine_of(spacing), noise(2, 2, roi[2]), encoder.depth_patch)
    assert rows.diff().max() <= FINEST_MM + 1e-4


def test_positions_are_world_z_of_the_row_centres() -> None:
    rows = depth_positions(affine_of((4, 4, 3), (10, 20, -500)), noise(4, 4, 12), 4)
    # Voxels 0 to 3 lie at -500, -497, -494, -491.
    assert rows.tolist() == [[-495.5, -483.5, -471.5]]


def test_an_oblique_grid_has_the_z_of_the_middle_of_each_row() -> None:
    affine = affine_of()
    affine[0, 2, 1] = 0.5  # z rises to the front, as with a tilted gantry
    rows = depth_positions(affine, noise(4, 5, 4), 4)
    assert rows.tolist() == [[4.5 + 0.5 * 2]]


def test_padding_has_no_position_also_after_intensity_augmentation() -> None:
    image = noise(4, 4, 16)
    image[..., :4] = 0
    image[..., 12:] = 0
    image[..., 12] = 0.5 * image[..., 5]  # a row that the scan only begins in is not padding
    rows = depth_positions(affine_of(), 1.05 * image + 0.01, 4)
    assert rows.isnan().tolist() == [[True, False, False, False]]


def test_profile_is_a_softmax_over_the_rows_of_the_scan() -> None:
    depth = torch.eye(3)[None]
    depth_mm = torch.tensor([[0.0, 12.0, torch.nan]])
    logits = depth_logits(depth, torch.tensor([[1.0, 0, 0], [0, 0, 1.0]])) * TEMPERATURE
    profile = depth_profile(logits, depth_mm[:, None])
    e = float(torch.tensor(1.0).exp())
    assert profile.tolist() == [[pytest.approx([e / (1 + e), 1 / (1 + e), 0]), pytest.approx([0.5, 0.5, 0])]]


def test_a_stem_that_sees_nothing_repeats_the_rows_of_the_tokens() -> None:
    stem = DepthStem((4, 2, 8), 2, embedding=5)
    torch.nn.init.zeros_(stem.project[2].weight)
    torch.nn.init.zeros_(stem.project[2].bias)
    field = torch.nn.functional.normalize(torch.randn(1, 2 * 2 * 3, 5), dim=-1)
    body = torch.ones(1, 12, dtype=torch.bool)
    rows = stem(noise(8, 4, 24), field, body, [2, 2, 3])
    assert rows.shape == (1, 12, 5)
    torch.testing.assert_close(rows, depth_rows(field, body, [2, 2, 3]).repeat_interleave(4, dim=1))


def test_a_stem_tells_rows_of_one_token_apart_in_their_order() -> None:
    torch.manual_seed(0)
    stem = DepthStem((4, 2, 8), 2, embedding=5)
    image = torch.full((1, 1, 4, 2, 8), 0.5)
    field, body = torch.zeros(1, 1, 5), torch.ones(1, 1, dtype=torch.bool)
    plain = stem(image, field, body, [1, 1, 1])
    image[..., 2:4] = 1.0  # the second row of four
    assert (stem(image, field, body, [1, 1, 1]) - plain).abs().amax(dim=-1).gt(1e-4).tolist() == [
        [False, True, False, False]
    ]


@pytest.mark.parametrize("depth_patch", [0, 3, 16])
def test_rows_that_do_not_divide_a_token_are_refused(depth_patch: int) -> None:
    with pytest.raises(ValueError, match=f"depth_patch is {depth_patch} voxels; it must divide the 8 voxels"):
        DepthStem((4, 4, 8), depth_patch, 4)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_an_encoder_with_a_stem_is_exported(make_image: Callable[[], ImageEncoder]) -> None:
    encoder = ImageEncoder(make_image().tower, embedding=8, heads=2, depth_patch=1).eval()
    image = noise(16, 8, 16)
    rows = torch.jit.script(encoder)(image).depth
    assert rows.shape == (1, 16, 8)
    torch.testing.assert_close(rows, encoder(image).depth)


def stored(folder: Path, flipped: bool) -> Path:
    """A scan of 30 x 24 x 40 voxels of 4 x 4 x 3 mm with a pattern along z, stored feet first or head first."""
    rng = np.random.default_rng(0)
    hu = np.full((30, 24, 40), -1000, np.int16)
    hu[4:26, 4:20] = rng.integers(-200, 200, (22, 16, 40))
    affine = np.array([[4.0, 0, 0, -60], [0, 4, 0, -48], [0, 0, 3, -400], [0, 0, 0, 1]])
    if flipped:
        hu = hu[:, :, ::-1]
        affine = affine @ np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 39], [0, 0, 0, 1]])
    path = folder / f"{'head' if flipped else 'feet'}.nii.gz"
    nib.save(nib.Nifti1Image(hu, affine), path)
    return path


def test_a_scan_stored_upside_down_gives_the_same_rows_at_the_same_depth(
    make_model: Callable[[], VisionLanguageModel], tmp_path: Path
) -> None:
    model = make_model().eval()
    steps = Compose([*image_pipeline((4, 4, 3), roi_size=(32, 24, 48)), KeepGeometryd("image"), SnippetTargetsd()])
    snippets = [{"text": "a nodule", "z_mm": -340.0}, {"text": "an effusion", "z_mm": -401.0}]
    outputs = []
    for flipped in (False, True):
        study = steps({"image": stored(tmp_path, flipped), "snippets": snippets})
        with torch.no_grad():
            given = {"snippets": [study["snippets"]], "affine": study["image_affine"][None]}
            outputs.append(model(study["image"].as_tensor()[None], **given))
    first, second = outputs
    assert first["depth_mm"].shape == (2, 24)
    # The scan spans -401.5 to -281.5 mm; 4 voxels of padding either side are two rows of the tiny tower's 6 mm.
    assert first["depth_mm"][0].isnan().sum() == 4
    assert float(first["depth_mm"][0].nan_to_num(1e9).min()) == pytest.approx(-398.5)
    for name in ("depth", "depth_mm", "snippet", "target_mm"):
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=1e-4, equal_nan=True)


def test_a_shifted_scan_keeps_its_place_in_the_world(tmp_path: Path) -> None:
    study = Compose([*image_pipeline((4, 4, 3), roi_size=(32, 24, 48)), KeepGeometryd("image")])(
        {"image": stored(tmp_path, False)}
    )
    plain = {"image": study["image"].as_tensor(), "image_affine": study["image_affine"]}
    move = RandTranslated("image", (0, 0, 4), prob=1.0).set_random_state(1)
    steps = set()
    for _ in range(6):
        moved = move(plain)
        step = move.shift[2]
        steps.add(step)
        before, after = (
            depth_positions(given["image_affine"][None], given["image"][None], 1)[0] for given in (plain, moved)
        )
        # A slice carries its z along: what was at voxel k is at voxel k + step with the same mm.
        torch.testing.assert_close(
            after[max(step, 0) : 48 + min(step, 0)], before[max(-step, 0) : 48 - max(step, 0)], equal_nan=True
        )
        assert moved["image_affine"][2, 3] == plain["image_affine"][2, 3] - 3 * step
    assert min(steps) < 0 < max(steps)
