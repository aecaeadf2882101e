"""Reads thousands of mutated files of every kind and counts what became of them.

    python experiments/fuzz/run.py --cases 10000 --output docs/experiments/fuzz

Each case is read in a worker process within 20 seconds. A case passes if the file is read, or refused with one line of
this package that names it. Writes results.json: counts by kind, the slowest case, the peak memory of a worker, and the
kind and seed of each failure, with which ``experiments.fuzz.mutations.outcome`` draws the same file again.
"""

import argparse
import resource
import signal
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bundle.ctfindings import __version__
from bundle.ctfindings.cli.error_lines import run_or_exit
from bundle.ctfindings.files.parallel_map import parallel_map
from experiments.fuzz.mutations import KINDS, Outcome, outcome
from experiments.harness.page import write_results

SECONDS, GIGABYTES = 20, 4.0


def case(task: tuple[str, int]) -> tuple[Outcome, float]:
    """The outcome of one case, and the peak memory of this process in GiB."""

    def too_long(_: int, __: FrameType | None) -> None:
        raise TimeoutError(f"not finished after {SECONDS} s")

    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SECONDS)
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = outcome(*task, Path(folder))
    finally:
        signal.alarm(0)
    return found, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def run(options: argparse.Namespace) -> None:
    """Runs the cases, prints the counts and writes the results."""
    kinds = list(KINDS)
    seeds = range(options.seed, options.seed + -(-options.cases // len(kinds)))
    tasks = {f"{kind}, seed {seed}": (kind, seed) for seed in seeds for kind in kinds}
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
    failures, slowest, memory = [], 0.0, 0.0
    for done in parallel_map(case, tasks, options.workers, progress="cases"):
        kind = tasks[done.key][0]
        if done.problem:
            counts[kind]["failed"] += 1
            failures.append({"case": done.key, "problem": done.problem[:300]})
            continue
        found, peak = done.result
        slowest, memory = max(slowest, found.seconds), max(memory, peak)
        passed = found.result in ("read", "refused")
        counts[kind][found.result if passed else "failed"] += 1
        if not passed:
            failures.append({"case": done.key, "problem": f"{found.result}: {found.detail[:300]}"})
    print(f"{'':<14}{'read':>8}{'refused':>9}{'failed':>8}")
    for kind, of_kind in counts.items():
        print(f"{kind:<14}{of_kind['read']:>8}{of_kind['refused']:>9}{of_kind['failed']:>8}")
    content = {
        "version": __version__,
        "cases": len(tasks),
        "seeds": [seeds.start, seeds.stop - 1],
        "by_kind": {kind: dict(of_kind) for kind, of_kind in counts.items()},
        "slowest_seconds": round(slowest, 2),
        "peak_gigabytes": round(memory, 2),
        "failures": failures,
    }
    if options.output:
        name = f"results_seed{options.seed}.json" if options.seed else "results.json"
        write_results(options.output, content, name)
    if failures or slowest > SECONDS or memory > GIGABYTES:
        raise SystemExit(f"error: {len(failures)} of {len(tasks)} cases failed, the first: {failures[:1]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000, help="number of mutated files (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="first seed (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="number of processes (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="folder for results.json, or results_seedN.json")
    run_or_exit(run, parser.parse_args())


if __name__ == "__main__":
    main()
