"""Published checkpoints are taken whole or refused by name."""

import math

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, Qwen3Config, Qwen3Model

from bundle.ctfindings.networks.classifier import PromptBank
from bundle.ctfindings.networks.image.vit_tower import VisionTransformerTower
from bundle.ctfindings.networks.scoring import FindingScorer
from bundle.ctfindings.networks.trained_settings import KEPT_SETTINGS
from bundle.ctfindings.published.checkpoint_format import MappedTensor, PublishedCheckpoint, convert_tensors
from bundle.ctfindings.published.fvlm.checkpoint import fvlm_checkpoint
from bundle.ctfindings.published.fvlm.image_encoder import FvlmImageEncoder, FvlmScorer
from bundle.ctfindings.published.radfinder.checkpoint import radfinder_checkpoint
from bundle.ctfindings.published.radfinder.image_encoder import (
    ProjectionHead,
    RadFinderImageEncoder,
    ScanCombiner,
    WindowEncoder,
)
from tests.published.reference_packs import published_shapes

CHECKPOINTS = {"fvlm": fvlm_checkpoint(), "radfinder": radfinder_checkpoint()}


def of_shapes(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Tensors of any size in no memory: one zero each, seen as many."""
    return {name: torch.zeros(1).expand(shape) if shape else torch.zeros(()) for name, shape in shapes.items()}


def published(name: str) -> dict[str, Tensor]:
    """A checkpoint with the tensors that our own table names, at their true size."""
    return of_shapes({entry.name: entry.shape for entry in CHECKPOINTS[name].mapping})


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_whole_table_of_the_pack_is_taken_or_named_as_dropped(name: str) -> None:
    shapes = published_shapes(name)
    converted = convert_tensors(CHECKPOINTS[name], of_shapes(shapes), "file")
    taken = {entry.name for entry in CHECKPOINTS[name].mapping}
    assert {key.removeprefix("model.") for key in shapes} == taken | set(converted.dropped)
    assert not taken & set(converted.dropped) and all(converted.dropped.values())


@pytest.mark.parametrize(("name", "tensors", "values"), [("fvlm", 361, 204_534_273), ("radfinder", 805, 1_025_215_159)])
def test_the_mapped_tensors_are_those_of_the_published_files(name: str, tensors: int, values: int) -> None:
    mapping = CHECKPOINTS[name].mapping
    assert len({entry.name for entry in mapping}) == len(mapping) == tensors
    assert sum(math.prod(entry.shape) for entry in mapping) == values


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


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_what_is_converted_is_what_the_network_holds(name: str) -> None:
    state = convert_tensors(CHECKPOINTS[name], published(name), "file").state
    modules = small(name)
    wanted = {
        f"{part}.{key}": tuple(value.shape)
        for part, module in modules.items()
        for key, value in module.state_dict().items()
        if not f"{part}.{key}".endswith(KEPT_SETTINGS)  # A published file knows none of ours.
    }
    assert {key: tuple(value.shape) for key, value in state.items()} == wanted


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_file_that_does_not_fit_is_refused_by_the_name_of_the_tensor(name: str) -> None:
    model = CHECKPOINTS[name]
    victim: MappedTensor = model.mapping[17]
    whole = published(name)

    lacking = {key: value for key, value in whole.items() if key != victim.name}
    with pytest.raises(
        ValueError,
        match=rf"file: not a checkpoint of {model.name}: missing {victim.name} \({victim.shape[0]},.*download it again",
    ):
        convert_tensors(model, lacking, "file")

    with pytest.raises(ValueError, match=rf"missing {victim.name} .*; unexpected {victim.name}_old "):
        convert_tensors(model, {**lacking, f"{victim.name}_old": whole[victim.name]}, "file")

    with pytest.raises(ValueError, match=rf"{victim.name} has shape \(3, 5\), expected \({victim.shape[0]},"):
        convert_tensors(model, {**whole, victim.name: torch.zeros(3, 5)}, "file")

    with pytest.raises(ValueError, match=r"unexpected one_more \(2,\)"):
        convert_tensors(model, {**whole, "one_more": torch.zeros(2)}, "file")


@pytest.mark.parametrize(
    "value", [torch.tensor(float("nan")), torch.tensor(float("inf")), torch.tensor(3), torch.tensor(1j)]
)
def test_values_that_no_weight_has_are_refused_by_the_name_of_the_tensor(value: Tensor) -> None:
    with pytest.raises(
        ValueError,
        match="not a checkpoint of Tiny: values that are not finite real numbers in b; download it again",
    ):
        convert_tensors(tiny(), {"a.weight": torch.zeros(2, 3), "b": value}, "file")


def test_many_problems_are_counted() -> None:
    with pytest.raises(ValueError, match="and 146 more"):
        text = {key: value for key, value in published("fvlm").items() if "visual_encoder" not in key}
        convert_tensors(CHECKPOINTS["fvlm"], text, "file")


def test_a_kernel_of_another_shape_is_accepted_only_where_it_can_be_folded() -> None:
    name = "backbone_image.patch_embed.proj.weight"
    deep = torch.arange(8.0).expand(1080, 1, 16, 16, 8)
    state = convert_tensors(CHECKPOINTS["radfinder"], {**published("radfinder"), name: deep}, "file").state
    assert state["image.tower.embed.weight"][0, 0, 0, 0].tolist() == [1.0, 5.0, 9.0, 13.0]
    with pytest.raises(
        ValueError, match=rf"{name} has shape .*, expected \(1080, 1, 16, 16, 4\) or \(1080, 1, 16, 16, 8\)"
    ):
        convert_tensors(CHECKPOINTS["radfinder"], {**published("radfinder"), name: deep[..., :6]}, "file")


def tiny() -> PublishedCheckpoint:
    """A model of two tensors, for the ways in which a file can be written."""
    return PublishedCheckpoint(
        "Tiny",
        "nowhere",
        "no paper",
        "none stated",
        [
            MappedTensor("a.weight", {(2, 3): Tensor.float}, "image.a"),
            MappedTensor("b", {(): Tensor.float}, "scorer.b"),
        ],
        {},
        {},
        "model.",
    )
