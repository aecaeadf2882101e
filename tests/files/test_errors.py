"""Messages about scan files: one line with a code that the troubleshooting page explains."""

import ast
import re
from pathlib import Path

import pytest

from bundle.ctfindings.files.errors import ScanError, library_errors

CALLS = {"ScanError", "coded", "library_errors"}


def codes_of(root: Path) -> set[str]:
    """The codes in the source: the third argument of the functions that make a message."""
    found = set()
    for file in root.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS:
                code = node.args[2]
                if file.name != "errors.py":
                    assert isinstance(code, ast.Constant), f"{file}:{node.lineno}: write the code as a literal"
                if isinstance(code, ast.Constant):
                    found.add(code.value)
    return found


def test_every_code_has_its_section_and_every_section_its_code(bundle_root: Path) -> None:
    page = (bundle_root / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    sections = re.findall(r"^### (.+)$", page, re.MULTILINE)
    assert sorted(sections) == sorted(codes_of(bundle_root / "bundle"))


def test_an_error_of_a_library_becomes_one_line_and_stays_its_cause() -> None:
    with (
        pytest.raises(ScanError, match=r"^a: is damaged \(two lines\); copy it again \[damaged-file\]$") as refused,
        library_errors("a", "is damaged ({error}); copy it again", "damaged-file"),
    ):
        raise RuntimeError("two\nlines")
    assert isinstance(refused.value.__cause__, RuntimeError)


def test_an_error_that_is_one_already_is_kept() -> None:
    with pytest.raises(ScanError, match="inner"), library_errors("a", "outer", "damaged-file"):
        raise ScanError("a", "inner", "not-3d")
