"""CA-GCL against fVLM, with the ablation: trains each variant, evaluates it, and writes results, figures and a page.

    python scripts/make_synthetic_scans.py --output data/synthetic_large --training 1400 --validation 250 --test 350
    python scripts/experiment_ca_gcl.py --datalist data/synthetic_large --epochs 8 --seeds 0 1 2

A command that was stopped goes on where it was; runs that are done are not done again. Every variant has the same steps; the last
epoch is scored. Docs: docs/diagnostics.md.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bundle.ctfindings.engines import run_or_exit  # noqa: E402
from bundle.ctfindings.engines.experiments import CA_GCL_VARIANTS, config_setting, run_experiment  # noqa: E402


def main() -> None:
    names = [variant.name for variant in CA_GCL_VARIANTS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datalist", type=Path, required=True, help="datalist, or the folder that holds it")
    parser.add_argument("--scans", type=int, nargs=3, metavar=("TRAINING", "VALIDATION", "TEST"), help="use the first of each split")
    parser.add_argument("--epochs", type=int, default=8, help="of every run (default %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the runs (default %(default)s)")
    parser.add_argument("--variants", nargs="+", choices=names, default=names, help="default: all")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "experiments" / "ca_gcl_synthetic", help="page and results")
    parser.add_argument("--work", type=Path, help="runs (default: runs/experiments/<name of output>)")
    parser.add_argument("--cache", type=Path, default=ROOT / "cache", help="preprocessed scans (default %(default)s)")
    parser.add_argument("--resamples", type=int, default=1000, help="of the bootstrap (default %(default)s)")
    parser.add_argument("--set", type=config_setting, nargs="+", default=[], metavar="KEY=VALUE", help="config keys for all runs")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    page = run_or_exit(
        lambda: run_experiment(
            [variant for variant in CA_GCL_VARIANTS if variant.name in options.variants],
            options.seeds,
            options.datalist,
            options.output,
            options.work or ROOT / "runs" / "experiments" / options.output.name,
            {"epochs": options.epochs, "cache_dir": str(options.cache.resolve()), **dict(options.set)},
            title="CA-GCL against fVLM on synthetic scans and reports",
            scans=options.scans,
            resamples=options.resamples,
        )
    )
    print(page)


if __name__ == "__main__":
    main()
