"""Adds to a finished evaluation what its stored answers give without a model: DeLong's intervals, ranks by novelty.

    python experiments/stored_answers/run.py docs/evaluation/shipped

Reads ``diagnostics.npz`` and adds ``auc_interval_delong`` of each finding and ``accuracy`` of each band of paraphrases
to ``metrics.json`` and ``report.html``. Evaluations since this command was written have both.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bundle.ctfindings.cli.error_lines import run_or_exit
from bundle.ctfindings.evaluation.diagnostics import DIAGNOSTICS_FILE, Diagnostics
from bundle.ctfindings.evaluation.evaluation_page import write_evaluation_page
from bundle.ctfindings.evaluation.paraphrases import accuracy_by_band
from bundle.ctfindings.metrics.delong import delong_intervals
from bundle.ctfindings.metrics.json_numbers import interval_numbers
from experiments.harness.page import write_results


def completed(folder: Path) -> dict[str, Any]:
    """The record of an evaluation folder with the numbers that it lacks.

    Raises:
        ValueError: A patient has more than one scan, so DeLong's interval does not hold.
    """
    answers = Diagnostics.load(folder / DIAGNOSTICS_FILE)
    record: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    if len(set(answers.patients.tolist())) < len(answers.patients):
        raise ValueError(f"{folder}: DeLong's interval needs one scan of each patient; use the bootstrap by patient")
    low, high = delong_intervals(answers.calibrated, answers.labels)
    for row, finding in enumerate(record["findings"]):
        finding["auc_interval_delong"] = interval_numbers(low[row], high[row])
    for band, accuracy in accuracy_by_band(record["paraphrases"]).items():
        record["paraphrases"]["bands"][band]["accuracy"] = accuracy
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluation", type=Path, help="folder of an evaluation")
    folder = parser.parse_args().evaluation
    record = run_or_exit(completed, folder)
    write_results(folder, record, "metrics.json")
    write_evaluation_page(folder / "report.html", record)
    print(folder / "metrics.json")


if __name__ == "__main__":
    main()
