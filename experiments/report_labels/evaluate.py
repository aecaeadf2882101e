"""Compares the labels that reports give by rules with labels given by hand.

    python experiments/report_labels/evaluate.py ../shared/data/reports/manual_labels_18.csv --output results.json

The table holds an id, the report's text and the 18 findings as 0 or 1. Its rows are split in two halves by the SHA-256
of the id: the rules were written looking at the half "developed on" only. F1, precision and recall count a label of 1
as positive and everything else as negative. The JSON has aggregate figures only: no text and no ids.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from sklearn.metrics import precision_recall_fscore_support  # noqa: E402

from bundle.ctfindings import __version__  # noqa: E402
from bundle.ctfindings.cli.error_lines import run_or_exit  # noqa: E402
from bundle.ctfindings.files.atomic_write import atomic_path  # noqa: E402
from bundle.ctfindings.files.csv_table import TableError, read_table  # noqa: E402
from bundle.ctfindings.findings import FINDING_NAMES  # noqa: E402
from bundle.ctfindings.reports.report_table import read_reports  # noqa: E402
from bundle.ctfindings.reports.snippets.snippet_table import choose_columns  # noqa: E402

PARTS = ("developed on", "held aside")
RESAMPLES, SEED = 1000, 42


def part_of(identity: str) -> str:
    """The half a report belongs to."""
    return PARTS[hashlib.sha256(identity.encode()).digest()[-1] % 2]


def scores(truth: np.ndarray, found: np.ndarray) -> dict:
    """F1, precision and recall of each finding and over all, with the 95 % interval of the macro F1 (bootstrap over
    reports).

    Args:
        truth: manual labels, (N, 18) of 0 and 1.
        found: labels by rules, (N, 18) of -1, 0 and 1.
    """
    positive = (found == 1).astype(int)
    precision, recall, f1, support = precision_recall_fscore_support(truth, positive, zero_division=0)
    rng = np.random.default_rng(SEED)
    weights = rng.multinomial(len(truth), np.full(len(truth), 1 / len(truth)), size=RESAMPLES)
    hits, either = weights @ (truth * positive), weights @ (truth + positive)
    macros = np.divide(2 * hits, either, out=np.zeros(hits.shape), where=either > 0).mean(axis=1)
    low, high = np.percentile(macros, [2.5, 97.5])
    return {
        "reports": len(truth),
        "macro_f1": round(float(f1.mean()), 4),
        "macro_f1_interval": [round(float(low), 4), round(float(high), 4)],
        "lowest_f1": round(float(f1.min()), 4),
        "findings": {
            name: {
                "positives": int(support[i]),
                "f1": round(float(f1[i]), 4),
                "precision": round(float(precision[i]), 4),
                "recall": round(float(recall[i]), 4),
                "unknown": int((found[:, i] == -1).sum()),
                "denied_but_positive": int(((found[:, i] == 0) & (truth[:, i] == 1)).sum()),
            }
            for i, name in enumerate(FINDING_NAMES)
        },
    }


def evaluate(options: argparse.Namespace) -> None:
    """Reads the table, prints the figures of both halves and of all, and writes them."""
    table = read_table(options.input)
    id_column, text_columns = choose_columns(table, options.id_column, None)
    for name in FINDING_NAMES:
        table.column(name, "a manual label")
        wrong = next((row for row in table.rows if row.values[name] not in ("0", "1")), None)
        if wrong is not None:
            raise TableError(
                table.path, f"line {wrong.line}: {name} is {wrong.values[name]!r}; a manual label is 0 or 1"
            )
    truth = np.array([[int(row.values[name]) for name in FINDING_NAMES] for row in table.rows])
    found = np.array([report.labels for report in read_reports(table, text_columns)])
    parts = np.array([part_of(row.values[id_column]) for row in table.rows])
    result = {part: scores(truth[parts == part], found[parts == part]) for part in PARTS if (parts == part).any()}
    result["all"] = scores(truth, found)
    print(f"{'F1':<38}" + "".join(f"{part:>14}" for part in result))
    for name in FINDING_NAMES:
        print(f"{name:<38}" + "".join(f"{result[part]['findings'][name]['f1']:>14.3f}" for part in result))
    for key in ("macro_f1", "lowest_f1", "reports"):
        print(f"{key:<38}" + "".join(f"{result[part][key]:>14.6g}" for part in result))
    if options.output:
        with atomic_path(options.output) as temporary:
            temporary.write_text(
                json.dumps({"version": __version__, "table": options.input.name, **result}, indent=2) + "\n",
                encoding="utf-8",
            )
        print(options.output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path, metavar="MANUAL.csv", help="table of reports with manual labels")
    parser.add_argument("--id-column", metavar="COLUMN", help="column that names the report (default: usual names)")
    parser.add_argument("--output", type=Path, metavar="JSON", help="also write the figures")
    run_or_exit(evaluate, parser.parse_args())


if __name__ == "__main__":
    main()
