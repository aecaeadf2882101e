"""Writes the page of finished runs again, and measures what needs no training: counterfactuals and further tests.

    python experiments/place/measure_again.py --runs runs/experiments/place --seeds 0 --variants place initial

For runs of an earlier commit, whose settings ``run.py`` refuses. The counterfactuals replace those of the runs, because
the findings that are drawn after the removed one used to be drawn anew; a variant without new ones gets none. What was
measured is kept in ``--work``.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bundle.ctfindings.cli.error_lines import run_or_exit
from bundle.ctfindings.data.datalist import load_datalist
from bundle.ctfindings.files.atomic_write import write_text
from experiments.harness.page import write_results
from experiments.harness.runs import Run, split_sizes
from experiments.harness.shown_command import shown_command
from experiments.place.further_tests import correlation_test, lesion_size_test, read_split, shuffled_words_test
from experiments.place.observer import OBSERVED_FILE, Counterfactual, Observer, counterfactual_scans
from experiments.place.page import FURTHER_TESTS, write_place_page, write_results_and_page
from experiments.place.results import REFERENCE, Finished, place_results
from experiments.place.run import QUERIES, VARIANTS
from experiments.place.validity import verdicts

SHOWN = {"--runs": "RUNS", "--work": None, "--cache": None, "--output": None}
"""How the page shows the options that name folders."""


def measure(options: argparse.Namespace) -> Path:
    """Measures what is missing in the work folder, and writes results and page; settings are those of the old results.

    Raises:
        ValueError: A run is missing.
    """
    datalist = options.runs / "reports_alone" / "datalist.json"
    variants = [variant for variant in VARIANTS if variant.name in options.variants]
    rendered: list[Counterfactual] = []
    finished: dict[str, dict[int, Finished]] = {}
    for variant in variants:
        for seed in options.seeds:
            folder = options.runs / f"{variant.name}_seed{seed}"
            if not (folder / OBSERVED_FILE).is_file():
                raise ValueError(f"{folder}: expected a finished run; leave the variant out of --variants")
            observed = json.loads((folder / OBSERVED_FILE).read_text(encoding="utf-8"))
            kept = options.work / f"{folder.name}.json"
            if variant.name in options.counterfactuals and not kept.is_file():
                rendered = rendered or counterfactual_scans(datalist)
                ranks = Observer(_run(folder, variant.trained, options.cache)).counterfactuals(rendered)
                write_text(kept, json.dumps(ranks))
            again = kept.is_file()
            observed["counterfactual_ranks"] = json.loads(kept.read_text(encoding="utf-8")) if again else []
            tests = verdicts(observed, int(variant.keys.get("pathology_queries", QUERIES)))
            finished.setdefault(variant.name, {})[seed] = Finished(
                variant.title, folder / "evaluation", folder / "tasks", tests
            )
    before = json.loads((options.output / "results.json").read_text(encoding="utf-8"))
    results = place_results(finished, before["settings"], options.resamples) | {"code": before["code"]}
    page = write_results_and_page(options.output, results, before["command"])
    if options.further:
        reference = _run(options.runs / f"{REFERENCE}_seed{options.seeds[0]}", True, options.cache)
        found = _further_tests(Observer(reference), datalist, options.resamples)
        found["command"] = shown_command(
            sys.argv, {"--runs": "RUNS", "--work": None, "--cache": None, "--command": None}
        )
        write_results(options.output, found, FURTHER_TESTS)
        page = write_place_page(options.output)
    return page


def _further_tests(observer: Observer, datalist: Path, resamples: int) -> dict[str, Any]:
    validation, test = (read_split(observer, load_datalist(datalist, split)) for split in ("validation", "test"))
    return {
        "studies": split_sizes(datalist),
        "words in random order": shuffled_words_test(observer, test),
        "correlations against their controls": correlation_test(validation.pairs, test.pairs, resamples),
        "gap of the correlations by size of the lesions": lesion_size_test(test.lesion_losses, test.lesion_ml),
    }


def _run(folder: Path, trained: bool, cache: Path) -> Run:
    """A finished run with the configs of this checkout."""
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    configs = [str(ROOT / "configs" / name) for name in ("train.json", *settings["overlays"])]
    keys = {**settings["keys"], "seed": settings["seed"], "bundle_root": str(ROOT), "cache_dir": str(cache.resolve())}
    return Run(folder, configs, keys, folder / ("last.pt" if trained else "initial.pt"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [variant.name for variant in VARIANTS]
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs of run.py")
    parser.add_argument("--variants", nargs="+", choices=names, default=names, help="finished variants (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="finished seeds (default %(default)s)")
    parser.add_argument(
        "--counterfactuals", nargs="*", default=[REFERENCE], help="variants to measure them on (default %(default)s)"
    )
    parser.add_argument("--further", action="store_true", help="run the further tests of the reference too")
    parser.add_argument("--resamples", type=int, default=1000, help="bootstrap resamples (default %(default)s)")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "experiments" / "place", help="the page")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "place_again", help="what was measured")
    parser.add_argument("--cache", type=Path, default=ROOT / "cache", help="preprocessed scans (default %(default)s)")
    print(run_or_exit(measure, parser.parse_args()))


if __name__ == "__main__":
    main()
