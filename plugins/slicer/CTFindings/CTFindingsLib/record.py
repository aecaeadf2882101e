"""The findings record as the table shows it: rows, their order, and the CSV. The record itself is kept unchanged for export."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SCHEMA = "1"
"""First number of the ``schema_version`` that this module reads."""

NOTICE = "Research only. Not a diagnosis."

COLUMNS = ("Finding", "Probability", "Threshold", "Present", "Anatomy", "Place")
"""Columns of the table, left to right."""


@dataclass(frozen=True)
class Row:
    """One finding.

    Attributes:
        name: CT-RATE name.
        probability: 0..1.
        threshold: probability from which it counts as present.
        present: whether it does.
        anatomy: whose embedding answered.
        reliable: False when the scan does not show that anatomy.
        spread: lowest and highest probability over the wordings of the question.
        side: of the patient, or empty.
        peak_mm: point of the evidence, RAS, on the slice to show; None without evidence.
        box_mm: corners of the evidence, RAS.
    """

    name: str
    probability: float
    threshold: float
    present: bool
    anatomy: str
    reliable: bool
    spread: tuple[float, float]
    side: str
    peak_mm: tuple[float, float, float] | None
    box_mm: tuple[tuple[float, float, float], tuple[float, float, float]] | None

    @property
    def place(self) -> str:
        """Side and height as Slicer's slice views name it, such as ``left, I 9 mm``; empty without evidence."""
        if self.peak_mm is None:
            return ""
        z = self.peak_mm[2]
        height = f"{'S' if z >= 0 else 'I'} {abs(z):.0f} mm"
        return f"{self.side}, {height}" if self.side else height

    @property
    def cells(self) -> tuple[str, ...]:
        """Text of the columns."""
        name = self.name if self.reliable else f"{self.name} †"
        present = "present" if self.present else "-"
        return (name, f"{self.probability:.2f}", f"{self.threshold:.2f}", present, self.anatomy, self.place)

    @property
    def hint(self) -> str:
        """What the table says when the mouse rests on the row."""
        low, high = self.spread
        lines = [f"{self.name}: {self.probability:.2f}, between {low:.2f} and {high:.2f} over the wordings of the question."]
        if not self.reliable:
            lines.append(f"† The scan does not show the anatomy '{self.anatomy}': this answer is unreliable.")
        return " ".join([*lines, NOTICE])


@dataclass(frozen=True)
class Record:
    """A findings record.

    Attributes:
        data: as the server sent it.
        rows: the findings in table order.
    """

    data: Mapping[str, Any]
    rows: tuple[Row, ...]

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Record:
        """Reads a record.

        Raises:
            ValueError: when its schema is of another major version, or a field is missing.
        """
        schema = str(data.get("schema_version", "none"))
        if schema.split(".")[0] != SCHEMA:
            raise ValueError(
                f"the findings record has schema {schema}; this module reads {SCHEMA}.x. Update the older of server and module"
            )
        try:
            return cls(data, tuple(_row(finding) for finding in data["findings"]))
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(f"the findings record is not complete: {error!r}") from error

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Reads ``json`` back."""
        return cls.parse(json.loads(text))

    @property
    def json(self) -> str:
        """The record as the text of ``findings.json``."""
        return json.dumps(self.data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @property
    def csv(self) -> str:
        """The table as CSV, present findings first; the last column repeats that this is no diagnosis."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        head = ["finding", "probability", "threshold", "present", "anatomy", "anatomy_found"]
        writer.writerow([*head, "lowest", "highest", "side", "x_mm", "y_mm", "z_mm", "note"])
        for row in ordered(self.rows):
            place = ["", "", ""] if row.peak_mm is None else [f"{value:.2f}" for value in row.peak_mm]
            numbers = [f"{value:.4f}" for value in (row.probability, row.threshold)]
            spread = [f"{value:.4f}" for value in row.spread]
            writer.writerow([row.name, *numbers, int(row.present), row.anatomy, int(row.reliable), *spread, row.side, *place, NOTICE])
        return file.getvalue()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the reader should know, one line each."""
        return tuple(str(line) for line in self.data.get("warnings", ()))

    @property
    def summary(self) -> str:
        """One line: how many findings, and of which model."""
        model, count = self.data["model"], sum(row.present for row in self.rows)
        return f"{count} of {len(self.rows)} findings present. {model['bundle']} {model['version']}, weights {model['weights_sha256'][:8]}."


def ordered(rows: Sequence[Row], column: int | None = None, descending: bool = False) -> list[Row]:
    """Rows in the order of a column of ``COLUMNS``; without one present findings come first, then by falling probability."""
    by_reading = sorted(rows, key=lambda row: (not row.present, -row.probability))
    if column is None:
        return by_reading
    keys = (
        lambda row: row.name,
        lambda row: row.probability,
        lambda row: row.threshold,
        lambda row: row.present,
        lambda row: row.anatomy,
        lambda row: float("-inf") if row.peak_mm is None else row.peak_mm[2],
    )
    return sorted(by_reading, key=keys[column], reverse=descending)


def _row(finding: Mapping[str, Any]) -> Row:
    evidence = finding["evidence"]
    spread = finding.get("template_spread") or {}
    probability = float(finding["probability"])
    return Row(
        name=str(finding["name"]),
        probability=probability,
        threshold=float(finding["threshold"]),
        present=bool(finding["present"]),
        anatomy=str(finding["anatomy"]),
        reliable=bool(finding["anatomy_found"]),
        spread=(float(spread.get("min", probability)), float(spread.get("max", probability))),
        side="" if evidence is None else str(evidence["side"] or ""),
        peak_mm=None if evidence is None else _point([*evidence["peak_mm"][:2], evidence["z_mm"]]),
        box_mm=None if evidence is None else (_point(evidence["box_mm"][0]), _point(evidence["box_mm"][1])),
    )


def _point(values: Sequence[float]) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
