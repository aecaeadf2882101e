"""The anatomy table: the regions a caption, a finding and an embedding row belong to."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Anatomy:
    """One region of the chest.

    Attributes:
        name: the region as it is written in captions and records.
        code: its code value, scheme and meaning in DICOM.
        mask_id: its value in the integer anatomy mask ``[1, X, Y, Z]``; 0 is outside the body.
        members: the mask values that make up the region; a region may contain others (thorax is the whole body).
        totalsegmentator: class ids of the TotalSegmentator v2 ``total`` task that belong to ``mask_id``.
        totalsegmentator_v1: the same in version 1, whose 104 classes MONAI's ``wholeBody_ct_segmentation`` bundle has.
    """

    name: str
    code: tuple[str, str, str]
    mask_id: int
    members: tuple[int, ...]
    totalsegmentator: tuple[int, ...]
    totalsegmentator_v1: tuple[int, ...]


_TABLE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def _anatomy(entry: dict[str, Any]) -> Anatomy:
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()}
    return Anatomy(**fields)


ANATOMIES: tuple[Anatomy, ...] = tuple(_anatomy(entry) for entry in _TABLE["anatomy"])
"""Row order of every ``[B, K, E]`` anatomy tensor."""

ANATOMY_NAMES: tuple[str, ...] = tuple(anatomy.name for anatomy in ANATOMIES)
THORAX: int = ANATOMY_NAMES.index("thorax")


def anatomy_index(name: str) -> int:
    """Row of an anatomy by name; ``ValueError`` if the table does not have it."""
    if name not in ANATOMY_NAMES:
        raise ValueError(f"anatomy {name!r} is unknown; known are {', '.join(ANATOMY_NAMES)}")
    return ANATOMY_NAMES.index(name)
