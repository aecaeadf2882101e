"""Converts a DICOM archive and a table of reports to de-identified scans, a datalist and a data card.

    python scripts/prepare_dicom.py /path/to/archive --output data/pacs
    python scripts/prepare_dicom.py /path/to/archive --reports reports.csv --output data/pacs \\
        --columns id=AccessionNo findings=Findings impression=Conclusion --join accession

The archive may contain folders and zips in any layout. Of each study, the axial CT series that covers the chest best
becomes one NIfTI file; localizers, derived series and other objects are ignored, gaps and tilt are detected. Studies
and patients get salted hashes as names; no name, number or date of the headers is written unless you ask for a table of
them with --key. Report texts are copied unchanged. The archive is not changed. Splits are patient-disjoint. If a run
was stopped, the same command resumes it. docs/train_on_your_data.md continues with training.
"""

import argparse
from pathlib import Path

from bundle.ctfindings.cli.error_lines import run_or_exit
from bundle.ctfindings.sources.dicom.source import REPORT_FIELDS, ArchiveOptions, read_source
from bundle.ctfindings.sources.preparation.command_line import (
    add_shared_options,
    add_table_options,
    given_columns,
    run_source,
    table_settings,
)
from bundle.ctfindings.sources.preparation.source import Source


def read(options: argparse.Namespace) -> Source:
    """The archive as the options describe it."""
    chosen = ArchiveOptions(options.reports, given_columns(options), options.join, options.salt, options.key)
    return read_source(options.archive, chosen, options.output, options.workers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, metavar="ARCHIVE", help="folder with DICOM files and zips")
    parser.add_argument(
        "--reports", type=Path, metavar="CSV", help="one row per study: its number, report, labels and split"
    )
    add_table_options(parser, REPORT_FIELDS)
    parser.add_argument(
        "--join",
        choices=("accession", "study", "patient", "folder"),
        help="what the id of the table is; folder: name of the folder or zip (default: any of them except patient)",
    )
    parser.add_argument(
        "--salt", type=Path, metavar="FILE", help="secret of the hashes (default: salt.txt in the output)"
    )
    parser.add_argument(
        "--key", type=Path, metavar="CSV", help="write a table that assigns the hashes to studies; keep it safe"
    )
    add_shared_options(parser)
    run_or_exit(run_source, read, table_settings, parser.parse_args())


if __name__ == "__main__":
    main()
