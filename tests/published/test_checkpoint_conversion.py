"""Published checkpoints are taken whole or refused by name."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import BertConfig, BertModel, Qwen3Config, Qwen3Model

from bundle.ctfindings.networks.classifier import PromptBank
from bundle.ctfindings.networks.image.vit_tower import VisionTransformerTower
from bundle.ctfindings.networks.scoring import FindingScorer
from bundle.ctfindings.published.checkpoint_conversion import PublishedModel, Taken, convert_checkpoint, convert_tensors
from bundle.ctfindings.published.fvlm.image_encoder import FvlmImageEncoder, FvlmScorer
from bundle.ctfindings.published.fvlm.tensor_map import fvlm, turn_to_ras
from bundle.ctfindings.published.radfinder.image_encoder import (
    ProjectionHead,
    RadFinderImageEncoder,
    ScanCombiner,
    WindowEncoder,
)
from bundle.ctfindings.published.radfinder.tensor_map import radfinder
from tests.published.reference_packs import published_shapes

MODELS: dict[str, Callable[[], PublishedModel]] = {"fvlm": fvlm, "radfinder": radfinder}


def of_shapes(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Tensors of any size in no memory: one zero each, seen as many."""
    return {name: torch.zeros(1).expand(shape) if shape else torch.zeros(()) for name, shape in shapes.items()}


def published(name: str) -> dict[str, Tensor]:
    """A checkpoint with the tensors that our own table names, at their true size."""
    return of_shapes({entry.name: entry.shape for entry in MODELS[name]().taken})


@pytest.mark.parametrize("name", MODELS)
def test_the_whole_table_of_the_pack_is_taken_or_named_as_dropped(name: str) -> None:
    shapes = published_shapes(name)
    converted = convert_tensors(MODELS[name](), of_shapes(shapes), "file")
    taken = {entry.name for entry in MODELS[name]().taken}
    assert {key.removeprefix("model.") for key in shapes} == taken | set(converted.dropped)
    assert not taken & set(converted.dropped) and all(converted.dropped.values())


def small(name: str) -> dict[str, nn.Module]:
    """The modules of a model at their true size, without memory for values, and the names of their parts in a bundle
    checkpoint.
    """
    with torch.device("meta"):
        if name == "fvlm":
            image: nn.Module = FvlmImageEncoder(VisionTransformerTower())
            text = {"trunk": BertModel(BertConfig(), add_pooling_layer=False), "head": nn.Linear(768, 256)}
            return {
                "image": image,
                "scorer": FvlmScorer(),
                "bank": PromptBank(256, templates=1),
                "text": nn.ModuleDict(text),
            }
        config = Qwen3Config(
            vocab_size=151669, hidden_size=1024, intermediate_size=3072, num_hidden_layers=28, num_attention_heads=16,
            num_key_value_heads=8, head_dim=128,
        )  # fmt: skip
        heads = {"head": ProjectionHead(1024), "snippet_head": ProjectionHead(1024)}
        image = RadFinderImageEncoder(WindowEncoder(), ScanCombiner())
        return {
            "image": image,
            "scorer": FindingScorer(tokens=False),
            "bank": PromptBank(512),
            "text": nn.ModuleDict({"trunk": Qwen3Model(config), **heads}),
        }


@pytest.mark.parametrize("name", MODELS)
def test_what_is_converted_is_what_the_network_holds(name: str) -> None:
    state = convert_tensors(MODELS[name](), published(name), "file").state
    modules = small(name)
    wanted = {
        f"{part}.{key}": tuple(value.shape)
        for part, module in modules.items()
        for key, value in module.state_dict().items()
    }
    assert {key: tuple(value.shape) for key, value in state.items()} == wanted


@pytest.mark.parametrize("name", MODELS)
def test_a_file_that_does_not_fit_is_refused_by_the_name_of_the_tensor(name: str) -> None:
    model = MODELS[name]()
    victim: Taken = model.taken[17]
    whole = published(name)

    lacking = {key: value for key, value in whole.items() if key != victim.name}
    with pytest.raises(
        ValueError,
        match=rf"file: is not a checkpoint of {model.name}: lacks {victim.name} \({victim.shape[0]},.*download it again",
    ):
        convert_tensors(model, lacking, "file")

    with pytest.raises(
        ValueError, match=rf"lacks {victim.name} .*; holds {victim.name}_old .*, which {model.name} does not have"
    ):
        convert_tensors(model, {**lacking, f"{victim.name}_old": whole[victim.name]}, "file")

    with pytest.raises(ValueError, match=rf"{victim.name} has shape \(3, 5\) and not \({victim.shape[0]},"):
        convert_tensors(model, {**whole, victim.name: torch.zeros(3, 5)}, "file")

    with pytest.raises(ValueError, match=r"holds one_more \(2,\), which"):
        convert_tensors(model, {**whole, "one_more": torch.zeros(2)}, "file")


@pytest.mark.parametrize(
    "value", [torch.tensor(float("nan")), torch.tensor(float("inf")), torch.tensor(3), torch.tensor(1j)]
)
def test_values_that_no_weight_has_are_refused_by_the_name_of_the_tensor(value: Tensor) -> None:
    with pytest.raises(
        ValueError,
        match="is not a checkpoint of Tiny: holds values that are no finite real numbers in b; download it again",
    ):
        convert_tensors(tiny(), {"a.weight": torch.zeros(2, 3), "b": value}, "file")


def test_many_problems_are_counted() -> None:
    with pytest.raises(ValueError, match="and 146 more"):
        convert_tensors(
            fvlm(), {key: value for key, value in published("fvlm").items() if "visual_encoder" not in key}, "file"
        )


def test_a_kernel_of_another_shape_is_accepted_only_where_it_can_be_folded() -> None:
    name = "backbone_image.patch_embed.proj.weight"
    deep = torch.arange(8.0).expand(1080, 1, 16, 16, 8)
    state = convert_tensors(radfinder(), {**published("radfinder"), name: deep}, "file").state
    assert state["image.tower.embed.weight"][0, 0, 0, 0].tolist() == [1.0, 5.0, 9.0, 13.0]
    with pytest.raises(
        ValueError, match=rf"{name} has shape .* and not \(1080, 1, 16, 16, 4\) or \(1080, 1, 16, 16, 8\)"
    ):
        convert_tensors(radfinder(), {**published("radfinder"), name: deep[..., :6]}, "file")


def tiny() -> PublishedModel:
    """A model of two tensors, for the ways in which a file can be written."""
    return PublishedModel(
        "Tiny",
        "nowhere",
        "no paper",
        "none stated",
        [Taken("a.weight", (2, 3), "image.a"), Taken("b", (), "scorer.b")],
        [],
        {},
        "model.",
    )


def test_files_of_every_kind_give_the_same_tensors(tmp_path: Path) -> None:
    tensors = {"a.weight": torch.rand(2, 3), "b": torch.tensor(2.0)}
    prefixed = {f"model.{key}": value for key, value in tensors.items()}
    torch.save(
        {"model": tensors, "optimizer": {"step": 3}, "config": {"run": {"lr": 1e-4}}, "epoch": 19},
        tmp_path / "checkpoint_19.pth",
    )
    torch.save(tensors, tmp_path / "flat.pt")
    save_file(prefixed, tmp_path / "model.safetensors")
    (tmp_path / "shards").mkdir()
    save_file({"model.a.weight": tensors["a.weight"]}, tmp_path / "shards" / "model-00001-of-00002.safetensors")
    save_file({"model.b": tensors["b"]}, tmp_path / "shards" / "model-00002-of-00002.safetensors")
    index = {
        "weight_map": {
            "model.a.weight": "model-00001-of-00002.safetensors",
            "model.b": "model-00002-of-00002.safetensors",
        }
    }
    (tmp_path / "shards" / "model.safetensors.index.json").write_text(json.dumps(index))
    for file in ("checkpoint_19.pth", "flat.pt", "model.safetensors", "shards"):
        converted = convert_checkpoint(tiny(), tmp_path / file)
        assert torch.equal(converted.state["image.a"], tensors["a.weight"]) and converted.state["scorer.b"] == 2.0
    single = convert_checkpoint(tiny(), tmp_path / "model.safetensors").source
    assert single["sha256"] == hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    assert single["licence"] == "none stated" and single["file"] == "model.safetensors"

    (tmp_path / "shards" / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match=r"lacks model-00002-of-00002.safetensors, which its index names"):
        convert_checkpoint(tiny(), tmp_path / "shards")


class Harm:
    """Runs code when it is unpickled by a reader that trusts its input."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return print, ("this code ran",)


def test_a_file_that_could_run_code_is_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": {"a.weight": torch.zeros(2, 3)}, "config": Harm()}, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match="is not read because that could run code"):
        convert_checkpoint(tiny(), tmp_path / "bad.pth")
    assert "this code ran" not in capsys.readouterr().out


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("not a checkpoint")
    (tmp_path / "cut.safetensors").write_bytes(struct.pack("<Q", 4000) + b"{}")
    (tmp_path / "empty").mkdir()
    torch.save({"model": {"a": 3}}, tmp_path / "numbers.pth")
    torch.save({"model": [torch.zeros(2)]}, tmp_path / "list.pth")
    for folder, index in (("words", "{not json"), ("other", '{"metadata": {}}')):
        (tmp_path / folder).mkdir()
        save_file({"b": torch.zeros(1)}, tmp_path / folder / "model.safetensors")
        (tmp_path / folder / "model.safetensors.index.json").write_text(index)
    for name, problem in {
        "text.pth": "cannot be read as a checkpoint|could run code",
        "cut.safetensors": "cannot be read as a checkpoint",
        "empty": "holds no .safetensors file",
        "absent.pth": "there is no such file",
        "numbers.pth": "holds no tensors under 'model'",
        "list.pth": "holds no tensors under 'model'",
        "words": "index.json: is not the index of a checkpoint in shards",
        "other": "index.json: is not the index of a checkpoint in shards",
    }.items():
        with pytest.raises(ValueError, match=problem):
            convert_checkpoint(tiny(), tmp_path / name)


def test_a_tower_turned_to_our_axes_gives_mirrored_tokens() -> None:
    torch.manual_seed(0)
    tower = VisionTransformerTower(
        patch=(8, 4, 2), size=(16, 16, 16), width=12, depth=2, heads=2, perceptron=16, levels=(0,)
    ).eval()
    turned = VisionTransformerTower(
        patch=(8, 4, 2), size=(16, 16, 16), width=12, depth=2, heads=2, perceptron=16, levels=(0,)
    ).eval()
    turned.load_state_dict(turn_to_ras(tower.state_dict()))
    image = torch.rand(1, 1, 16, 16, 16)
    with torch.no_grad():
        (expected, _), (grid, _) = tower(image.flip(2, 3))
        (found, _), _ = turned(image)
    expected = expected[0].unflatten(0, grid).flip(0, 1).flatten(0, 2)
    torch.testing.assert_close(found[0], expected)
