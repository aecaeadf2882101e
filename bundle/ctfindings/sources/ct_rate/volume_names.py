"""Names of CT-RATE volumes: patient, examination and reconstruction; and lists of names to skip."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

SUFFIX = ".nii.gz"
FIXED = "_fixed"
"""Suffix of the folders of version 2, whose volumes are in HU and have their true geometry."""

_NAME = re.compile(r"(?P<split>train|valid)_(?P<patient>\d+)(?:_(?P<examination>[a-z]+)(?:_(?P<reconstruction>\d+))?)?")

KNOWN_BROKEN: Mapping[str, str] = {
    name: "known to be broken"
    for name in ("train_1267_a_4", "train_11755_a_2", "train_11755_a_3", "train_11755_a_4", "train_9792_a")
}
"""Volumes and examinations that other users of CT-RATE leave out."""


class VolumeName(NamedTuple):
    """The parts of a name such as ``valid_53_a_1``.

    The patient is ``valid_53``, because numbers start again in each split. Reports belong to the examination
    ``valid_53_a``. The reconstruction is the number of the volume within its examination.
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
    """A name from a table or list, without folders and suffix."""
    return text.strip().strip("\"'").replace("\\", "/").rsplit("/", 1)[-1].removesuffix(SUFFIX)


def volume_name(text: str) -> VolumeName | None:
    """The parts of the name of a volume; None for any other text."""
    found = _NAME.fullmatch(bare_name(text))
    if not found or found["reconstruction"] is None:
        return None
    patient = f"{found['split']}_{found['patient']}"
    return VolumeName(found["split"], patient, f"{patient}_{found['examination']}", int(found["reconstruction"]))


def examination_of(text: str) -> str:
    """The examination of the name of a volume or examination; empty for any other text."""
    found = _NAME.fullmatch(bare_name(text))
    return f"{found['split']}_{found['patient']}_{found['examination']}" if found and found["examination"] else ""


def read_skip_list(path: Path) -> dict[str, str]:
    """The volumes, examinations and patients to skip, with the reason. Each line starts with a name.

    Empty lines, lines that start with # and a header are ignored. ValueError if the file is missing or not text, or a
    line does not start with a name of CT-RATE.
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
            expected = "expected a name such as train_1_a_1, train_1_a or train_1"
            raise ValueError(f"{path}: line {number}: {expected}, got {first!r}; correct the list")
    return skipped


def skip_reason(name: VolumeName, skipped: Mapping[str, str]) -> str:
    """Why a volume is skipped; empty if it is not."""
    return next((skipped[each] for each in (name.volume, name.examination, name.patient) if each in skipped), "")
