"""What each objective of RadFinder adds, on synthetic scans: localization, prompts, retrieval. One command, which goes on where it stopped.

    python scripts/experiment_radfinder.py --datalist data/synthetic/datalist.json --work runs/radfinder
        [--seeds 0 1 2] [--epochs 12] [--variants siglip siglip_prompts radfinder ca_gcl unified]
        [--overrides keys.json] [--pool 300] [--output docs/experiments/radfinder]

Trains every variant with every seed by ``configs/train.json`` and its overlays, scores the best checkpoint of each on the test split from
the image alone, and writes ``results.json`` and ``README.md`` into the output folder. A finished training or scoring is not repeated:
delete its folder below ``--work`` to do it again. Snippets are asked in their own words, and reworded: the text is replaced by a
paraphrase of ``docs/evaluation/paraphrases.json``, none of which is a training text, followed by the place of the site.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from monai.bundle import ConfigParser  # noqa: E402

from bundle.ctfindings.data import load_datalist  # noqa: E402
from bundle.ctfindings.data.atomic import atomic_path  # noqa: E402
from bundle.ctfindings.engines import collect_scores, run_or_exit  # noqa: E402
from bundle.ctfindings.engines.report_evaluation import (  # noqa: E402
    collect_report_embeddings,
    localization_of,
    report_loader,
    retrieval_of,
)
from bundle.ctfindings.metrics import bootstrap_auc, load_paraphrases, paired_bootstrap_auc  # noqa: E402
from bundle.ctfindings.networks import load_checkpoint  # noqa: E402

NO_PROMPTS = {"loss_weights#disease_prompts": 0.0, "loss_weights#prompt_agreement": 0.0}
NO_LOCALIZATION = {"loss_weights#snippet_localization": 0.0}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "siglip": ("radfinder", {**NO_PROMPTS, **NO_LOCALIZATION}),
    "siglip_prompts": ("radfinder", NO_LOCALIZATION),
    "radfinder": ("radfinder", {}),
    "ca_gcl": ("ca_gcl", {}),
    "unified": ("unified", {}),
}
"""Variant to its objective overlay and the keys that differ from it."""

SITE_TOLERANCE_MM = 6.0
"""A snippet names the slice nearest to the centre of its site; scans have slices of up to 5 mm."""


def train(run: Path, variant: str, seed: int, options: argparse.Namespace) -> None:
    """Trains one variant with one seed below ``run``; does nothing when it is done."""
    overlay, changes = VARIANTS[variant]
    run.mkdir(parents=True, exist_ok=True)
    keys = {
        "bundle_root": str(ROOT),
        "datalist": str(options.datalist.resolve()),
        "cache_dir": str((options.work / "cache").resolve()),
        "output_dir": str(run.resolve()),
        "seed": seed,
        **({} if options.epochs is None else {"epochs": options.epochs}),
        **options.keys,
        **changes,
    }
    (run / "keys.json").write_text(json.dumps(keys, indent=2) + "\n")
    if (run / "done").exists():
        return
    files = [str(ROOT / "configs" / "train.json"), str(ROOT / "configs" / "objectives" / f"{overlay}.json"), str(run / "keys.json")]
    with (run / "train.log").open("a") as log:
        command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(files)]
        done = subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, check=False)
    if done.returncode != 0:
        raise SystemExit(f"error: {run}: training ended with code {done.returncode}; see train.log there, and start again to go on")
    (run / "done").touch()


def score(run: Path, variant: str, options: argparse.Namespace) -> dict[str, Any]:
    """Scores the best checkpoint of a run on the test split; read back when it was scored before."""
    result = run / "result.json"
    if result.exists():
        return json.loads(result.read_text())
    parser = ConfigParser()
    names = ("train.json", f"objectives/{VARIANTS[variant][0]}.json", "evaluate_reports.json")
    parser.read_config([*(str(ROOT / "configs" / name) for name in names), str(run / "keys.json")])
    network = parser.get_parsed_content("network_def")
    load_checkpoint(network, run / "best.pt")
    studies = load_datalist(options.datalist, "test")
    cache_key = [parser.get_parsed_content(name) for name in ("spacing", "hu_window", "divisible")]
    loader = report_loader(studies, parser.get_parsed_content("whole_scan"), options.work / "cache", cache_key)
    scores = collect_scores(loader, network, name=f"{variant} {run.name}")
    embeddings = collect_report_embeddings(loader, network)
    auc = bootstrap_auc(scores.logits, scores.labels, scores.patients).macro
    record = {
        "variant": variant,
        "seed": int(json.loads((run / "keys.json").read_text())["seed"]),
        "macro_auc": {"value": float(auc.estimate), "interval": [float(auc.low), float(auc.high)]},
        "retrieval": retrieval_of(embeddings, network, count=options.pool)["pools"]["first_all"],
        "localization": localization_of(embeddings, network),
        "localization_reworded": localization_of(embeddings, network, partial(reworded, load_paraphrases(options.paraphrases))),
        "localization_trained": bool(network.text.snippet_head_trained),
        "logits": scores.logits.tolist(),
        "labels": scores.labels.tolist(),
        "patients": scores.patients,
    }
    with atomic_path(result) as path:
        path.write_text(json.dumps(record))
    return record


def reworded(
    paraphrases: Mapping[str, Sequence[str]], study: Mapping[str, Any], snippets: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The snippets of a study in words that no training text has; those whose site is not known are left out."""
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


def summary(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean and range over the seeds of each variant, and the paired differences that the experiment asks for, by seed."""
    by_variant: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        by_variant.setdefault(result["variant"], []).append(result)

    def over_seeds(values: Sequence[float]) -> dict[str, Any]:
        return {"mean": float(np.mean(values)), "seeds": [float(value) for value in values]}

    table = {}
    for variant, runs in by_variant.items():
        row = {
            "macro_auc": over_seeds([run["macro_auc"]["value"] for run in runs]),
            "recall_at_10": over_seeds([run["retrieval"]["text_to_image"]["recall"]["10"]["value"] for run in runs]),
            "recall_at_10_chance": runs[0]["retrieval"]["text_to_image"]["recall"]["10"]["chance"],
        }
        for name in ("localization", "localization_reworded"):
            placed = [run[name]["all"] for run in runs if run[name] is not None and run["localization_trained"]]
            if placed:
                row[name] = {
                    "mae_of_middle": over_seeds([entry["mae_of_middle"]["value"] for entry in placed]),
                    "profile_mae_of_middle": over_seeds([entry["profile_mae_of_middle"]["value"] for entry in placed]),
                    "intervals": [entry["mae_of_middle"]["interval"] for entry in placed],
                    "mae_mm": over_seeds([entry["model"]["mae_mm"]["value"] for entry in placed]),
                    "middle_mae_mm": placed[0]["middle"]["mae_mm"]["value"],
                    "random_mae_mm": placed[0]["random"]["mae_mm"]["value"],
                    "snippets": placed[0]["snippets"],
                }
        table[variant] = row
    differences = {}
    for first, second in (("siglip_prompts", "siglip"), ("radfinder", "siglip_prompts")):
        pairs = [(one, other) for one in by_variant.get(first, []) for other in by_variant.get(second, []) if one["seed"] == other["seed"]]
        differences[f"{first} - {second}"] = [
            {"seed": one["seed"], "macro_auc": float(gap.estimate), "interval": [float(gap.low), float(gap.high)]}
            for one, other in pairs
            for gap in [paired_bootstrap_auc(one["logits"], other["logits"], one["labels"], one["patients"]).macro]
        ]
    return {"variants": table, "differences": differences}


def page(record: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        "# RadFinder on synthetic scans",
        "",
        "Made by `python scripts/experiment_radfinder.py`; the numbers are those of `results.json`. Synthetic scans: direction, not the",
        "paper's values. Means over seeds " + ", ".join(str(seed) for seed in record["settings"]["seeds"]) + ".",
        "",
        "Localization: mean error of the most probable depth row over that of the middle slice; in brackets that of the depth which halves",
        "the profile.",
        "",
        "| variant | macro AUC | R@10 | chance | error / middle slice | reworded |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for variant, row in record["variants"].items():
        ratios = [
            f"{row[name]['mae_of_middle']['mean']:.2f}" if name in row else "not trained"
            for name in ("localization", "localization_reworded")
        ]
        recall = f"{row['recall_at_10']['mean']:.3f} | {row['recall_at_10_chance']:.3f}"
        lines.append(f"| {variant} | {row['macro_auc']['mean']:.3f} | {recall} | {' | '.join(ratios)} |")
    lines += ["", "Paired differences of the macro AUC on the same test scans, with 95 % intervals by patient:", ""]
    for name, entries in record["differences"].items():
        for entry in entries:
            low, high = entry["interval"]
            lines.append(f"- {name}, seed {entry['seed']}: {entry['macro_auc']:+.3f} ({low:+.3f} to {high:+.3f})")
    return "\n".join(lines) + "\n"


def run_all(options: argparse.Namespace) -> None:
    """Trains and scores everything that is not there yet, and writes the results."""
    results = []
    for seed in options.seeds:
        for variant in options.variants:
            run = options.work / f"{variant}_seed{seed}"
            train(run, variant, seed, options)
            results.append(score(run, variant, options))
            print(f"{run.name}: macro AUC {results[-1]['macro_auc']['value']:.3f}", flush=True)
    settings = {
        "seeds": options.seeds,
        "datalist": options.datalist.name,
        "epochs": options.epochs,
        "overrides": options.keys,
        "pool": options.pool,
    }
    record = {"settings": settings, **summary(results)}
    with atomic_path(options.output / "results.json") as path:
        path.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")
    with atomic_path(options.output / "README.md") as path:
        path.write_text(page(record))
    print(page(record))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datalist", type=Path, required=True, help="synthetic scans, from make_synthetic_scans.py")
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs and the cache")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "experiments" / "radfinder")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="of each run; those of train.json by default")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--overrides", type=Path, help="JSON of further configuration keys for every run")
    parser.add_argument("--pool", type=int, default=300, help="test scans among which a report has to find its own")
    parser.add_argument("--paraphrases", type=Path, default=ROOT / "docs" / "evaluation" / "paraphrases.json")
    options = parser.parse_args()
    options.keys = {} if options.overrides is None else json.loads(options.overrides.read_text())
    run_or_exit(run_all, options)


if __name__ == "__main__":
    main()
