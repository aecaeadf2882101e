"""A scan as it is kept after it was encoded: small, without its voxels, and enough to answer every further question.

Shapes: N tokens, K anatomies, E embedding.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from bundle.ctfindings.inference.depth import DepthSource, best_depth, place_depth
from bundle.ctfindings.inference.evidence import locate
from bundle.ctfindings.inference.findings_record import (
    DepthScore,
    Evidence,
    FindingsRecord,
    ModelInfo,
    QueryAnswer,
    ScanInfo,
)
from bundle.ctfindings.inference.predictor import Answers
from bundle.ctfindings.inference.provenance import training_warnings
from bundle.ctfindings.networks.image.image_encoder import ImageEmbedding
from bundle.ctfindings.scan.coordinates import as_affine


@dataclass(frozen=True)
class EncodedScan:
    """One scan after its encoding.

    Attributes:
        embedding: of the network, on the CPU.
        answers: the findings and their token maps.
        record: the findings with their evidence, as ``findings.json`` holds them.
        scores: sigmoid of the logit of each finding before calibration.
    """

    embedding: ImageEmbedding
    answers: Answers
    record: FindingsRecord
    scores: Mapping[str, float]

    @property
    def scan(self) -> ScanInfo:
        """Identity and geometry of the scan."""
        return self.record.scan

    @property
    def nbytes(self) -> int:
        """Memory of the tensors in bytes."""
        tensors = [part for part in self.embedding if isinstance(part, Tensor)] + list(self.answers.maps.values())
        # A map may be a view of all of them; what is kept alive is the storage.
        return sum({part.untyped_storage().data_ptr(): part.untyped_storage().nbytes() for part in tensors}.values())

    def locate(self, token_map: Tensor) -> Evidence | None:
        """Where in the scan a token map ``[gx, gy, gz]`` is strongest."""
        return locate(token_map, self.answers.token_affine, self.scan.affine, self.scan.shape, self.answers.midline_mm)

    def depth(self, token_map: Tensor, logits: Tensor | None = None) -> tuple[list[DepthScore], DepthSource]:
        """Depth profile of an answer from its token map, or from the logits of the depth rows where there are any, see
        `place_depth`.
        """
        return place_depth(logits, token_map, self.answers.token_affine, self.scan.affine, self.scan.shape)


@dataclass(frozen=True)
class EvidenceAnswer:
    """Where a finding or a question in free text is seen.

    Attributes:
        text: name of the finding, or the question.
        probability: calibrated, of a finding; None for a question, for which no calibration was fitted.
        score: sigmoid of the logit before calibration, 0..1; it ranks scans by one text.
        token_map: ``[gx, gy, gz]`` in [0, 1].
        evidence: peak, box and slice; None when no token inside the scan is above zero.
        depth: profile along the body axis, from inferior to superior.
        depth_source: what the profile was read from, see ``QueryAnswer``.
        seconds: that the answer took.
    """

    text: str
    probability: float | None
    score: float
    token_map: Tensor
    evidence: Evidence | None
    depth: list[DepthScore] = field(default_factory=list)
    depth_source: DepthSource = "evidence"
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, all of them finite; those of the evidence are None without evidence."""
        place = self.evidence
        return {
            "text": self.text,
            "probability": self.probability,
            "score": self.score,
            "depth": [{"z_mm": level.z_mm, "score": level.score} for level in self.depth],
            "depth_source": self.depth_source,
            "z_mm": None if place is None else place.z_mm,
            "peak_mm": None if place is None else list(place.peak_mm),
            "peak_score": None if place is None else place.peak_score,
            "slice_index": None if place is None else place.slice_index,
            "slice_axis": None if place is None else place.slice_axis,
            "image": None if place is None else place.image,
            "side": None if place is None else place.side,
            "box_mm": None if place is None else [list(corner) for corner in place.box_mm],
            "seconds": self.seconds,
        }


def record_of(
    scan: ScanInfo, model: ModelInfo, answers: Answers, warnings: list[str], seconds: Mapping[str, float]
) -> FindingsRecord:
    """Puts the answers on the scan's own grid, and everything that is said about the scan into one record.

    Args:
        scan: identity and geometry.
        model: what answered.
        answers: of the network.
        warnings: from reading the scan; those of the model and of the answers are added.
        seconds: of the stages before the answers; those of the answers and ``evidence`` are added.
    """
    started = time.perf_counter()
    affine = as_affine(scan.affine)

    def placed(answer: Any) -> Any:
        token_map = answers.maps[answer.key]
        evidence = locate(token_map, answers.token_affine, affine, scan.shape, answers.midline_mm)
        if not isinstance(answer, QueryAnswer):
            return dataclasses.replace(answer, evidence=evidence)
        profile, source = place_depth(
            answers.depth_logits.get(answer.key), token_map, answers.token_affine, affine, scan.shape
        )
        return dataclasses.replace(
            answer, evidence=evidence, depth=profile, depth_source=source, z_mm=best_depth(profile)
        )

    record = FindingsRecord(
        scan=scan,
        model=model,
        findings=[placed(answer) for answer in answers.findings],
        queries=[placed(answer) for answer in answers.queries],
        warnings=[*training_warnings(model), *warnings, *answers.warnings],
    )
    return dataclasses.replace(
        record, seconds={**seconds, **answers.seconds, "evidence": time.perf_counter() - started}
    )
