"""The extension as the Extensions Index and Slicer's build see it."""

from __future__ import annotations

import ast
import json
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from tests.plugins.slicer.program import MODULE_FOLDER, PLUGINS

EXTENSION = MODULE_FOLDER.parent
SOURCES = sorted([*MODULE_FOLDER.rglob("*.py"), *(PLUGINS / "client" / "ctfindings_client").rglob("*.py")])


def _name(path: Path) -> str:
    return path.relative_to(PLUGINS).as_posix()


def test_every_file_of_the_packaged_module_is_installed(packaged: Path) -> None:
    module = packaged / "CTFindings"
    text = (module / "CMakeLists.txt").read_text(encoding="utf-8").replace("${MODULE_NAME}", "CTFindings")
    listed = set(re.findall(r"^  ([\w/]+\.(?:py|png|ui|nii\.gz))$", text, re.MULTILINE))
    files = [*module.rglob("*.py"), *(module / "Resources").rglob("*.*")]
    assert listed == {path.relative_to(module).as_posix() for path in files}


def test_packaged_client_needs_only_its_own_folder(packaged: Path) -> None:
    code = "import ctfindings_client.client, ctfindings_client.record; print(ctfindings_client.client.__file__)"
    command = [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, 'CTFindings'); {code}"]
    result = subprocess.run(command, cwd=packaged, capture_output=True, encoding="utf-8", check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("CTFindings") or str(packaged) in result.stdout


def test_metadata_of_the_extension_is_complete() -> None:
    text = (EXTENSION / "CMakeLists.txt").read_text(encoding="utf-8")
    for key in ("CATEGORY", "CONTRIBUTORS", "DESCRIPTION", "DEPENDS"):
        assert re.search(rf'^set\(EXTENSION_{key} "[^"]+"\)$', text, re.MULTILINE), key
    assert "Research only" in text
    assert (EXTENSION / "LICENSE.txt").read_bytes() == (EXTENSION.parents[1] / "LICENSE").read_bytes()


def test_no_file_names_an_address_that_does_not_exist() -> None:
    files = [path for path in EXTENSION.rglob("*") if path.suffix in {".txt", ".py", ".ui", ".md", ".json", ".toml"}]
    assert len(files) > 8 and not [path for path in files if "example.org" in path.read_text(encoding="utf-8")]


def test_a_packaged_extension_names_the_repository_that_is_given(bundle_root: Path, tmp_path: Path) -> None:
    script = [sys.executable, str(bundle_root / "scripts" / "package_slicer_extension.py"), "--output", str(tmp_path)]
    wrong = subprocess.run([*script, "--repository", "SlicerCTFindings"], capture_output=True, encoding="utf-8")
    assert wrong.returncode == 1 and "expected https://github.com/OWNER/NAME, got 'SlicerCTFindings'" in wrong.stderr
    home = "https://github.com/owner/SlicerCTFindings"
    subprocess.run([*script, "--repository", home], check=True, capture_output=True)
    text = (tmp_path / "SlicerCTFindings" / "CMakeLists.txt").read_text(encoding="utf-8")
    stated = dict(re.findall(r'^set\(EXTENSION_(\w+) "([^"]+)"\)$', text, re.MULTILINE))
    assert stated["HOMEPAGE"] == home
    raw = "https://raw.githubusercontent.com/owner/SlicerCTFindings/main/"
    for key in ("ICONURL", "SCREENSHOTURLS"):
        assert stated[key].startswith(raw) and (EXTENSION / stated[key].removeprefix(raw)).is_file()
    entry = json.loads((tmp_path / "CTFindings.json").read_text(encoding="utf-8"))
    assert set(entry) == {
        "$schema",
        "category",
        "scm_url",
        "scm_revision",
        "build_subdirectory",
        "build_dependencies",
        "tier",
    }
    assert (entry["category"], entry["scm_url"]) == (stated["CATEGORY"], f"{home}.git")


@pytest.mark.parametrize("translates", [True, False])
def test_texts_are_translated_where_slicer_can(monkeypatch: pytest.MonkeyPatch, translates: bool) -> None:
    slicer = ModuleType("slicer.i18n")
    if translates:
        slicer.tr, slicer.translate = lambda text: f"[{text}]", lambda context, text: f"{context}: {text}"
    monkeypatch.setitem(sys.modules, "slicer", SimpleNamespace(i18n=slicer, __path__=[]))
    monkeypatch.setitem(sys.modules, "slicer.i18n", slicer)
    i18n = runpy.run_path(str(MODULE_FOLDER / "CTFindingsLib" / "i18n.py"))
    said = (i18n["_"]("Press Find."), i18n["translate"]("context", "Quantification"))
    assert said == (("[Press Find.]", "context: Quantification") if translates else ("Press Find.", "Quantification"))


@pytest.mark.parametrize("path", sorted(MODULE_FOLDER.rglob("*.py")), ids=_name)
def test_what_the_user_reads_goes_through_the_translation(path: Path) -> None:
    """A text of the module that is shown is an argument of ``_``, without values in it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    arguments = [call.args[0] for call in calls if call.func.id == "_"]
    assert all(isinstance(each, ast.Constant) for each in arguments), "the translation needs the text itself"
    translated = {id(each) for each in arguments} | {id(call.args[-1]) for call in calls if call.func.id == "translate"}
    translated |= {id(call.args[0]) for call in calls if call.func.id == "translate"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and _shown(node.targets[0]):
            texts = [each for each in ast.walk(node.value) if isinstance(each, ast.Constant)]
            bare = [each.value for each in texts if id(each) not in translated and isinstance(each.value, str)]
            bare = [text for text in bare if re.search("[A-Za-z]{2}", text)]
            assert not bare, f"{_name(path)}:{node.lineno}"


def _shown(target: ast.expr) -> bool:
    shown = {"text", "line", "title", "categories", "helpText", "acknowledgementText"}
    return (target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")) in shown


@pytest.mark.parametrize(
    "path",
    [EXTENSION / "CTFindings.png", MODULE_FOLDER / "Resources" / "Icons" / "CTFindings.png"],
    ids=["extension", "module"],
)
def test_icons_are_128_pixels_square_with_transparent_corners(path: Path) -> None:
    from PIL import Image

    image = Image.open(path)
    assert image.size == (128, 128) and image.mode == "RGBA"
    assert image.getpixel((0, 0))[3] == 0 and image.getpixel((64, 64))[3] == 255


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_sources_run_on_the_oldest_python_of_slicer(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
    assert ast.get_docstring(tree)
    assert (
        any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)
        or len(tree.body) == 1
    )


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_sources_need_nothing_that_slicer_lacks(path: Path) -> None:
    own = {"ctfindings_client", "CTFindingsLib", "slicer", "vtk", "numpy", "SampleData"}
    qt = {"qt"} if path.parent.name != "ctfindings_client" else set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            assert name.split(".")[0] in own | qt | set(sys.stdlib_module_names), f"{_name(path)} imports {name}"


def test_rules_of_the_linter_stand_alone_and_are_those_of_the_repository() -> None:
    own = tomllib.loads((EXTENSION / "ruff.toml").read_text(encoding="utf-8"))
    whole = tomllib.loads((EXTENSION.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]
    assert "extend" not in own, "the folder is split off, and nothing is above it then"
    assert own["line-length"] == whole["line-length"]
    assert {key: own["lint"][key] for key in ("select", "ignore")} == {
        key: whole["lint"][key] for key in ("select", "ignore")
    }


def test_cmake_configures_the_extension(tmp_path: Path, packaged: Path) -> None:
    """Against stand-ins for Slicer's macros: syntax, order, and that every listed file is there."""
    cmake = shutil.which("cmake")
    if cmake is None:
        pytest.skip("cmake is not installed")
    package = tmp_path / "Slicer"
    package.mkdir()
    (package / "config.cmake").write_text(
        'message(STATUS "${PROJECT_NAME}: ${EXTENSION_CATEGORY}")\n', encoding="utf-8"
    )
    (package / "SlicerConfig.cmake").write_text(
        """
set(Slicer_USE_FILE ${CMAKE_CURRENT_LIST_DIR}/config.cmake)
set(Slicer_EXTENSION_GENERATE_CONFIG ${CMAKE_CURRENT_LIST_DIR}/config.cmake)
set(Slicer_EXTENSION_CPACK ${CMAKE_CURRENT_LIST_DIR}/config.cmake)
set(BUILD_TESTING ON)
macro(slicer_add_python_unittest)
  message(STATUS "test ${ARGN}")
endmacro()
function(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(M "WITH_GENERIC_TESTS" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(M_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "unknown ${M_UNPARSED_ARGUMENTS}")
  endif()
  foreach(file ${M_SCRIPTS} ${M_RESOURCES})
    if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${file})
      message(FATAL_ERROR "${file} is missing")
    endif()
  endforeach()
  message(STATUS "module ${M_NAME}")
endfunction()
""",
        encoding="utf-8",
    )
    sources = tmp_path / "extension"
    shutil.copytree(packaged, sources)
    listing = sources / "CMakeLists.txt"
    # No compiler is needed to configure a module of scripts.
    listing.write_text(
        listing.read_text(encoding="utf-8").replace("project(CTFindings)", "project(CTFindings NONE)"), encoding="utf-8"
    )
    command = [cmake, "-S", str(sources), "-B", str(tmp_path / "build"), f"-DSlicer_DIR={package}"]
    result = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert result.returncode == 0, result.stderr
    assert "module CTFindings" in result.stdout and "test SCRIPT;CTFindings.py" in result.stdout
