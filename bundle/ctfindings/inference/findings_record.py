"""The findings record: all answers about one scan, as dataclasses and as strict JSON."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from bundle.ctfindings.files.atomic_write import write_text

SCHEMA_VERSION = "1.5"
DISCLAIMER = (
    "Research only. Not a diagnosis. "
    "The probabilities come from a model that has no regulatory clearance and must not be used for patient care."
)

Point = tuple[float, float, float]

_SIDES = {"left": "left of midline", "right": "right of midline", "midline": "near midline"}


@dataclass(frozen=True)
class Evidence:
    """Where in the scan an answer looks."""

    peak_mm: Point  # strongest point, world RAS in mm
    peak_score: float  # value of the token map there, 0..1
    # (min, max) corners in RAS mm of the part around the peak that is above half of it; None unless it is focal
    box_mm: tuple[Point, Point] | None
    slice_index: int  # slice of the peak, counted from 0 in the file's own order along slice_axis
    slice_axis: int  # voxel axis of the file closest to superior-inferior, 0..2
    image: int  # the same slice counted from 1 at the most superior slice, as a reader scrolls
    z_mm: float  # world z in mm of that slice below the peak
    side: str | None = None  # "left", "right" or "midline" of the patient; None without a midline
    region: str | None = None  # such as "right lower zone" or "aortic arch"; None unless it is focal and has a name
    extent: str = "focal"  # "diffuse" or "scattered" if the box would be too large, see ``evidence.locate``
    share: float | None = None  # share of the anatomy in that part, 0..1
    channel: int | None = None  # channel of evidence.nii.gz with the map; None if it was not written
    sop_instance_uid: str | None = None  # DICOM image of that slice; None without a DICOM series
    instance_number: int | None = None  # its instance number, as a PACS shows it
    frame_number: int | None = None  # frame of an Enhanced CT that is the slice, from 1; None if the image is one slice

    @property
    def image_name(self) -> str:
        """What a PACS calls the slice: "image 53", or "frame 12" of an Enhanced CT."""
        if self.frame_number is not None:
            return f"frame {self.frame_number}"
        return f"image {self.image if self.instance_number is None else self.instance_number}"

    @property
    def place(self) -> str:
        """Region, or side where the region has no name, or "diffuse" or "scattered"; empty if none is known."""
        return self.region or (_SIDES.get(self.side or "", "") if self.extent == "focal" else self.extent)


@dataclass(frozen=True)
class FindingAnswer:
    """One of the fixed findings."""

    name: str  # CT-RATE name of the finding
    probability: float  # calibrated, for the mean embedding of the prompt templates, 0..1
    threshold: float  # probability from which it counts as present
    present: bool | None  # None if it was not assessed
    anatomy: str  # anatomy whose embedding answered
    anatomy_found: bool = True  # False if the anatomy is outside the field of view; it is then not assessed
    template_spread: Mapping[str, float] = field(default_factory=dict)  # mean, sd, min and max over the templates
    template_probabilities: Mapping[str, float] = field(default_factory=dict)  # by template id, T1..T7
    evidence: Evidence | None = None  # None without a positive map
    not_assessed: str | None = None  # why the finding was not assessed

    @property
    def result(self) -> str:
        """``present``, ``not present`` or ``not assessed``."""
        return "not assessed" if self.present is None else "present" if self.present else "not present"

    @property
    def borderline(self) -> bool:
        """Whether the probabilities of single prompt templates lie on both sides of the threshold."""
        if self.present is None or not self.template_spread:
            return False
        return self.template_spread["min"] < self.threshold <= self.template_spread["max"]

    @property
    def numbers(self) -> tuple[str, str]:
        """Probability and threshold with two digits, or up to four where they would look equal and are not.

        The probability of a finding that was not assessed is "-": beside the word, a number would be read as a result.
        So is a threshold that could not be fitted.
        """
        if self.present is None:
            return "-", f"{self.threshold:.2f}" if self.threshold <= 1 else "-"
        pairs = [(f"{self.probability:.{digits}f}", f"{self.threshold:.{digits}f}") for digits in (2, 3, 4)]
        return next((pair for pair in pairs if pair[0] != pair[1]), pairs[0])

    @property
    def key(self) -> str:
        """Name of this answer's map."""
        return self.name


@dataclass(frozen=True)
class NearestFinding:
    """A finding and the cosine similarity of its text to a query."""

    name: str
    similarity: float


@dataclass(frozen=True)
class DepthScore:
    """A level along the body axis, world z in mm, and how strongly it answers a query, 0..1."""

    z_mm: float
    score: float


@dataclass(frozen=True)
class QueryAnswer:
    """The answer to a free-text query. No calibration and no threshold were fitted for it."""

    text: str
    score: float  # sigmoid of the raw logit, 0..1; not a probability, and not comparable with those of findings
    anatomy: str  # anatomy whose embedding answered
    anatomy_found: bool = True  # False if the anatomy is outside the field of view
    evidence: Evidence | None = None  # None without a positive map
    nearest_findings: Sequence[NearestFinding] = ()  # findings with the nearest prompts
    depth: Sequence[DepthScore] = ()  # profile along the body axis, inferior to superior
    z_mm: float | None = None  # world z in mm of the evidence, in the layer with the highest score; None without it
    asked: str = ""  # text that was scored; another one than ``text`` if that is a negation
    percentile: float | None = None  # share of unrelated texts whose score on this scan is lower, 0..1
    meaning: str = ""  # what the score is worth, in words
    not_assessed: str | None = None  # why the score says nothing about this scan; it then has no place either

    hints: Sequence[str] = ()  # how to ask better, one sentence each

    @property
    def result(self) -> str:
        """``free text`` or ``not assessed``: a score has no threshold."""
        return "not assessed" if self.not_assessed else "free text"

    @property
    def number(self) -> str:
        """The score with two digits; "-" if it says nothing."""
        return "-" if self.not_assessed or not self.meaningful else f"{self.score:.2f}"

    @property
    def meaningful(self) -> bool:
        """False for nonsense and other languages, whose score is 0: no anatomy answers them."""
        return self.percentile is not None or self.not_assessed is not None

    @property
    def key(self) -> str:
        """Name of this answer's map; never equal to that of a finding."""
        return f"query: {self.text}"


Answer = FindingAnswer | QueryAnswer


def where(answer: Answer) -> str:
    """The anatomy that answered, and region, side or extent of the evidence; a region that names the anatomy alone.

    The anatomy alone for a finding that is not present, and empty for a query that no anatomy answers.
    """
    if isinstance(answer, QueryAnswer) and not answer.meaningful:
        return ""
    place = answer.evidence if answer.result in ("present", "free text") else None
    if place is None:
        return answer.anatomy
    if place.region and not place.region.endswith(("zone", "zones")):
        return place.region
    return ", ".join(filter(None, [answer.anatomy, place.place]))


@dataclass(frozen=True)
class ObservedStatement:
    """What one pathology query of a model that has them found. Not calibrated, and without a threshold of its own."""

    query: int  # number of the query, from 0
    statement: str  # text of the finding that fits best
    finding: str  # CT-RATE name of that finding
    similarity: float  # cosine of the query's row and the statement
    support: float  # the same minus that with the denial; above 0
    evidence: Evidence | None = None  # peak and box of its attention, divided by its maximum


@dataclass(frozen=True)
class ScanInfo:
    """The scan as stored. Apart from the name of the file it says nothing about the patient's identity."""

    file: str  # name of the file or folder, without its path
    format: str  # "NIfTI", "NRRD", "MetaImage", "NumPy" or "DICOM"
    shape: tuple[int, int, int]  # voxels along the three axes of the file
    spacing_mm: Point  # along the same axes
    orientation: str  # directions in which the axes increase, for example "LPS"
    affine: Sequence[Sequence[float]]  # voxel to world RAS mm, 4x4
    extent_mm: Point  # shape times spacing
    series_instance_uid: str | None = None  # of the DICOM series that was read; None for another format


@dataclass(frozen=True)
class AnatomyDomain:
    """How far one anatomy is from that of the training scans."""

    score: float  # 1 is that of a typical scan that was held out of the training
    threshold: float  # score above which it is outside
    inside: bool


@dataclass(frozen=True)
class DomainAnswer:
    """How far the scan is from the scans that the weights were trained on."""

    score: float | None  # root mean square over the anatomies; None if the scan shows none of them
    threshold: float  # score above which the scan is outside the domain
    inside: bool
    anatomy: Mapping[str, AnatomyDomain]  # by name, those that the scan shows
    scans: int | None = None  # training scans that the domain was fitted on; None in records before schema 1.5


@dataclass(frozen=True)
class ModelInfo:
    """The model that answered."""

    bundle: str
    version: str  # of the bundle
    weights_sha256: str  # digest of the weights file
    network: str  # name of the image tower
    trained_on: str | None = None  # completes "trained only on"; None if unknown
    published: Mapping[str, str] | None = None  # converted weights: model, source, paper, licence, digests of files
    adapted_to: str | None = None  # such as "21 scans of 3 patients"; None unless the weights were adapted


@dataclass(frozen=True)
class FindingsRecord:
    """All answers about one scan; written as ``findings.json``."""

    scan: ScanInfo
    model: ModelInfo
    findings: Sequence[FindingAnswer]  # in table order
    queries: Sequence[QueryAnswer] = ()  # in the order asked
    domain: DomainAnswer | None = None  # None if the weights hold no domain
    notice: str | None = None  # what a reader has to know before the findings; None if there is nothing
    observations: Sequence[ObservedStatement] = ()  # of pathology queries, by falling support; see PLACE
    warnings: Sequence[str] = ()  # one line each, for the reader
    seconds: Mapping[str, float] = field(
        default_factory=dict
    )  # load, preprocess, encode, score, evidence, write, total
    evidence_channels: Sequence[str] = ()  # keys of the maps in evidence.nii.gz, in channel order
    created: str = field(default_factory=lambda: datetime.now(UTC).astimezone().isoformat(timespec="seconds"))
    schema_version: str = SCHEMA_VERSION
    disclaimer: str = DISCLAIMER

    @property
    def answers(self) -> list[Answer]:
        """Findings, then queries."""
        return [*self.findings, *self.queries]

    def ordered(self) -> list[FindingAnswer]:
        """Present findings first, by falling probability; those that were not assessed last, in table order."""

        def order(answer: FindingAnswer) -> tuple[bool, bool, float]:
            unknown = answer.present is None
            return not answer.present, unknown, 0.0 if unknown else -answer.probability

        return sorted(self.findings, key=order)

    def unassessed(self) -> list[str]:
        """A line for each reason why findings were not assessed; none if the notice tells the reason of all."""
        reasons = Counter(answer.not_assessed for answer in self.findings if answer.not_assessed)
        if self.notice and list(reasons.values()) == [len(self.findings)]:
            return []
        total = len(self.findings)
        return [f"Not assessed ({count} of {total}): {reason}." for reason, count in reasons.items()]

    def with_channels(self, keys: Sequence[str]) -> Self:
        """A copy whose evidence names its channel, the position of its key in ``keys``."""
        channel = {key: index for index, key in enumerate(keys)}

        def numbered(answer: Any) -> Any:
            place = answer.evidence and replace(answer.evidence, channel=channel.get(answer.key))
            return replace(answer, evidence=place)

        findings, queries = ([numbered(answer) for answer in kind] for kind in (self.findings, self.queries))
        return replace(self, findings=findings, queries=queries, evidence_channels=list(keys))

    def to_dict(self) -> dict[str, Any]:
        """The record in plain Python values, floats rounded to six decimals; ValueError for one that is not finite."""
        head = {"schema_version": self.schema_version, "disclaimer": self.disclaimer, "created": self.created}
        record = {**head, **asdict(self)}
        if not self.observations:
            # Most models have no pathology queries.
            del record["observations"]
        return dict(_plain(record, "record"))

    def to_json(self) -> str:
        """The record as JSON text without NaN or infinity."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads ``to_json`` back, tuples as lists; ValueError if the schema has another major version."""
        data = json.loads(text)
        if str(data["schema_version"]).split(".")[0] != SCHEMA_VERSION.split(".")[0]:
            raise ValueError(
                f"expected a findings record of schema {SCHEMA_VERSION}, got schema {data['schema_version']}"
            )
        for answer in (*data["findings"], *data["queries"], *data.get("observations", ())):
            answer["evidence"] = answer["evidence"] and Evidence(**answer["evidence"])
        for query in data["queries"]:
            query["nearest_findings"] = [NearestFinding(**near) for near in query["nearest_findings"]]
            query["depth"] = [DepthScore(**level) for level in query["depth"]]
        data["findings"] = [FindingAnswer(**answer) for answer in data["findings"]]
        data["queries"] = [QueryAnswer(**answer) for answer in data["queries"]]
        if domain := data.get("domain"):
            anatomy = {name: AnatomyDomain(**own) for name, own in domain["anatomy"].items()}
            data["domain"] = DomainAnswer(**{**domain, "anatomy": anatomy})
        data["observations"] = [ObservedStatement(**observed) for observed in data.get("observations", ())]
        return cls(**{**data, "scan": ScanInfo(**data["scan"]), "model": ModelInfo(**data["model"])})

    def save(self, path: str | Path) -> None:
        """Writes the JSON atomically."""
        text = self.to_json()
        write_text(path, text)


def _plain(value: Any, where: str) -> Any:
    """Dictionaries, lists, text and plain numbers, also from arrays and tensors."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if hasattr(value, "tolist"):
        return _plain(value.tolist(), where)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where}: expected a finite number, got {value}")
        return round(value, 6)
    return value
