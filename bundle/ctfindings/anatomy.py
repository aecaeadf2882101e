"""The anatomy table: the regions a caption, a finding and an embedding row belong to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Anatomy:
    """One region of the chest.

    Attributes:
        name: the region as it is written in captions and records.
        mask_id: its value in the integer anatomy mask ``[1, X, Y, Z]``; 0 is outside the body.
        members: the mask values that make up the region; a region may contain others (thorax is the whole body).
        totalsegmentator: class ids of the TotalSegmentator v2 ``total`` task that belong to ``mask_id``.
        totalsegmentator_v1: the same in version 1, whose 104 classes MONAI's ``wholeBody_ct_segmentation`` bundle has.
    """

    name: str
    mask_id: int
    members: tuple[int, ...]
    totalsegmentator: tuple[int, ...]
    totalsegmentator_v1: tuple[int, ...]


ANATOMIES: tuple[Anatomy, ...] = (
    Anatomy("lung", 1, (1,), (10, 11, 12, 13, 14), (13, 14, 15, 16, 17)),
    Anatomy("heart", 2, (2,), (51, 61), (44, 45, 46, 47, 48)),
    Anatomy("esophagus", 3, (3,), (15,), (42,)),
    Anatomy("aorta", 4, (4,), (52,), (7,)),
    Anatomy("mediastinum", 5, (2, 3, 4, 5), (16, 53, 54, 55, 56, 57, 58, 59, 60, 62), (43, 49)),
    Anatomy("thorax", 6, (1, 2, 3, 4, 5, 6), (), ()),
)
"""Row order of every ``[B, K, E]`` anatomy tensor. Masks are read through ``members``: mask value 6 is the rest of the
body, and ``thorax`` is the body as a whole, so the scan-level embedding is a row like any other."""

ANATOMY_NAMES: tuple[str, ...] = tuple(anatomy.name for anatomy in ANATOMIES)
THORAX: int = ANATOMY_NAMES.index("thorax")


def anatomy_index(name: str) -> int:
    """Row of an anatomy by name.

    Raises:
        ValueError: when the name is not in the table.
    """
    if name not in ANATOMY_NAMES:
        raise ValueError(f"anatomy {name!r} is unknown; known are {', '.join(ANATOMY_NAMES)}")
    return ANATOMY_NAMES.index(name)
