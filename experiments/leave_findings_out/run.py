"""Is it zero-shot? Trains models that know nothing of three findings each, and scores these findings by their prompts.

    python scripts/make_synthetic_scans.py --output data/held_out --training 400 --validation 60 --test 300 --seed 3000
    python experiments/leave_findings_out/run.py --datalist data/held_out --epochs 6

Six folds of three findings. ``--regimes unseen`` removes their labels, masks, prompts, synonyms and sentences from the
training; ``unlabelled`` keeps the sentences of the reports, as in CT-CLIP, fVLM and CA-GCL. ``--preset`` takes any file
of configs/objectives. The command resumes: finished runs are not repeated, and the page has what is finished.
"""

import argparse
import logging
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bundle.ctfindings.cli.error_lines import run_or_exit
from experiments.harness.command_line import SHOWN_FOLDERS, experiment_parser, training_keys, work_folder
from experiments.harness.runs import Variant, reduced_datalist, split_sizes
from experiments.harness.shown_command import shown_command
from experiments.leave_findings_out.held_out import FOLDS, REGIMES, withhold
from experiments.leave_findings_out.results import write_results_and_page
from experiments.leave_findings_out.scores import scored_run


def main() -> None:
    parser = experiment_parser(__doc__, "leave_findings_out", seeds=(0,))
    parser.add_argument("--regimes", nargs="+", choices=list(REGIMES), default=["unseen"], help="what is left out")
    parser.add_argument("--folds", type=int, nargs="+", default=list(range(len(FOLDS))), help="folds (default: all)")
    parser.add_argument("--preset", help="file of configs/objectives, such as place.json (default: train.json alone)")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    print(run_or_exit(experiment, options))


def experiment(options: argparse.Namespace) -> Path:
    """Runs what is missing, writes the results after each run, and returns the page.

    Raises:
        ValueError: A run failed, the datalist has too few scans, or there is no fold of a number.
    """
    if wrong := [fold for fold in options.folds if fold not in range(len(FOLDS))]:
        raise ValueError(f"--folds: expected numbers from 0 to {len(FOLDS) - 1}, got {wrong[0]}")
    work = work_folder(options)
    datalist = reduced_datalist(options.datalist, options.scans, work)
    keys = training_keys(options)
    overlays = (f"objectives/{options.preset}",) if options.preset else ()
    command = shown_command(sys.argv, SHOWN_FOLDERS)
    settings = {
        "studies": split_sizes(datalist),
        "keys": {key: value for key, value in keys.items() if key != "cache_dir"},
        "preset": options.preset,
        "resamples": options.resamples,
    }
    runs = [("supervised", None), *((regime, fold) for regime in options.regimes for fold in options.folds)]
    finished = []
    page = options.output
    for seed in options.seeds:
        for regime, fold in runs:
            if fold is None:
                trained_on, variant = datalist, Variant("supervised", "all findings taught", overlays)
            else:
                name = f"{regime}_{fold}"
                trained_on = withhold(datalist, FOLDS[fold], regime, work / f"{name}.json")
                excluded = {"prompt_agreement_excludes": list(FOLDS[fold])}
                variant = Variant(name, REGIMES[regime], overlays, excluded)
            scores = scored_run(variant, seed, trained_on, datalist, work, keys)
            finished.append({"regime": regime, "fold": fold, "seed": seed, "scores": scores})
            page = write_results_and_page(options.output, finished, command, settings, options.resamples)
    return page


if __name__ == "__main__":
    main()
