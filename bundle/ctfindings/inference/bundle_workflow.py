"""The parts of the inference workflow that ``configs/inference.json`` names: request, timed loading, inferer, weights,
writer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.engines import SupervisedEvaluator
from monai.inferers import Inferer
from monai.transforms import Compose, Transform
from torch import Tensor

from bundle.ctfindings.inference.encoded_scan import record_of
from bundle.ctfindings.inference.findings_record import (
    Answer,
    FindingAnswer,
    FindingsRecord,
    ModelInfo,
    describe_scan,
    warnings_of_scan,
)
from bundle.ctfindings.inference.output.console_table import format_findings
from bundle.ctfindings.inference.output.write_files import REPORT_FILE, scan_stem, write_findings
from bundle.ctfindings.inference.predictor import Answers, FindingsPredictor, check_queries
from bundle.ctfindings.inference.provenance import describe_model
from bundle.ctfindings.networks.classifier import ZeroShotClassifier, load_classifier
from bundle.ctfindings.networks.text.text_tower import TextTower
from bundle.ctfindings.scan.lung_mask import lung_litres
from bundle.ctfindings.scan.storage import stored_from

EVIDENCE_CHOICES = ("present", "all", "none")

FORMAT_NAMES = {"nifti": "NIfTI", "nrrd": "NRRD", "metaimage": "MetaImage", "npz": "NumPy", "dicom": "DICOM"}


def scan_records(
    image: str | Sequence[str] | None,
    anatomy: str | Sequence[str | None] | None = None,
    stored: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Studies ``{"image": path, "anatomy": path, "stored": entry}`` of a request.

    Args:
        image: path of a scan, or of several.
        anatomy: path of its anatomy mask, or one (or None) for each scan.
        stored: how the scans become HU, for files that do not say so themselves; see
            ``bundle.ctfindings.scan.storage.Stored``.

    Returns:
        One study per scan; none without an image, so that the workflow can be built and checked before a scan is
        chosen.

    Raises:
        ValueError: when masks and scans do not pair, two scans would be written to one folder, or ``stored`` cannot be
            read.
    """
    stored_from(stored)
    images, masks = _paths(image), _paths(anatomy)
    if images and masks and len(masks) != len(images):
        raise ValueError(
            f"anatomy: {len(masks)} masks were given for {len(images)} scans; give one for each scan, or null"
        )
    stems = [scan_stem(str(path)) for path in images]
    for index, stem in enumerate(stems):
        if stem in stems[:index]:
            raise ValueError(
                f"{images[index]}: another scan is named {stem!r} as well and has the same output folder; run them apart"
            )
    return [
        {"image": str(path)}
        | ({} if mask is None else {"anatomy": mask})
        | ({"stored": dict(stored)} if stored else {})
        for path, mask in zip(images, masks or [None] * len(images), strict=True)
    ]


def check_request(
    image: str | Sequence[str] | None,
    anatomy: str | Sequence[str | None] | None,
    queries: Sequence[str] | str,
    evidence: str,
    output_dir: str | Path,
    stored: Mapping[str, Any] | None = None,
) -> None:
    """Refuses a request that cannot be answered, before anything is loaded.

    Raises:
        ValueError: with what is wrong and what would be right.
    """
    if not scan_records(image, anatomy, stored):
        raise ValueError(
            "image: no scan was given; add --image SCAN, a NIfTI or NRRD file, or a folder or zip of DICOM"
        )
    check_queries(queries)
    if evidence not in EVIDENCE_CHOICES:
        raise ValueError(f"evidence: {evidence!r} is unknown; known are {', '.join(EVIDENCE_CHOICES)}")
    existing = next(parent for parent in [Path(output_dir), *Path(output_dir).absolute().parents] if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(
            f"{output_dir}: results cannot be written there; give a folder that can be written as output_dir"
        )


class TimedPreprocessing(Transform):
    """The image pipeline with its times, which keeps the scan as it was loaded, and looks whether it shows a whole
    chest.

    Args:
        steps: the image pipeline; the first one loads.
        min_lung_litres: a scan with less lung that holds air gets a warning; 0 asks for none.

    Returns (adds to the study):
        ``scan``, [1, X, Y, Z] HU on the scan's own grid, and ``seconds`` of the stages ``load`` and ``preprocess``.
    """

    def __init__(self, steps: Sequence[Transform], min_lung_litres: float = 0.0) -> None:
        self.min_lung_litres = min_lung_litres
        self.load = steps[0]
        self.preprocess = Compose(list(steps[1:]))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        started = time.perf_counter()
        loaded = self.load(data)
        loaded_at = time.perf_counter()
        study = self.preprocess(loaded)
        self._look_for_a_chest(loaded["image"])
        seconds = {"load": loaded_at - started, "preprocess": time.perf_counter() - loaded_at}
        return {**study, "scan": loaded["image"], "seconds": seconds}

    def _look_for_a_chest(self, scan: MetaTensor) -> None:
        if self.min_lung_litres <= 0:
            return
        litres = lung_litres(scan.as_tensor()[0].numpy(), scan.affine.numpy())
        if litres < self.min_lung_litres:
            scan.meta["warnings"].append(
                f"{scan.meta['filename_or_obj']}: shows {litres:.1f} litres of lung with air in it, a whole chest more than "
                f"{self.min_lung_litres:g}; of what the scan does not show the findings say nothing"
            )


def one_scan(batch: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Collates a batch of one: tensors for the network get a batch dimension, and the scan itself is not copied."""
    (study,) = batch
    collated = dict(study)
    image: MetaTensor = study["image"]
    collated["image"] = MetaTensor(image.as_tensor()[None], affine=image.affine)
    if "anatomy" in study:
        collated["anatomy"] = torch.as_tensor(study["anatomy"].as_tensor())[None]
        collated["anatomy_known"] = study["anatomy_known"][None]
    return collated


class FindingsInferer(Inferer):
    """Answers for one scan, as a MONAI inferer.

    Args:
        text_tower: makes the text tower; called when there are queries, and once.
        queries: questions in free text.
    """

    def __init__(self, text_tower: Callable[[], TextTower], queries: Sequence[str] | str = ()) -> None:
        super().__init__()
        self.text_tower = text_tower
        self.queries = queries

    @cached_property
    def text(self) -> TextTower | None:
        """The text tower; None without queries."""
        return self.text_tower().eval() if check_queries(self.queries) else None

    def __call__(  # type: ignore[override]
        self,
        inputs: MetaTensor,
        network: ZeroShotClassifier,
        anatomy: Tensor | None = None,
        anatomy_known: Tensor | None = None,
    ) -> Answers:
        """See ``FindingsPredictor``."""
        return FindingsPredictor(network, self.text, check_queries(self.queries))(inputs, anatomy, anatomy_known)


class FindingsWeights:
    """Loads the classifier, and the text tower where there are queries, when the run starts.

    Args:
        ckpt_path: the weights of the bundle.
        network: the classifier.
        inferer: holds the text tower.
    """

    def __init__(self, ckpt_path: str | Path, network: ZeroShotClassifier, inferer: FindingsInferer) -> None:
        self.ckpt_path = ckpt_path
        self.network = network
        self.inferer = inferer

    def attach(self, engine: Engine) -> None:
        """Registers the handler."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        load_classifier(self.network, self.ckpt_path, self.inferer.text, self.inferer.text_tower)


class FindingsWriter:
    """Writes the record, the evidence and the report of every scan, and prints the table.

    Args:
        output_dir: gets a folder for each scan.
        ckpt_path: the weights file that the record names by its digest.
        bundle_root: whose metadata says what its weights were trained on.
        evidence: whose maps go into ``evidence.nii.gz`` and the report: of the ``present`` findings, of ``all`` or of
            ``none``; those of queries with ``present`` and ``all``.
    """

    def __init__(
        self, output_dir: str | Path, ckpt_path: str | Path, bundle_root: str | Path, evidence: str = "present"
    ) -> None:
        self.output_dir = output_dir
        self.ckpt_path = ckpt_path
        self.bundle_root = bundle_root
        self.evidence = evidence
        self._models: dict[str, ModelInfo] = {}

    def attach(self, engine: Engine) -> None:
        """Registers the handler."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: SupervisedEvaluator) -> None:
        batch, answers = engine.state.batch, engine.state.output["pred"]
        network = type(engine.network.image.tower).__name__  # type: ignore[union-attr]
        record, maps = self._record(batch, answers, network)
        scan: MetaTensor = batch["scan"]
        try:
            record = write_findings(
                self.output_dir, record, scan.as_tensor()[0], scan.affine, maps, answers.token_affine
            )
        except OSError as error:
            raise ValueError(
                f"{self.output_dir}: results cannot be written there ({error.strerror or error}); make room, or give another output_dir"
            ) from error
        print(format_findings(record))
        print(f"Report: {Path(self.output_dir) / scan_stem(record.scan.file) / REPORT_FILE}", flush=True)

    def _record(
        self, batch: Mapping[str, Any], answers: Answers, network: str
    ) -> tuple[FindingsRecord, dict[str, Tensor]]:
        scan: MetaTensor = batch["scan"]
        info = describe_scan(
            scan.meta["filename_or_obj"], FORMAT_NAMES[scan.meta["source_format"]], scan.shape[1:], scan.affine
        )
        if network not in self._models:  # The digest of the weights takes a while.
            self._models[network] = describe_model(self.bundle_root, self.ckpt_path, network)
        record = record_of(info, self._models[network], answers, warnings_of_scan(scan, info), batch["seconds"])
        return record, {answer.key: answers.maps[answer.key] for answer in record.answers if self._is_shown(answer)}

    def _is_shown(self, answer: Answer) -> bool:
        if self.evidence == "none":
            return False
        return self.evidence == "all" or not isinstance(answer, FindingAnswer) or answer.present


def _paths(value: str | Sequence[str | None] | None) -> list[str | None]:
    if value is None:
        return []
    if isinstance(value, list | tuple):
        return [None if path is None else str(path) for path in value]
    return [str(value)]
