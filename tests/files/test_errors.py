"""Messages about scan files: one line with a code that the troubleshooting page explains."""

import ast
import re
from pathlib import Path

import pytest

from bundle.ctfindings.files.errors import ScanError, library_errors

CALLS = {"ScanError", "coded", "library_errors"}


def codes_of(root: Path) -> set[str]:
    """The codes in the source: the third argument of the functions that make a message, a literal or a constant."""
    trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in root.rglob("*.py")}
    constants: dict[str, str] = {}
    for tree in trees.values():
        for node in tree.body:
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(value))):
                    constants[name] = value
    found = set()
    for file, tree in trees.items():
        for call in ast.walk(tree):
            match call:
                case ast.Call(func=ast.Name(id=function), args=[_, _, argument, *_]) if function in CALLS:
                    match argument:
                        case ast.Constant(value=str(code)):
                            found.add(code)
                        case ast.Name(id=name) if name in constants:
                            found.add(constants[name])
                        case _ if file.name != "errors.py":
                            pytest.fail(f"{file}:{call.lineno}: write the code as a literal or a constant of a module")
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
