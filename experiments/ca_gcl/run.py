"""Compares CA-GCL with fVLM, with an ablation: trains and evaluates each variant, and writes results and a page.

    python scripts/make_synthetic_scans.py --output data/synthetic_large --training 1400 --validation 250 --test 350
    python experiments/ca_gcl/run.py --datalist data/synthetic_large --epochs 8 --seeds 0 1 2
    python experiments/ca_gcl/run.py --datalist data/synthetic_large --epochs 12 --seeds 0 1 2 --locked_image
    models/model.pt

With ``--locked_image`` the image tower has the given weights and is not trained: scans are encoded once, and a run
takes minutes.

The command resumes: finished runs are not repeated. All variants train for the same number of steps, and the last epoch
is scored. See docs/diagnostics.md.
"""

import argparse
import logging
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bundle.ctfindings.cli.error_lines import run_or_exit
from experiments.ca_gcl.comparison import CA_GCL_VARIANTS, compare_variants
from experiments.harness.command_line import SHOWN_FOLDERS, experiment_parser, work_folder
from experiments.harness.locked_image_runs import LockedRuns
from experiments.harness.runs import (
    Variant,
    reduced_datalist,
    run_variant,
    split_sizes,
)
from experiments.harness.shown_command import shown_command


def main() -> None:
    names = [variant.name for variant in CA_GCL_VARIANTS]
    parser = experiment_parser(__doc__, "ca_gcl_synthetic", seeds=(0, 1, 2))
    parser.add_argument("--variants", nargs="+", choices=names, default=names, help="variants to run (default: all)")
    parser.add_argument("--locked_image", type=Path, help="weights of a locked image tower, such as models/model.pt")
    parser.add_argument(
        "--title", default="CA-GCL against fVLM on synthetic scans and reports", help="title of the page"
    )
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    print(run_or_exit(experiment, options))


def experiment(options: argparse.Namespace) -> Path:
    """Runs the experiment and returns its page."""
    work = work_folder(options)
    datalist = reduced_datalist(options.datalist, options.scans, work)
    keys = {"epochs": options.epochs, **dict(options.set)}
    run: Callable[[Variant, int], Path]
    image_weights = None
    if options.locked_image is None:
        run = partial(
            run_variant,
            datalist=datalist,
            folder=work,
            keys={**keys, "cache_dir": str(options.cache.resolve())},
            evaluation_overlays=[Path(__file__).with_name("evaluate.json")],
        )
    else:
        run = LockedRuns(options.locked_image, datalist, work, keys)
        image_weights = run.image_weights
    return compare_variants(
        [variant for variant in CA_GCL_VARIANTS if variant.name in options.variants],
        options.seeds,
        run,
        options.output,
        options.title,
        shown_command(sys.argv, SHOWN_FOLDERS),
        {"studies": split_sizes(datalist), "keys": keys, "locked_image": image_weights},
        options.resamples,
    )


if __name__ == "__main__":
    main()
