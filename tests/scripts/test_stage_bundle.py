"""The shared folder: what is in it, that it works alone, and that it arrives whole at a hub."""

import base64
import errno
import hashlib
import http.server
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import yaml
from monai.bundle import verify_metadata

from bundle.ctfindings.published.convert import published_checkpoint

NAME = "chest_ct_zero_shot_findings"

# Our own words for what the Model Zoo's schema of 2024-07-25 asks: required keys, text where text is, and six keys of
# every tensor.
TEXTS = [
    "schema",
    "version",
    "monai_version",
    "pytorch_version",
    "numpy_version",
    "task",
    "description",
    "authors",
    "copyright",
]
TENSOR = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "format": {"type": "string"},
        "num_channels": {"type": "integer"},
        "spatial_shape": {"type": "array", "items": {"type": ["string", "integer"]}},
        "dtype": {"type": "string"},
        "value_range": {"type": "array", "items": {"type": "number"}},
        "is_patch_data": {"type": "boolean"},
        "channel_def": {"type": "object"},
    },
    "required": ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range"],
}
TENSORS = {"type": "object", "additionalProperties": TENSOR, "minProperties": 1}
SCHEMA = {
    "type": "object",
    "properties": {
        **{key: {"type": "string"} for key in TEXTS},
        "changelog": {"type": "object"},
        "required_packages_version": {"type": "object"},
        "references": {"type": "array", "items": {"type": "string"}},
        "supported_apps": {"type": "object"},
        "network_data_format": {
            "type": "object",
            "properties": {"inputs": TENSORS, "outputs": TENSORS},
            "required": ["inputs", "outputs"],
        },
    },
    "required": [*TEXTS, "required_packages_version", "network_data_format", "changelog"],
}

# Runs in an empty folder that holds the unpacked bundle and nothing else; site-packages is added without its .pth
# files, so that the editable installation of the repository is not found.
ALONE = """
import sys
sys.path[:0] = [{root!r}]
sys.path.append({packages!r})
from pathlib import Path
from monai.bundle import ckpt_export, run, verify_net_in_out
import bundle.ctfindings as package
assert Path(package.__file__).is_relative_to({root!r}), package.__file__
configs = {root!r} + "/configs"
files = dict(config_file=configs + "/inference.json", meta_file=configs + "/metadata.json", bundle_root={root!r})
verify_net_in_out("network_def", device="cpu", **files)
ckpt_export("network_def", filepath="model.ts", ckpt_file={root!r} + "/models/model.pt", **files)
run(**files, image={image!r}, queries=["fluid around the lung"], output_dir="out")
assert not [name for name in sys.modules if name.split(".")[0] in ("scripts", "experiments", "plugins", "tests")]
"""

# MONAI Label's own loader of bundles, which its bundle app uses, on two bundles in one process. Its transforms of
# results are not used here, and need scikit-image and torchvision, which are not installed.
TWO = """
import sys
import types
sys.path.append({packages!r})
import json
import torch
sys.modules["monailabel.transform.post"] = types.ModuleType("post")
sys.modules["monailabel.transform.post"].Restored = None
from monailabel.tasks.infer.bundle import BundleInferTask
tasks = [BundleInferTask(folder, conf={{}}) for folder in {folders!r}]
assert all(task.is_valid() for task in tasks)
torch.manual_seed(0)
image = torch.rand(1, 1, 48, 48, 48)
with torch.no_grad():
    print(json.dumps([torch.logit(task._get_network("cpu", None)(image)[0].double()).tolist() for task in tasks]))
"""


@pytest.fixture(scope="module")
def script(bundle_root: Path) -> dict[str, Any]:
    return runpy.run_path(str(bundle_root / "scripts" / "stage_bundle.py"))


@pytest.fixture(scope="module")
def staged(script: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cast(Path, script["stage"](tmp_path_factory.mktemp("staged")))


@pytest.fixture(scope="module")
def archive(script: dict[str, Any], staged: Path) -> Path:
    return cast(Path, script["write_zip"](staged))


def names_in(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def test_the_folder_holds_what_belongs_and_nothing_else(staged: Path) -> None:
    names = names_in(staged)
    assert {name.split("/")[0] for name in names} == {
        "LICENSE",
        "bundle",
        "configs",
        "docs",
        "models",
        "large_files.yml",
    }
    assert {
        "configs/metadata.json",
        "configs/inference.json",
        "configs/train.json",
        "docs/README.md",
        "docs/data_license.txt",
    } <= names
    parts = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    models = {name for name in names if name.startswith("models/")}
    assert models == {"models/model.pt", *(f"models/text_encoder/{part}" for part in parts)}
    # No experiment, test, plugin or script: the only code is the package.
    assert all(name.startswith("bundle/ctfindings/") for name in names if name.endswith((".py", ".sh")))
    assert not [
        name
        for name in names
        if "__pycache__" in name or name == "bundle/__init__.py" or name.endswith((".nii.gz", ".dcm"))
    ]
    assert {
        "bundle/ctfindings/__init__.py",
        "bundle/ctfindings/findings.toml",
        "bundle/ctfindings/inference/output/templates/report.html.jinja",
    } <= names


def test_weights_of_others_stay_behind(
    script: dict[str, Any], bundle_root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    copy = tmp_path / "checkout"
    shutil.copytree(bundle_root / "configs", copy / "configs")
    for name in (*script["REQUIRED"], "models/fvlm.pt"):
        if name.startswith("configs/"):
            continue
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text("stands for the file")
    monkeypatch.setitem(script["stage"].__globals__, "ROOT", copy)
    assert {name for name in names_in(script["stage"](tmp_path / "out")) if name.startswith("models/")} == {
        "models/model.pt"
    }


def test_large_files_are_named_with_their_hash(staged: Path) -> None:
    listed = yaml.safe_load((staged / "large_files.yml").read_text(encoding="utf-8"))["large_files"]
    large = {name for name in names_in(staged) if (staged / name).stat().st_size > 25e6}
    assert {entry["path"] for entry in listed} == large and large
    for entry in listed:
        assert entry["hash_type"] == "sha256"
        assert entry["hash_val"] == hashlib.sha256((staged / entry["path"]).read_bytes()).hexdigest()
        assert re.fullmatch(r"https://\S+/" + re.escape(entry["path"]), entry["url"])


def test_large_files_can_be_left_out(script: dict[str, Any], staged: Path, tmp_path: Path) -> None:
    folder = script["stage"](tmp_path, leave_out_large=True)
    assert max((folder / name).stat().st_size for name in names_in(folder)) <= 25e6
    assert names_in(staged) - names_in(folder) == {"models/text_encoder/model.safetensors"}


def test_links_of_the_card_lead_to_shared_files(staged: Path) -> None:
    for page in staged.rglob("*.md"):
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            local = target.split("#")[0]
            assert not local or re.match(r"[a-z]+:", local) or (page.parent / local).is_file(), f"{page.name}: {target}"


def test_no_path_of_a_single_machine_is_shared(staged: Path, bundle_root: Path) -> None:
    for name in names_in(staged):
        if not name.startswith("models/") and not name.endswith(".png"):
            assert str(bundle_root) not in (staged / name).read_text(encoding="utf-8"), name


def test_a_folder_that_exists_is_not_touched(script: dict[str, Any], staged: Path) -> None:
    with pytest.raises(ValueError, match="exists already"):
        script["stage"](staged.parent)


def test_a_place_that_cannot_be_written_is_one_line(
    script: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(sys, "argv", ["stage_bundle.py", str(tmp_path / "file")])
    with pytest.raises(
        SystemExit, match=r"^error: .*file: cannot be written \(.*\); free some space or use another folder$"
    ):
        script["main"]()


def test_a_zip_that_does_not_fit_leaves_nothing(
    script: dict[str, Any], staged: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / staged.name
    (folder / "configs").mkdir(parents=True)
    shutil.copy(staged / "configs" / "metadata.json", folder / "configs")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(zipfile.ZipFile, "write", full)
    with pytest.raises(OSError, match="No space left"):
        script["write_zip"](folder)
    assert list(tmp_path.iterdir()) == [folder]


def test_metadata_passes_monais_verify_metadata(staged: Path, tmp_path: Path) -> None:
    # A schema that is there already is not downloaded.
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(SCHEMA))
    metadata = staged / "configs" / "metadata.json"
    verify_metadata(meta_file=str(metadata), filepath=str(schema))
    content = json.loads(metadata.read_text(encoding="utf-8"))
    assert content["version"] in content["changelog"]

    for broken in ({**content, "authors": ["A", "B"]}, {key: value for key, value in content.items() if key != "task"}):
        (tmp_path / "metadata.json").write_text(json.dumps(broken))
        with pytest.raises(ValueError, match="Failed validating"):
            verify_metadata(meta_file=str(tmp_path / "metadata.json"), filepath=str(schema))


@pytest.mark.slow
def test_the_zip_works_alone(archive: Path, phantom_scan: tuple[Path, Path], tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with zipfile.ZipFile(archive) as packed:
        assert {name.split("/")[0] for name in packed.namelist()} == {NAME}
        packed.extractall(empty)
    scan = shutil.copy(phantom_scan[0], empty)
    code = ALONE.format(root=str(empty / NAME), packages=sysconfig.get_paths()["purelib"], image=str(scan))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=empty,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    record = json.loads((empty / "out" / "scan" / "findings.json").read_text(encoding="utf-8"))
    assert len(record["findings"]) == 18 and record["queries"][0]["text"] == "fluid around the lung"
    assert (
        record["model"]["weights_sha256"]
        == hashlib.sha256((empty / NAME / "models" / "model.pt").read_bytes()).hexdigest()
    )
    assert (empty / "model.ts").stat().st_size > 1e5


def test_two_bundles_answer_in_one_server_process_each_with_its_own_weights(archive: Path, tmp_path: Path) -> None:
    folders = [tmp_path / name / NAME for name in ("first", "second")]
    for folder in folders:
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(folder.parent)
    weights = folders[1] / "models" / "model.pt"
    state = torch.load(weights, weights_only=True)
    state["bank.calibration_shift"] += 1.0
    torch.save(state, weights)
    code = TWO.format(packages=sysconfig.get_paths()["purelib"], folders=[str(folder) for folder in folders])
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    first, second = (torch.tensor(logits) for logits in json.loads(result.stdout.splitlines()[-1]))
    torch.testing.assert_close(second - first, torch.ones(18), atol=1e-3, rtol=0)


@pytest.mark.slow
def test_the_conversion_line_of_the_docs_works_in_the_zip_alone(
    archive: Path, bundle_root: Path, tmp_path: Path
) -> None:
    """A missing tokenizer is one line, and nothing is written; without a tokenizer, the checkpoint is written."""
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path)
    tensors = {
        entry.name: torch.full((1,), 0.5).expand(entry.shape or (1,)).reshape(entry.shape)
        for entry in published_checkpoint("fvlm").mapping
    }
    torch.save({"model": tensors, "epoch": 19}, tmp_path / NAME / "checkpoint_19.pth")
    page = (bundle_root / "docs" / "use_published_weights.md").read_text(encoding="utf-8")
    (line,) = (line for line in page.splitlines() if line.startswith("python -c"))
    path = f"import sys; sys.path.append({sysconfig.get_paths()['purelib']!r}); "
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    output = tmp_path / NAME / "models" / "fvlm.pt"
    for code, status, last in (
        (
            shlex.split(line)[2],
            1,
            "error: cxr_bert: no tokenizer found; set text_encoder to the folder with vocab.txt",
        ),
        (shlex.split(line)[2].replace(", 'cxr_bert'", ""), 0, None),
    ):
        assert not output.exists()
        command = [sys.executable, "-S", "-c", path + code]
        result = subprocess.run(
            command, cwd=tmp_path / NAME, env=environment, capture_output=True, encoding="utf-8", check=False
        )
        assert result.returncode == status and "Traceback" not in result.stderr, result.stderr[-3000:]
        assert last is None or result.stderr.splitlines()[-1].startswith(last)
    assert torch.load(output, weights_only=True)["source"]["model"] == "fVLM"


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the Hugging Face Hub as an upload of a folder needs, on this machine."""

    repo = f"someone/{NAME}"

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, content: Any = None, status: int = 200) -> None:
        body = json.dumps({} if content is None else content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    @property
    def hub(self) -> Any:
        return self.server

    def do_GET(self) -> None:
        self._answer(
            {"id": self.repo, "sha": "0" * 40, "siblings": [], "tags": [], "downloads": 0, "likes": 0, "private": True}
        )

    def do_PUT(self) -> None:
        self.hub.stored[self.path.rsplit("/", 1)[1]] = self._body()
        self._answer()

    def do_POST(self) -> None:
        body = self._body()
        self.hub.tokens.add(self.headers.get("Authorization"))
        if self.path.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            modes = [
                {"path": file["path"], "uploadMode": "lfs" if file["size"] > 1e6 else "regular", "shouldIgnore": False}
                for file in files
            ]
            self._answer({"files": modes})
        elif self.path.endswith("/info/lfs/objects/batch"):
            where = f"http://127.0.0.1:{self.server.server_address[1]}/store"
            wanted = json.loads(body)["objects"]
            actions = [{**item, "actions": {"upload": {"href": f"{where}/{item['oid']}"}}} for item in wanted]
            self._answer({"transfer": "basic", "objects": actions})
        elif "/commit/main" in self.path:
            self.hub.commits += [json.loads(line) for line in body.splitlines()]
            address = f"http://127.0.0.1/{self.repo}/commit/{'1' * 40}"
            self._answer({"success": True, "commitUrl": address, "commitOid": "1" * 40, "hookOutput": ""})
        elif "/tag/" in self.path:
            self.hub.tag_names.append(json.loads(body)["tag"])
            self._answer()
        else:
            self._answer({"url": f"http://127.0.0.1/{self.repo}", "id": self.repo, "name": self.repo})


@pytest.fixture
def hub() -> Iterator[Any]:
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.commits, server.stored, server.tokens, server.tag_names = [], {}, set(), []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_the_upload_command_of_the_docs_brings_every_file_to_the_hub(
    hub: Any, staged: Path, tmp_path: Path, bundle_root: Path
) -> None:
    version = json.loads((staged / "configs" / "metadata.json").read_text(encoding="utf-8"))["version"]
    documented = (bundle_root / "docs" / "sharing.md").read_text(encoding="utf-8")
    command = next(
        line for line in documented.splitlines() if line.startswith("python -c") and "push_to_hf_hub" in line
    )
    filled = command.replace("USER", "someone").replace("OUT_DIR", str(tmp_path / "out")).replace("VERSION", version)
    shutil.copytree(staged, tmp_path / "out" / NAME)
    environment = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_address[1]}",
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": "hf_standin",
        "HF_HOME": str(tmp_path / "home"),
    }
    arguments = shlex.split(filled)
    result = subprocess.run(
        [sys.executable, *arguments[1:]],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    arrived = {}
    for entry in hub.commits:
        if entry["key"] == "file":
            arrived[entry["value"]["path"]] = hashlib.sha256(base64.b64decode(entry["value"]["content"])).hexdigest()
        elif entry["key"] == "lfsFile":
            assert hashlib.sha256(hub.stored[entry["value"]["oid"]]).hexdigest() == entry["value"]["oid"]
            arrived[entry["value"]["path"]] = entry["value"]["oid"]
    expected = {name: hashlib.sha256((staged / name).read_bytes()).hexdigest() for name in names_in(staged)}
    card = arrived.pop("README.md")
    assert arrived == expected and card
    assert hub.tag_names == [version] and hub.tokens == {"Bearer hf_standin"}
