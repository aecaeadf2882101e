"""What readers say of the findings of a scan, as the server keeps it, and how often they agree with the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

AGREEMENT_COLUMNS = ("Finding", "Confirmed", "Rejected", "Added", "Both absent", "Not assessed")
"""Columns of the table of agreement; ``Added`` is what the reader saw and the model called absent."""

_COUNTS = ("confirmed", "rejected", "added", "both_absent", "not_assessed")
_AXES = ("RL", "AP", "SI")

Place = Optional[tuple[float, float, float]]


@dataclass(frozen=True)
class Verdict:
    """What a reader says of one finding.

    Attributes:
        present: whether the scan has it.
        place_mm: where, RAS; None if the reader did not set a place.
        reader: name; empty if not given.
        time: in ISO 8601, UTC.
    """

    present: bool
    place_mm: Place
    reader: str
    time: str


@dataclass(frozen=True)
class Corrections:
    """What readers say of one scan.

    Attributes:
        findings: verdicts by the name of the finding.
        report: text; empty without one.
        problem: why the server keeps or shows none; empty if it does.
    """

    findings: Mapping[str, Verdict] = field(default_factory=dict)
    report: str = ""
    problem: str = ""

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Corrections:
        """Reads the server's answer; ValueError when a field is missing."""
        try:
            findings = {str(name): _verdict(value) for name, value in data["findings"].items()}
            return cls(findings, str((data.get("report") or {}).get("text") or ""))
        except (AttributeError, KeyError, TypeError, IndexError) as error:
            raise ValueError(f"the corrections are not complete: {error!r}") from error

    def mark(self, name: str) -> str:
        """A sign before the name of a finding that a reader judged."""
        verdict = self.findings.get(name)
        return "" if verdict is None else "✓ " if verdict.present else "✗ "

    def place(self, name: str) -> Place:
        """Where a reader saw a finding, RAS mm."""
        verdict = self.findings.get(name)
        return None if verdict is None else verdict.place_mm

    def line(self, name: str) -> str:
        """What was said of a finding, such as ``Hernia: present, A. Reader, 2026-11-29, at L 10, P 20, I 5 mm.``"""
        if self.problem or not name:
            return self.problem
        verdict = self.findings.get(name)
        if verdict is None:
            return f"{name}: not read yet."
        words = ["present" if verdict.present else "absent", verdict.reader, verdict.time[:10]]
        if verdict.place_mm is not None:
            places = zip(_AXES, verdict.place_mm)
            words.append(f"at {', '.join(f'{ends[value < 0]} {abs(value):.0f}' for ends, value in places)} mm")
        return f"{name}: {', '.join(word for word in words if word)}."


def finding_change(name: str, present: bool | None, place_mm: Place = None, reader: str = "") -> dict[str, Any]:
    """The body of a request that says of a finding that it is present, with a place or without, or absent; None takes
    back what was said.
    """
    said = None if present is None else {"present": present, **({"place_mm": list(place_mm)} if place_mm else {})}
    return {"reader": reader, "findings": {name: said}}


def agreement_rows(data: Mapping[str, Any]) -> list[list[str]]:
    """Cells of the table of agreement, the findings that were read; ValueError when a count is missing."""
    try:
        counted = [(str(row["finding"]), [int(row[name]) for name in _COUNTS]) for row in data["findings"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the table of agreement is not complete: {error!r}") from error
    return [[finding, *map(str, counts)] for finding, counts in counted if any(counts)]


def _verdict(value: Mapping[str, Any]) -> Verdict:
    place = value.get("place_mm")
    where = None if place is None else (float(place[0]), float(place[1]), float(place[2]))
    return Verdict(bool(value["present"]), where, str(value.get("reader") or ""), str(value.get("time") or ""))
