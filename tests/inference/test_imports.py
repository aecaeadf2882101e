"""Inference loads what it needs: no evaluation, no training, and neither matplotlib nor TensorBoard."""

import subprocess
import sys
from pathlib import Path

# MONAI imports matplotlib and TensorBoard itself if they are installed, and works without; here they are not there.
PROGRAM = """
import importlib.abc
import sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("matplotlib", "tensorboard") or name == "torch.utils.tensorboard":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from monai.bundle import run
run(config_file="configs/inference.json", bundle_root=".", image=sys.argv[1], ckpt_path=sys.argv[2],
    output_dir=sys.argv[3], queries=["fluid around the lung"])
print("LOADED", *sorted({name.split(".")[2] for name in sys.modules if name.startswith("bundle.ctfindings.")}))
"""


def test_a_run_imports_no_evaluation_no_training_and_no_plotting(
    bundle_root: Path, untrained_weights: Path, phantom_scan: tuple[Path, Path], tmp_path: Path
) -> None:
    command = [sys.executable, "-c", PROGRAM, str(phantom_scan[0]), str(untrained_weights), str(tmp_path)]
    result = subprocess.run(command, cwd=bundle_root, capture_output=True, encoding="utf-8", check=False)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "scan" / "report.html").is_file()
    loaded = set(result.stdout.splitlines()[-1].split()[1:])
    assert "inference" in loaded
    assert not loaded & {"evaluation", "training", "metrics", "losses", "phantom", "published", "sources"}
