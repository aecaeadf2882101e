"""The findings record as the table shows it: rows, their order, and the CSV. The record itself is kept unchanged for
export.
"""

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

COLUMNS = ("Finding", "Probability", "Threshold", "Present", "Anatomy", "Place", "Image")
"""Columns of the table, left to right."""

SIDE_WORDS = {"left": "left of midline", "right": "right of midline", "midline": "near midline"}

FALLING_FIRST = ("Probability", "Threshold", "Present", "Place")
"""Columns whose large values are of interest."""


@dataclass(frozen=True)
class Row:
    """One finding.

    Attributes:
        name: CT-RATE name.
        probability: 0..1.
        threshold: probability from which it counts as present.
        present: whether it does.
        anatomy: whose embedding answered.
        anatomy_found: whether the scan shows that anatomy.
        spread: lowest and highest probability over the wordings of the question.
        side: of the patient, or empty.
        peak_mm: point of the evidence, RAS, on the slice to show; None without evidence and if it was not assessed.
        box_mm: corners of the evidence, RAS.
        image: slice of the evidence counted from 1 at the most superior one; None without a peak.
        images: how many slices the scan has; None when the record does not say.
        not_assessed: why the finding is neither present nor absent; empty if it was assessed.
        where: region such as ``left lower zone``, side, or ``diffuse``; empty without one.
    """

    name: str
    probability: float
    threshold: float
    present: bool
    anatomy: str
    anatomy_found: bool
    spread: tuple[float, float]
    side: str
    peak_mm: tuple[float, float, float] | None
    box_mm: tuple[tuple[float, float, float], tuple[float, float, float]] | None
    image: int | None = None
    images: int | None = None
    not_assessed: str = ""
    where: str = ""

    @property
    def place(self) -> str:
        """Region, side or extent; without them the height as Slicer's slice views name it, such as ``I 9 mm``. Empty if
        the finding is not present.
        """
        return self.where or _height(self.peak_mm[2]) if self.present and self.peak_mm else ""

    @property
    def cells(self) -> tuple[str, ...]:
        """Text of the columns."""
        present = "not assessed" if self.not_assessed else "present" if self.present else "-"
        present += " ~" * self.borderline
        pairs = [(f"{self.probability:.{digits}f}", f"{self.threshold:.{digits}f}") for digits in (2, 3, 4)]
        # More digits where two would look equal, as in the bundle's own tables.
        numbers = next((pair for pair in pairs if pair[0] != pair[1]), pairs[0])
        if self.not_assessed:
            numbers = "-", pairs[0][1] if self.threshold <= 1 else "-"
        image = _image(self.image, self.images) if self.present else ""
        return (self.name, *numbers, present, self.anatomy, self.place, image)

    @property
    def shown_probability(self) -> float:
        """The probability; below every other if the finding was not assessed, so that it neither ranks nor is drawn."""
        return -1.0 if self.not_assessed else self.probability

    @property
    def borderline(self) -> bool:
        """Whether wordings of the question lie on both sides of the threshold."""
        return not self.not_assessed and self.spread[0] < self.threshold <= self.spread[1]

    @property
    def obstacle(self) -> str:
        """Why the finding was not assessed, as a sentence; empty if it was."""
        return f"Not assessed: {self.not_assessed}." if self.not_assessed else ""

    @property
    def hint(self) -> str:
        """What the table says when the mouse rests on the row."""
        low, high = self.spread
        number = f"{self.probability:.2f}, between {low:.2f} and {high:.2f} over the wordings of the question."
        lines = [f"{self.name}: {self.obstacle or number}"]
        if self.borderline:
            lines.append("~ Borderline: another wording would change the answer.")
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
                f"the findings record has schema {schema}; this module reads {SCHEMA}.x. "
                "Update the older of server and module"
            )
        try:
            shape = (data.get("scan") or {}).get("shape")
            return cls(data, tuple(_row(finding, shape) for finding in data["findings"]))
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
        """The table as CSV, present findings first; the last column repeats that this is not a diagnosis."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        head = ["finding", "probability", "threshold", "present", "anatomy", "anatomy_found"]
        writer.writerow([*head, "lowest", "highest", "side", "x_mm", "y_mm", "z_mm", "image", "images", "note"])
        for row in ordered(self.rows):
            place = ["", "", ""] if row.peak_mm is None else [f"{value:.2f}" for value in row.peak_mm]
            numbers = [f"{value:.4f}" for value in (row.probability, row.threshold)]
            spread = [f"{value:.4f}" for value in row.spread]
            images = ["" if number is None else number for number in (row.image, row.images)]
            start = [
                row.name,
                *numbers,
                "" if row.not_assessed else int(row.present),
                row.anatomy,
                int(row.anatomy_found),
            ]
            writer.writerow([*start, *spread, row.side, *place, *images, NOTICE])
        return file.getvalue()

    @property
    def notice(self) -> str:
        """What a reader has to know before the findings, such as that the scan is outside the domain; or nothing."""
        return str(self.data.get("notice") or "")

    @property
    def outside_domain(self) -> bool:
        """Whether the scan is outside the domain of the weights."""
        return not (self.data.get("domain") or {}).get("inside", True)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the reader should know besides the notice, one line each."""
        return tuple(str(line) for line in self.data.get("warnings", ()))

    @property
    def summary(self) -> str:
        """One line: how many findings, and of which model."""
        model, count = self.data["model"], sum(row.present for row in self.rows)
        weights = f"{model['bundle']} {model['version']}, weights {model['weights_sha256'][:8]}"
        unknown = sum(bool(row.not_assessed) for row in self.rows)
        return f"{count} of {len(self.rows)} findings present{f', {unknown} not assessed' * bool(unknown)}. {weights}."


def ordered(rows: Sequence[Row], column: int | None = None, descending: bool = False) -> list[Row]:
    """Rows in the order of a column of ``COLUMNS``; without one present findings come first, then by falling
    probability, and those that were not assessed last.
    """
    by_reading = sorted(rows, key=lambda row: (not row.present, -row.shown_probability))
    if column is None:
        return by_reading
    keys = (
        lambda row: row.name,
        lambda row: row.shown_probability,
        lambda row: row.threshold,
        lambda row: row.present,
        lambda row: row.anatomy,
        lambda row: row.peak_mm[2] if row.place else float("-inf"),
        lambda row: row.image if row.present and row.image is not None else float("inf"),
    )
    return sorted(by_reading, key=keys[column], reverse=descending)


def next_order(column: int, current: int | None, descending: bool) -> tuple[int, bool]:
    """Order after a click on the head of a column, as column and whether it falls: its own first, then turned around.

    Args:
        column: that was clicked.
        current: column of the order so far; None without one.
        descending: whether that order falls.
    """
    return column, (not descending if column == current else COLUMNS[column] in FALLING_FIRST)


def evidence_line(
    text: str,
    probability: float | None,
    z_mm: float | None,
    image: int | None = None,
    images: int | None = None,
    meaning: str = "",
    where: str = "",
) -> str:
    """What an answer says, in a line, such as ``Hernia 0.80: strongest at image 86 of 144, left lower zone.``

    Args:
        text: finding or query.
        probability: of a finding; None for a query.
        z_mm: height of the evidence; None when nothing in the scan answers.
        image: slice of the evidence, counted from 1 at the most superior one.
        images: how many slices the scan has.
        meaning: what the score of a free text is worth; empty for a finding.
        where: region, side or extent; the line names the height without it.
    """
    if z_mm is None:
        return f"{text}: {meaning or 'nothing in this scan speaks for it.'}"
    sure = "" if probability is None else f" {probability:.2f}"
    shown = "" if image is None else f"image {_image(image, images)}"
    place = ", ".join(filter(None, [shown, where] if where else [_height(z_mm), shown]))
    return f"{text}{sure}: strongest at {place}. {meaning}".strip()


def _height(z_mm: float) -> str:
    return f"{'S' if z_mm >= 0 else 'I'} {abs(z_mm):.0f} mm"


def _image(image: int | None, images: int | None) -> str:
    if image is None:
        return ""
    return str(image) if images is None else f"{image} of {images}"


def place_words(evidence: Mapping[str, Any]) -> str:
    """Region of an evidence, or ``diffuse`` or ``scattered``, or the side of the midline; empty if it names none."""
    extent = str(evidence.get("extent") or "focal")
    side = SIDE_WORDS.get(str(evidence.get("side")), "")
    return str(evidence.get("region") or (side if extent == "focal" else extent))


def _row(finding: Mapping[str, Any], shape: Sequence[int] | None) -> Row:
    evidence = None if finding.get("not_assessed") else finding["evidence"]
    axis = None if evidence is None else evidence.get("slice_axis")
    spread = finding.get("template_spread") or {}
    probability = float(finding["probability"])
    return Row(
        name=str(finding["name"]),
        probability=probability,
        threshold=float(finding["threshold"]),
        present=bool(finding["present"]),
        anatomy=str(finding["anatomy"]),
        anatomy_found=bool(finding["anatomy_found"]),
        spread=(float(spread.get("min", probability)), float(spread.get("max", probability))),
        side="" if evidence is None else str(evidence["side"] or ""),
        where="" if evidence is None else place_words(evidence),
        peak_mm=None if evidence is None else _point([*evidence["peak_mm"][:2], evidence["z_mm"]]),
        box_mm=None if evidence is None or (box := evidence["box_mm"]) is None else (_point(box[0]), _point(box[1])),
        image=None if evidence is None else evidence.get("image"),
        images=None if axis is None or shape is None else int(shape[axis]),
        not_assessed=str(finding.get("not_assessed") or ""),
    )


def _point(values: Sequence[float]) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
