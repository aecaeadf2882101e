"""The rules of the house: names, imports, docstrings, versions, sizes, and no network in tests."""

import ast
import json
import os
import re
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import bundle.ctfindings as ctfindings

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "bundle" / "ctfindings"

# Folders of one machine. Built from parts so that this file does not name one.
_HOMES = "|".join(["home", "root", "Users", "work", "mnt", "opt", "srv", "media"])
_MACHINE_PATH = re.compile(rf"(?<![\w.:/}}~-])/(?:{_HOMES})/[\w.-]|[A-Z]:\\{{1,2}}Users")

MAP = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def _allowed_imports() -> dict[str, set[str]]:
    """What each subpackage may import from the package, by the table of import rules in docs/architecture.md."""
    rules = MAP.split("## Import rules")[1].split("\n## ")[0]
    direct: dict[str, list[str]] = {}
    for importing, imported in re.findall(r"^  \| (`.+`) \| (.+) \|$", rules, re.MULTILINE):
        direct |= dict.fromkeys(re.findall(r"`(\w+)`", importing), re.findall(r"`(\w+)`", imported))

    def with_imports(name: str) -> set[str]:
        return {name}.union(*(with_imports(each) for each in direct.get(name, ())))

    return {name: with_imports(name) - {name} for name in direct}


_MAY_IMPORT = _allowed_imports()


def _tracked() -> list[Path]:
    """Files that git tracks or would add, so that a new file is checked before it is committed."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    if listing.returncode != 0:
        pytest.skip("not a git checkout: the list of tracked files is not known")
    return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


def _package_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _subpackage(path: Path) -> str:
    """The subpackage or module of the package that a file belongs to; empty for the package's own ``__init__.py``."""
    first = path.relative_to(PACKAGE).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def _imports(path: Path) -> list[str]:
    """Full dotted names that a file imports, relative imports resolved, ``from a import b`` given as ``a.b``."""
    package = ["bundle", "ctfindings", *path.relative_to(PACKAGE).parts[:-1]]
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names += [f"{module}.{alias.name}" for alias in node.names]
    return names


def test_no_path_of_a_single_machine_in_tracked_text() -> None:
    found = []
    for path in _tracked():
        content = path.read_bytes()
        if b"\0" in content[:8192]:
            continue
        for number, line in enumerate(content.decode("utf-8", errors="ignore").splitlines(), start=1):
            if _MACHINE_PATH.search(line):
                found.append(f"{_name(path)}:{number}: {line.strip()[:120]}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text", ["/ho" + "me/ann/x.nii.gz", 'open("/ro' + 'ot/x")', "cd /wo" + "rk/main", "C:\\" + "Users\\ann"]
)
def test_the_path_rule_sees_machine_paths(text: str) -> None:
    assert _MACHINE_PATH.search(text)


@pytest.mark.parametrize(
    "text", ["https://example.org/home/x", "../work/data", "$@bundle_root + '/models'", "/data/", "heart/root/x"]
)
def test_the_path_rule_lets_other_text_pass(text: str) -> None:
    assert not _MACHINE_PATH.search(text)


def test_no_file_without_a_subject() -> None:
    nameless = {"utils.py", "helpers.py", "misc.py", "common.py"}
    assert not [_name(path) for path in _tracked() if path.name in nameless]


def test_files_of_the_package_are_short() -> None:
    """Long tables are TOML files."""
    assert not {_name(path): size for path in _package_files() if (size := len(path.read_bytes().splitlines())) > 400}


def test_output_of_other_programs_is_read_as_utf_8_whatever_the_locale() -> None:
    by_locale = re.compile(r"\b(text|universal_newlines)=Tr" + "ue")
    assert not [
        _name(path)
        for path in _tracked()
        if path.suffix == ".py" and by_locale.search(path.read_text(encoding="utf-8"))
    ]


def test_bundle_is_a_namespace_folder() -> None:
    assert not (ROOT / "bundle" / "__init__.py").exists(), (
        "two bundles in one server process need bundle/ without __init__.py"
    )
    assert not (ROOT / "scripts" / "__init__.py").exists(), "scripts are run, never imported"


def test_files_and_public_functions_and_classes_have_docstrings() -> None:
    missing = []
    for path in _package_files():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        missing += [] if ast.get_docstring(tree) else [f"{_name(path)}: it does not say its subject"]
        for node in tree.body:
            named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            if named and not node.name.startswith("_") and not ast.get_docstring(node):
                missing.append(f"{_name(path)}:{node.lineno}: {node.name}")
    assert not missing, "\n".join(missing)


def test_every_subpackage_has_its_imports_in_the_table() -> None:
    assert {_subpackage(path) for path in _package_files()} - {""} == set(_MAY_IMPORT)
    # Read from the table: directly, and through what is imported.
    assert _MAY_IMPORT["data"] == {"reports", "scan", "files", "findings", "anatomy", "step_keys"}
    assert not _MAY_IMPORT["files"]


def test_imports_point_down() -> None:
    wrong = []
    for path in _package_files():
        subpackage = _subpackage(path)
        # Names that are not in the table, such as __version__, belong to the package itself.
        forbidden = set(_MAY_IMPORT) - _MAY_IMPORT.get(subpackage, set(_MAY_IMPORT)) - {subpackage}
        for name in _imports(path):
            parts = name.split(".")
            outside = parts[0] in ("scripts", "experiments", "plugins", "tests")
            if outside or (parts[:2] == ["bundle", "ctfindings"] and len(parts) > 2 and parts[2] in forbidden):
                wrong.append(f"{_name(path)} may not import {name}")
    assert not wrong, "\n".join(wrong)


def test_published_models_are_loaded_only_when_a_config_names_them() -> None:
    """No other subpackage imports `published`, and importing it loads none of its encoders."""
    assert not [name for name, allowed in _MAY_IMPORT.items() if "published" in allowed]
    assert not _imports(PACKAGE / "published" / "__init__.py")


def test_subpackages_export_only_what_configs_name() -> None:
    configs = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "configs").rglob("*.json"))
    exported = {
        f"{'.'.join(path.relative_to(PACKAGE).parts[:-1])}.{name.rpartition('.')[2]}"
        for path in _package_files()
        if path.name == "__init__.py"
        for name in _imports(path)
    }
    assert len(exported) > 50
    assert not [name for name in exported if not re.search(rf"\b{re.escape(name)}\b", configs)]


def test_clients_of_the_server_import_nothing_of_the_package() -> None:
    clients = tuple(f"plugins/{name}/" for name in ("client", "slicer", "viewer"))
    files = [path for path in _tracked() if path.suffix == ".py" and _name(path).startswith(clients)]
    assert len(files) > 20
    importing = re.compile(r"^\s*(?:from|import) bundle\b", re.MULTILINE)
    assert not [_name(path) for path in files if importing.search(path.read_text(encoding="utf-8"))]


def test_nobody_imports_experiments_or_scripts() -> None:
    """Experiments import each other and scripts are run; only their tests know them besides."""
    importing = re.compile(r"^\s*(?:from|import) (experiments|scripts)\b", re.MULTILINE)
    wrong = [
        _name(path)
        for path in _tracked()
        if path.suffix == ".py"
        and not _name(path).startswith("tests/")
        and (found := importing.findall(path.read_text(encoding="utf-8")))
        and (not _name(path).startswith("experiments/") or "scripts" in found)
    ]
    assert not wrong, "\n".join(wrong)


def test_commands_of_the_documents_name_files_that_exist() -> None:
    named = re.compile(r"\b((?:scripts|experiments)/[\w/]+\.py)\b")
    texts = [
        path
        for path in _tracked()
        if path.suffix in (".md", ".json", ".py", ".toml", ".jinja") and not _name(path).startswith("tests/")
    ]
    missing = [
        f"{_name(path)}: {name}"
        for path in texts
        for name in named.findall(path.read_text(encoding="utf-8"))
        if not (ROOT / name).is_file()
    ]
    assert not missing, "\n".join(missing)


def test_version_is_written_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"]["attr"] == "bundle.ctfindings.__version__"

    version = ctfindings.__version__
    metadata = json.loads((ROOT / "configs" / "metadata.json").read_text(encoding="utf-8"))
    assert metadata["version"] == version
    assert version in metadata["changelog"], "the Model Zoo asks for a changelog entry of the current version"
    assert re.search(
        rf"^## \[{re.escape(version)}\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert re.search(
        rf"^version: {re.escape(version)}$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE
    )


def test_metadata_names_the_versions_that_were_tested_together() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if "==" in line and not line.startswith("#")]
    pinned = {name.strip().lower().replace("_", "-"): version.strip() for name, version in pairs}
    assert not [name for name, version in pinned.items() if "+" in version], (
        "a local version such as +cpu resolves on one index only"
    )

    metadata = json.loads((ROOT / "configs" / "metadata.json").read_text(encoding="utf-8"))
    named = {
        "monai": metadata["monai_version"],
        "torch": metadata["pytorch_version"],
        "numpy": metadata["numpy_version"],
    }
    named |= {
        name.lower().replace("_", "-"): version for name, version in metadata["required_packages_version"].items()
    }
    assert named == {name: pinned.get(name) for name in named}
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    names = {re.split("[<>=]", line)[0] for line in needed}
    assert names <= named.keys(), f"the staged bundle needs {', '.join(sorted(names - named.keys()))} too"


def test_bundle_stays_small() -> None:
    sizes = {_name(path): path.stat().st_size for path in _tracked()}
    bundle = sum(size for name, size in sizes.items() if name.split("/")[0] in ("bundle", "configs", "docs", "models"))
    assert bundle <= 80e6, f"the bundle has {bundle / 1e6:.1f} MB, at most 80 are allowed"


def test_the_map_names_every_subpackage_and_only_files_that_exist() -> None:
    missing, named = [], 0
    for line in MAP.splitlines():
        before = [PACKAGE]  # where a name without a folder may lie
        for name in re.findall(r"`([\w./-]+\.(?:py|toml)|[\w./-]+/(?:[\w-]+\.json)?)`", line):
            folder, _, file = name.rpartition("/")
            places = [ROOT / folder, PACKAGE / folder] if folder else before
            before = [*places, PACKAGE]
            named += 1
            if not any((place / file).exists() for place in places):
                missing.append(name)
    assert not missing
    assert named > 200
    assert not [name for name in _MAY_IMPORT if not re.search(rf"^  (?:.*, )?{name}[/.]", MAP, re.MULTILINE)]


def test_the_path_of_a_scan_enters_no_subpackage_twice() -> None:
    path = MAP.split("## The path of a scan through the code")[1].split("## ")[0]
    subpackages = re.findall(r"^\| `(\w+)/` \|", path, re.MULTILINE)
    assert {"scan", "data", "networks", "inference"} <= set(subpackages)
    assert len(subpackages) == len(set(subpackages))


def _anchors(page: Path) -> set[str]:
    """Anchors that GitHub gives the headings of a page."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = [re.sub(r"\]\([^)]*\)", "", heading) for heading in re.findall(r"^#+ (.+)$", prose, re.MULTILINE)]
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_links_of_the_documents_lead_somewhere() -> None:
    broken = []
    for path in _tracked():
        if path.suffix != ".md":
            continue
        for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
            if re.match(r"[a-z]+:", target):
                continue
            local, _, anchor = target.partition("#")
            page = path.parent / local if local else path
            if not page.exists() or (anchor and page.suffix == ".md" and anchor not in _anchors(page)):
                broken.append(f"{_name(path)}: {target}")
    assert not broken, "\n".join(broken)


# 192.0.2.0/24 is reserved for documentation: nothing answers there.
@pytest.mark.parametrize("call", ["connect", "connect_ex"])
def test_no_socket_leaves_this_machine(no_network: ModuleType, call: str) -> None:
    with socket.socket() as client, pytest.raises(no_network.NetworkRefused, match=r"192\.0\.2\.1:80"):
        getattr(client, call)(("192.0.2.1", 80))


def test_no_name_is_looked_up(no_network: ModuleType) -> None:
    with pytest.raises(no_network.NetworkRefused, match=r"example\.org"):
        socket.create_connection(("example.org", 80))


def test_sockets_within_this_machine_work() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        accepted, _ = server.accept()
        with accepted:
            client.sendall(b"ct")
            assert accepted.recv(2) == b"ct"


def test_processes_that_tests_start_have_no_network_either() -> None:
    code = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False)
    assert result.returncode != 0
    assert "NetworkRefused" in result.stderr


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="only where tests share the cores (pytest -n)")
def test_each_worker_computes_with_one_thread() -> None:
    import torch

    assert torch.get_num_threads() == 1
