"""A bundle folder as a service: its inference workflow is loaded once, scans are encoded once, and questions are
answered from that.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor

from bundle.ctfindings.anatomy import ANATOMIES
from bundle.ctfindings.data.transforms import STORED_KEY
from bundle.ctfindings.findings import FINDING_NAMES, finding_index
from bundle.ctfindings.inference.bundle_workflow import FORMAT_NAMES, one_scan
from bundle.ctfindings.inference.encoded_scan import EncodedScan, EvidenceAnswer, record_of
from bundle.ctfindings.inference.evidence import write_evidence
from bundle.ctfindings.inference.findings_record import describe_scan, warnings_of_scan
from bundle.ctfindings.inference.output.anatomy_map import write_anatomy
from bundle.ctfindings.inference.predictor import FindingsPredictor, check_queries
from bundle.ctfindings.inference.provenance import describe_model
from bundle.ctfindings.networks.classifier import ZeroShotClassifier, load_classifier
from bundle.ctfindings.networks.image.image_encoder import ImageEmbedding
from bundle.ctfindings.networks.text.text_tower import TextTower

INFERENCE_CONFIG = "configs/inference.json"


class BundlePredictor:
    """Encodes scans and answers from their encodings, with the network, text tower and image pipeline of a bundle
    folder.

    Threads may share it: questions about encoded scans run side by side but for the text tower, whose cache is not made
    for threads.

    Args:
        bundle_root: folder that holds ``configs/inference.json`` and ``models``.
        ckpt_path: weights; those that the configuration names by default.
        overlays: further configuration files, such as one of ``configs/networks``; paths are relative to
            ``bundle_root``.

    Raises:
        ValueError: when the folder holds no bundle, or the weights do not fit it.
    """

    def __init__(
        self, bundle_root: str | Path, ckpt_path: str | Path | None = None, overlays: Sequence[str | Path] = ()
    ) -> None:
        configs = [Path(bundle_root) / name for name in (INFERENCE_CONFIG, *overlays)]
        for config in configs:
            if not config.is_file():
                raise ValueError(
                    f"{config}: there is no such configuration; give the root folder of the bundle, and overlays relative to it"
                )
        parser = ConfigParser()
        parser.read_config([str(config) for config in configs])
        parser["bundle_root"] = str(bundle_root)
        if ckpt_path is not None:
            parser["ckpt_path"] = str(ckpt_path)
        checkpoint = Path(parser.get_parsed_content("ckpt_path"))
        classifier: ZeroShotClassifier = parser.get_parsed_content("network").eval()
        text: TextTower = parser.get_parsed_content("text_tower")().eval()
        self.device = torch.device(parser.get_parsed_content("device"))
        load_classifier(classifier, checkpoint, text)
        self.model = describe_model(bundle_root, checkpoint, type(classifier.image.tower).__name__)
        self.predictor = FindingsPredictor(classifier, text)
        self.findings = [name for name, scored in zip(FINDING_NAMES, classifier.scored, strict=True) if scored]
        self._preprocessing = parser.get_parsed_content("preprocessing")
        self._text_lock = threading.Lock()

    def encode(
        self,
        image: str | Path,
        name: str | None = None,
        stored: Mapping[str, Any] | None = None,
        anatomy: str | Path | None = None,
    ) -> EncodedScan:
        """Reads and encodes a scan and scores the findings; all that a later question needs is kept.

        Args:
            image: NIfTI, NRRD or MetaImage file, or folder or zip of DICOM.
            name: to be used for the scan in the record; the file's own by default.
            stored: how the file becomes HU, the entry of a study record; see ``load_scan``.
            anatomy: its anatomy mask; without one the network's own is used.

        Raises:
            ScanError: when the file cannot be used.
        """
        batch = one_scan([self._preprocessing({"image": str(image), "anatomy": anatomy, STORED_KEY: stored})])
        tensor: MetaTensor = batch["image"]
        started = time.perf_counter()
        on_device = self.predictor.encode(
            MetaTensor(tensor.as_tensor().to(self.device), affine=tensor.affine),
            *(batch[key].to(self.device) for key in ("anatomy", "anatomy_known") if key in batch),
        )
        embedding = _moved(on_device, torch.device("cpu"))
        encoded = time.perf_counter() - started
        answers = self.predictor.answer(
            self._on_device(embedding), tensor.affine, tensor.shape[2:], {"encode": encoded}
        )
        scan: MetaTensor = batch["scan"]
        info = describe_scan(
            name or scan.meta["filename_or_obj"], FORMAT_NAMES[scan.meta["source_format"]], scan.shape[1:], scan.affine
        )
        warnings = warnings_of_scan(scan, info)
        with torch.inference_mode():
            raw = torch.sigmoid(self.predictor.classifier.score(self._on_device(embedding)).logits)[0].tolist()
        scores = {name: raw[finding_index(name)] for name in self.findings}
        return EncodedScan(embedding, answers, record_of(info, self.model, answers, warnings, batch["seconds"]), scores)

    def finding_evidence(self, scan: EncodedScan, finding: str) -> EvidenceAnswer:
        """Where one of the fixed findings is seen.

        Raises:
            ValueError: when the finding is unknown.
        """
        started = time.perf_counter()
        answers = {answer.name: answer for answer in scan.record.findings}
        if finding not in answers:
            raise ValueError(f"finding {finding[:100]!r} is unknown; known are {', '.join(answers)}")
        return self._placed(
            scan, started, finding, answers[finding].probability, scan.scores[finding], answers[finding].key
        )

    def query_evidence(self, scan: EncodedScan, query: str) -> EvidenceAnswer:
        """Where a question in free text is seen.

        Raises:
            ValueError: when the question cannot be asked: it is empty or too long.
        """
        started = time.perf_counter()
        (text,) = check_queries(query)
        with self._text_lock:
            embedding = self._on_device(scan.embedding)
            (answer,), maps = self.predictor.ask(embedding, [text])
            logits = self.predictor.ask_depth(embedding, [text]).get(text)
        return self._placed(scan, started, text, None, answer.score, answer.key, maps, logits)

    def write_evidence(self, path: str | Path, scan: EncodedScan, answer: EvidenceAnswer) -> None:
        """Writes the map of an answer on the scan's own grid, as NIfTI with values in [0, 1]."""
        write_evidence(path, answer.token_map[None], scan.answers.token_affine, scan.scan.affine, scan.scan.shape)

    def write_anatomy(self, path: str | Path, scan: EncodedScan) -> None:
        """Writes the anatomies that the network found as a label map on the scan's own grid, as NIfTI with the ids of
        ``ANATOMIES``.
        """
        logits = scan.embedding.anatomy_logits[0].T.reshape(len(ANATOMIES), *scan.embedding.grid)
        write_anatomy(path, logits, scan.answers.token_affine, scan.scan.affine, scan.scan.shape)

    def _placed(
        self,
        scan: EncodedScan,
        started: float,
        text: str,
        probability: float | None,
        score: float,
        key: str,
        maps: dict[str, torch.Tensor] | None = None,
        depth_logits: torch.Tensor | None = None,
    ) -> EvidenceAnswer:
        token_map = (scan.answers.maps if maps is None else maps)[key]
        evidence, (depth, source) = scan.locate(token_map), scan.depth(token_map, depth_logits)
        return EvidenceAnswer(
            text, probability, score, token_map, evidence, depth, source, time.perf_counter() - started
        )

    def _on_device(self, embedding: ImageEmbedding) -> ImageEmbedding:
        return _moved(embedding, self.device)


def _moved(embedding: ImageEmbedding, device: torch.device) -> ImageEmbedding:
    tensors: dict[str, Any] = {
        name: part.to(device) for name, part in embedding._asdict().items() if isinstance(part, torch.Tensor)
    }
    return embedding._replace(**tensors)
