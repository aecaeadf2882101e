"""Turns an archive of DICOM and a table of reports into de-identified scans, a datalist with patient-disjoint splits,
and a data card.

    python scripts/prepare_dicom.py /path/to/archive --output data/pacs
    python scripts/prepare_dicom.py /path/to/archive --reports reports.csv --output data/pacs \\
        --columns id=Fallnummer findings=Befund impression=Beurteilung --join accession

The archive may have any layout, and zips. Of each study the longest original axial CT series becomes one NIfTI file in
the output; localizers, derived series and other objects are passed over, gaps and tilt are detected. Studies and
patients are called by salted hashes; no name, number or date of the headers is written anywhere unless --key asks for a
table of them. Texts of reports are copied as they are. The archive is never changed. A run that was stopped goes on
where it was: give the same command again. docs/train_on_your_data.md goes from here to a training run.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bundle.ctfindings.cli.error_lines import run_or_exit
from bundle.ctfindings.sources.dicom.source import Options, read_source
from bundle.ctfindings.sources.preparation.columns import FIELDS
from bundle.ctfindings.sources.preparation.command_line import (
    add_shared_options,
    add_table_options,
    run_source,
    table_settings,
)
from bundle.ctfindings.sources.preparation.make_datalist import Source


def read(options: argparse.Namespace) -> Source:
    """The archive as the options describe it."""
    chosen = Options(options.reports, options.mapping, dict(options.columns), options.join, options.salt, options.key)
    return read_source(options.archive, chosen, options.output, options.workers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, metavar="ARCHIVE", help="folder of DICOM files and zips")
    parser.add_argument(
        "--reports", type=Path, metavar="CSV", help="a row for each study: its number, report, labels, split"
    )
    fields = [name for name in FIELDS if name not in ("image", "patient", "anatomy", "finding_masks")]
    add_table_options(parser, fields)
    parser.add_argument(
        "--join",
        choices=("accession", "study", "patient", "folder"),
        help="what the id of the table is; folder: name of folder or zip (default: any of them but the patient)",
    )
    parser.add_argument(
        "--salt", type=Path, metavar="FILE", help="secret of the hashes (default: salt.txt in the output)"
    )
    parser.add_argument("--key", type=Path, metavar="CSV", help="write which study each hash stands for; keep it safe")
    add_shared_options(parser)
    run_or_exit(run_source, read, table_settings, parser.parse_args())


if __name__ == "__main__":
    main()
