"""The demo's command line."""

import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from bundle.ctfindings.phantom.case import Case, Site

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


def test_the_table_gives_the_distance_from_the_nearest_rendered_centre() -> None:
    sites = [Site("Lung nodule", 0.5, center_mm=centre) for centre in ((0.0, 0.0, 104.0), (3.0, 4.0, 181.0))]
    evidence = {"peak_mm": [0.0, 0.0, 181.0], "z_mm": 181.0}
    findings = [
        {"name": "Lung nodule", "present": True, "probability": 0.4, "evidence": evidence},
        {"name": "Emphysema", "present": True, "probability": 0.3, "evidence": evidence},
        {"name": "Cardiomegaly", "present": False, "probability": 0.1, "evidence": evidence},
    ]
    lines = runpy.run_path(str(SCRIPT))["comparison"](Case(0, "a", (), sites), {"findings": findings}).splitlines()
    assert [line.split() for line in lines[2:]] == [
        ["Lung", "nodule", "yes", "YES", "0.40", "104,", "181", "181", "5", "mm"],
        ["Emphysema", "-", "YES", "0.30", "181"],
        ["Cardiomegaly", "-", "-", "0.10"],
    ]
    assert max(map(len, lines)) <= 100
