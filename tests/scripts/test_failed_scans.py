"""Commands over many scans: what failed is counted, and the command does not end as if all were well."""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from bundle.ctfindings.data import loaders as loading
from bundle.ctfindings.inference.batch import add_masks as mask_datalist
from bundle.ctfindings.inference.batch import mask_sources
from bundle.ctfindings.inference.batch import run_archive as archive


def run(bundle_root: Path, monkeypatch: pytest.MonkeyPatch, name: str, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(bundle_root / "scripts" / name), run_name="__main__")


@pytest.mark.parametrize("problems", [{}, {"b": "b.nii.gz: is damaged"}])
def test_an_archive(
    problems: dict[str, str],
    bundle_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    for name in ("a.nii.gz", "b.nii.gz"):
        (scans / name).touch()
    report = archive.ArchiveReport(tmp_path / "findings.csv", 2 - len(problems), 0, problems, {})
    monkeypatch.setattr(archive, "run_archive", lambda *_: report)
    arguments: tuple[Any, ...] = (bundle_root, monkeypatch, "run_archive.py", scans, "--output", tmp_path / "out")
    if problems:
        with pytest.raises(SystemExit, match="error: 1 of 2 scans could not be used"):
            run(*arguments)
    else:
        run(*arguments)
    assert f"{2 - len(problems)} scans done" in capsys.readouterr().out, "the summary comes first"
    with pytest.raises(SystemExit, match=r"error: --output: .* whose scans are read"):
        run(bundle_root, monkeypatch, "run_archive.py", scans, "--output", scans / "out")


@pytest.mark.parametrize("second", ["made", "b.nii.gz: is damaged"])
def test_a_cache(
    second: str, bundle_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {"training": [{"id": "a", "image": "a.nii.gz"}], "validation": [{"id": "b", "image": "b.nii.gz"}]}
    (tmp_path / "datalist.json").write_text(json.dumps(content))
    monkeypatch.setattr(loading, "fill_cache", lambda *_: {"a": "made", "b": second})
    train = bundle_root / "configs" / "train.json"
    options = (
        "--config_file",
        train,
        "--datalist",
        tmp_path / "datalist.json",
        "--set",
        f"cache_dir={tmp_path / 'cache'}",
    )
    if second == "made":
        run(bundle_root, monkeypatch, "fill_cache.py", *options)
    else:
        with pytest.raises(SystemExit, match="error: 1 of 2 scans could not be cached"):
            run(bundle_root, monkeypatch, "fill_cache.py", *options)
    assert "scans cached, 0 already cached" in capsys.readouterr().out


def test_masks(
    bundle_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = mask_datalist.MaskReport(tmp_path / "datalist.json", 1, 0, 0, {"b": "b.nii.gz: is damaged"})
    monkeypatch.setattr(mask_datalist, "mask_datalist", lambda *_: report)
    monkeypatch.setattr(mask_sources, "choose_source", lambda *_: mask_sources.MaskSource("classical"))
    with pytest.raises(SystemExit, match="error: 1 studies have no mask"):
        run(bundle_root, monkeypatch, "make_anatomy_masks.py", tmp_path / "given.json", "--output", tmp_path)
    assert "failed: b: b.nii.gz: is damaged" in capsys.readouterr().out
