"""What costs how much on this machine: times of one run and their ratios, as a table and as JSON.

    python scripts/benchmark.py [--output benchmark.json] [--repeats 3]

Measured on one synthetic scan with the network of ``configs/inference.json`` and the shipped weights: reading and preprocessing,
encoding, scoring the 18 findings, one further free-text question on the encoded scan; and a training step with the allocator's
own settings and with ``keep_freed_memory``. Times are the best of the repeats; ratios are what carries over to other machines.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from monai.bundle import ConfigParser  # noqa: E402
from monai.transforms import Compose  # noqa: E402

from bundle.ctfindings.data.sources.phantom import make_case  # noqa: E402
from bundle.ctfindings.data.sources.phantom.dataset import write_nifti  # noqa: E402
from bundle.ctfindings.engines import keep_freed_memory  # noqa: E402
from bundle.ctfindings.inference import FindingsPredictor  # noqa: E402
from bundle.ctfindings.networks import VisionLanguageModel, load_checkpoint  # noqa: E402


def best(task: Callable[[], object], repeats: int) -> float:
    """Shortest time of some runs in seconds, after one that is not counted."""
    task()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        task()
        times.append(time.perf_counter() - started)
    return min(times)


def inference_times(repeats: int) -> dict[str, float]:
    """Seconds of each stage for one scan."""
    parser = ConfigParser()
    parser.read_config(ROOT / "configs" / "inference.json")
    parser["bundle_root"] = str(ROOT)
    classifier, text = parser.get_parsed_content("network_def").eval(), parser.get_parsed_content("text_tower")()
    load_checkpoint({**dict(classifier.named_children()), "text": text}, parser.get_parsed_content("ckpt_path"))
    pipeline = Compose(parser.get_parsed_content("image_pipeline"))
    _, hu, _, _, affine = make_case(seed=0, index=0)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = Path(folder) / "scan.nii.gz"
        write_nifti(path, hu, affine)
        times = {"read and preprocess": best(lambda: pipeline({"image": path}), repeats)}
        image = pipeline({"image": path})["image"].unsqueeze(0)
        encoded = classifier.image(image.as_tensor())
        times["encode"] = best(lambda: classifier.image(image.as_tensor()), repeats)
        times["score 18 findings, 7 templates"] = best(lambda: classifier.score(encoded), repeats)
        everything = best(lambda: FindingsPredictor(classifier, text, [])(image), repeats)
        asked = best(lambda: FindingsPredictor(classifier, text, ["fluid around the lung"])(image), repeats)
        times["one further question"] = max(asked - everything, 0.0)
    return times


def training_step(repeats: int) -> float:
    """Seconds per scan of a training step without captions, batch of 4."""
    parser = ConfigParser()
    parser.read_config(ROOT / "configs" / "train.json")
    parser["bundle_root"] = str(ROOT)
    model: VisionLanguageModel = parser.get_parsed_content("network_def").train()
    size = parser.get_parsed_content("roi_size")
    image, mask = torch.rand(4, 1, *size), torch.randint(0, 7, (4, 1, *size), dtype=torch.uint8)

    def step() -> None:
        outputs = model(image, mask)
        (outputs["finding_logits_drawn"].sum() + outputs["anatomy"].sum() + outputs["anatomy_logits"].sum()).backward()

    return best(step, repeats) / 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="also write the figures as JSON")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--training-step", choices=("plain", "kept"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.training_step:
        if options.training_step == "kept":
            keep_freed_memory()
        print(training_step(options.repeats))
        return
    times = inference_times(options.repeats)
    # The allocator's setting cannot be taken back, so each has a process of its own.
    for setting in ("plain", "kept"):
        command = [sys.executable, __file__, "--training-step", setting, "--repeats", str(options.repeats)]
        output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        times[f"training step per scan, memory {setting}"] = float(output.split()[-1])
    ratios = {
        "further question / encode": times["one further question"] / times["encode"],
        "training step, memory kept / plain": times["training step per scan, memory kept"] / times["training step per scan, memory plain"],
    }
    machine = {"processor": platform.machine(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    for name, seconds in times.items():
        print(f"{name:<42}{1000 * seconds:>10.1f} ms")
    for name, ratio in ratios.items():
        print(f"{name:<42}{ratio:>10.3f}")
    if options.output:
        options.output.write_text(json.dumps({"machine": machine, "seconds": times, "ratios": ratios}, indent=2) + "\n")


if __name__ == "__main__":
    main()
