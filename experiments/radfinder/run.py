"""Shows what each objective of RadFinder adds on synthetic scans: localization, disease prompts, retrieval.

    python experiments/radfinder/run.py --datalist data/synthetic/datalist.json --work runs/radfinder --epochs 12
    python experiments/radfinder/run.py --datalist data/shipped/datalist.json --work runs/locked --locked_image
    models/model.pt

Trains every variant with every seed with ``configs/train.json`` and its overlays, scores the best checkpoint of each on
the test split from the image alone, and writes ``results.json`` and ``README.md`` into the output folder. With
``--locked_image`` the image tower has the given weights and is not trained: scans are encoded once, a run takes
minutes, and its last epoch is scored. Finished runs are not repeated: to do so, delete the folder of
the run in ``--work``.

Snippets are scored in their own words and reworded: a paraphrase from ``docs/evaluation/paraphrases.json``, of which a
third are near duplicates of training wordings, followed by the location of the site.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from monai.bundle import ConfigParser

from bundle.ctfindings.cli.error_lines import run_or_exit
from bundle.ctfindings.cli.options import config_setting
from bundle.ctfindings.data.datalist import load_datalist
from bundle.ctfindings.evaluation.evaluated_model import SplitScores
from bundle.ctfindings.evaluation.report_sections import Studies, localization_of, retrieval_of
from bundle.ctfindings.files.atomic_write import write_text
from bundle.ctfindings.metrics.bootstrap import Bootstrap
from bundle.ctfindings.metrics.paraphrases import load_paraphrases
from bundle.ctfindings.networks.checkpoint import sha256_of
from bundle.ctfindings.networks.vision_language import VisionLanguageModel
from experiments.harness.locked_image_model import LockedImageModel
from experiments.harness.locked_image_runs import LockedRuns
from experiments.harness.locked_image_training import score_locked
from experiments.harness.page import VARIANTS_FIGURE, write_page, write_results
from experiments.harness.runs import (
    Variant,
    bundle_run,
    claim_run,
    reduced_datalist,
    split_digests,
    split_sizes,
)
from experiments.harness.shown_command import shown_command
from experiments.radfinder.results import plot_radfinder, radfinder_page, radfinder_summary

RESULT_FILE = "result.json"

NO_PROMPTS = {"loss_weights#disease_prompts": 0.0, "loss_weights#prompt_agreement": 0.0}
NO_LOCALIZATION = {"loss_weights#snippet_localization": 0.0}
VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        Variant("siglip", "SigLIP alone", ("objectives/radfinder.json",), {**NO_PROMPTS, **NO_LOCALIZATION}),
        Variant("siglip_prompts", "SigLIP and disease prompts", ("objectives/radfinder.json",), NO_LOCALIZATION),
        Variant("radfinder", "SigLIP, disease prompts and localization", ("objectives/radfinder.json",)),
        Variant("ca_gcl", "CA-GCL", ("objectives/ca_gcl.json",)),
        Variant("unified", "all objectives", ("objectives/unified.json",)),
    )
}
"""The trained variants by name."""

SITE_TOLERANCE_MM = 6.0
"""A snippet names the slice nearest to the centre of its site; scans have slices of up to 5 mm."""


def train(run: Path, variant: str, seed: int, options: argparse.Namespace) -> None:
    """Trains one variant with one seed below ``run``; does nothing when it is done.

    Raises:
        ValueError: the folder holds a run with other settings, or the command failed.
    """
    overlays, changes = list(VARIANTS[variant].overlays), VARIANTS[variant].keys
    asked = {**options.keys, **changes}
    claim_run(run, {"overlays": overlays, "keys": asked, "seed": seed, "datalist": split_digests(options.datalist)})
    if (run / "done").exists():
        return
    keys = {
        "bundle_root": str(ROOT),
        "datalist": str(options.datalist.resolve()),
        "cache_dir": str((options.work / "cache").resolve()),
        "output_dir": str(run.resolve()),
        "seed": seed,
        **asked,
    }
    bundle_run([str(ROOT / "configs" / name) for name in ("train.json", *overlays)], keys, run / "train.log")
    (run / "done").touch()


def score(
    run: Path, variant: str, options: argparse.Namespace, studies: list[dict[str, Any]]
) -> tuple[VisionLanguageModel, SplitScores]:
    """The best checkpoint of a run on the test studies."""
    parser = ConfigParser()
    names = ("train.json", *VARIANTS[variant].overlays, "evaluate.json")
    parser.read_config([*(str(ROOT / "configs" / name) for name in names), str(run / "train.json")])
    parser.update({"ckpt_path": str(run / "best.pt"), "cache_dir": str(options.work / "cache")})
    model = parser.get_parsed_content("evaluated_model")
    model.load()
    return model.network, model.score(studies, run.name)


def record_of(
    network: VisionLanguageModel | LockedImageModel,
    scores: SplitScores,
    studies: Studies,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """The numbers of a run.

    Raises:
        ValueError: fewer than two patients have a report.
    """
    bootstrap = Bootstrap(scores.patients)
    auc = bootstrap.auc(scores.logits, scores.labels).macro
    retrieval = retrieval_of(scores, studies, network, bootstrap, count=options.pool)
    if retrieval is None:
        raise ValueError("reports: fewer than 2 patients of the test split have a report; retrieval needs a pool")
    reword = partial(reworded, load_paraphrases(options.paraphrases))
    return {
        "macro_auc": {"value": float(auc.estimate), "interval": [float(auc.low), float(auc.high)]},
        "retrieval": retrieval["pools"]["first_all"],
        "localization": localization_of(scores, studies, network, bootstrap),
        "localization_reworded": localization_of(scores, studies, network, bootstrap, reword),
        "localization_trained": bool(network.text.snippet_head_trained),
        "logits": scores.logits.tolist(),
        "labels": scores.labels.tolist(),
        "patients": list(scores.patients),
    }


def result_of(variant: str, seed: int, options: argparse.Namespace, runs: LockedRuns | None) -> dict[str, Any]:
    """Trains and scores one variant with one seed; read back when it was done and scored in the same way before.

    Raises:
        ValueError: the folder holds a run with other settings.
    """
    run = options.work / f"{variant}_seed{seed}"
    if runs is None:
        train(run, variant, seed, options)
    else:
        runs.claim(VARIANTS[variant], seed)
    asked = {"pool": options.pool, "paraphrases": sha256_of(options.paraphrases)}
    result = run / RESULT_FILE
    if result.exists() and (before := json.loads(result.read_text())).get("asked") == asked:
        return before
    if runs is None:
        studies = load_datalist(options.datalist, "test")
        network, scores = score(run, variant, options, studies)
        record = record_of(network, scores, studies, options)
    else:
        model = runs.model(VARIANTS[variant], seed, run)
        studies = runs.studies["test"]
        record = record_of(model, score_locked(model, runs.encoded["test"], studies), studies, options)
    record = {"variant": variant, "asked": asked, "seed": seed, **record}
    write_text(result, json.dumps(record))
    return record


def reworded(
    paraphrases: Mapping[str, Sequence[str]], study: Mapping[str, Any], snippets: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The snippets of a study as paraphrases of their findings; those whose site is not known are left out."""
    found = []
    for snippet in snippets:
        sites = [site for site in study.get("sites") or () if site.get("center_mm")]
        near = min(sites, key=lambda site: abs(site["center_mm"][2] - snippet["z_mm"]), default=None)
        if near is None or abs(near["center_mm"][2] - snippet["z_mm"]) > SITE_TOLERANCE_MM:
            continue
        texts = paraphrases[near["finding"]]
        place = [str(near[name]) for name in ("location", "side") if near.get(name)]
        found.append({"text": ", ".join([texts[len(snippet["text"]) % len(texts)], *place]), "z_mm": snippet["z_mm"]})
    return found


def run_all(options: argparse.Namespace) -> None:
    """Trains and scores everything that is not there yet, and writes the results."""
    options.datalist = reduced_datalist(options.datalist, None, options.work)
    if (count := split_sizes(options.datalist).get("test", 0)) <= 10:
        raise ValueError(f"{options.datalist}: split 'test' has {count} scans; recall at 10 needs more than 10")
    runs = (
        LockedRuns(options.locked_image, options.datalist, options.work, options.keys) if options.locked_image else None
    )
    results = []
    for seed in options.seeds:
        for variant in options.variants:
            results.append(result_of(variant, seed, options, runs))
            print(f"{variant}, seed {seed}: macro AUC {results[-1]['macro_auc']['value']:.3f}", flush=True)
    settings = {
        "command": shown_command(sys.argv, {"--datalist": "DATALIST", "--work": "FOLDER", "--output": None}),
        "seeds": options.seeds,
        "studies": split_sizes(options.datalist),
        "keys": options.keys,
        "pool": options.pool,
        "locked_image": runs.image_weights if runs else None,
    }
    record = {"settings": settings, **radfinder_summary(results)}
    write_results(options.output, record)
    plot_radfinder(record, options.output / VARIANTS_FIGURE)
    print(write_page(options.output, radfinder_page(record)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datalist", type=Path, required=True, help="datalist of make_synthetic_scans.py")
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs and the cache")
    parser.add_argument(
        "--output",
        type=Path,
        default=ROOT / "docs" / "experiments" / "radfinder",
        help="folder of the page",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="random seeds, one run each")
    parser.add_argument("--epochs", type=int, help="epochs of each run (default: those of train.json)")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="default: all")
    parser.add_argument("--locked_image", type=Path, help="weights of a locked image tower, such as models/model.pt")
    parser.add_argument(
        "--set", type=config_setting, nargs="+", default=[], metavar="KEY=VALUE", help="config keys of all runs"
    )
    parser.add_argument("--pool", type=int, default=300, help="test scans that a report is ranked against")
    parser.add_argument(
        "--paraphrases", type=Path, default=ROOT / "docs" / "evaluation" / "paraphrases.json", help="texts"
    )
    options = parser.parse_args()
    options.keys = {**({} if options.epochs is None else {"epochs": options.epochs}), **dict(options.set)}
    run_or_exit(run_all, options)


if __name__ == "__main__":
    main()
