"""RadFinder's towers against the recorded arrays of the published code, at their true size.

The pack's axes are those of our tensors: its H, W, D are X, Y, Z. All windows of both scans take about a minute on two
quiet cores; the test that needs them runs where CTFINDINGS_WHOLE_PACKS is set, and the others use one window or the
recorded features of the windows.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bundle.ctfindings.losses.siglip import SigLIPLoss
from bundle.ctfindings.losses.snippet_localization import SnippetLocalizationLoss
from bundle.ctfindings.published.checkpoint_format import convert_tensors
from bundle.ctfindings.published.radfinder.checkpoint import fold_patch_kernel, radfinder_checkpoint
from bundle.ctfindings.published.radfinder.image_encoder import (
    ProjectionHead,
    RadFinderImageEncoder,
    ScanCombiner,
    WindowEncoder,
)
from bundle.ctfindings.published.radfinder.rotary_transformer import RotaryPosition
from bundle.ctfindings.published.text_tower import PublishedTextTower
from tests.published.reference_packs import (
    assert_filled_as_recorded,
    assert_recorded,
    filled,
    noise,
    pack_folder,
    published_shapes,
)

GRIDS = ((2, 2, 2), (1, 2, 3))


class Pack:
    """The model filled by the formula, and what the published code computed from it."""

    def __init__(self) -> None:
        folder = pack_folder("radfinder")
        self.golden = np.load(folder / "radfinder_golden.npz")
        self.extra = np.load(folder / "radfinder_extra.npz")
        published: dict[str, Tensor] = {}
        for name, shape in published_shapes("radfinder").items():
            # The text encoder was not run for the pack.
            if "backbone_text" not in name:
                published[name] = filled(name, shape)
        shown = [
            "cls_token",
            "blocks.7.ls2.gamma",
            "blocks.0.attn.kv.weight",
            "blocks.23.mlp.fc1.bias",
            "patch_embed.proj.weight",
        ]
        assert_filled_as_recorded(
            folder,
            "radfinder",
            {f"model.backbone_image.{name}": published[f"model.backbone_image.{name}"] for name in shown},
        )
        model = radfinder_checkpoint()
        model = replace(model, mapping=[entry for entry in model.mapping if not entry.name.startswith("backbone_text")])
        state = convert_tensors(model, published, "formula").state
        with torch.device("meta"):
            self.image = RadFinderImageEncoder(WindowEncoder(), ScanCombiner())
            self.text_head, self.snippet_head = ProjectionHead(1024), ProjectionHead(1024)
        for prefix, module in (
            ("image.", self.image),
            ("text.head.", self.text_head),
            ("text.snippet_head.", self.snippet_head),
        ):
            part = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            module.load_state_dict(part, assign=True)
            module.eval()
        self.image.tower.requires_grad_(False)


@pytest.fixture(scope="module")
def pack() -> Iterator[Pack]:
    yield Pack()


def scan(index: int) -> Tensor:
    """The pack's scan as ``[1, 1, X, Y, Z]``."""
    x, y, z = (count * edge for count, edge in zip(GRIDS[index], (128, 128, 32), strict=True))
    i, j, k = np.ogrid[0:x, 0:y, 0:z]
    u, v, w, turn = i / 128, j / 128, k / 32, 2 * np.pi
    values = (
        0.475
        + 0.20 * np.sin(turn * (1.3 * u + 0.1) + index) * np.cos(turn * (0.7 * v + 0.2))
        + 0.15 * np.sin(turn * (2.1 * v + 1.9 * w + 0.3) - index)
        + 0.10 * np.cos(turn * (4.3 * u + 5.1 * v + 3.7 * w + 0.4))
        + 0.05 * ((7 * i + 13 * j + 29 * k) % 64) / 64
    )
    return torch.from_numpy(values.astype(np.float32))[None, None]


def text_hidden(kind: str, count: int, length: int) -> tuple[Tensor, Tensor]:
    """Stand-in states of the text encoder and their mask, padded on the right."""
    states = torch.from_numpy(noise(f"golden.text.{kind}", (count, length, 1024)).astype(np.float32))
    mask = torch.ones(count, length, dtype=torch.long)
    for row in range(count):
        mask[row, length - row % 3 :] = 0
    return states, mask


def pooled(kind: str, count: int, length: int) -> Tensor:
    """Features of stand-in texts: the state of the last real token."""
    states, mask = text_hidden(kind, count, length)
    if kind == "left":
        mask = torch.ones_like(mask)
    network = nn.ModuleDict({"trunk": nn.Identity(), "head": nn.Identity()})
    return PublishedTextTower(None, network, pooling="last").pool(states, mask)


@pytest.mark.parametrize(
    ("base", "grid", "divisor", "rows", "name"),
    [
        (1000.0, (8, 8, 8), None, [0, 1, 8, 64, 200, 511], "rope_backbone_{}_rows"),
        (100.0, (2, 2, 2), None, list(range(8)), "rope_comb222_{}"),
        (100.0, (2, 2, 16), (2, 2, 2), [0, 1, 15, 16, 40, 63], "rope_axis2216_{}"),
    ],
)
def test_rotary_positions(base: float, grid: Any, divisor: Any, rows: list[int], name: str) -> None:
    golden = np.load(pack_folder("radfinder") / "radfinder_golden.npz")
    rope = RotaryPosition(90, base)
    assert_recorded(rope.periods, golden["periods_backbone_image" if base == 1000.0 else "periods_feature_comb_image"])
    sine, cosine = rope(grid, divisor)
    assert_recorded(sine[rows], golden[name.format("sin")])
    assert_recorded(cosine[rows], golden[name.format("cos")])


def test_a_kernel_for_thin_slices_is_folded() -> None:
    golden = np.load(pack_folder("radfinder") / "radfinder_golden.npz")
    kernel = filled("golden.kernel8", (1080, 1, 16, 16, 8))
    assert_recorded(fold_patch_kernel(kernel)[:2], golden["fold_first2"])


def test_norms_have_the_published_epsilon(pack: Pack) -> None:
    probe = torch.from_numpy(pack.extra["norm_probe_in"])
    tower, combiner = pack.image.tower, pack.image.combiner
    norms: dict[str, Any] = {
        "block0_norm1": tower.blocks[0].norm1,
        "final": tower.norm,
        "comb_norm2": combiner.blocks[0].norm2,
        "comb_final": combiner.norm,
    }
    for name, norm in norms.items():
        assert_recorded(norm(probe), pack.extra[f"norm_probe_{name}"])


def test_one_window(pack: Pack) -> None:
    tower = pack.image.tower
    window = scan(0)[..., :128, :128, :32]
    assert_recorded(window[0, 0, ::41, ::37, ::9], pack.golden["window0_probe"])
    seen: dict[str, Tensor] = {}
    hooks = [tower.embed.register_forward_hook(lambda _, __, output: seen.__setitem__("patch", output.flatten(2)[0].T))]
    for index in (0, 11, 23):
        name = f"block{index}"
        hooks.append(
            tower.blocks[index].register_forward_hook(
                lambda _, __, output, name=name: seen.__setitem__(name, output[0])
            )
        )
    with torch.no_grad():
        tokens = tower.tokens(window)[0]
    for hook in hooks:
        hook.remove()
    assert list(tower.grid) == pack.golden["patch_grid"].tolist()
    assert_recorded(seen["patch"][:4], pack.golden["patch_first4"])
    assert_recorded(seen["patch"][-4:], pack.golden["patch_last4"])
    for index in (0, 11, 23):
        assert_recorded(seen[f"block{index}"][:4], pack.golden[f"block{index}_first4"])
    patches = tokens[1:].unflatten(0, tower.grid)
    for name, value in {
        "win0_first4": tokens[:4],
        "win0_last4": tokens[-4:],
        "win0_cls": tokens[0],
        "win0_patch_mean": patches.mean(dim=(0, 1, 2)),
        "win0_depth_means": patches.mean(dim=(0, 1)),
    }.items():
        assert_recorded(value, pack.golden[name], name=name)
    assert_recorded(tokens[0], pack.golden["all_cls"][0, 0, 0, 0])


def test_windows_are_mixed_into_a_scan(pack: Pack) -> None:
    for index, (x, y, z) in enumerate(GRIDS):
        cls, mean = (
            torch.from_numpy(pack.golden[name][index : index + 1, :x, :y, :z]) for name in ("all_cls", "all_patch_mean")
        )
        with torch.no_grad():
            comb_cls, comb_patch = pack.image.global_features(cls, mean)
            features = pack.image.pooled(comb_cls, comb_patch)
            retrieval = pack.image.retrieval_head(features)[0]
            assert_recorded(comb_cls[0], pack.golden["comb_cls"][index])
            assert_recorded(comb_patch[0], pack.golden["comb_patch"][index, :x, :y, :z])
            assert_recorded(retrieval, pack.golden["global_embed"][index])
            assert_recorded(pack.image.disease_head(features)[0], pack.golden["secondary_embed"][index])
        if index == 0:
            assert_recorded(retrieval, pack.golden["scan0_alone_global"][0])


def test_text_heads(pack: Pack) -> None:
    with torch.no_grad():
        reports = pack.text_head(pooled("report", 3, 7))
        assert_recorded(reports, pack.golden["text_report_embed"])
        assert_recorded(pack.snippet_head(pooled("snippet", 5, 6)), pack.golden["snippet_embed"])
        assert_recorded(pack.text_head(pooled("left", 2, 5)), pack.golden["text_left_padded_embed"])
    images = F.normalize(torch.from_numpy(pack.golden["global_embed"]), dim=-1)
    everyone = torch.ones(2, dtype=torch.bool)
    loss = SigLIPLoss(scale=float(np.exp(2.3026)), bias=-10.0)(
        images, everyone, F.normalize(reports[:2], dim=-1), everyone, torch.tensor([0, 1])
    )
    assert_recorded(loss, pack.golden["siglip_e2e_loss"])


def test_gradients_through_the_depth_path(pack: Pack) -> None:
    depth = torch.from_numpy(noise("golden.grad.axis2", (1, 1, 1, 2, 8, 1080)).astype(np.float32)).requires_grad_()
    along = pack.image.depth_features(depth)
    rows = along.rows
    # Named as a gradient in the pack, but the values are those of the rows.
    assert_recorded(rows, pack.extra["grad_slice_embed"])
    snippets = F.normalize(pack.snippet_head(pooled("snippet", 5, 6)[:3]), dim=-1)
    depth_mm = (12.0 * torch.arange(16)).expand(3, -1)
    unit = F.normalize(rows, dim=-1).expand(3, -1, -1)
    loss = SnippetLocalizationLoss(sigma_mm=24.0, temperature=0.1)(
        unit, depth_mm, snippets, 12.0 * torch.tensor([2.0, 9.0, 15.0])
    )
    assert_recorded(loss, pack.extra["grad_loss"])
    loss.backward()
    assert depth.grad is not None
    assert_recorded(depth.grad[0, 0, 0, 0, :2], pack.extra["grad_axis2_first2"])
    combiner, head = pack.image.combiner, pack.image.disease_head
    for name, gradient in {
        "feature_comb_image.axis_patch_proj.bias": combiner.axis_patch_proj.bias.grad,
        "feature_comb_image.blocks.0.ls1.gamma": combiner.blocks[0].ls1.gamma.grad,
        "feature_comb_image.cls_token": combiner.cls_token.grad,
        "projection_image_copy.layers.4.bias": head.layers[4].bias.grad,
        "projection_text_copy.layers.0.bias": pack.snippet_head.layers[0].bias.grad,
    }.items():
        assert_recorded(gradient, pack.extra[f"gradp_{name}"])
    assert head.last_layer.parametrizations.weight.original0.grad is None
    assert pack.extra["gradp_projection_image_copy.last_layer.parametrizations.weight.original0"].size == 0


def published_localization_loss(cosines: Tensor, place: int, sigma: float = 2.0, length: int = 24) -> Tensor:
    """The released loss of one snippet: blurred over the padded depths too and not renormalised, as
    ``SnippetLocalizationLoss`` does.
    """
    offset = torch.arange(length) - place
    target = torch.exp(-0.5 * (offset / sigma) ** 2) * (offset.abs() <= int(3 * sigma + 0.5))
    target = (target / target.sum())[: len(cosines)]
    return -(target * F.log_softmax(cosines / 0.1, dim=0)).sum()


@pytest.mark.slow
@pytest.mark.skipif(
    "CTFINDINGS_WHOLE_PACKS" not in os.environ,
    reason="14 windows take a minute on two cores; set CTFINDINGS_WHOLE_PACKS=1",
)
def test_whole_scans(pack: Pack) -> None:
    image = pack.image
    with torch.no_grad():
        parts = [image.windows(scan(index)) for index in (0, 1)]
        stats = [
            torch.stack([window.min(), window.max(), window.mean(), window.std(correction=0)])
            for index in (0, 1)
            for window in scan(index)[0, 0].unfold(0, 128, 128).unfold(1, 128, 128).unfold(2, 32, 32).flatten(0, 2)
        ]
        assert_recorded(torch.stack(stats), pack.golden["window_stats"])
        rows, snippets = [], F.normalize(pack.snippet_head(pooled("snippet", 5, 6)), dim=-1)
        for index, (features, (x, y, z)) in enumerate(parts):
            assert (x, y, z) == GRIDS[index]
            cls, mean, depth = (feature.unflatten(0, (x, y, z)) for feature in features)
            assert_recorded(cls, pack.golden["all_cls"][index, :x, :y, :z])
            assert_recorded(mean, pack.golden["all_patch_mean"][index, :x, :y, :z])
            if index == 1:
                assert_recorded(depth[..., ::8], pack.golden["axis2_scan1"][:x, :y, :z])
            along = image.depth_features(depth.unsqueeze(0))
            assert pack.golden["depth_valid"][index].tolist() == [position < 8 * z for position in range(24)]
            assert_recorded(along.cls[0], pack.golden["depth_cls"][index])
            assert_recorded(along.mean[0, :, ::4], pack.golden["depth_perslice"][index, : 8 * z])
            assert_recorded(along.rows[0], pack.golden["depth_slice_embed"][index, : 8 * z])
            rows.append(F.normalize(along.rows[0], dim=-1))
            assert_recorded(snippets @ rows[index].T, pack.golden["heatmap"][index, :, : 8 * z])
            if index == 0:
                assert_recorded(rows[0], pack.golden["depth_slice_embed_scan0_norm"])
                assert_recorded(along.tokens[0].flatten(0, 2)[:4], pack.golden["depth_tokens_scan0_first4"])
        places = zip(
            pack.golden["loc_e2e_scan_index"].tolist(),
            pack.golden["loc_e2e_target_pos"].tolist(),
            snippets,
            strict=True,
        )
        losses = [published_localization_loss(rows[which] @ snippet, place) for which, place, snippet in places]
        assert_recorded(torch.stack(losses).mean(), pack.golden["loc_e2e_loss"])
        encoded = image.encode_scan(scan(0))
    assert_recorded(encoded.depth[0], pack.golden["depth_slice_embed_scan0_norm"])
    assert_recorded(encoded.anatomy[0, 0], F.normalize(torch.from_numpy(pack.golden["secondary_embed"][0]), dim=-1))
    assert encoded.grid == [2, 2, 16] and encoded.field.shape == (1, 64, 512)
