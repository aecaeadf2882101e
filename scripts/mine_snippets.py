"""Finds report sentences that refer to a slice, such as "6 mm nodule in the lingula (series 3, image 45)".

    python scripts/mine_snippets.py reports.csv snippets.csv
    python scripts/mine_snippets.py reports.csv snippets.csv --dicom archive --text-columns Findings Conclusion

Writes a row per sentence and slice: id, series, image, snippet, rule, confidence, and with ``--dicom`` the z of the
slice in mm. Prints counts and a random sample for review: sentences with their line in the table, without ids;
``--sample 0`` prints no sentences. docs/snippets.md describes what is found and what is rejected.
"""

import argparse
import random
from pathlib import Path

from bundle.ctfindings.cli.error_lines import run_or_exit
from bundle.ctfindings.files.csv_table import read_table, write_table
from bundle.ctfindings.files.progress import progress_bar
from bundle.ctfindings.reports.snippets.miner import CONFIDENCES
from bundle.ctfindings.reports.snippets.slice_positions import Studies
from bundle.ctfindings.reports.snippets.snippet_table import (
    OUTPUT_COLUMNS,
    REFUSED_COLUMNS,
    Z_COLUMN,
    Counts,
    MinedSnippet,
    RefusedReference,
    choose_columns,
    mine_table,
)


def mine(options: argparse.Namespace) -> None:
    """Mines the table, writes the files and prints counts."""
    for path in (options.output, options.refused):
        if path is not None and path.exists():
            raise_exists(path)
    table = read_table(options.input)
    id_column, text_columns = choose_columns(table, options.id_column, options.text_columns)
    studies = None
    if options.dicom is not None:
        studies = Studies(options.dicom)
        for _ in progress_bar(studies.read(), "DICOM headers", unit=" files"):
            pass
    counts = Counts()
    found: list[MinedSnippet] = []
    refused: list[RefusedReference] = []
    rows = mine_table(table, id_column, text_columns, studies, counts)
    for results in progress_bar(rows, "reports", len(table.rows), unit=""):
        for result in results:
            if isinstance(result, MinedSnippet):
                found.append(result)
            else:
                refused.append(result)
    if options.refused is not None:
        write_table(
            options.refused,
            REFUSED_COLUMNS,
            [(each.id, each.row.line, shown(each.series), each.image, each.reason) for each in refused],
        )
    columns = OUTPUT_COLUMNS if studies is None else (*OUTPUT_COLUMNS, Z_COLUMN)
    write_table(options.output, columns, [output_row(each, studies is not None) for each in found])
    print(f"{options.input}: id {id_column}; text {', '.join(text_columns)}")
    print_counts(counts, len(found))
    if studies is not None and counts.refused["no such study"]:
        where = "folder, zip, AccessionNumber or StudyInstanceUID"
        print(f"'no such study': no {where} in {options.dicom} equals the id of the report.")
    print_sample(found, options.sample)
    print(options.output)


def raise_exists(path: Path) -> None:
    """Ends with an error instead of overwriting a file."""
    raise SystemExit(f"error: {path}: exists already; remove it or choose another file")


def shown(series: int | None) -> int | str:
    """The series as written in the table: empty if unknown."""
    return "" if series is None else series


def output_row(found: MinedSnippet, with_z: bool) -> tuple[object, ...]:
    """A row of the output table."""
    snippet = found.snippet
    row = (found.id, shown(snippet.series), snippet.image, snippet.text, snippet.rule, snippet.confidence)
    return (*row, f"{found.z_mm:.2f}") if with_z else row


def print_counts(counts: Counts, snippets: int) -> None:
    """Prints snippets by rule and confidence, and rejected references by reason."""
    print(f"{snippets} snippets in {counts.with_snippets} of {counts.reports} reports\n")
    print(f"{'rule':<24}" + "".join(f"{confidence:>8}" for confidence in CONFIDENCES))
    for rule in sorted({rule for rule, _ in counts.rules}):
        print(f"{rule:<24}" + "".join(f"{counts.rules[rule, confidence]:>8}" for confidence in CONFIDENCES))
    if counts.refused:
        print("\nrefused")
        for reason, number in counts.refused.most_common():
            print(f"  {reason:<22}{number:>8}")
    print()


def print_sample(found: list[MinedSnippet], size: int) -> None:
    """Prints snippets drawn at random with a fixed seed."""
    drawn = random.Random(0).sample(found, min(size, len(found)))
    for each in sorted(drawn, key=lambda one: one.row.line):
        snippet, place = each.snippet, "" if each.z_mm is None else f", z {each.z_mm:.1f} mm"
        named = "no series" if snippet.series is None else f"series {snippet.series}"
        where = f"line {each.row.line}: {named}, image {snippet.image}{place}"
        print(f"{where} ({snippet.rule}, {snippet.confidence})\n    {snippet.text}")
    if drawn:
        print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path, metavar="IN.csv", help="table of reports")
    parser.add_argument("output", type=Path, metavar="OUT.csv", help="table of snippets; must not exist")
    parser.add_argument(
        "--text-columns",
        nargs="+",
        metavar="COLUMN",
        help="report columns, in reading order (default: usual names)",
    )
    parser.add_argument("--id-column", metavar="COLUMN", help="column that names the study (default: usual names)")
    parser.add_argument(
        "--dicom",
        type=Path,
        metavar="DIR",
        help="folder of DICOM studies: adds z in mm, and rejects slices that do not exist",
    )
    parser.add_argument(
        "--refused", type=Path, metavar="CSV", help="also write rejected references with the reason; must not exist"
    )
    parser.add_argument(
        "--sample",
        type=int,
        default=10,
        help="number of sentences to print for review (default %(default)s)",
    )
    options = parser.parse_args()
    if options.sample < 0:
        parser.error(f"argument --sample: expected 0 or more, got {options.sample}")
    run_or_exit(mine, options)


if __name__ == "__main__":
    main()
