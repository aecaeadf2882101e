"""The findings record: everything that is said about one scan, as dataclasses and as strict JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from bundle.ctfindings.files.atomic_write import atomic_path
from bundle.ctfindings.scan.coordinates import as_affine, orientation_code, voxel_spacing

SCHEMA_VERSION = "1.0"
DISCLAIMER = (
    "Research only. Not a diagnosis. "
    "The probabilities come from a model that has no regulatory clearance and must not be used for patient care."
)

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Evidence:
    """Where in the scan an answer looks.

    Attributes:
        peak_mm: strongest point, world RAS in mm.
        peak_score: value of the token map there, 0..1.
        box_mm: (min, max) corners in RAS mm of the region around the peak that is above half of it.
        slice_index: slice of the peak, counted from 0 in the file's own order along ``slice_axis``.
        slice_axis: voxel axis of the file that is closest to superior-inferior, 0..2.
        image: the same slice counted from 1 at the most superior slice, as a reader scrolls.
        z_mm: world z in mm of that slice below the peak.
        side: "left", "right" or "midline" of the patient; None where no midline was given.
        channel: channel of ``evidence.nii.gz`` that holds the map; None when it was not written.
    """

    peak_mm: Point
    peak_score: float
    box_mm: tuple[Point, Point]
    slice_index: int
    slice_axis: int
    image: int
    z_mm: float
    side: str | None = None
    channel: int | None = None


@dataclass(frozen=True)
class FindingAnswer:
    """One of the fixed findings.

    Attributes:
        name: CT-RATE name of the finding.
        probability: mean over the prompt templates, 0..1.
        threshold: probability from which it counts as present.
        present: whether it does.
        anatomy: anatomy whose embedding answered.
        anatomy_found: False when the scan does not show that anatomy; the answer is then marked as unreliable.
        template_spread: ``mean``, ``sd``, ``min`` and ``max`` of the template probabilities.
        template_probabilities: probability by template id (T1..T7).
        evidence: where the answer looks; None without a positive map.
    """

    name: str
    probability: float
    threshold: float
    present: bool
    anatomy: str
    anatomy_found: bool = True
    template_spread: Mapping[str, float] = field(default_factory=dict)
    template_probabilities: Mapping[str, float] = field(default_factory=dict)
    evidence: Evidence | None = None

    @property
    def key(self) -> str:
        """Name of this answer's map in ``evidence_maps``."""
        return self.name


@dataclass(frozen=True)
class NearestFinding:
    """A finding and the cosine similarity of its text to a query."""

    name: str
    similarity: float


@dataclass(frozen=True)
class DepthScore:
    """A level along the body axis, world z in mm, and how much it answers a query, 0..1."""

    z_mm: float
    score: float


@dataclass(frozen=True)
class QueryAnswer:
    """The answer to a free-text question. No calibration and no threshold were fitted for it.

    Attributes:
        text: the question.
        score: sigmoid of the raw logit, 0..1; not a probability, and not comparable with those of findings.
        anatomy: anatomy whose embedding answered.
        anatomy_found: False when the scan does not show that anatomy.
        evidence: where in the scan the answer looks; None without a positive map.
        nearest_findings: findings whose prompts are nearest.
        depth: profile along the body axis, from inferior to superior.
        depth_source: "snippets" (probabilities from depth rows, of weights trained on slice references) or "evidence"
            (the strongest token of each axial layer).
        z_mm: world z in mm of the highest score of the profile; None without one.
    """

    text: str
    score: float
    anatomy: str
    anatomy_found: bool = True
    evidence: Evidence | None = None
    nearest_findings: Sequence[NearestFinding] = ()
    depth: Sequence[DepthScore] = ()
    depth_source: str | None = None
    z_mm: float | None = None

    @property
    def key(self) -> str:
        """Name of this answer's map in ``evidence_maps``; never equal to that of a finding."""
        return f"query: {self.text}"


Answer = FindingAnswer | QueryAnswer


@dataclass(frozen=True)
class ScanInfo:
    """The scan as it lies on the disk. No patient identity beyond the file's own name.

    Attributes:
        file: name of the file or folder, without its path.
        format: "NIfTI", "NRRD" or "DICOM".
        shape: voxels along the three axes of the file.
        spacing_mm: mm along the same axes.
        orientation: directions in which the axes increase, for example "LPS".
        affine: voxel to world RAS mm, 4x4.
        extent_mm: shape times spacing.
    """

    file: str
    format: str
    shape: tuple[int, int, int]
    spacing_mm: Point
    orientation: str
    affine: Sequence[Sequence[float]]
    extent_mm: Point


@dataclass(frozen=True)
class ModelInfo:
    """What answered.

    Attributes:
        bundle: its name.
        version: of the bundle.
        weights_sha256: digest of the weights file.
        network: name of the image tower.
        trained_on: what the weights were trained on, after "trained only on"; None where that is not known.
        published: of converted weights ``model``, ``source``, ``paper``, ``licence`` and digests of the files; None of
            others.
    """

    bundle: str
    version: str
    weights_sha256: str
    network: str
    trained_on: str | None = None
    published: Mapping[str, str] | None = None


@dataclass(frozen=True)
class FindingsRecord:
    """Everything that is said about one scan; written as ``findings.json``.

    Attributes:
        scan: identity and geometry of the scan.
        model: what answered.
        findings: the fixed findings in table order.
        queries: free-text questions in the order asked.
        warnings: one line each, for the reader.
        seconds: time per stage: load, preprocess, encode, score, evidence, write, total.
        evidence_channels: keys of the maps in ``evidence.nii.gz`` in channel order.
        created: ISO 8601 time with zone.
    """

    scan: ScanInfo
    model: ModelInfo
    findings: Sequence[FindingAnswer]
    queries: Sequence[QueryAnswer] = ()
    warnings: Sequence[str] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    evidence_channels: Sequence[str] = ()
    created: str = field(default_factory=lambda: datetime.now(UTC).astimezone().isoformat(timespec="seconds"))
    schema_version: str = SCHEMA_VERSION
    disclaimer: str = DISCLAIMER

    @property
    def answers(self) -> list[Answer]:
        """Findings, then queries."""
        return [*self.findings, *self.queries]

    def ordered(self) -> list[FindingAnswer]:
        """Findings for a reader: present ones first, then by falling probability."""
        return sorted(self.findings, key=lambda answer: (not answer.present, -answer.probability))

    def with_channels(self, keys: Sequence[str]) -> FindingsRecord:
        """A copy whose evidence names its channel, the position of its key in ``keys``."""
        channel = {key: index for index, key in enumerate(keys)}

        def numbered(answer: Any) -> Any:
            if answer.evidence is None:
                return answer
            return dataclasses.replace(
                answer, evidence=dataclasses.replace(answer.evidence, channel=channel.get(answer.key))
            )

        return dataclasses.replace(
            self,
            findings=[numbered(answer) for answer in self.findings],
            queries=[numbered(answer) for answer in self.queries],
            evidence_channels=list(keys),
        )

    def to_dict(self) -> dict[str, Any]:
        """The record in plain Python values, floats rounded to six decimals.

        Raises:
            ValueError: when a number is not finite; the message names the field.
        """
        head = {"schema_version": self.schema_version, "disclaimer": self.disclaimer, "created": self.created}
        body = {name: value for name, value in dataclasses.asdict(self).items() if name not in head}
        plain: dict[str, Any] = _plain({**head, **body}, "record")
        return plain

    def to_json(self) -> str:
        """The record as JSON text without NaN or infinity."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> FindingsRecord:
        """Reads ``to_json`` back; lists stand where tuples were written.

        Raises:
            ValueError: when the schema is of another major version.
        """
        data = json.loads(text)
        if str(data["schema_version"]).split(".")[0] != SCHEMA_VERSION.split(".")[0]:
            raise ValueError(
                f"findings record has schema {data['schema_version']}; this program reads {SCHEMA_VERSION}"
            )
        data["scan"] = ScanInfo(**data["scan"])
        data["model"] = ModelInfo(**data["model"])
        data["findings"] = [FindingAnswer(**_with_evidence(answer)) for answer in data["findings"]]
        data["queries"] = [_query(answer) for answer in data["queries"]]
        return cls(**data)

    def save(self, path: str | Path) -> None:
        """Writes the JSON atomically."""
        text = self.to_json()
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def describe_scan(file: str | Path, format: str, shape: Sequence[int], affine: Any) -> ScanInfo:
    """Geometry of a scan from its shape ``(X, Y, Z)`` and affine (RAS mm); of the path only the name is kept."""
    matrix = as_affine(affine)
    spacing = voxel_spacing(matrix)
    x, y, z = (int(size) for size in shape)
    return ScanInfo(
        file=Path(file).name,
        format=format,
        shape=(x, y, z),
        spacing_mm=spacing,
        orientation=orientation_code(matrix),
        affine=matrix.tolist(),
        extent_mm=(x * spacing[0], y * spacing[1], z * spacing[2]),
    )


def warnings_of_scan(scan: Any, info: ScanInfo) -> list[str]:
    """The reader's warnings about a scan, with its name as the record has it: the folders of its path are nobody's
    business.
    """
    return [str(line).replace(str(scan.meta["filename_or_obj"]), info.file) for line in scan.meta["warnings"]]


def template_spread(probabilities: Mapping[str, float]) -> dict[str, float]:
    """``mean``, ``sd`` (population), ``min`` and ``max`` of the probabilities of the templates."""
    values = np.asarray(list(probabilities.values()), dtype=np.float64)
    return {
        "mean": float(values.mean()),
        "sd": float(values.std()),
        "min": float(values.min()),
        "max": float(values.max()),
    }


def _with_evidence(answer: dict[str, Any]) -> dict[str, Any]:
    return {**answer, "evidence": None if answer["evidence"] is None else Evidence(**answer["evidence"])}


def _query(answer: dict[str, Any]) -> QueryAnswer:
    """A query as it was written."""
    nearest = [NearestFinding(**near) for near in answer["nearest_findings"]]
    depth = [DepthScore(**level) for level in answer["depth"]]
    return QueryAnswer(**{**_with_evidence(answer), "nearest_findings": nearest, "depth": depth})


def _plain(value: Any, where: str) -> Any:
    """Dictionaries, lists, strings and plain numbers, whatever array or tensor scalar came in."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if hasattr(value, "tolist"):
        return _plain(value.tolist(), where)
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}; a findings record holds finite numbers only")
        return round(value, 6)
    raise ValueError(
        f"{where} is a {type(value).__name__}; a findings record holds numbers, text, lists and dictionaries"
    )
