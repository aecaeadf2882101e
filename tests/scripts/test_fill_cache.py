"""The command that fills the cache of preprocessed scans."""

import json
import os
import runpy
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser


@pytest.mark.parametrize("missing", ["config", "datalist"])
def test_a_file_that_is_not_there_is_one_line(
    missing: str, bundle_root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script: dict[str, Any] = runpy.run_path(str(bundle_root / "scripts" / "fill_cache.py"))
    path = tmp_path / "nowhere.json"
    config = path if missing == "config" else bundle_root / "configs" / "train.json"
    monkeypatch.setattr("sys.argv", ["fill_cache.py", "--config_file", str(config), "--datalist", str(path)])
    with pytest.raises(SystemExit) as caught:
        script["main"]()
    message = str(caught.value.code)
    assert message.startswith(f"error: {path}: ") and "no such" in message and "\n" not in message


def test_a_key_without_a_value_is_no_empty_text(
    bundle_root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script: dict[str, Any] = runpy.run_path(str(bundle_root / "scripts" / "fill_cache.py"))
    monkeypatch.setattr("sys.argv", ["fill_cache.py", "--datalist", str(tmp_path / "nowhere.json"), "--set", "epochs"])
    with pytest.raises(SystemExit) as caught:
        script["main"]()
    assert caught.value.code == 2 and "expected KEY=VALUE, got 'epochs'" in capsys.readouterr().err


def test_a_key_that_the_configuration_does_not_have_is_refused(
    bundle_root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A misspelled cache_dir would fill the cache of the default."""
    script: dict[str, Any] = runpy.run_path(str(bundle_root / "scripts" / "fill_cache.py"))
    config = str(bundle_root / "configs" / "train.json")
    monkeypatch.setattr("sys.argv", ["fill_cache.py", "--config_file", config, "--set", f"cach_dir={tmp_path}"])
    with pytest.raises(SystemExit, match="--set cach_dir: the config has no such key"):
        script["main"]()


def test_training_reads_the_entries_of_the_command(
    bundle_root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, phantom_scan: tuple[Path, Path]
) -> None:
    """Training runs in the bundle's folder with ``bundle_root`` ".", as train.json has it."""
    image, anatomy = (str(path) for path in phantom_scan)
    (tmp_path / "image.nii.gz").symlink_to(image)
    studies = [{"id": "a", "image": "image.nii.gz", "anatomy": anatomy}, {"id": "b", "image": "image.nii.gz"}]
    content = {"training": studies[:1], "validation": studies[1:]}
    (tmp_path / "datalist.json").write_text(json.dumps(content))
    folder = os.path.relpath(tmp_path, bundle_root)
    keys = {"datalist": f"$@bundle_root + '/{folder}/datalist.json'", "cache_dir": str(tmp_path / "cache")}
    (tmp_path / "overlay.json").write_text(json.dumps(keys))
    files = [str(bundle_root / "configs" / "train.json"), str(tmp_path / "overlay.json")]
    monkeypatch.chdir(bundle_root)
    monkeypatch.setattr("sys.argv", ["fill_cache.py", "--config_file", *files, "--workers", "1"])
    runpy.run_path(str(bundle_root / "scripts" / "fill_cache.py"), run_name="__main__")
    training = ConfigParser()
    training.read_config(files)
    datasets = [training.get_parsed_content(f"{part}#dataset") for part in ("train", "validate")]
    entries = [Path(dataset.task(0).path) for dataset in datasets]
    assert sorted(entries) == sorted((tmp_path / "cache").rglob("*.safetensors"))
