"""Shows what each part of PLACE adds on synthetic scans, and whether it observes pathology at all.

    python scripts/make_synthetic_scans.py --output data/synthetic --training 600 --validation 150 --test 250
    python experiments/place/run.py --datalist data/synthetic --epochs 7 --seeds 0 1 2

Trains ``configs/objectives/place.json`` whole and without its parts, evaluates the last epoch of each on the test
split, and runs three downstream tasks on it. Writes ``results.json`` and a page: each part against the task that it is
for, and the tests of ``validity.py`` with their verdicts. The command resumes: finished runs are not repeated, and the
page has what is finished.
"""

import argparse
import json
import logging
import sys
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bundle.ctfindings.cli.error_lines import run_or_exit
from bundle.ctfindings.data.study_record import SPLITS
from bundle.ctfindings.files.atomic_write import write_text
from bundle.ctfindings.reports.captions import read_report
from experiments.harness.command_line import (
    SHOWN_FOLDERS,
    add_split_counts,
    experiment_parser,
    training_keys,
    work_folder,
)
from experiments.harness.runs import (
    Variant,
    evaluate_run,
    reduced_datalist,
    split_sizes,
    train_variant,
    with_absolute_paths,
)
from experiments.harness.shown_command import shown_command
from experiments.place.observer import Observer, observed_run
from experiments.place.page import write_results_and_page
from experiments.place.real_tumours import look_at_tumours
from experiments.place.results import REFERENCE, Finished, place_results
from experiments.place.tasks import TASKS, run_tasks
from experiments.place.validity import verdicts

OVERLAY = ("objectives/place.json",)
VARIANTS = (
    Variant(REFERENCE, "PLACE", OVERLAY),
    Variant("initial", "initial weights, not trained", OVERLAY, trained=False),
    Variant("no_alignment", "without the alignment", OVERLAY, {"loss_weights#pathology_alignment": 0.0}),
    Variant("no_correlation", "without the correlations", OVERLAY, {"loss_weights#correlation_exploration": 0.0}),
    Variant("one_query", "with one query", OVERLAY, {"pathology_queries": 1}),
    Variant("no_use", "without the term on the use", OVERLAY, {"loss#losses#pathology_alignment#spread": 0.0}),
    Variant("fvlm", "fVLM's local objective, with masks", ("objectives/fvlm.json",)),
)

ONLY_TASKS = {"no_alignment": ("retrieval",), "one_query": ("retrieval",), "no_use": ("retrieval",)}
"""Variants for which only some tasks are run, to save time: those of their outcomes that were named beforehand."""

QUERIES = 16
"""Pathology queries of ``place.json``."""


def experiment(options: argparse.Namespace) -> Path:
    """Runs what is missing, writes the results after each run, and returns the page.

    Raises:
        ValueError: A run failed, the datalist has too few scans, or the reference is not among the variants.
    """
    if REFERENCE not in options.variants:
        raise ValueError(f"--variants: expected {REFERENCE}, with which the others are compared, among them")
    work = work_folder(options)
    datalist = captions_from_reports(reduced_datalist(options.datalist, options.scans, work), work / "reports_alone")
    # The segmentation decoder keeps the encoded scans of its training in memory.
    for_tasks = reduced_datalist(datalist, options.task_scans, work / "tasks")
    keys = training_keys(options)
    settings = {
        "studies": split_sizes(datalist),
        "studies_of_tasks": split_sizes(for_tasks),
        "keys": {key: value for key, value in keys.items() if key != "cache_dir"},
    }
    finished: dict[str, dict[int, Finished]] = {}
    page = options.output
    # Seed by seed, so that a command that is stopped early leaves complete comparisons.
    for seed in options.seeds:
        for variant in (variant for variant in VARIANTS if variant.name in options.variants):
            run = train_variant(variant, seed, datalist, work, keys)
            evaluation = evaluate_run(run, options.resamples)
            tasks = run_tasks(run, for_tasks, seed, options.resamples, ONLY_TASKS.get(variant.name, tuple(TASKS)))
            observes = variant.overlays == OVERLAY
            queries = int(variant.keys.get("pathology_queries", QUERIES))
            tests = verdicts(observed_run(run, datalist), queries) if observes else None
            if options.real is not None and variant.name == REFERENCE and seed == options.seeds[0]:
                look_at_tumours(Observer(run), options.real, options.output)
            finished.setdefault(variant.name, {})[seed] = Finished(variant.title, evaluation, tasks, tests)
            results = place_results(finished, settings, options.resamples)
            page = write_results_and_page(
                options.output, results, shown_command(sys.argv, {**SHOWN_FOLDERS, "--real": "REAL"})
            )
    return page


def captions_from_reports(datalist: Path, folder: Path) -> Path:
    """The datalist with the captions that the report reader gives, as scans of a user have them.

    Those of synthetic scans come from the generator, which knows what the report leaves out.
    """
    content = json.loads(datalist.read_text(encoding="utf-8"))
    for split in SPLITS:
        content[split] = [with_absolute_paths(study, datalist.parent) for study in content[split]]
        for study in content[split]:
            report = study.get("report") or {}
            captions = read_report(report.get("findings") or "", report.get("impression") or "").captions
            study["captions"] = {name: asdict(caption) for name, caption in captions.items()}
    write_text(folder / "datalist.json", json.dumps(content))
    return folder / "datalist.json"


def main() -> None:
    parser = experiment_parser(__doc__, "place", seeds=(0, 1, 2))
    names = [variant.name for variant in VARIANTS]
    parser.add_argument("--variants", nargs="+", choices=names, default=names, help="variants to run (default: all)")
    parser.add_argument("--real", type=Path, help="folder of real scans with tumours, see real_tumours.py")
    add_split_counts(parser, "--task_scans", "for the downstream tasks (default: all); keep the whole test split")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    print(run_or_exit(experiment, options))


if __name__ == "__main__":
    main()
