"""Patient-disjoint splits: drawn from the patient identifier, or taken from a table and checked."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from bundle.ctfindings.data.study_record import SPLITS
from bundle.ctfindings.sources.preparation.source import Candidate

DEFAULT_FRACTIONS = (0.8, 0.1, 0.1)
_WORDS = {
    **dict.fromkeys(("training", "train"), "training"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def check_fractions(fractions: Sequence[float]) -> None:
    """Raises a ValueError if the shares are not three numbers from 0 to 1 that add up to 1."""
    if len(fractions) != len(SPLITS) or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        shown = ", ".join(f"{share:g}" for share in fractions)
        problem = "have a negative value" if min(fractions, default=0) < 0 else "do not add up to 1"
        raise ValueError(f"split fractions {shown} {problem}; give three, for example 0.8 0.1 0.1")


def draw_split(patient: str, fractions: Sequence[float], seed: int = 0) -> str:
    """The split of a patient, a function of patient and seed alone: new patients never move the others.

    ``fractions`` are the shares of training, validation and test, kept on average, not exactly.
    """
    digest = hashlib.sha256(f"{seed}\0{patient}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    return SPLITS[int(place >= fractions[0]) + int(place >= fractions[0] + fractions[1])]


def split_name(word: str) -> str | None:
    """The split that a word in a table means; None if unknown."""
    return _WORDS.get(word.lower())


def patient_of(candidate: Candidate) -> str:
    """Identifier of the patient; without one, of the study."""
    return candidate.patient or f"study {candidate.id}"


def pseudonym(patient: str, seed: int = 0) -> str:
    """A name that groups the studies of a patient without showing the source's identifier.

    This is not anonymization: the table and the seed identify the patient.
    """
    return "p" + hashlib.sha256(f"patient\0{seed}\0{patient}".encode()).hexdigest()[:12]


def assign_splits(
    candidates: Sequence[Candidate], fractions: Sequence[float], seed: int, table: Path
) -> dict[str, str]:
    """The split of each study id: the table's if it names one for any study of the patient, else drawn.

    ValueError if the table puts a patient into two splits.
    """
    named: dict[str, set[str]] = {}
    for candidate in candidates:
        if candidate.split:
            named.setdefault(patient_of(candidate), set()).add(candidate.split)
    double = [patient for patient, splits in named.items() if len(splits) > 1]
    if double:
        lines = ", ".join(str(candidate.line) for candidate in candidates if patient_of(candidate) == double[0])
        raise ValueError(
            f"{table}: patients in two splits: {len(double)}, the first in lines {lines}; give each patient one split"
        )
    return {
        candidate.id: next(iter(named.get(patient, ())), "") or draw_split(patient, fractions, seed)
        for candidate in candidates
        if (patient := patient_of(candidate))
    }
