"""The command ``ct-findings``: mistakes are reported before PyTorch and MONAI are imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["none.nii.gz", "-o", "out"], "none.nii.gz: no such file or folder; check the path"),
        (["configs", "-o", "out", "--bundle", "docs"], "give the root folder of the bundle as --bundle"),
        (["configs", "-o", "README.md"], "-o: README.md is a file; give a folder for the results"),
        (["configs"], "the following arguments are required: -o/--output"),
    ],
)
def test_a_mistake_is_reported_before_anything_heavy_is_imported(
    bundle_root: Path, arguments: list[str], expected: str
) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "bundle.ctfindings", *arguments]
    result = subprocess.run(command, cwd=bundle_root, capture_output=True, encoding="utf-8", check=False)
    assert result.returncode in (1, 2) and expected in result.stderr.splitlines()[-1]
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in result.stderr.splitlines() if "|" in line}
    assert "bundle" in imported and not imported & {"torch", "monai", "numpy"}
