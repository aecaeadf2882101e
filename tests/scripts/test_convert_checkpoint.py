"""The command that converts a published checkpoint: what it prints and writes, and how it refuses."""

import hashlib
import subprocess
from pathlib import Path
from typing import BinaryIO

import pytest
import torch

from bundle.ctfindings.networks.checkpoint import read_checkpoint
from bundle.ctfindings.published.convert import convert_to_bundle, published_checkpoint
from tests import commands


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of fVLM at its true size that takes little space: each tensor is one value, seen as many."""
    tensors = {
        entry.name: torch.full((1,), 0.5).expand(entry.shape or (1,)).reshape(entry.shape)
        for entry in published_checkpoint("fvlm").mapping
    }
    tensors["text_encoder.embeddings.position_ids"] = torch.arange(512).view(1, 512)
    path = tmp_path_factory.mktemp("download") / "checkpoint_19.pth"
    torch.save({"model": tensors, "optimizer": {}, "config": {"seed": 42}, "epoch": 19}, path)
    return path


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return commands.run(["scripts/convert_checkpoint.py", *arguments])


def test_the_command_writes_source_and_licence_and_names_what_it_dropped(
    bundle_root: Path, checkpoint: Path, tmp_path: Path
) -> None:
    output = tmp_path / "fvlm.pt"
    result = run("fvlm", checkpoint, output)
    assert result.returncode == 0, result.stderr
    assert (
        "licence: none stated" in result.stdout
        and "dropped 1: text_encoder.embeddings.position_ids (positions are counted)" in result.stdout
    )
    content = torch.load(output, weights_only=True)
    assert content["source"]["sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert content["source"]["file"] == "checkpoint_19.pth" and content["source"]["model"] == "fVLM"
    assert hashlib.sha256(output.read_bytes()).hexdigest() in result.stdout
    state = read_checkpoint(output)
    assert state["image.tower.embed.weight"].shape == (768, 1, 32, 16, 16) and float(state["scorer.temperature"]) == 0.5
    assert not state["bank.prompts"].any()


def test_a_file_that_does_not_fit_ends_in_one_line_and_writes_nothing(
    bundle_root: Path, checkpoint: Path, tmp_path: Path
) -> None:
    content = torch.load(checkpoint, weights_only=True)
    del content["model"]["temp"]
    broken = tmp_path / "broken.pth"
    torch.save(content, broken)
    result = run("fvlm", broken, tmp_path / "out" / "fvlm.pt")
    assert result.returncode == 1
    assert (
        result.stderr.strip().splitlines()[-1].startswith(f"error: {broken}: not a checkpoint of fVLM: missing temp ()")
    )
    assert "Traceback" not in result.stderr and not list(tmp_path.rglob("fvlm.pt"))


def test_the_tokenizer_is_looked_for_before_anything_is_written(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no tokenizer found"):
        convert_to_bundle("fvlm", checkpoint, tmp_path / "fvlm.pt", str(tmp_path / "nowhere"))
    assert not (tmp_path / "fvlm.pt").exists()


def test_an_output_that_cannot_be_written_is_named(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="expected a file, found a folder; name the file to write"):
        convert_to_bundle("fvlm", checkpoint, tmp_path)

    def full(_: object, file: BinaryIO) -> None:
        file.write(b"the first part")
        raise RuntimeError(
            "[enforce fail at inline_container.cc] . PytorchStreamWriter failed writing file data/3: file write failed"
        )

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(
        ValueError,
        match=r"fvlm.pt: cannot be written \(.*file write failed\); free some space or use another folder",
    ):
        convert_to_bundle("fvlm", checkpoint, tmp_path / "fvlm.pt")
    assert not list(tmp_path.iterdir())


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one of fvlm, radfinder, astra, merlin"):
        published_checkpoint("clip")
