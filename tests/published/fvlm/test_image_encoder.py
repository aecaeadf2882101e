"""fVLM's towers against the recorded arrays of the published code, at their true size.

Arrays of the pack are ordered depth, height, width with depth slowest; ours are X, Y, Z. Tests turn the former into the
latter.
"""

import zlib
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import BertConfig, BertModel
from transformers.initialization import no_init_weights

from bundle.ctfindings.losses.local_anatomy import LocalAnatomyLoss
from bundle.ctfindings.networks.image.pooling import token_membership
from bundle.ctfindings.networks.image.vit_tower import VisionTransformerTower
from bundle.ctfindings.published.checkpoint_format import convert_tensors
from bundle.ctfindings.published.fvlm.checkpoint import fvlm_checkpoint
from bundle.ctfindings.published.fvlm.image_encoder import (
    ORGANS,
    FvlmImageEncoder,
    FvlmScorer,
)
from tests.published.reference_packs import (
    assert_filled_as_recorded,
    assert_recorded,
    filled,
    noise,
    pack_folder,
    published_shapes,
)

NORMAL = "{} shows no significant abnormalities."
BOXES = {
    1: (10, 100, 30, 220, 40, 310),
    2: (40, 90, 70, 150, 120, 230),
    3: (8, 104, 160, 176, 170, 186),
    4: (20, 80, 140, 165, 190, 215),
}
CAPTIONS = {
    "lung": ["Nodule in the right upper lobe.", NORMAL.format("lung"), NORMAL.format("lung") + "Lungs are clear."],
    "heart": [NORMAL.format("heart"), "Cardiomegaly.", "Pericardial effusion.", NORMAL.format("heart")],
    "aorta": ["Wall calcification.", "Aneurysm of the arch.", NORMAL.format("aorta"), "Wall calcification."],
}
CAPTIONS["lung"].append(CAPTIONS["lung"][0])


class Pack:
    """The model filled by the formula, and what the published code computed from it."""

    def __init__(self) -> None:
        folder = pack_folder("fvlm")
        self.golden = np.load(folder / "fvlm_golden.npz")
        self.extra = np.load(folder / "fvlm_extra.npz")
        shapes = published_shapes("fvlm")
        # What is dropped need not be computed.
        published = {
            name: torch.zeros(1).expand(shape) if ".cls." in name else filled(name, shape)
            for name, shape in shapes.items()
        }
        shown = [
            "temp",
            "query_tokens",
            "attention.in_proj_bias",
            "visual_encoder.norm.weight",
            "text_encoder.embeddings.position_ids",
        ]
        assert_filled_as_recorded(folder, "fvlm", {name: published[name] for name in shown})
        self.state = convert_tensors(fvlm_checkpoint(), published, "formula").state
        with torch.device("meta"):  # filled below, without the time of random values
            self.image = FvlmImageEncoder(VisionTransformerTower()).eval()
            self.scorer = FvlmScorer()
            self.text_proj = torch.nn.Linear(768, 256)
        with no_init_weights():
            self.trunk = BertModel(BertConfig(), add_pooling_layer=False).eval()
        for prefix, module in (
            ("image.", self.image),
            ("text.trunk.", self.trunk),
            ("scorer.", self.scorer),
            ("text.head.", self.text_proj),
        ):
            part = {name.removeprefix(prefix): value for name, value in self.state.items() if name.startswith(prefix)}
            module.load_state_dict(part, assign=True)


@pytest.fixture(scope="module")
def pack() -> Iterator[Pack]:
    yield Pack()


def volume(size: tuple[int, int, int] = (112, 256, 352), sample: int = 0) -> Tensor:
    """The pack's image as ``[1, 1, X, Y, Z]``."""
    depth, height, width = size
    i, j, k = np.ogrid[0:depth, 0:height, 0:width]
    u, v, w = (i + 0.5) / depth, (j + 0.5) / height, (k + 0.5) / width
    turn, phase = 2 * np.pi, 0.17 * sample
    values = (
        0.475
        + 0.20 * np.sin(turn * (3 * u + 0.1) + phase) * np.cos(turn * (2 * v + 0.2))
        + 0.15 * np.sin(turn * (5 * v + 7 * w + 0.3) - phase)
        + 0.10 * np.cos(turn * (11 * u + 13 * v + 17 * w + 0.4) + phase)
        + 0.05 * ((7 * i + 13 * j + 29 * k) % 64) / 64
    )
    return torch.from_numpy(values.astype(np.float32).transpose(2, 1, 0).copy())[None, None]


def labels(sample: int = 0) -> Tensor:
    """The pack's organ mask as ``[1, 1, X, Y, Z]``."""
    mask = np.zeros((112, 256, 352), np.uint8)
    for label, (a, b, c, d, e, f) in BOXES.items():
        mask[a + 2 * sample : b + 2 * sample, c:d, e:f] = label
    if sample == 1:
        mask[0:60, 140:165, 190:215] = 4
    return torch.from_numpy(mask.transpose(2, 1, 0).copy())[None, None]


def in_their_order(tokens: Tensor, grid: list[int]) -> Tensor:
    """Tokens ``[1, N, ...]`` of our grid in the pack's order, depth slowest and width fastest, ``[N, ...]``."""
    return tokens[0].unflatten(0, grid).transpose(0, 2).flatten(0, 2)


@pytest.fixture(scope="module")
def levels(pack: Pack) -> tuple[list[Tensor], list[int], dict[str, Tensor]]:
    """Levels of the pack's image, blocks 3, 6, 9 and the last, and what enters and leaves the first block."""
    seen: dict[str, Tensor] = {}
    first = pack.image.tower.blocks[0]
    hooks = [
        first.register_forward_pre_hook(lambda _, inputs: seen.__setitem__("embed", inputs[0])),
        first.register_forward_hook(lambda _, __, output: seen.__setitem__("block0", output)),
    ]
    with torch.no_grad():
        (final, *others), grids = pack.image.tower(volume())
    for hook in hooks:
        hook.remove()
    return [*others, final], grids[0], seen


def test_inputs_are_those_of_the_pack(pack: Pack) -> None:
    image = volume()[0, 0].permute(2, 1, 0)
    assert_recorded(image[::37, ::61, ::83], pack.golden["image_probe"])
    assert_recorded(
        torch.tensor([image.min(), image.max(), image.mean(), image.std(correction=0)]), pack.golden["image_stats"]
    )
    assert torch.bincount(labels().flatten().int()).tolist() == pack.golden["label_counts"].tolist()


def test_levels_of_the_image_tower(pack: Pack, levels: Any) -> None:
    found, grid, seen = levels
    assert grid[::-1] == pack.golden["grid"].tolist()
    ordered = {"embed": in_their_order(seen["embed"], grid)} | {
        f"level{i}": in_their_order(level, grid) for i, level in enumerate(found)
    }
    for name, tokens in ordered.items():
        assert_recorded(tokens[:8], pack.golden[f"{name}_first8"])
        assert_recorded(tokens[-8:], pack.golden[f"{name}_last8"])
    assert_recorded(in_their_order(seen["block0"], grid)[:8], pack.golden["block0_first8"])
    for index in range(4):
        level = ordered[f"level{index}"].double()
        assert_recorded(
            torch.stack([level.mean(), level.std(correction=0), level.abs().max()]), pack.golden[f"level{index}_stats"]
        )


def test_positions_are_resized_to_the_grid_of_another_scan(pack: Pack) -> None:
    seen: dict[str, Tensor] = {}
    hook = pack.image.tower.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.__setitem__("embed", inputs[0]))
    with torch.no_grad():
        (final, *others), grids = pack.image.tower(volume((112, 288, 352)))
    hook.remove()
    ordered = {"embed": in_their_order(seen["embed"], grids[0])}
    ordered |= {f"level{i}": in_their_order(level, grids[0]) for i, level in enumerate([*others, final])}
    assert_recorded(ordered["embed"][680:688], pack.golden["B_embed_mid8"])
    for name, tokens in ordered.items():
        assert_recorded(tokens[:8], pack.golden[f"B_{name}_first8"])
        assert_recorded(tokens[-8:], pack.golden[f"B_{name}_last8"])


def test_organs_are_pooled_from_their_tokens(pack: Pack, levels: Any) -> None:
    found, grid, _ = levels
    membership = token_membership(labels(), pack.image.tower.stride)[:, :, :4]
    packed = np.packbits(in_their_order(membership, grid).T.numpy().astype(np.uint8), axis=1)
    np.testing.assert_array_equal(packed, pack.golden["organ_token_flags_packed"])
    np.testing.assert_array_equal(membership.sum(dim=1)[0].numpy(), pack.golden["organ_token_counts"])
    keys = membership.repeat(1, 4, 1)
    np.testing.assert_array_equal(keys.sum(dim=1)[0].numpy(), pack.golden["organ_key_counts"])
    with torch.no_grad():
        pooled, valid = pack.image.pool(torch.cat(found, dim=1), keys)
        rows = pack.image.project(pooled)
    assert valid.all()
    assert_recorded(pooled[0], pack.golden["organ_pooled_768"])
    assert_recorded(rows[0], pack.golden["organ_embed_256"])

    first = in_their_order(found[0], grid)[in_their_order(membership, grid)[:, 0]][:16]
    lung = torch.cat([in_their_order(level, grid)[in_their_order(membership, grid)[:, 0]] for level in found])
    with torch.no_grad():
        _, weights = pack.image.attention(pack.image.query[None, :1], lung[None], lung[None])
    assert torch.equal(first, lung[:16])
    assert_recorded(weights[0, 0, :16], pack.golden["lung_attn_avg_first16"])

    vectors = noise("golden.text_features", (6, 256))
    vectors = torch.from_numpy((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32))
    assert_recorded(rows[0] @ vectors.T / pack.scorer.temperature, pack.golden["similarity_over_temp"])
    delta = (vectors[1::2] - vectors[0::2])[None]
    recorded = torch.from_numpy(pack.golden["zero_shot_prob"])
    for organ in range(4):
        logits, _ = pack.scorer(rows, valid, rows[:, None], membership, delta, torch.full((3,), organ))
        assert_recorded(logits[0].sigmoid(), recorded[organ, :, 1])


def test_an_encoded_scan_has_the_rows_of_its_organs(pack: Pack) -> None:
    # The window of every organ is the whole of this volume: a larger one would be padded with positions of another
    # grid.
    encoder = FvlmImageEncoder(pack.image.tower, window=(352, 256, 112)).eval()
    encoder.load_state_dict(pack.image.state_dict())
    with torch.no_grad():
        encoded = encoder.encode_scan(volume(), labels())
    assert_recorded(encoded.anatomy[0, :4], pack.golden["organ_embed_256"])
    assert encoded.anatomy_valid[0].tolist() == [True] * 4 + [False] * 2
    assert encoded.grid == [11, 16, 7] and encoded.field.shape == (1, 1232, 4, 256)


def test_an_organ_at_the_border_is_pooled_when_it_is_the_one_asked_for(pack: Pack, levels: Any) -> None:
    found, _, _ = levels
    membership = token_membership(labels(1), pack.image.tower.stride)[:, :, :4].repeat(1, 4, 1)
    with torch.no_grad():
        pooled, _ = pack.image.pool(torch.cat(found, dim=1), membership)
    assert_recorded(pack.image.project(pooled)[0, 3], pack.golden["border_case_aorta_embed"])


def test_text_side(pack: Pack) -> None:
    ids, mask = (torch.from_numpy(pack.golden[name]) for name in ("text_input_ids", "text_attention_mask"))
    with torch.no_grad():
        hidden = pack.trunk(input_ids=ids, attention_mask=mask).last_hidden_state
        features = F.normalize(pack.text_proj(hidden[:, 0]), dim=-1)
    assert_recorded(hidden[:, 0], pack.golden["text_cls_768"])
    assert_recorded(hidden[:, 3], pack.golden["text_hidden_tok3"])
    assert_recorded(features, pack.golden["text_feat_256"])


def test_norms_have_the_published_epsilon(pack: Pack) -> None:
    probe = torch.from_numpy(pack.extra["norm_probe_in"])
    layer = pack.trunk.encoder.layer[0]
    norms = {
        "block0_norm1": pack.image.tower.blocks[0].norm1,
        "final": pack.image.tower.norm,
        "text_embed": pack.trunk.embeddings.LayerNorm,
        "text_out0": cast(Any, layer).output.LayerNorm,
    }
    for name, norm in norms.items():
        assert_recorded(cast(Any, norm)(probe), pack.extra[f"norm_probe_{name}"])


def local_loss(pack: Pack, organs: dict[str, tuple[Tensor, Tensor]], samples: int) -> dict[str, Tensor]:
    """Our local loss of each organ, from raw vectors ``(image, text)`` of 768 before the projections; esophagus is all
    normal.
    """
    losses = {}
    for organ, (image, text) in organs.items():
        index = ORGANS.index(organ)
        rows = F.normalize(pack.image.projections[index](image), dim=-1)
        captions = F.normalize(pack.text_proj(text), dim=-1)
        losses[organ] = organ_loss(organ, rows, captions, pack.scorer.temperature, list(range(samples)))
    return losses


def organ_loss(organ: str, rows: Tensor, captions: Tensor, temperature: Tensor, samples: list[int]) -> Tensor:
    texts = [CAPTIONS[organ][sample] for sample in samples]
    known = list(dict.fromkeys(texts))
    valid = torch.ones(len(samples), 1, dtype=torch.bool)
    loss = LocalAnatomyLoss()(
        anatomy=rows.unsqueeze(1),
        anatomy_valid=valid,
        caption=captions.unsqueeze(1),
        caption_valid=valid,
        caption_id=torch.tensor([[known.index(text)] for text in texts]),
        caption_normal=torch.tensor([[text.startswith(NORMAL.format(organ))] for text in texts]),
        temperature=temperature,
    )
    return cast(Tensor, loss)


def test_training_loss_and_its_gradients(pack: Pack) -> None:
    raw = {
        organ: tuple(
            torch.from_numpy(noise(f"golden.loss.{side}.{organ}", (4, 768)).astype(np.float32)).requires_grad_()
            for side in ("image", "text")
        )
        for organ in ("lung", "heart", "aorta")
    }
    for parameter in (*pack.scorer.parameters(), *pack.text_proj.parameters(), *pack.image.projections.parameters()):
        parameter.grad = None
    losses = local_loss(pack, cast(Any, raw), 4)
    for organ, loss in losses.items():
        assert_recorded(loss, pack.golden[f"loss_synth_{organ}_itc"])
        image, text = raw[organ]
        assert_recorded(
            F.normalize(pack.image.projections[ORGANS.index(organ)](image), dim=-1),
            pack.golden[f"loss_synth_{organ}_image_feat"],
        )
        assert_recorded(F.normalize(pack.text_proj(text), dim=-1), pack.golden[f"loss_synth_{organ}_text_feat"])
    total = torch.stack(list(losses.values())).sum()
    assert_recorded(total, pack.golden["loss_synth_total"])
    assert_recorded(total, pack.extra["grad_total"])
    total.backward()
    assert_recorded(pack.scorer.temperature.grad, pack.extra["grad_temp"])
    assert_recorded(pack.image.projections[0].bias.grad, pack.extra["grad_vision_proj0_bias"])
    assert_recorded(pack.text_proj.bias.grad, pack.extra["grad_text_proj_bias"])
    for organ, (image, text) in raw.items():
        assert_recorded(image.grad, pack.extra[f"grad_{organ}_image"])
        assert_recorded(text.grad, pack.extra[f"grad_{organ}_text"])

    pair = local_loss(pack, {organ: (image[:2], text[:2]) for organ, (image, text) in raw.items()}, 2)
    assert_recorded(torch.stack(list(pair.values())).sum(), pack.golden["loss_synth_pair01_total"])
    for organ, loss in pair.items():
        assert_recorded(loss, pack.golden[f"loss_synth_pair01_{organ}_itc"])


def stand_in_tokens(texts: list[str]) -> tuple[Tensor, Tensor]:
    """The pack's stand-in for a tokenizer, 32 ids for each text, and the mask of the real ones."""
    ids, mask = torch.zeros(len(texts), 32, dtype=torch.long), torch.zeros(len(texts), 32, dtype=torch.long)
    for row, text in enumerate(texts):
        words = [2, *(1000 + zlib.crc32(word.encode("utf-8")) % 29522 for word in text.split()), 3]
        ids[row, : len(words)], mask[row, : len(words)] = torch.tensor(words), 1
    return ids, mask


def test_training_loss_from_scans_and_captions(pack: Pack) -> None:
    encoded = []
    for sample in range(3):
        with torch.no_grad():
            encoded.append(pack.image(volume(sample=sample), token_membership(labels(sample), pack.image.tower.stride)))
    losses = []
    for organ in ("lung", "heart", "aorta"):
        # In sample 1 the border cuts the aorta.
        samples = [0, 2] if organ == "aorta" else [0, 1, 2]
        # A normal sentence that goes on is not part of what is encoded.
        normal = NORMAL.format(organ)
        texts = [CAPTIONS[organ][sample] for sample in samples]
        texts = [text.removeprefix(normal) if text != normal else text for text in texts]
        ids, mask = stand_in_tokens(texts)
        with torch.no_grad():
            captions = F.normalize(
                pack.text_proj(pack.trunk(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]), dim=-1
            )
            rows = torch.cat([encoded[sample].anatomy[:, ORGANS.index(organ)] for sample in samples])
            loss = organ_loss(organ, rows, captions, pack.scorer.temperature, samples)
        assert_recorded(rows, pack.golden[f"loss_e2e_{organ}_image_feat"])
        assert_recorded(captions, pack.golden[f"loss_e2e_{organ}_text_feat"])
        assert_recorded(loss, pack.golden[f"loss_e2e_{organ}_itc"])
        losses.append(loss)
    assert_recorded(torch.stack(losses).sum(), pack.golden["loss_e2e_total"])
