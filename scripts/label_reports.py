"""Reads reports of chest CT: the 18 labels of CT-RATE and a caption for each anatomy, by rules, without a language
model.

    python scripts/label_reports.py reports.csv labels.csv
    python scripts/label_reports.py reports.csv labels.csv --text-columns Findings_EN,Impressions_EN --id-column
    VolumeName

Writes one row for each report: its id, the 18 findings in CT-RATE's order (1 stated, 0 denied, -1 not mentioned or
uncertain), and for each anatomy its caption and whether that is normal. Prints how often each label was given and the
sentences that belong to no anatomy, without ids; ``--show 0`` prints no sentence. Research only: labels from text, not
a diagnosis. docs/report_labels.md has the figures and limits.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tqdm import tqdm  # noqa: E402

from bundle.ctfindings.anatomy import ANATOMY_NAMES  # noqa: E402
from bundle.ctfindings.cli.error_lines import run_or_exit  # noqa: E402
from bundle.ctfindings.files.atomic_write import atomic_path  # noqa: E402
from bundle.ctfindings.files.csv_table import read_table  # noqa: E402
from bundle.ctfindings.findings import FINDING_NAMES  # noqa: E402
from bundle.ctfindings.reports.report_table import ReportCounts, output_columns, output_row, read_reports  # noqa: E402
from bundle.ctfindings.reports.snippets.snippet_table import choose_columns  # noqa: E402


def label(options: argparse.Namespace) -> None:
    """Reads the table, writes the labels and prints the counts."""
    if options.output.exists():
        raise SystemExit(f"error: {options.output}: exists already; remove it or name another file")
    started = time.perf_counter()
    table = read_table(options.input)
    named = [name for group in options.text_columns or () for name in group.split(",") if name]
    id_column, text_columns = choose_columns(table, options.id_column, named)
    counts = ReportCounts()
    reports = read_reports(table, text_columns, options.processes, options.uncertain)
    with atomic_path(options.output) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(output_columns(id_column))
        for row, report in zip(
            table.rows, tqdm(reports, desc="reports", total=len(table.rows), unit="", disable=None), strict=True
        ):
            counts.add(report)
            writer.writerow(output_row(row.values[id_column], report))
    seconds = time.perf_counter() - started
    print(f"{options.input}: id {id_column}; text {', '.join(text_columns)}")
    print(f"{counts.reports} reports in {seconds:.1f} s; {counts.empty} of them without text\n")
    print_counts(counts)
    print_unplaced(counts, options.show)
    print(options.output)


def print_counts(counts: ReportCounts) -> None:
    """How often each finding has each label, and how many captions there are."""
    print(f"{'finding':<38}{'stated':>8}{'denied':>8}{'unknown':>9}")
    for name in FINDING_NAMES:
        print(f"{name:<38}{counts.labels[name, 1]:>8}{counts.labels[name, 0]:>8}{counts.labels[name, -1]:>9}")
    print(f"\n{'anatomy':<38}{'abnormal':>8}{'normal':>8}{'none':>9}")
    for name in ANATOMY_NAMES:
        abnormal, normal = counts.captions[name, False], counts.captions[name, True]
        print(f"{name:<38}{abnormal:>8}{normal:>8}{counts.reports - abnormal - normal:>9}")
    print()


def print_unplaced(counts: ReportCounts, show: int) -> None:
    """Sentences that belong to no anatomy, the most frequent first."""
    print(f"{counts.unplaced.total()} sentences name no anatomy; they are in the caption of the thorax only")
    for sentence, number in counts.unplaced.most_common(show):
        print(f"{number:>8}  {sentence[:110]}")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path, metavar="IN.csv", help="table of reports in English")
    parser.add_argument("output", type=Path, metavar="OUT.csv", help="table of labels and captions; must not exist")
    parser.add_argument(
        "--text-columns",
        nargs="+",
        metavar="COLUMN",
        help="columns that hold the report, with commas or blanks between (default: usual names)",
    )
    parser.add_argument("--id-column", metavar="COLUMN", help="column that names the study (default: usual names)")
    parser.add_argument(
        "--uncertain",
        type=int,
        choices=(-1, 0, 1),
        default=-1,
        help="label of a finding stated in doubt only (default %(default)s)",
    )
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, help="processes to use (default: one for each core)"
    )
    parser.add_argument(
        "--show", type=int, default=10, help="sentences without an anatomy to print; 0 for none (default %(default)s)"
    )
    options = parser.parse_args()
    try:
        run_or_exit(label, options)
    except OSError as error:
        raise SystemExit(
            f"error: {error.filename or options.output}: {error.strerror}; check the path, its rights and the disk"
        ) from None


if __name__ == "__main__":
    main()
