"""Compares frozen encoders on the five downstream tasks, at fractions of the labels.

    python experiments/downstream/run.py --datalist data/synthetic --encoder random random
    objectives/place.json --encoder place runs/place/last.pt objectives/place.json --encoder supervised random
    encoder=tuned

An encoder has a name, a checkpoint or ``random``, overlays of ``configs``, and config keys. The first one is the
reference of the differences. Writes ``results.json`` and a page after each encoder. The command resumes: finished tasks
are not repeated.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bundle.ctfindings.cli.error_lines import run_or_exit
from bundle.ctfindings.cli.options import config_setting
from bundle.ctfindings.data.datalist import load_datalist
from bundle.ctfindings.networks.checkpoint import sha256_of
from experiments.downstream.page import write_results_and_page
from experiments.downstream.results import FRACTIONS, downstream_results
from experiments.harness.command_line import SHOWN_FOLDERS, add_split_counts
from experiments.harness.runs import claim_run, reduced_datalist, split_digests, split_sizes
from experiments.harness.shown_command import shown_command
from experiments.harness.task_results import MASKED, run_task

TASKS: dict[str, dict[str, Any]] = {
    "classification": {},
    "retrieval": {},
    "detection": {"findings": list(MASKED), "pictures": 1},
    "segmentation": {"classes": list(MASKED), "decoder_epochs": 8, "pictures": 1},
    "report_generation": {"methods": ["nearest", "decoder"]},
}
"""Tasks with their config keys."""

UNTRAINED = ("retrieval", "detection")
"""Tasks that train nothing, and so cannot tune an encoder."""


def experiment(options: argparse.Namespace) -> Path:
    """Runs what is missing, writes the results after each encoder, and returns the page.

    Raises:
        ValueError: A task failed, two encoders have one name, or the datalist has too few scans.
    """
    names = [given[0] for given in options.encoder]
    if len(set(names)) < len(names):
        raise ValueError(f"--encoder: expected a name of its own for each, got {', '.join(names)}")
    datalist = reduced_datalist(options.datalist, options.scans, options.work)
    shared = {
        "bundle_root": str(ROOT),
        "datalist": str(datalist),
        "cache_dir": str(options.cache.resolve()),
        "fractions": list(FRACTIONS),
        "subset_seeds": options.subset_seeds,
        "resamples": options.resamples,
        **dict(options.set),
    }
    shown = {key: value for key, value in shared.items() if key not in ("bundle_root", "datalist", "cache_dir")}
    settings = {"studies": split_sizes(datalist), "keys": shown}
    digests, tested = split_digests(datalist), load_datalist(datalist, "test")
    folders: dict[str, Path] = {}
    page = options.output
    for name, checkpoint, *changes in options.encoder:
        configs, keys = _network(checkpoint, changes)
        folders[name] = options.work / name
        claim_run(
            folders[name],
            {"datalist": digests, "shared": shown, "network": [checkpoint, *changes], "weights": _digest(checkpoint)},
        )
        for task, of_task in TASKS.items():
            if keys.get("encoder") != "tuned" or task not in UNTRAINED:
                run_task(task, configs, {**shared, **of_task, **keys}, folders[name])
        results = downstream_results(folders, tested, settings, options.resamples)
        page = write_results_and_page(options.output, results, shown_command(sys.argv, SHOWN_FOLDERS))
    return page


def _digest(checkpoint: str) -> str | None:
    return None if checkpoint == "random" else sha256_of(checkpoint)


def _network(checkpoint: str, changes: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Config files of a network, and its keys."""
    overlays = [change for change in changes if "=" not in change]
    keys = dict(config_setting(change) for change in changes if "=" in change)
    path = checkpoint if checkpoint == "random" else str(Path(checkpoint).resolve())
    return [str(ROOT / "configs" / name) for name in ("train.json", *overlays)], {**keys, "ckpt_path": path}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datalist", type=Path, required=True, help="datalist, or its folder")
    add_split_counts(parser, "--scans", "(default: all)")
    parser.add_argument(
        "--encoder", action="append", nargs="+", required=True, metavar="NAME", help="name, checkpoint, overlays, keys"
    )
    parser.add_argument("--subset_seeds", type=int, nargs="+", default=[0, 1, 2], help="draws (default %(default)s)")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "experiments" / "downstream", help="the page")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "experiments" / "downstream", help="the tasks")
    parser.add_argument("--cache", type=Path, default=ROOT / "cache", help="encoded scans (default %(default)s)")
    parser.add_argument("--resamples", type=int, default=1000, help="bootstrap resamples (default %(default)s)")
    parser.add_argument("--set", type=config_setting, nargs="+", default=[], metavar="KEY=VALUE", help="shared keys")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    print(run_or_exit(experiment, options))


if __name__ == "__main__":
    main()
