"""Does a pretrained tower help on real chests? AUC of adapted heads by number of training scans.

    python scripts/make_hybrid_scans.py REAL_FOLDER data/hybrid --per-finding 2
    python -m experiments.adapt.learning_curve data/hybrid/datalist.json docs/experiments/adapt/learning_curve.json

Hybrid scans of a few patients. Heads are trained on growing sets of scans and scored on a patient that they never saw;
each patient in turn, or groups of them. They are adapted as ``adapt.json`` does, with cross-validation among their own
training patients, but with one learning rate and fewer steps. Sources of features: the shipped tower, the same tower
with random weights, the HU histogram, Astra's encoder, and Astra's joined with its second stage or with the shipped
tower. Synthetic scans have no twins, so only their AUC over patients is computed.
"""

import argparse
import copy
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.utils import set_determinism
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from bundle.ctfindings.adaptation import Adaptation
from bundle.ctfindings.adaptation.adapt import Start
from bundle.ctfindings.adaptation.head_training import TRAINED, HeadTraining, score
from bundle.ctfindings.cli.error_lines import run_or_exit
from bundle.ctfindings.cli.options import config_setting
from bundle.ctfindings.data.datalist import label_rows, split_names
from bundle.ctfindings.files.progress import progress_bar
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.metrics.bootstrap import Bootstrap, WeightStatistic, weighted_auc
from bundle.ctfindings.metrics.json_numbers import number
from bundle.ctfindings.networks.checkpoint import sha256_of
from experiments.adapt.hu_statistics import hu_features
from experiments.adapt.joined_features import only_features, second_stage_features, with_features
from experiments.adapt.plot import plot_learning_curve
from experiments.adapt.second_stage import ThreeStagesd
from experiments.harness.page import write_results

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {
    "shipped": "shipped tower",
    "random": "the same tower, random weights",
    "hu": "HU histogram",
    "astra": "Astra",
    "astra_second": "Astra and its second stage",
    "astra_shipped": "Astra and shipped tower",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datalist", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=list(SOURCES))
    parser.add_argument("--head", choices=TRAINED, default="linear_probe")
    parser.add_argument("--sizes", nargs="+", type=int, default=[8, 16, 32, 64], help="numbers of training scans")
    parser.add_argument("--draws", type=int, default=3, help="random orders of the training scans")
    parser.add_argument("--groups", type=int, help="groups of held-out patients (default: each patient is one)")
    parser.add_argument("--splits", nargs="+", help="splits whose scans are used (default: all)")
    parser.add_argument("--steps", type=int, default=60, help="most steps of a head")
    parser.add_argument(
        "--set", type=config_setting, nargs="+", default=[], metavar="KEY=VALUE", help="other keys of adapt.json"
    )
    parser.add_argument("--cache", type=Path, default=ROOT / "cache")
    parser.add_argument("--seed", type=int, default=0)
    run_or_exit(experiment, parser.parse_args())


def experiment(options: argparse.Namespace) -> None:
    """Adapts and scores every source, and writes the results and their figure after each."""
    kept = ("head", "sizes", "draws", "groups", "splits", "seed")
    results: dict[str, Any] = {key: getattr(options, key) for key in kept} | {"bootstrap": {}, "sources": {}}
    for source in options.sources:
        started = time.perf_counter()
        adaptation, start = start_of(source, options)
        encoded = time.perf_counter()
        adaptation.training.prepare(start.head)
        patients = [study["patient"] for study in start.studies]
        groups = groups_of(patients, options.groups, options.seed)
        logits = held_out_logits(adaptation.training, start, groups, options.sizes, options.draws, options.seed)
        labels = label_rows(start.studies)
        drawn = [column for column in range(labels.shape[1]) if {0, 1} <= set(labels[:, column])]
        bootstrap = Bootstrap(patients, seed=options.seed)
        results["bootstrap"] = bootstrap.settings()
        results["training"] = adaptation.training.settings()
        paired = any("twin" in study for study in start.studies)
        results["sources"][source] = {
            "title": SOURCES[source],
            "weights_sha256": None if source in ("random", "hu") else sha256_of(adaptation.frozen_weights),
            "scans": len(patients),
            "patients": len(set(patients)),
            "seconds": {"encode": encoded - started, "adapt": time.perf_counter() - encoded},
            "curve": [
                {
                    "scans": size,
                    "auc": described(bootstrap, mean_auc(found, labels, drawn), drawn),
                    "paired": described(bootstrap, paired_auc(found, start, drawn), drawn) if paired else None,
                }
                for size, found in zip(options.sizes, logits, strict=True)
            ],
        }
        write_results(options.out.parent, results, options.out.name)
        plot_learning_curve(results, options.out.with_suffix(".png"))
        for row in results["sources"][source]["curve"]:
            print(source, row["scans"], *(row[key] and row[key]["mean"] for key in ("paired", "auc")), flush=True)


def start_of(source: str, options: argparse.Namespace) -> tuple[Adaptation, Start]:
    """The adaptation of a source of features, and what its heads start from."""
    if source == "astra_shipped":
        _, astra = start_of("astra", options)
        adaptation, start = start_of("shipped", options)
        return adaptation, with_features(start, astra.scans.pooled, from_zero=True)
    parser = config_of(source, options)
    adaptation = parser.get_parsed_content("adaptation")
    start = adaptation.start(adaptation.encoded.studies())
    dataset = adaptation.encoded.dataset(start.studies)
    if source == "hu":
        start = only_features(start, hu_features(dataset, parser["hu_window"]))
    elif source == "astra_second":
        image = adaptation.network.image
        features = second_stage_features(dataset, image.stride, image.tower.width, options.seed)
        start = with_features(start, features, from_zero=False)
    return adaptation, start


def groups_of(patients: Sequence[str], count: int | None, seed: int) -> NDArray[np.int64]:
    """The group in which each scan is held out, ``[S]``: of its patient, or one of some groups of patients."""
    groups = np.unique(patients, return_inverse=True)[1]
    if count is not None:
        folds = GroupKFold(count, shuffle=True, random_state=seed).split(groups, groups=groups)
        groups = np.empty_like(groups)
        for group, (_, held_out) in enumerate(folds):
            groups[held_out] = group
    return groups


def config_of(source: str, options: argparse.Namespace) -> ConfigParser:
    """``adapt.json`` for a source of features."""
    parser = ConfigParser()
    overlays = ["networks/astra.json"] if source.startswith("astra") else []
    parser.read_config([str(ROOT / "configs" / name) for name in ("adapt.json", *overlays)])
    parser.update(
        {
            "bundle_root": str(ROOT),
            "datalist": str(options.datalist),
            "splits": options.splits or split_names(options.datalist),
            "cache_dir": str(options.cache),
            "head": options.head,
            "steps": options.steps,
            "validate_every": 5,
            "patience": options.steps,
            "learning_rates": [0.002],
            "seed": options.seed,
            **dict(options.set),
        }
    )
    if overlays:
        parser["frozen_tokens"]["_target_"] = f"{ThreeStagesd.__module__}.{ThreeStagesd.__name__}"
    set_determinism(options.seed)
    if source == "random":
        path = options.cache / f"random_tower_{options.seed}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        tower = parser.get_parsed_content("image_tower")
        torch.save({f"image.tower.{name}": value for name, value in tower.state_dict().items()}, path)
        parser.update({"frozen_weights": str(path)})
    return parser


def held_out_logits(
    training: HeadTraining, start: Start, groups: NDArray[np.int64], sizes: Sequence[int], draws: int, seed: int
) -> NDArray[np.float64]:
    """Logits of every scan by heads that did not see its group, ``[sizes, draws, S, C]``.

    The training scans of a size contain those of the smaller ones.
    """
    patients, labels = (
        np.array([study["patient"] for study in start.studies]),
        torch.from_numpy(label_rows(start.studies)),
    )
    found = np.zeros((len(sizes), draws, *labels.shape))
    bar = progress_bar(None, "heads", len(np.unique(groups)) * draws * len(sizes), unit="head")
    for draw in range(draws):
        random = np.random.default_rng([seed, draw])
        for group in np.unique(groups):
            order, tested = random.permutation(np.flatnonzero(groups != group)), np.flatnonzero(groups == group)
            for place, size in enumerate(sizes):
                if size > len(order):
                    raise ValueError(f"--sizes {size}: a group leaves {len(order)} scans; give fewer")
                chosen, head = np.sort(order[:size]), copy.deepcopy(start.head)
                scans, own = start.scans.of(chosen), labels[torch.from_numpy(chosen)]
                choice = training.choose(head, scans, own, patients[chosen].tolist(), start.prompts)
                training.fit(head, scans, own, start.prompts, choice)
                found[place, draw, tested] = score(head, start.scans, tested, start.prompts, training.batch_size)
                bar.update()
    bar.close()
    return found


def mean_auc(logits: NDArray[np.float64], labels: NDArray[np.int64], drawn: Sequence[int]) -> WeightStatistic:
    """A statistic of scan weights: the AUC of each finding over all patients, mean over the draws, ``[R, C]``."""
    return lambda weights: np.mean([weighted_auc(own[:, drawn], labels[:, drawn], weights) for own in logits], axis=0)


def paired_auc(logits: NDArray[np.float64], start: Start, drawn: Sequence[int]) -> WeightStatistic:
    """A statistic of scan weights: the share of hybrids above the twin of their patient, ``[R, C]``."""
    place = {study["id"]: index for index, study in enumerate(start.studies)}
    hybrids = [index for index, study in enumerate(start.studies) if "twin" in study]
    twins = [place[start.studies[index]["twin"]] for index in hybrids]
    difference = logits[:, hybrids] - logits[:, twins]
    won = ((difference > 0) + 0.5 * (difference == 0)).mean(axis=0)[:, drawn]
    present = (label_rows(start.studies)[hybrids] == 1)[:, drawn]

    def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return weights[:, hybrids] @ (won * present) / (weights[:, hybrids] @ present)

    return statistic


def described(bootstrap: Bootstrap, statistic: WeightStatistic, drawn: Sequence[int]) -> dict[str, Any]:
    """A statistic of each finding and its mean over the findings, with intervals by patient."""
    found, mean = (
        bootstrap.interval(statistic),
        bootstrap.interval(lambda weights: np.nanmean(statistic(weights), axis=1)),
    )
    by_finding = {
        FINDING_NAMES[column]: {"estimate": number(float(found.estimate[place])), "interval": found.limits(place)}
        for place, column in enumerate(drawn)
    }
    return {"mean": number(float(mean.estimate)), "interval": mean.limits(), "findings": by_finding}


if __name__ == "__main__":
    main()
