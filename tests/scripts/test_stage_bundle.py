"""The shared folder: what is in it, and that its metadata is what the Model Zoo asks."""

import errno
import hashlib
import json
import os
import re
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from monai.bundle import verify_metadata

from tests.scripts.conftest import names_in

# Our own words for what the Model Zoo's schema of 2024-07-25 asks: required keys, text where text is, and six keys of
# every tensor.
TEXTS = [
    "schema",
    "version",
    "monai_version",
    "pytorch_version",
    "numpy_version",
    "task",
    "description",
    "authors",
    "copyright",
]
TENSOR = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "format": {"type": "string"},
        "num_channels": {"type": "integer"},
        "spatial_shape": {"type": "array", "items": {"type": ["string", "integer"]}},
        "dtype": {"type": "string"},
        "value_range": {"type": "array", "items": {"type": "number"}},
        "is_patch_data": {"type": "boolean"},
        "channel_def": {"type": "object"},
    },
    "required": ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range"],
}
TENSORS = {"type": "object", "additionalProperties": TENSOR, "minProperties": 1}
SCHEMA = {
    "type": "object",
    "properties": {
        **{key: {"type": "string"} for key in TEXTS},
        "changelog": {"type": "object"},
        "required_packages_version": {"type": "object"},
        "references": {"type": "array", "items": {"type": "string"}},
        "supported_apps": {"type": "object"},
        "network_data_format": {
            "type": "object",
            "properties": {"inputs": TENSORS, "outputs": TENSORS},
            "required": ["inputs", "outputs"],
        },
    },
    "required": [*TEXTS, "required_packages_version", "network_data_format", "changelog"],
}


def test_the_folder_holds_what_belongs_and_nothing_else(staged: Path) -> None:
    names = names_in(staged)
    assert {name.split("/")[0] for name in names} == {
        "LICENSE",
        "bundle",
        "configs",
        "docs",
        "models",
        "large_files.yml",
    }
    assert {
        "configs/metadata.json",
        "configs/inference.json",
        "configs/train.json",
        "docs/README.md",
        "docs/data_license.txt",
    } <= names
    parts = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    models = {name for name in names if name.startswith("models/")}
    assert models == {"models/model.pt", *(f"models/text_encoder/{part}" for part in parts)}
    # No experiment, test, plugin or script: the only code is the package.
    assert all(name.startswith("bundle/ctfindings/") for name in names if name.endswith((".py", ".sh")))
    assert not [
        name
        for name in names
        if "__pycache__" in name or name == "bundle/__init__.py" or name.endswith((".nii.gz", ".dcm"))
    ]
    assert {
        "bundle/ctfindings/__init__.py",
        "bundle/ctfindings/findings.toml",
        "bundle/ctfindings/inference/output/templates/report.html.jinja",
    } <= names


def test_weights_of_others_stay_behind(
    stage_script: dict[str, Any], bundle_root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    copy = tmp_path / "checkout"
    shutil.copytree(bundle_root / "configs", copy / "configs")
    for name in (*stage_script["REQUIRED"], "models/fvlm.pt"):
        if name.startswith("configs/"):
            continue
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text("stands for the file")
    monkeypatch.setitem(stage_script["stage"].__globals__, "ROOT", copy)
    assert {name for name in names_in(stage_script["stage"](tmp_path / "out")) if name.startswith("models/")} == {
        "models/model.pt"
    }


def test_large_files_are_named_with_their_hash(staged: Path) -> None:
    listed = yaml.safe_load((staged / "large_files.yml").read_text(encoding="utf-8"))["large_files"]
    large = {name for name in names_in(staged) if (staged / name).stat().st_size > 25e6}
    assert {entry["path"] for entry in listed} == large and large
    for entry in listed:
        assert entry["hash_type"] == "sha256"
        assert entry["hash_val"] == hashlib.sha256((staged / entry["path"]).read_bytes()).hexdigest()
        assert re.fullmatch(r"https://\S+/" + re.escape(entry["path"]), entry["url"])


def test_large_files_can_be_left_out(stage_script: dict[str, Any], staged: Path, tmp_path: Path) -> None:
    folder = stage_script["stage"](tmp_path, leave_out_large=True)
    assert max((folder / name).stat().st_size for name in names_in(folder)) <= 25e6
    assert names_in(staged) - names_in(folder) == {"models/text_encoder/model.safetensors"}


def test_links_of_the_card_lead_to_shared_files(staged: Path) -> None:
    for page in staged.rglob("*.md"):
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            local = target.split("#")[0]
            assert not local or re.match(r"[a-z]+:", local) or (page.parent / local).is_file(), f"{page.name}: {target}"


def test_no_path_of_a_single_machine_is_shared(staged: Path, bundle_root: Path) -> None:
    for name in names_in(staged):
        if not name.startswith("models/") and not name.endswith(".png"):
            assert str(bundle_root) not in (staged / name).read_text(encoding="utf-8"), name


def test_a_folder_that_exists_is_not_touched(stage_script: dict[str, Any], staged: Path) -> None:
    with pytest.raises(ValueError, match="exists already"):
        stage_script["stage"](staged.parent)


def test_a_place_that_cannot_be_written_is_one_line(
    stage_script: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(sys, "argv", ["stage_bundle.py", str(tmp_path / "file")])
    with pytest.raises(
        SystemExit, match=r"^error: .*file: cannot be written \(.*\); free some space or use another folder$"
    ):
        stage_script["main"]()


def test_a_zip_that_does_not_fit_leaves_nothing(
    stage_script: dict[str, Any], staged: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / staged.name
    (folder / "configs").mkdir(parents=True)
    shutil.copy(staged / "configs" / "metadata.json", folder / "configs")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(zipfile.ZipFile, "write", full)
    with pytest.raises(OSError, match="No space left"):
        stage_script["write_zip"](folder)
    assert list(tmp_path.iterdir()) == [folder]


def test_metadata_passes_monais_verify_metadata(staged: Path, tmp_path: Path) -> None:
    # A schema that is there already is not downloaded.
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(SCHEMA))
    metadata = staged / "configs" / "metadata.json"
    verify_metadata(meta_file=str(metadata), filepath=str(schema))
    content = json.loads(metadata.read_text(encoding="utf-8"))
    assert content["version"] in content["changelog"]

    for broken in ({**content, "authors": ["A", "B"]}, {key: value for key, value in content.items() if key != "task"}):
        (tmp_path / "metadata.json").write_text(json.dumps(broken))
        with pytest.raises(ValueError, match="Failed validating"):
            verify_metadata(meta_file=str(tmp_path / "metadata.json"), filepath=str(schema))
