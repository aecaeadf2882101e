"""How a datalist is made, and the files of a prepared folder. Quick to import: mistakes are reported at once."""

from pathlib import Path
from typing import NamedTuple

from bundle.ctfindings.sources.preparation.splits import DEFAULT_FRACTIONS

DATALIST, CARD, PAGE, LEDGER, JOURNAL = "datalist.json", "data_card.json", "data_card.html", "ledger.csv", "scans.jsonl"


class DatalistSettings(NamedTuple):
    """How a datalist is made.

    ``fractions`` are the shares of training, validation and test for patients without a split; ``seed`` is for the
    splits and the pseudonyms. ``labels_from_reports`` fills missing labels from the report, with
    ``unmentioned_absent`` also those of findings that it does not mention. ``snippets`` extracts the sentences with a
    slice reference if the scan is DICOM.
    """

    fractions: tuple[float, ...] = DEFAULT_FRACTIONS
    seed: int = 0
    labels_from_reports: bool = False
    snippets: bool = True
    unmentioned_absent: bool = False


def check_is_new(folder: Path) -> None:
    """Raises a ValueError that names the first of the results in a folder, if it contains any."""
    for name in (DATALIST, CARD, PAGE, LEDGER):
        if (folder / name).exists():
            raise ValueError(f"{folder / name}: exists already; choose another --output or remove it")
