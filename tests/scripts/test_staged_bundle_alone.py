"""The shared bundle in a folder of its own: it works without the repository, and beside another one."""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import torch

from bundle.ctfindings.published.convert import published_checkpoint
from tests.scripts.conftest import NAME

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

# A line that ends in an error, and one that does not.
CONVERTED = """
import sys
from pathlib import Path
sys.path.append({packages!r})
try:
    exec({refused!r})
except SystemExit as end:
    print(end.code, file=sys.stderr)
assert not Path("models/fvlm.pt").exists()
exec({done!r})
"""


def alone(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs code in a folder with nothing of this checkout on its path."""
    return subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=folder,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


@pytest.mark.slow
def test_the_zip_works_alone(archive: Path, phantom_scan: tuple[Path, Path], tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with zipfile.ZipFile(archive) as packed:
        assert {name.split("/")[0] for name in packed.namelist()} == {NAME}
        packed.extractall(empty)
    scan = shutil.copy(phantom_scan[0], empty)
    code = ALONE.format(root=str(empty / NAME), packages=sysconfig.get_paths()["purelib"], image=str(scan))
    result = alone(code, empty)
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
    result = alone(code, tmp_path)
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
    without = shlex.split(line)[2], shlex.split(line)[2].replace(", 'cxr_bert'", "")
    code = CONVERTED.format(packages=sysconfig.get_paths()["purelib"], refused=without[0], done=without[1])
    result = alone(code, tmp_path / NAME)
    assert result.returncode == 0 and "Traceback" not in result.stderr, result.stderr[-3000:]
    assert result.stderr.splitlines()[-1].startswith(
        "error: cxr_bert: no tokenizer found; set text_encoder to the folder with vocab.txt"
    )
    assert torch.load(tmp_path / NAME / "models" / "fvlm.pt", weights_only=True)["source"]["model"] == "fVLM"
