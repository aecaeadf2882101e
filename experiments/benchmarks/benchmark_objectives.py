"""Cost of the objectives: seconds of a training step with the local objective, the global ones, augmented captions,
the default objectives, and these with PLACE.

    python experiments/benchmarks/benchmark_objectives.py [--scans 48] [--rounds 3] [--presets local default ...]
        [--output benchmark_objectives.json]

Every preset trains on the same synthetic scans with the network, batch and loader of ``configs/train.json``. Presets
alternate, one epoch each; the shortest epoch of each counts, after a first one that fills the caches. A frozen text
encoder caches the captions it has encoded. With ``caption_versions`` (4 in ``ca_gcl.json``) only new versions of
augmented captions cost time: ``augmented`` is an epoch whose versions are all cached, ``augmented, new captions`` an
epoch without any.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch
from monai.bundle import ConfigParser
from monai.engines import SupervisedTrainer

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.phantom.dataset import make_dataset
from bundle.ctfindings.reports.caption_augmentation import RandCaptionsd
from bundle.ctfindings.reports.observations import RandObservationsd, read_observations
from experiments.benchmarks.measurement import write_record

PRESETS: dict[str, tuple[str | None, dict[str, Any], str]] = {
    "local": ("fvlm", {}, "local"),
    "local and global": ("ca_gcl", {"caption_augmentation_prob": 0.0}, "local"),
    "local and global, augmented": ("ca_gcl", {}, "local"),
    "local and global, augmented, new captions": ("ca_gcl", {"caption_versions": 0}, "local"),
    "default": (None, {}, "default"),
    "default and PLACE": ("place_on_default", {}, "default"),
}
"""Overlay in ``configs/objectives`` and keys of each preset, and the preset that its time is divided by."""


def trainer_of(preset: str, datalist: Path, cache: Path) -> SupervisedTrainer:
    """The trainer of a preset without handlers: no validation, no checkpoints, no logs."""
    overlay, own, _ = PRESETS[preset]
    configs = ROOT / "configs"
    parser = ConfigParser()
    parser.read_config([configs / "train.json", *([configs / "objectives" / f"{overlay}.json"] if overlay else [])])
    parser.update(
        {"bundle_root": str(ROOT), "datalist": str(datalist), "cache_dir": str(cache), "train#handlers": [], **own}
    )
    torch.manual_seed(0)
    trainer: SupervisedTrainer = parser.get_parsed_content("train#trainer")
    trainer.state.max_epochs = 0
    read_versions(parser, trainer)
    return trainer


def read_versions(parser: ConfigParser, trainer: SupervisedTrainer) -> None:
    """Encodes every version of every caption, where their number is limited, and every observation."""
    steps = parser.get_parsed_content("augmentation")
    studies = parser.get_parsed_content("training_studies")
    texts = [
        step.version(text, name, bool(study["caption_normal"][ANATOMY_NAMES.index(name)]), number)
        for step in steps
        if isinstance(step, RandCaptionsd)
        for study in studies
        for name, text in study["captions"].items()
        for number in range(step.versions)
    ]
    if any(isinstance(step, RandObservationsd) for step in steps):
        reports = [(study["report"]["findings"], study["report"]["impression"]) for study in studies]
        texts += [observation.text for report in reports for observation in read_observations(*report)]
    if texts:
        cast(Any, trainer.network).text.features(texts)


def one_epoch(trainer: SupervisedTrainer) -> float:
    """Seconds of a step in the next epoch."""
    assert trainer.state.max_epochs is not None
    trainer.state.max_epochs += 1
    started = time.perf_counter()
    trainer.run()
    assert trainer.state.epoch_length is not None
    return (time.perf_counter() - started) / trainer.state.epoch_length


def measure(scans: int, rounds: int, presets: Sequence[str] = tuple(PRESETS)) -> dict[str, Any]:
    """Seconds of a step by preset, and ratios to the preset that each is compared with."""
    with tempfile.TemporaryDirectory() as folder:
        datalist = make_dataset(Path(folder) / "scans", training=scans, validation=0, test=0, seed=0)
        trainers = {preset: trainer_of(preset, datalist, Path(folder) / "cache") for preset in presets}
        for trainer in trainers.values():
            one_epoch(trainer)
        times: dict[str, list[float]] = {preset: [] for preset in presets}
        for _ in range(rounds):
            for preset, trainer in trainers.items():
                times[preset].append(one_epoch(trainer))
    seconds = {preset: min(found) for preset, found in times.items()}
    return {
        "scans": scans,
        "rounds": rounds,
        "seconds": seconds,
        "of each round": times,
        "ratios": {preset: value / seconds[PRESETS[preset][2]] for preset, value in seconds.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=48, help="scans of an epoch (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="timed epochs of each preset (default %(default)s)")
    parser.add_argument("--output", type=Path, help="write the numbers to this JSON file")
    parser.add_argument("--presets", nargs="+", choices=list(PRESETS), default=list(PRESETS), help="default all")
    options = parser.parse_args()
    if missing := {PRESETS[preset][2] for preset in options.presets} - set(options.presets):
        parser.error(f"--presets: the ratios also need {', '.join(sorted(missing))}")
    record = measure(options.scans, options.rounds, options.presets)
    for preset, seconds in record["seconds"].items():
        print(f"{preset:<44}{seconds:>8.2f} s a step{record['ratios'][preset]:>8.3f}")
    write_record(options.output, record)


if __name__ == "__main__":
    main()
