"""Kills training, cache filling, archive run and evaluation at random moments, and compares what the next run writes.

    python experiments/kill_rounds/run.py --rounds 5 --output docs/experiments/kill_rounds

Each round starts a command on a few synthetic scans, ends it twice with SIGKILL at a random moment, and lets the third
start finish. Its numbers must be those of a run that was not stopped, bit for bit. The commands run in forks of a
process that has imported the libraries, so that the moments lie in the work and not in the imports. Writes results.json
and README.md after each command; commands that are not run keep their results.
"""

import argparse
import json
import multiprocessing
import os
import runpy
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import monai.bundle
import numpy as np
import torch
import torch.utils.tensorboard
import transformers

from bundle.ctfindings import __version__
from bundle.ctfindings.cli.error_lines import run_or_exit
from bundle.ctfindings.phantom.dataset import make_dataset
from experiments.harness.page import page_head, write_page, write_results
from experiments.kill_rounds.commands import STAGES, Data, Stage

IMPORTED = (monai, torch, transformers)
KILLS = 2
SCANS = (6, 4, 4)
SHARE = 0.9
"""Moments are drawn from this share of the time that a run takes when it is not stopped."""


def run_command(command: Sequence[str], log: Path, kill_after: float | None = None) -> tuple[bool, float]:
    """Runs ``python COMMAND`` in a fork, and kills it after some seconds.

    Returns:
        Whether it was killed, and the seconds it ran.

    Raises:
        ValueError: it ended with an error.
    """
    process = multiprocessing.get_context("fork").Process(target=_become, args=(list(command), str(log)))
    started = time.monotonic()
    process.start()
    process.join(kill_after)
    killed = process.exitcode is None
    if killed:
        process.kill()
        process.join()
    elif process.exitcode:
        end = log.read_text(encoding="utf-8")[-500:]
        raise ValueError(f"{' '.join(command)}: ended with code {process.exitcode}: {end}")
    return killed, time.monotonic() - started


def _become(command: list[str], log: str) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.chdir(ROOT)
    torch.manual_seed(int.from_bytes(os.urandom(4), "big"))  # As in a fresh process: nothing may depend on it.
    module = command[0] == "-m"
    sys.argv = command[1:] if module else command
    if module:
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(command[0], run_name="__main__")


def kill_round(
    stage: Stage, data: Data, whole: dict[str, str], seconds: float, rng: np.random.Generator
) -> dict[str, Any]:
    """One round: kills, the run that finishes, and the numbers of it that differ from `whole`."""
    with tempfile.TemporaryDirectory() as folder:
        output, log = Path(folder, "output"), Path(folder, "log")
        kills: list[dict[str, Any]] = []
        left = seconds
        while len(kills) < KILLS:
            killed, after = run_command(stage.command(data, output), log, rng.uniform(0, SHARE * left))
            if not killed and kills:  # What was finished before the last kill left less to do than was drawn.
                break
            if not killed:  # The run was faster than the one that was timed.
                shutil.rmtree(output)
                left /= 2
                continue
            left = max(left - after, seconds / 4)
            kills.append({"after_seconds": round(after, 2), "files": _files(output)})
        run_command(stage.command(data, output), log)
        found = stage.numbers(output)
        differing = sorted(key for key in whole.keys() | found.keys() if whole.get(key) != found.get(key))
        partial = [path.relative_to(output).as_posix() for path in output.rglob(".*partial*")]
        return {"kills": kills, "differing": differing, "leftover_files": partial}


def _files(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("[!.]*"))


def prepare(folder: Path, trained: bool) -> Data:
    """Synthetic scans, and if asked for a checkpoint trained on them and the cache of the training."""
    datalist = make_dataset(folder / "scans", *SCANS, seed=0, workers=1)
    data = Data(datalist, folder / "cache", folder / "trained" / "run" / "best.pt")
    if trained:
        run_command(STAGES["training"].command(data, folder / "trained"), folder / "log")
    return data


def run(options: argparse.Namespace) -> None:
    """Runs the rounds and writes the results."""
    known = options.output and options.output / "results.json"
    stages: dict[str, Any] = (
        json.loads(known.read_text(encoding="utf-8"))["stages"] if known and known.is_file() else {}
    )
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        data = prepare(Path(folder), trained="evaluation" in options.stages)
        for name in options.stages:
            stage, output = STAGES[name], Path(folder, "whole")
            _, seconds = run_command(stage.command(data, output), Path(folder, "log"))
            whole = stage.numbers(output)
            shutil.rmtree(output)
            rounds = []
            for number in range(options.rounds):
                rng = np.random.default_rng([options.seed, list(STAGES).index(name), number])
                rounds.append(kill_round(stage, data, whole, seconds, rng))
                print(f"{name}, round {number + 1}: {rounds[-1]}", flush=True)
            stages[name] = {
                "uninterrupted_seconds": round(seconds, 2),
                "numbers_compared": len(whole),
                "may_differ": stage.free,
                "rounds": rounds,
            }
            content = {"version": __version__, "seed": options.seed, "scans": sum(SCANS), "stages": stages}
            if options.output:
                write_results(options.output, content)
                write_page(options.output, page_lines(content))
    wrong = [name for name, stage in stages.items() if any(each["differing"] for each in stage["rounds"])]
    if wrong:
        raise SystemExit(f"error: {', '.join(wrong)}: a resumed run wrote other numbers; see differing in the results")


def page_lines(content: dict[str, Any]) -> list[str]:
    """The Markdown page of the results."""
    command = f"python experiments/kill_rounds/run.py --rounds {len(next(iter(content['stages'].values()))['rounds'])}"
    lines = page_head("Runs that are killed resume with the same numbers", command)
    lines += [
        f"{content['scans']} synthetic scans, a small network, one thread. Each round kills the command up to {KILLS} "
        "times with SIGKILL at random moments; then a run finishes, and its numbers are compared bit for bit with "
        "those of a run that was not stopped. A moment may lie after the end of a run that had little left to do, so "
        "some rounds have fewer kills.",
        "",
        "| command | rounds | kills | numbers compared | rounds with a difference | partial files left | may differ |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for name, stage in content["stages"].items():
        rounds = stage["rounds"]
        kills, left = (sum(len(each[key]) for each in rounds) for key in ("kills", "leftover_files"))
        differing = sum(bool(each["differing"]) for each in rounds)
        counts = f"{len(rounds)} | {kills} | {stage['numbers_compared']:,} | {differing} | {left}"
        lines.append(f"| {name} | {counts} | {stage['may_differ']} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each command (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the moments (default: %(default)s)")
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=list(STAGES), help="default: all")
    parser.add_argument("--output", type=Path, help="folder for results.json and README.md")
    run_or_exit(run, parser.parse_args())


if __name__ == "__main__":
    main()
