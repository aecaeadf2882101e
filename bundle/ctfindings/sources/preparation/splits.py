"""Patient-disjoint splits: drawn from the patient alone, or taken from the table and checked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from bundle.ctfindings.data.datalist import SPLITS

DEFAULT_FRACTIONS = (0.8, 0.1, 0.1)


def check_fractions(fractions: Sequence[float]) -> None:
    """Refuses fractions that are no parts of one.

    Raises:
        ValueError: when they are not three numbers from 0 to 1 that add up to 1.
    """
    if len(fractions) != len(SPLITS) or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        shown = ", ".join(f"{share:g}" for share in fractions)
        raise ValueError(f"split fractions {shown} do not add up to 1; give three, for example 0.8 0.1 0.1")


def draw_split(patient: str, fractions: Sequence[float] = DEFAULT_FRACTIONS, seed: int = 0) -> str:
    """The split of a patient: a function of the patient and the seed alone, so that later patients never move earlier
    ones.

    Args:
        patient: anything that is the same for all scans of a patient.
        fractions: shares of training, validation and test; kept on average, not exactly.
        seed: another seed draws other splits.
    """
    digest = hashlib.sha256(f"{seed}\0{patient}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    for split, upper in zip(SPLITS, (fractions[0], fractions[0] + fractions[1]), strict=False):
        if place < upper:
            return split
    return SPLITS[-1]


def split_name(value: str) -> str | None:
    """The split that a word in a table means; None when it means none."""
    words = {
        "training": ("training", "train"),
        "validation": ("validation", "valid", "val", "dev"),
        "test": ("test", "testing"),
    }
    return next((split for split, names in words.items() if value.lower() in names), None)


def patients_in_two_splits(splits: Mapping[str, set[str]]) -> list[str]:
    """Patients that have studies in more than one split.

    Args:
        splits: the splits of each patient's studies.
    """
    return [patient for patient, own in splits.items() if len(own) > 1]


def pseudonym(patient: str, seed: int = 0) -> str:
    """A name for a patient that groups its studies and does not show the number in the source.

    No anonymisation: who has the table and the seed can find the patient.
    """
    return "p" + hashlib.sha256(f"patient\0{seed}\0{patient}".encode()).hexdigest()[:12]
