"""What the objectives cost: seconds of a training step with the local objective, the global ones beside it, and
augmented captions.

    python experiments/benchmarks/benchmark_objectives.py [--scans 48] [--rounds 3] [--output benchmark_objectives.json]

Every preset trains on the same synthetic scans with the network, batch and loader of ``configs/train.json``. Presets
take turns, an epoch each, and the best epoch of each counts, after one that reads the scans and the captions for the
first time. A frozen text encoder keeps what it has read. With ``caption_versions`` (4 in ``ca_gcl.json``) augmented
captions cost it something while a version is new, and nothing later: ``augmented`` is an epoch after all were read,
``augmented, new captions`` one in which each is new.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from monai.bundle import ConfigParser  # noqa: E402
from monai.engines import SupervisedTrainer  # noqa: E402

from bundle.ctfindings.anatomy import ANATOMY_NAMES  # noqa: E402
from bundle.ctfindings.phantom.dataset import make_dataset  # noqa: E402
from bundle.ctfindings.reports.augmentation import RandCaptionsd  # noqa: E402
from experiments.benchmarks.hardware import machine  # noqa: E402

PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "local": ("fvlm", {}),
    "local and global": ("ca_gcl", {"caption_augmentation_prob": 0.0}),
    "local and global, augmented": ("ca_gcl", {}),
    "local and global, augmented, new captions": ("ca_gcl", {"caption_versions": 0}),
}
"""Overlay in ``configs/objectives`` and keys of each preset."""


def trainer_of(preset: str, datalist: Path, cache: Path) -> SupervisedTrainer:
    """The trainer of a preset without its handlers: no validation, no checkpoint, no log."""
    overlay, own = PRESETS[preset]
    parser = ConfigParser()
    parser.read_config([str(ROOT / "configs" / "train.json"), str(ROOT / "configs" / "objectives" / f"{overlay}.json")])
    parser.update(
        {"bundle_root": str(ROOT), "datalist": str(datalist), "cache_dir": str(cache), "train#handlers": [], **own}
    )
    torch.manual_seed(0)
    trainer: SupervisedTrainer = parser.get_parsed_content("train#trainer")
    trainer.state.max_epochs = 0
    read_versions(parser, trainer)
    return trainer


def read_versions(parser: ConfigParser, trainer: SupervisedTrainer) -> None:
    """Lets the text encoder read every version of every caption, where their number is limited."""
    found = [step for step in parser.get_parsed_content("augmentation") if isinstance(step, RandCaptionsd)]
    texts = [
        step.version(text, name, bool(study["caption_normal"][ANATOMY_NAMES.index(name)]), number)
        for step in found
        for study in parser.get_parsed_content("training_studies")
        for name, text in study["captions"].items()
        for number in range(step.versions)
    ]
    if texts:
        cast(Any, trainer.network).text.features(texts)


def one_epoch(trainer: SupervisedTrainer) -> float:
    """Seconds of a step in one more epoch."""
    assert trainer.state.max_epochs is not None
    trainer.state.max_epochs += 1
    started = time.perf_counter()
    trainer.run()
    assert trainer.state.epoch_length is not None
    return (time.perf_counter() - started) / trainer.state.epoch_length


def measure(scans: int, rounds: int) -> dict[str, Any]:
    """Seconds of a step by preset, and their ratios to the local objective."""
    with tempfile.TemporaryDirectory() as folder:
        datalist = make_dataset(Path(folder) / "scans", training=scans, validation=0, test=0, seed=0)
        trainers = {preset: trainer_of(preset, datalist, Path(folder) / "cache") for preset in PRESETS}
        for trainer in trainers.values():
            one_epoch(trainer)
        times: dict[str, list[float]] = {preset: [] for preset in PRESETS}
        for _ in range(rounds):
            for preset, trainer in trainers.items():
                times[preset].append(one_epoch(trainer))
    seconds = {preset: min(found) for preset, found in times.items()}
    return {
        "machine": machine(),
        "scans": scans,
        "rounds": rounds,
        "seconds": seconds,
        "of each round": times,
        "ratios": {preset: value / seconds["local"] for preset, value in seconds.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=48, help="of an epoch (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="epochs of each preset that count (default %(default)s)")
    parser.add_argument("--output", type=Path, help="also write the figures as JSON")
    options = parser.parse_args()
    record = measure(options.scans, options.rounds)
    for preset, seconds in record["seconds"].items():
        print(f"{preset:<44}{seconds:>8.2f} s a step{record['ratios'][preset]:>8.3f}")
    if options.output:
        options.output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
