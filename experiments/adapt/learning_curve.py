"""Does a pretrained tower help on real chests? AUC of adapted heads by number of training scans.

    python scripts/make_hybrid_scans.py REAL_FOLDER data/hybrid --per-finding 2
    python -m experiments.adapt.learning_curve data/hybrid/datalist.json docs/experiments/adapt/learning_curve.json

Hybrid scans of a few patients. Heads are adapted as ``adapt.json`` does, with cross-validation among their own training
patients, on growing sets of scans, and scored on a patient that they never saw; each patient in turn. Sources of
features: the shipped tower, the same tower with random weights, Astra's, and the HU histogram.
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

from bundle.ctfindings.adaptation import Adaptation
from bundle.ctfindings.adaptation.adapt import Start
from bundle.ctfindings.adaptation.head_training import HeadTraining, score
from bundle.ctfindings.cli.error_lines import run_or_exit
from bundle.ctfindings.data.datalist import label_rows, split_names
from bundle.ctfindings.files.progress import progress_bar
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.metrics.bootstrap import Bootstrap, WeightStatistic, weighted_auc
from bundle.ctfindings.metrics.json_numbers import number
from bundle.ctfindings.networks.checkpoint import sha256_of
from experiments.adapt.hu_statistics import hu_head
from experiments.adapt.plot import plot_learning_curve
from experiments.harness.page import write_results

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {
    "shipped": "shipped tower",
    "random": "the same tower, random weights",
    "hu": "HU histogram",
    "astra": "Astra",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datalist", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=list(SOURCES))
    parser.add_argument("--head", choices=("linear_probe", "prompt_head"), default="linear_probe")
    parser.add_argument("--sizes", nargs="+", type=int, default=[8, 16, 32, 64], help="numbers of training scans")
    parser.add_argument("--draws", type=int, default=3, help="random orders of the training scans")
    parser.add_argument("--steps", type=int, default=60, help="most steps of a head")
    parser.add_argument("--cache", type=Path, default=ROOT / "cache")
    parser.add_argument("--seed", type=int, default=0)
    run_or_exit(experiment, parser.parse_args())


def experiment(options: argparse.Namespace) -> None:
    """Adapts and scores every source, and writes the results and their figure after each."""
    results: dict[str, Any] = {key: getattr(options, key) for key in ("head", "sizes", "draws", "steps", "seed")} | {
        "bootstrap": {},
        "sources": {},
    }
    for source in options.sources:
        started = time.perf_counter()
        parser = config_of(source, options)
        adaptation: Adaptation = parser.get_parsed_content("adaptation")
        start = adaptation.start(adaptation.encoded.studies())
        if source == "hu":
            dataset = adaptation.encoded.dataset(start.studies)
            head, scans = hu_head(start.head, start.scans, dataset, parser["hu_window"])
            start = start._replace(head=head, scans=scans)
        encoded = time.perf_counter()
        adaptation.training.prepare(start.head)
        logits = held_out_logits(adaptation.training, start, options.sizes, options.draws, options.seed)
        patients = [study["patient"] for study in start.studies]
        labels = label_rows(start.studies)
        drawn = [column for column in range(labels.shape[1]) if {0, 1} <= set(labels[:, column])]
        bootstrap = Bootstrap(patients, seed=options.seed)
        results["bootstrap"] = bootstrap.settings()
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
                    "paired": described(bootstrap, paired_auc(found, start, drawn), drawn),
                }
                for size, found in zip(options.sizes, logits, strict=True)
            ],
        }
        write_results(options.out.parent, results, options.out.name)
        plot_learning_curve(results, options.out.with_suffix(".png"))
        for row in results["sources"][source]["curve"]:
            print(source, row["scans"], row["paired"]["mean"], row["auc"]["mean"], flush=True)


def config_of(source: str, options: argparse.Namespace) -> ConfigParser:
    """``adapt.json`` for a source of features."""
    parser = ConfigParser()
    overlays = ["networks/astra.json"] if source == "astra" else []
    parser.read_config([str(ROOT / "configs" / name) for name in ("adapt.json", *overlays)])
    parser.update(
        {
            "bundle_root": str(ROOT),
            "datalist": str(options.datalist),
            "splits": split_names(options.datalist),
            "cache_dir": str(options.cache),
            "head": options.head,
            "steps": options.steps,
            "learning_rates": [0.002],
            "seed": options.seed,
        }
    )
    set_determinism(options.seed)
    if source == "random":
        path = options.cache / f"random_tower_{options.seed}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        tower = parser.get_parsed_content("image_tower")
        torch.save({f"image.tower.{name}": value for name, value in tower.state_dict().items()}, path)
        parser.update({"frozen_weights": str(path)})
    return parser


def held_out_logits(
    training: HeadTraining, start: Start, sizes: Sequence[int], draws: int, seed: int
) -> NDArray[np.float64]:
    """Logits of every scan by heads that did not see its patient, ``[sizes, draws, S, C]``.

    The training scans of a size contain those of the smaller ones.
    """
    patients, labels = (
        np.array([study["patient"] for study in start.studies]),
        torch.from_numpy(label_rows(start.studies)),
    )
    found = np.zeros((len(sizes), draws, *labels.shape))
    held_out = np.unique(patients)
    bar = progress_bar(None, "heads", len(held_out) * draws * len(sizes), unit="head")
    for draw in range(draws):
        random = np.random.default_rng([seed, draw])
        for patient in held_out:
            order, tested = random.permutation(np.flatnonzero(patients != patient)), np.flatnonzero(patients == patient)
            for place, size in enumerate(sizes):
                if size > len(order):
                    raise ValueError(f"--sizes {size}: {len(order)} scans are not of patient {patient}; give fewer")
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
