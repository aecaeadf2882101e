"""Runs of an experiment: variants of the objective, trained and evaluated with the configs of the bundle.

Each run has its own folder and resumes: training continues from the last epoch, and a finished run is not repeated.
"""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.utils import set_determinism

from bundle.ctfindings.data.cache_key import version_of
from bundle.ctfindings.data.study_record import PATH_KEYS, SPLITS
from bundle.ctfindings.evaluation.diagnostics import DIAGNOSTICS_FILE
from bundle.ctfindings.files.atomic_write import atomic_path, write_text

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
"""The bundle's root."""

SETTINGS_FILE = "settings.json"


@dataclass(frozen=True)
class Variant:
    """A variant of the training.

    Attributes:
        name: Name in folders and results.
        title: Description for the page.
        overlays: Config files over ``train.json``, relative to ``configs``.
        keys: Config keys over those, as on the command line of the bundle.
        trained: False evaluates the initial weights.
    """

    name: str
    title: str
    overlays: tuple[str, ...]
    keys: Mapping[str, Any] = field(default_factory=dict)
    trained: bool = True


def reduced_datalist(datalist: str | Path, counts: Sequence[int] | None, folder: str | Path) -> Path:
    """A datalist with the first scans of each split.

    Args:
        datalist: JSON file, or folder with ``datalist.json``.
        counts: Scans of ``training``, ``validation`` and ``test``; None returns the datalist itself.
        folder: Folder for the reduced datalist.

    Raises:
        ValueError: The file is missing, or a split has fewer scans.
    """
    path = Path(datalist) / "datalist.json" if Path(datalist).is_dir() else Path(datalist)
    if not path.is_file():
        raise ValueError(f"{path}: datalist not found; create one with scripts/make_synthetic_scans.py")
    if counts is None:
        return path.resolve()
    content = json.loads(path.read_text(encoding="utf-8"))
    reduced: dict[str, Any] = {"name": f"{content.get('name', path.stem)}, reduced"}
    if "parameters" in content:
        reduced["parameters"] = content["parameters"]
    for split, count in zip(SPLITS, counts, strict=True):
        if len(content.get(split, ())) < count:
            raise ValueError(
                f"{path}: expected at least {count} scans in split {split!r}, found {len(content.get(split, ()))}"
            )
        reduced[split] = [with_absolute_paths(study, path.parent) for study in content[split][:count]]
    target = Path(folder) / "datalist.json"
    write_text(target, json.dumps(reduced))
    return target.resolve()


def with_absolute_paths(study: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """An entry of the datalist of a folder, for a datalist elsewhere."""
    return {key: str((folder / value).resolve()) if key in PATH_KEYS else value for key, value in study.items()}


@dataclass(frozen=True)
class Run:
    """The training of a variant, or its initial weights.

    Attributes:
        folder: Folder of the run.
        configs: Config files; later ones override earlier ones.
        keys: Config keys over those.
        checkpoint: The last epoch, so that all variants have the same number of steps and no epoch is selected.
    """

    folder: Path
    configs: list[str]
    keys: Mapping[str, Any]
    checkpoint: Path


def train_variant(variant: Variant, seed: int, datalist: Path, folder: Path, keys: Mapping[str, Any]) -> Run:
    """Trains a variant with a seed, unless that is done.

    Args:
        variant: Variant to train.
        seed: Random seed of initial weights, order and augmentation.
        datalist: JSON file.
        folder: Folder of the experiment; the run goes to ``<name>_seed<seed>`` in it.
        keys: Config keys of all runs, such as ``epochs``.

    Raises:
        ValueError: The folder contains a run with other settings, or the command failed.
    """
    run = folder / f"{variant.name}_seed{seed}"
    settings = {
        "overlays": list(variant.overlays),
        "keys": {**keys, **variant.keys},
        "seed": seed,
        "datalist": split_digests(datalist),
    }
    claim_run(run, settings)
    configs = [str(ROOT / "configs" / name) for name in ("train.json", *variant.overlays)]
    # No early stopping: all variants need the same number of steps.
    given = {
        "patience": None,
        "bundle_root": str(ROOT),
        "datalist": str(datalist),
        "output_dir": str(run),
        "seed": seed,
        **keys,
        **variant.keys,
    }
    trained, done = Run(run, configs, given, run / ("last.pt" if variant.trained else "initial.pt")), run / "trained"
    if not done.is_file():
        if variant.trained:
            bundle_run(configs, given, run / "train.log")
        else:
            write_initial_weights(configs, given, trained.checkpoint)
        done.touch()
    return trained


def run_variant(
    variant: Variant,
    seed: int,
    datalist: Path,
    folder: Path,
    keys: Mapping[str, Any],
    resamples: int = 200,
    evaluation_overlays: Sequence[Path] = (),
) -> Path:
    """Trains and evaluates a variant with a seed, unless that is done, and returns the folder of the evaluation.

    For the other arguments and the errors see ``train_variant``.

    Args:
        resamples: Bootstrap resamples of the evaluation.
        evaluation_overlays: Config files over ``evaluate.json``.
    """
    run = train_variant(variant, seed, datalist, folder, keys)
    return evaluate_run(run, resamples, evaluation_overlays)


def evaluate_run(run: Run, resamples: int, overlays: Sequence[Path] = ()) -> Path:
    """Evaluates a run, unless that is done, and returns the folder of the evaluation.

    Args:
        run: The run.
        resamples: Bootstrap resamples of the evaluation.
        overlays: Config files over ``evaluate.json``.

    Raises:
        ValueError: The command failed.
    """
    evaluation = run.folder / "evaluation"
    if (evaluation / DIAGNOSTICS_FILE).is_file() and (evaluation / "metrics.json").is_file():
        logger.info("%s: is done", run.folder)
        return evaluation
    paths = {"ckpt_path": str(run.checkpoint), "eval_dir": str(evaluation), "resamples": resamples}
    configs = [*run.configs, str(ROOT / "configs" / "evaluate.json"), *map(str, overlays)]
    bundle_run(configs, {**run.keys, **paths}, run.folder / "evaluate.log")
    return evaluation


def claim_run(run: Path, settings: Mapping[str, Any]) -> None:
    """Writes the settings of a run into its folder, so that no folder mixes two runs.

    Raises:
        ValueError: The folder contains a run with other settings.
    """
    path = run / SETTINGS_FILE
    text = json.dumps(settings, indent=2) + "\n"
    if not path.is_file():
        write_text(path, text)
    elif json.loads(path.read_text(encoding="utf-8")) != json.loads(text):
        raise ValueError(f"{run}: contains a run with other settings; use another folder or remove this one")


def write_initial_weights(configs: Sequence[str], keys: Mapping[str, Any], path: Path) -> None:
    """Writes the initial weights of a run.

    Args:
        configs: Config files; later ones override earlier ones.
        keys: Config keys over those, with ``seed`` among them.
        path: Checkpoint to write.
    """
    parser = ConfigParser()
    parser.read_config(list(configs))
    parser.update(dict(keys))
    set_determinism(int(keys["seed"]))
    network = parser.get_parsed_content("network_def")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        torch.save({"model": network.state_dict()}, temporary)


def bundle_run(configs: Sequence[str], keys: Mapping[str, Any], log: Path) -> None:
    """Runs ``python -m monai.bundle run`` in its own process, with the output in a file."""
    overrides = log.with_suffix(".json")
    overrides.write_text(json.dumps(dict(keys), indent=2) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str([*configs, str(overrides)])]
    with log.open("w", encoding="utf-8") as output:
        done = subprocess.run(
            command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, env=dict(os.environ), check=False
        )
    if done.returncode != 0:
        last = log.read_text(encoding="utf-8").strip().splitlines()[-1:] or ["no output"]
        raise ValueError(f"{log}: the command failed ({last[0][:300]}); see the file, then run again to resume")


def code_version() -> str | None:
    """The commit of the checkout, ``-dirty`` with changes; None outside a repository."""
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, encoding="utf-8", check=False
    )
    return found.stdout.strip() or None


def split_sizes(datalist: Path) -> dict[str, int]:
    """Number of studies of each split."""
    return {split: len(studies) for split, studies in _splits(datalist).items()}


def split_digests(datalist: Path) -> dict[str, str]:
    """A digest of the studies of each split, which does not depend on the folder of the datalist."""

    def placeless(study: Mapping[str, Any]) -> dict[str, Any]:
        return {key: Path(str(value)).name if key in PATH_KEYS else value for key, value in study.items()}

    return {
        split: version_of({"studies": [placeless(study) for study in studies]})
        for split, studies in _splits(datalist).items()
    }


def _splits(datalist: Path) -> dict[str, list[dict[str, Any]]]:
    content = json.loads(datalist.read_text(encoding="utf-8"))
    return {split: content[split] for split in SPLITS if split in content}
