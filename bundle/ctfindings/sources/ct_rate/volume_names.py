"""Names in CT-RATE: patient, examination, reconstruction; and lists of such names that are to be skipped."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

SUFFIX = ".nii.gz"
FIXED = "_fixed"
"""What the folders of version 2 end with, whose volumes the publisher has brought to HU and to their true geometry."""

_NAME = re.compile(r"(?P<split>train|valid)_(?P<patient>\d+)(?:_(?P<examination>[a-z]+)(?:_(?P<reconstruction>\d+))?)?")

KNOWN_BROKEN: Mapping[str, str] = {
    name: "known to be broken"
    for name in ("train_1267_a_4", "train_11755_a_2", "train_11755_a_3", "train_11755_a_4", "train_9792_a")
}
"""Volumes and examinations that the users before us had to leave out."""


class VolumeName(NamedTuple):
    """One volume, such as ``valid_53_a_1``.

    Attributes:
        split: train or valid, as folders and volumes say. The tables of reports and of metadata are called validation.
        patient: with the split in front, such as ``valid_53``: numbers start again in each split.
        examination: that a report belongs to, such as ``valid_53_a``.
        reconstruction: number of the volume among those of one examination.
    """

    split: str
    patient: str
    examination: str
    reconstruction: int

    @property
    def volume(self) -> str:
        """The whole name, without a suffix."""
        return f"{self.examination}_{self.reconstruction}"


def bare_name(text: str) -> str:
    """A name in a table or a list without folders and suffix."""
    return text.strip().strip("\"'").replace("\\", "/").rsplit("/", 1)[-1].removesuffix(SUFFIX)


def volume_name(text: str) -> VolumeName | None:
    """The parts of the name of a volume; None when it is none."""
    found = _NAME.fullmatch(bare_name(text))
    if not found or found["reconstruction"] is None:
        return None
    patient = f"{found['split']}_{found['patient']}"
    return VolumeName(found["split"], patient, f"{patient}_{found['examination']}", int(found["reconstruction"]))


def examination_of(text: str) -> str:
    """The examination that a volume or an examination belongs to; empty when it is neither."""
    found = _NAME.fullmatch(bare_name(text))
    return f"{found['split']}_{found['patient']}_{found['examination']}" if found and found["examination"] else ""


def read_skip_list(path: Path) -> dict[str, str]:
    """Names of volumes, examinations or patients, one in each line, first in the line; and why they are skipped.

    Lines that are empty or start with # are passed over, and so is a header.

    Raises:
        ValueError: when the file is missing, no text, or a line names nothing of CT-RATE.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as a list of names ({error}); check the path") from error
    skipped: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        first = re.split(r"[\s,;]", line.strip())[0]
        if not first or first.startswith("#"):
            continue
        name = bare_name(first)
        if _NAME.fullmatch(name):
            skipped[name] = f"on the list {path.name}"
        elif number > 1:
            raise ValueError(
                f"{path}: line {number}: {first!r} is no name such as train_1_a_1, train_1_a or train_1; correct the list"
            )
    return skipped


def skip_reason(name: VolumeName, skipped: Mapping[str, str]) -> str:
    """Why a volume is skipped; empty when it is not."""
    return next((skipped[each] for each in (name.volume, name.examination, name.patient) if each in skipped), "")
