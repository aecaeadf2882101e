"""The one way for a scan: encode it once, answer findings and free-text queries, and place the answers in the scan."""

import dataclasses
import threading
import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.transforms import Transform
from torch import Tensor

from bundle.ctfindings.files.folders import check_literal
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.inference.answers import ScoredAnswer, differences, score_findings, score_queries
from bundle.ctfindings.inference.assessment import Assessment
from bundle.ctfindings.inference.encoding import EncodedScan, encode_study, moved
from bundle.ctfindings.inference.evidence import DIFFUSE_SHARE, depth_profile, locate
from bundle.ctfindings.inference.findings_record import Answer, FindingAnswer, FindingsRecord, ModelInfo, QueryAnswer
from bundle.ctfindings.inference.observations import observed_statements
from bundle.ctfindings.inference.output.anatomy_map import write_anatomy
from bundle.ctfindings.inference.output.dicom.scan_answers import ScanAnswers
from bundle.ctfindings.inference.provenance import describe_model, training_warnings
from bundle.ctfindings.inference.query_reading import UNRELATED, QueryReading, in_words, read_query
from bundle.ctfindings.inference.region_names import region_name
from bundle.ctfindings.networks.classifier import ZeroShotClassifier, load_classifier
from bundle.ctfindings.networks.text.text_tower import TextTower
from bundle.ctfindings.reports.queries import check_queries


@dataclass(frozen=True)
class AnsweredScan:
    """A scan with its answers; enough to answer every further query about it."""

    encoded: EncodedScan
    record: FindingsRecord  # the answers as written to findings.json
    placed: Mapping[str, ScoredAnswer]  # the answers with their evidence, by key

    @property
    def nbytes(self) -> int:
        """Memory of the tensors in bytes."""
        tensors = [part for part in self.encoded.embedding if isinstance(part, Tensor)]
        tensors += [answer.token_map for answer in self.placed.values()]
        regions = self.encoded.regions
        # Maps are views of one tensor, which stays in memory as a whole.
        storages = {part.untyped_storage().data_ptr(): part.untyped_storage().nbytes() for part in tensors}
        return sum(storages.values()) + regions.inside.nbytes + regions.near.nbytes

    @property
    def present(self) -> list[ScoredAnswer]:
        """The findings that are present."""
        return [each for each in self.placed.values() if getattr(each.answer, "present", False)]

    def dicom_answers(self, maps: Mapping[str, Any]) -> ScanAnswers:
        """What the DICOM objects of a scan that was read from DICOM show, with evidence by ``answer.key``."""
        regions, source = self.encoded.regions, self.encoded.source
        assert source is not None
        return ScanAnswers(self.record, source, regions.inside, maps, regions.affine)

    def write_anatomy(self, path: str | Path) -> None:
        """Writes the anatomies that the network found, see ``output.anatomy_map``."""
        write_anatomy(path, self.encoded.regions.inside, *self.encoded.grids)


class FindingsService:
    """Findings and free-text answers for chest CT, with the network and weights of a bundle.

    ``configs/inference.json`` builds it. Threads may share it. Weights are loaded on first use, the text tower with the
    first query.

    Args:
        network: the classifier, on the device it runs on.
        text_tower: makes the text tower.
        preprocessing: ``TimedPreprocessing``.
        ckpt_path: weights of the network and the text tower.
        bundle_root: bundle folder; its metadata says what the shipped weights were trained on.
        min_lung_litres: litres of air-filled lung below which a scan gets a warning; 0 for none.
        outside_domain: what happens to the findings of a scan that is unlike the training scans: ``withhold`` says of
            none that it is present or not, ``warn`` only warns; ValueError for another word.
        diffuse_share: share of the lung above which evidence gets no box, see ``locate``.
    """

    def __init__(
        self,
        network: ZeroShotClassifier,
        text_tower: Callable[[], TextTower],
        preprocessing: Transform,
        ckpt_path: str | Path,
        bundle_root: str | Path,
        min_lung_litres: float = 0.0,
        outside_domain: str = "withhold",
        diffuse_share: float = DIFFUSE_SHARE,
    ) -> None:
        self.diffuse_share = diffuse_share
        self.assessment = Assessment(min_lung_litres, outside_domain)
        self.network = network
        self.text_tower = text_tower
        self.preprocessing = preprocessing
        self.ckpt_path = ckpt_path
        self.bundle_root = bundle_root
        self.device: torch.device = network.finding_anatomy.device
        self.findings = [name for name, scored in zip(FINDING_NAMES, network.scored, strict=True) if scored]
        self._text: TextTower | None = None
        self._unrelated: Tensor | None = None  # [n, E], of the texts that queries are compared with
        self._loaded = False
        self._loading = threading.Lock()
        # The text tower keeps what it computed, which is not made for threads.
        self._asking = threading.Lock()

    @cached_property
    def model(self) -> ModelInfo:
        """The model block of the record; the digest of the weights is computed once."""
        return describe_model(self.bundle_root, self.ckpt_path, type(self.network.image.tower).__name__)

    def load(self, text: bool = True) -> None:
        """Loads the weights, and with ``text`` the text tower, unless they are loaded.

        ValueError if the checkpoint or the text encoder is missing or does not fit.
        """
        with self._loading:
            if self._loaded and (self._text is not None or not text):
                return
            tower = self.text_tower().eval() if text else None
            load_classifier(self.network.eval(), self.ckpt_path, tower, self.text_tower)
            self._text, self._loaded = tower, True

    def answer_file(self, image: str | Path, name: str | None = None, **study: Any) -> AnsweredScan:
        """Reads a scan and answers the findings; ScanError if the file cannot be used.

        Args:
            image: NIfTI, NRRD or MetaImage file, or folder or zip of DICOM.
            name: name of the scan in the record; its file name by default.
            study: further entries of the study record: ``anatomy``, path of a mask, and ``stored``, see ``Stored``.
        """
        return self.answer(self.preprocessing({**study, "image": str(image)}), name=name)

    def answer(
        self, study: Mapping[str, Any], queries: Sequence[str] | str = (), name: str | None = None
    ) -> AnsweredScan:
        """Encodes a study, answers the findings and the queries, and places the answers in the scan.

        For ``study`` and ``name`` see ``encode_study``. ValueError if a query cannot be asked or weights cannot load.
        """
        texts = check_queries(queries)
        self.load(text=bool(texts))
        encoded = encode_study(self.network, study, name)
        encoded_at = time.perf_counter()
        embedding = moved(encoded.embedding, self.device)
        readings = [read_query(text) for text in texts]
        found = score_findings(self.network, embedding)
        assessed = [each._replace(answer=self.assessment.of(each.answer, encoded)) for each in found]
        scored = assessed + self._ask(encoded, readings, [each.answer for each in assessed])
        scored_at = time.perf_counter()
        placed = [self._place(answer, encoded) for answer in scored]
        seconds = {"score": scored_at - encoded_at, "evidence": time.perf_counter() - scored_at}
        answers = [each.answer for each in placed]
        findings = [answer for answer in answers if not isinstance(answer, QueryAnswer)]
        asked = [answer for answer in answers if isinstance(answer, QueryAnswer)]
        # Nothing is stated of a finding that is not assessed, in whatever way the model found it.
        assessable = {answer.name for answer in findings if answer.present is not None}
        replies = [in_words(*pair, findings) for pair in zip(readings, asked, strict=True)]
        record = FindingsRecord(
            scan=encoded.scan,
            model=self.model,
            findings=findings,
            queries=replies,
            observations=observed_statements(self.network, embedding, encoded, assessable),
            domain=encoded.domain,
            notice=self.assessment.notice(encoded.domain),
            warnings=[
                *training_warnings(self.model),
                *encoded.warnings,
                *self.assessment.warnings(encoded),
                *self.network.warnings(encoded.embedding.anatomy_valid[0].tolist()),
            ],
            seconds={**encoded.seconds, **seconds},
        )
        placed = [each._replace(answer=answer) for each, answer in zip(placed, record.answers, strict=True)]
        return AnsweredScan(encoded, record, {each.answer.key: each for each in placed})

    def ask(self, scan: AnsweredScan, query: str) -> ScoredAnswer:
        """Answers a free-text query about a scan from its encoding; ValueError if it cannot be asked."""
        readings = [read_query(text) for text in check_queries(query)]
        (scored,) = self._ask(scan.encoded, readings, scan.record.findings)
        placed = self._place(scored, scan.encoded)
        assert isinstance(placed.answer, QueryAnswer)
        return placed._replace(answer=in_words(readings[0], placed.answer, scan.record.findings))

    def _ask(
        self, encoded: EncodedScan, readings: Sequence[QueryReading], findings: Sequence[Answer]
    ) -> list[ScoredAnswer]:
        if not readings:
            return []
        self.load()
        assert self._text is not None
        asked = [reading.asked for reading in readings]
        with self._asking:
            if self._unrelated is None:
                self._unrelated = differences(self._text, UNRELATED)
            embedding = moved(encoded.embedding, self.device)
            scored = score_queries(self.network, self._text, embedding, asked, self._unrelated)
        unknown = {each.name for each in findings if isinstance(each, FindingAnswer) and each.present is None}
        return [self._worth(*pair, encoded, unknown) for pair in zip(scored, readings, strict=True)]

    def _worth(
        self, scored: ScoredAnswer, reading: QueryReading, encoded: EncodedScan, unknown: Container[str]
    ) -> ScoredAnswer:
        """The answer to a query; one that means nothing, or says nothing about this scan, has no place."""
        assert isinstance(scored.answer, QueryAnswer)
        nothing = torch.zeros_like(scored.token_map)
        if not reading.meaningful:
            answer = dataclasses.replace(scored.answer, score=0.0, percentile=None, nearest_findings=())
            return ScoredAnswer(answer, 0.0, nothing, scored.row)
        assessed = self.assessment.of(scored.answer, encoded)
        if assessed is scored.answer and (nearest := scored.answer.nearest_findings[0].name) in unknown:
            reason = f"its nearest finding, {nearest}, is not assessed"
            assessed = dataclasses.replace(scored.answer, percentile=None, not_assessed=reason)
        return scored if assessed is scored.answer else ScoredAnswer(assessed, scored.score, nothing, scored.row)

    def _place(self, scored: ScoredAnswer, encoded: EncodedScan) -> ScoredAnswer:
        """The answer with its evidence on the scan's own grid; a query also with its depth profile."""
        found = encoded.evidence_map(scored)
        region = encoded.regions.region(scored.row)
        evidence = locate(found, *encoded.grids, encoded.midline_mm, region, self.diffuse_share)
        if evidence is not None and evidence.extent == "focal":
            named = region_name(evidence.peak_mm, scored.row, encoded.regions, encoded.midline_mm)
            evidence = dataclasses.replace(evidence, region=named)
        answer = dataclasses.replace(scored.answer, evidence=encoded.on_source(evidence))
        if isinstance(answer, QueryAnswer) and evidence is not None:
            depth = depth_profile(found, encoded.regions.affine)
            answer = dataclasses.replace(answer, depth=depth, z_mm=evidence.z_mm)
        return scored._replace(answer=answer)


def load_service(
    bundle_root: str | Path,
    ckpt_path: str | Path | None = None,
    overlays: Sequence[str | Path] = (),
    text: bool = True,
    device: str | None = None,
) -> FindingsService:
    """The service of a bundle folder, with its weights loaded.

    ValueError if a configuration is missing, or the weights do not fit it.

    Args:
        bundle_root: folder that holds ``configs/inference.json`` and ``models``.
        ckpt_path: weights; by default those that the configuration names.
        overlays: further configuration files, such as one of ``configs/networks``, relative to ``bundle_root``.
        text: whether to load the text tower as well, which only queries need.
        device: of PyTorch; by default that of the configuration.
    """
    configs = [Path(bundle_root) / name for name in ("configs/inference.json", *overlays)]
    for config in configs:
        if not config.is_file():
            raise ValueError(f"{config}: no such configuration; give the bundle's root folder and overlays inside it")
    parser = ConfigParser()
    parser.read_config([str(config) for config in configs])
    parser["bundle_root"] = check_literal(bundle_root, "bundle")
    if device is not None:
        parser["device"] = device
    if ckpt_path is not None:
        parser["ckpt_path"] = Path(ckpt_path)  # A text would be read for references.
    service: FindingsService = parser.get_parsed_content("service")
    service.load(text)
    return service
