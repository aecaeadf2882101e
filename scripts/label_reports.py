"""Extracts the 18 CT-RATE labels and a caption per anatomy from chest CT reports, by rules, without a language model.

    python scripts/label_reports.py reports.csv labels.csv
    python scripts/label_reports.py reports.csv labels.csv --text-columns Findings_EN,Impressions_EN --id-column
    VolumeName

Writes a row per report: its id, the 18 findings in CT-RATE's order (1 stated, 0 denied, -1 not mentioned or uncertain),
and for each anatomy its caption and whether it is normal. Prints the counts of each label and the most frequent
sentences without an anatomy, without ids; ``--show 0`` prints no sentences. Research only: labels from text, not a
diagnosis. docs/report_labels.md has the accuracy and the limits.
"""

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.cli.error_lines import run_or_exit
from bundle.ctfindings.cli.options import at_least
from bundle.ctfindings.files.csv_table import read_table, write_table
from bundle.ctfindings.files.progress import progress_bar
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.reports.report_table import ReportCounts, output_columns, output_row, read_reports
from bundle.ctfindings.reports.snippets.snippet_table import choose_columns


def label(options: argparse.Namespace) -> None:
    """Reads the table, writes the labels and prints counts."""
    if options.output.exists():
        raise SystemExit(f"error: {options.output}: exists already; remove it or choose another file")
    started = time.perf_counter()
    table = read_table(options.input)
    named = [name for group in options.text_columns or () for name in group.split(",") if name]
    id_column, text_columns = choose_columns(table, options.id_column, named)
    counts = ReportCounts()
    reports = read_reports(table, text_columns, options.processes, options.uncertain)

    def rows() -> Iterator[tuple[str | int, ...]]:
        for row, report in zip(table.rows, progress_bar(reports, "reports", len(table.rows), unit=""), strict=True):
            counts.add(report)
            yield output_row(row.values[id_column], report)

    write_table(options.output, output_columns(id_column), rows())
    seconds = time.perf_counter() - started
    print(f"{options.input}: id {id_column}; text {', '.join(text_columns)}")
    print(f"{counts.reports} reports in {seconds:.1f} s; {counts.empty} of them without text\n")
    print_counts(counts)
    print_unplaced(counts, options.show)
    print(options.output)


def print_counts(counts: ReportCounts) -> None:
    """Prints the number of reports by label of each finding, and of captions by anatomy."""
    print(f"{'finding':<38}{'stated':>8}{'denied':>8}{'unknown':>9}")
    for name in FINDING_NAMES:
        print(f"{name:<38}{counts.labels[name, 1]:>8}{counts.labels[name, 0]:>8}{counts.labels[name, -1]:>9}")
    print(f"\n{'anatomy':<38}{'abnormal':>8}{'normal':>8}{'none':>9}")
    for name in ANATOMY_NAMES:
        abnormal, normal = counts.captions[name, False], counts.captions[name, True]
        print(f"{name:<38}{abnormal:>8}{normal:>8}{counts.reports - abnormal - normal:>9}")
    print()


def print_unplaced(counts: ReportCounts, show: int) -> None:
    """Prints sentences without an anatomy, the most frequent first."""
    print(f"{counts.unplaced.total()} sentences name no anatomy; they are part of the caption of the thorax only")
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
        help="report columns, separated by commas or blanks (default: usual names)",
    )
    parser.add_argument("--id-column", metavar="COLUMN", help="column that names the study (default: usual names)")
    parser.add_argument(
        "--uncertain",
        type=int,
        choices=(-1, 0, 1),
        default=-1,
        help="label of an uncertain finding (default %(default)s)",
    )
    parser.add_argument(
        "--processes", type=at_least(1), default=os.cpu_count() or 1, help="number of processes (default: one per core)"
    )
    parser.add_argument(
        "--show",
        type=at_least(0),
        default=10,
        help="number of sentences without an anatomy to print (default %(default)s)",
    )
    options = parser.parse_args()
    run_or_exit(label, options)


if __name__ == "__main__":
    main()
