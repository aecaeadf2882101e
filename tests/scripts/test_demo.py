"""The demo's command line."""

import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "demo.py"


def test_the_demo_explains_itself_instead_of_running() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--help"], capture_output=True, encoding="utf-8", timeout=120)
    assert done.returncode == 0 and done.stdout.startswith("usage: demo.py")
    assert "Scan " not in done.stdout


def test_the_command_for_your_own_scan_names_the_python_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    demo = runpy.run_path(str(SCRIPT))
    for python, shown in (
        (demo["ROOT"] / ".venv" / "bin" / "python", str(Path(".venv", "bin", "python"))),
        (Path("/my env/bin/python"), shlex.quote(str(Path("/my env/bin/python")))),
    ):
        monkeypatch.setattr(sys, "executable", str(python))
        assert demo["python_shown"]() == shown
