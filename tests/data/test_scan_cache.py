"""Entries of the cache: whole, or named and made again."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.transforms import Compose, Lambdad
from safetensors import SafetensorError
from safetensors.torch import load_file

from bundle.ctfindings.data.scan_cache import DamagedEntry, FetchTask, fetch, fill, read_entry, write_entry

STUDY = {
    "id": "a",
    "captions": {"lung": "Clear."},
    "labels": torch.tensor([1, -1]),
    "image": torch.arange(24, dtype=torch.float16).reshape(1, 2, 3, 4),
    "image_affine": torch.eye(4, dtype=torch.float64),
    "known": torch.tensor([True, False]),
}


def test_a_study_comes_back_as_it_was(tmp_path: Path) -> None:
    write_entry(tmp_path / "a.safetensors", STUDY)
    found = read_entry(tmp_path / "a.safetensors")
    assert found.keys() == STUDY.keys()
    for name, value in STUDY.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(found[name], value, rtol=0, atol=0)
        else:
            assert found[name] == value


def test_writing_into_what_was_read_changes_no_entry(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_entry(path, STUDY)
    read_entry(path)["image"].fill_(7)
    torch.testing.assert_close(load_file(path)["image"], STUDY["image"])


@pytest.mark.parametrize("length", [0, 4, 200, -1])
def test_an_entry_that_was_cut_off_is_named(tmp_path: Path, length: int) -> None:
    path = tmp_path / "a.safetensors"
    write_entry(path, STUDY)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DamagedEntry, match=r"a\.safetensors"):
        read_entry(path)


@pytest.mark.parametrize("what", [b"Clear.", np.float16(5).tobytes() + np.float16(6).tobytes()])
def test_a_byte_that_flipped_is_found_in_text_and_in_voxels(tmp_path: Path, what: bytes) -> None:
    path = tmp_path / "a.safetensors"
    write_entry(path, STUDY)
    content = bytearray(path.read_bytes())
    content[content.index(what)] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedEntry, match=r"a\.safetensors: the checksum of"):
        read_entry(path)


def test_a_damaged_entry_is_logged_and_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    task = FetchTask(str(tmp_path / "a.safetensors"), STUDY, Compose([Lambdad("image", torch.neg)]))
    assert fill(task) == "made"
    (tmp_path / "a.safetensors").write_bytes(b"rubbish")
    with caplog.at_level(logging.WARNING):
        torch.testing.assert_close(fetch(task)[0]["image"], -STUDY["image"])
    assert "a.safetensors" in caplog.text
    assert fill(task) == "kept"


def test_what_is_neither_tensor_nor_json_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="study a"):
        write_entry(tmp_path / "a.safetensors", {**STUDY, "thing": {1, 2}})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), SafetensorError("No space left on device (os error 28)")]
)
def test_a_full_disk_is_said_in_one_line_with_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr("bundle.ctfindings.data.scan_cache.save_file", full)
    with pytest.raises(ValueError, match=r"cache cannot be written \(No space left on device.*cache_dir") as refusal:
        write_entry(tmp_path / "a.safetensors", STUDY)
    assert str(tmp_path) in str(refusal.value) and not list(tmp_path.iterdir())
