"""Files of every kind that a published checkpoint may be, and those that are rejected."""

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bundle.ctfindings.published.convert import convert_checkpoint
from tests.published.test_checkpoint_format import tiny


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
    with pytest.raises(ValueError, match=r"missing model-00002-of-00002.safetensors, named in its index"):
        convert_checkpoint(tiny(), tmp_path / "shards")


class Harm:
    """Runs code when it is unpickled by a reader that trusts its input."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return print, ("this code ran",)


def test_a_file_that_could_run_code_is_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": {"a.weight": torch.zeros(2, 3)}, "config": Harm()}, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match="not read, because that could run code"):
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
        "empty": "contains no .safetensors file",
        "absent.pth": "file not found",
        "numbers.pth": "contains no tensors under 'model'",
        "list.pth": "contains no tensors under 'model'",
        "words": "index.json: not the index of a sharded checkpoint",
        "other": "index.json: not the index of a sharded checkpoint",
    }.items():
        with pytest.raises(ValueError, match=problem):
            convert_checkpoint(tiny(), tmp_path / name)
