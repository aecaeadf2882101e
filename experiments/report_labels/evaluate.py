"""Compares the labels that the rules extract from reports with manual labels.

    python experiments/report_labels/evaluate.py ../shared/data/reports/manual_labels_18.csv --output results.json

The table has an id, the report text and the 18 findings as 0 or 1. Rows are split into two halves by the SHA-256 of the
id: the rules were developed on one half ("developed on") only. F1, precision and recall count label 1 as positive and
all else as negative. The JSON contains aggregate numbers only, no texts or ids.
"""

import argparse
import hashlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np
from sklearn.metrics import precision_recall_fscore_support

from bundle.ctfindings import __version__
from bundle.ctfindings.cli.error_lines import run_or_exit
from bundle.ctfindings.files.csv_table import TableError, read_table
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.reports.report_table import read_reports
from bundle.ctfindings.reports.snippets.snippet_table import choose_columns
from experiments.harness.page import write_results

PARTS = ("developed on", "held aside")
RESAMPLES, SEED = 1000, 42


def part_of(identity: str) -> str:
    """The half a report belongs to."""
    return PARTS[hashlib.sha256(identity.encode()).digest()[-1] % 2]


def scores(truth: np.ndarray, found: np.ndarray) -> dict:
    """F1, precision and recall of each finding, and the macro F1 with its 95 % bootstrap interval over reports.

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
    """Reads the table, and prints and writes the numbers of both halves and of all rows."""
    table = read_table(options.input)
    id_column, text_columns = choose_columns(table, options.id_column, None)
    for name in FINDING_NAMES:
        table.column(name, "a manual label")
        wrong = next((row for row in table.rows if row.values[name] not in ("0", "1")), None)
        if wrong is not None:
            raise TableError(
                table.path, f"line {wrong.line}: expected 0 or 1 in column {name}, found {wrong.values[name]!r}"
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
        content = {"version": __version__, "table": options.input.name, **result}
        write_results(options.output.parent, content, options.output.name)
        print(options.output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path, metavar="MANUAL.csv", help="table of reports with manual labels")
    parser.add_argument("--id-column", metavar="COLUMN", help="column that names the report (default: usual names)")
    parser.add_argument("--output", type=Path, metavar="JSON", help="write the numbers to this file")
    run_or_exit(evaluate, parser.parse_args())


if __name__ == "__main__":
    main()
