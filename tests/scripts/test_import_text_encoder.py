"""The command that brings a text encoder into the bundle, as a user runs it."""

import subprocess
from pathlib import Path

from tests import commands

ROOT = Path(__file__).resolve().parents[2]


def run(source: Path, output: Path) -> subprocess.CompletedProcess[str]:
    return commands.run(["scripts/import_text_encoder.py", source, output])


def test_a_folder_without_an_encoder_is_refused_in_one_line_and_nothing_is_written(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for source in (empty, tmp_path / "none"):
        done = run(source, tmp_path / "encoder")
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert done.stderr.splitlines()[-1].startswith(f"error: {source}: no readable text encoder found")
        assert not (tmp_path / "encoder").exists()


def test_the_shipped_encoder_is_read_and_written_again(tmp_path: Path) -> None:
    done = run(ROOT / "models" / "text_encoder", tmp_path / "encoder")
    assert done.returncode == 0, done.stderr
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
        file.name for file in (tmp_path / "encoder").iterdir()
    }
