"""A checkpoint of the image-text model and the scores it gives to scans, from the images alone.

Shapes: S studies, T templates, W perturbations, C findings, K anatomies, D depth rows, E embedding, R random places.
"""

import copy
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from monai.transforms import Transform
from numpy.typing import NDArray
from torch import Tensor

from bundle.ctfindings.data.chest_regions import ChestRegionsd
from bundle.ctfindings.data.loaders import cached_dataset, study_loader
from bundle.ctfindings.data.transforms import KeepGeometryd
from bundle.ctfindings.files.progress import progress_bar
from bundle.ctfindings.findings import FINDINGS, TEMPLATES, finding_index
from bundle.ctfindings.inference.answers import read_questions
from bundle.ctfindings.inference.encoding import token_affine
from bundle.ctfindings.inference.evidence import locate
from bundle.ctfindings.inference.regions import body_tokens, find_regions
from bundle.ctfindings.metrics.paraphrases import load_paraphrases
from bundle.ctfindings.metrics.prompt_perturbations import PERTURBATIONS
from bundle.ctfindings.metrics.published_protocols import ZeroShotScores
from bundle.ctfindings.networks.checkpoint import load_checkpoint
from bundle.ctfindings.networks.classifier import ZeroShotClassifier
from bundle.ctfindings.networks.domain import Domain, domain_features, load_domain
from bundle.ctfindings.networks.image.depth import depth_positions
from bundle.ctfindings.networks.image.image_encoder import ImageEmbedding
from bundle.ctfindings.networks.image.pooling import token_membership
from bundle.ctfindings.networks.observation_scoring import observation_logits
from bundle.ctfindings.networks.scoring import answering_rows
from bundle.ctfindings.networks.text.prompts import template_bank
from bundle.ctfindings.networks.text.text_tower import TextTower
from bundle.ctfindings.networks.vision_language import VisionLanguageModel
from bundle.ctfindings.scan.coordinates import voxel_to_world
from bundle.ctfindings.scan.lung_mask import LUNG, ChestRegions

logger = logging.getLogger(__name__)

RANDOM_PLACES = 32  # R: random places in the anatomy that answers, for each finding of a scan
LOCALIZED = tuple(index for index, finding in enumerate(FINDINGS) if finding.localized)  # Evidence compared with masks


@dataclass(frozen=True)
class SplitScores(ZeroShotScores):
    """Scores of the scans of a split, and their embeddings."""

    wording_logits: NDArray[np.float64]  # Logits of each of ``PERTURBATIONS``, [S, W, C]
    anatomy: NDArray[np.float64]  # Unit image rows of the anatomies, [S, K, E]
    domain_features: NDArray[np.float64]  # See ``networks.domain``, [S, K, F]
    # Evidence peak of each finding, world RAS mm, [S, C, 3]; NaN without a peak
    peaks_mm: NDArray[np.float64]
    # Random places in the anatomy that answers, with which peaks are compared, [S, C, R, 3]; NaN without a peak
    random_mm: NDArray[np.float64]
    # Dice of the anatomy head's tokens and those of the mask, [S, K]; NaN without a mask, or if neither has a token
    anatomy_dice: NDArray[np.float64]
    depth: Sequence[Tensor]  # Unit depth rows of each study, [D, E]; D differs between scans
    depth_mm: Sequence[Tensor]  # World z of the depth rows in mm, NaN for padding, [D] each
    query_logits: NDArray[np.float64] | None = None  # Raw logits of the queries, [S, P]
    lung_mm: NDArray[np.float64] | None = None  # World z of the ends of the air-filled lungs, [S, 2]; NaN without any
    # What the pathology queries answer to the mean of the templates and to each template, [S, 1 + T, C]
    observed: NDArray[np.float64] | None = None
    observed_wordings: NDArray[np.float64] | None = None  # The same for ``PERTURBATIONS``, [S, W, C]

    def with_observations(self, weight: float) -> Self:
        """The scores with the answers of the pathology queries added to the logits."""
        if self.observed is None or self.observed_wordings is None or weight == 0:
            return self
        return replace(
            self,
            logits=self.logits + weight * self.observed[:, 0],
            template_logits=self.template_logits + weight * self.observed[:, 1:],
            wording_logits=self.wording_logits + weight * self.observed_wordings,
        )


class EvaluatedModel:
    """The image-text model with the weights of a checkpoint.

    Args:
        network: geometry of the checkpoint.
        ckpt_path: a training checkpoint or ``models/model.pt``.
        preprocessing: image pipeline for whole scans, padded to a size that the network accepts.
        cache_dir: folder of the preprocessed scans; None disables the cache.
        cache_key: parameters of the pipeline, see ``cached_dataset``.
        paraphrases: JSON file of texts by finding, see ``load_paraphrases``, each asked of every scan; None for none.

    Raises:
        ValueError: The paraphrases are missing, or of an unknown finding.
    """

    template_ids = tuple(template.id for template in TEMPLATES)
    not_scored: tuple[str, ...] = ()

    def __init__(
        self,
        network: VisionLanguageModel,
        ckpt_path: str | Path,
        preprocessing: Sequence[Transform],
        device: str | torch.device = "cpu",
        cache_dir: str | Path | None = None,
        cache_key: Any = None,
        paraphrases: str | Path | None = None,
    ) -> None:
        given = {} if paraphrases is None else load_paraphrases(paraphrases)
        self.paraphrases = [(finding_index(name), text) for name, texts in given.items() for text in texts]
        self.network, self.ckpt_path, self.device = network, Path(ckpt_path), torch.device(device)
        self.preprocessing, self.cache_dir, self.cache_key = list(preprocessing), cache_dir, cache_key
        self.domain = Domain()

    def load(self) -> None:
        """Loads the checkpoint. ValueError if it does not fit the network."""
        load_checkpoint(self.network, self.ckpt_path)
        logger.info("%s: evaluated weights", self.ckpt_path)
        self.domain = load_domain(self.ckpt_path)
        self.network.to(self.device).eval()

    def with_checkpoint(self, path: str | Path) -> Self:
        """The same network with the weights of another checkpoint."""
        other = copy.copy(self)
        other.network, other.ckpt_path = copy.deepcopy(self.network), Path(path)
        other.load()
        return other

    def score(self, studies: Sequence[dict[str, Any]], name: str) -> SplitScores:
        """Scores of studies from ``load_datalist``, in their order; `name` labels the progress bar."""
        steps = whole_scan_steps(self.preprocessing)
        dataset = cached_dataset(studies, steps, (), self.cache_dir, ["geometry", self.cache_key])
        # Whole scans differ in size, so each is a batch of its own.
        queries = [text for _, text in self.paraphrases]
        return collect_scores(study_loader(dataset, batch_size=1), self.network, self.device, name, queries)

    def settings(self) -> dict[str, Any]:
        """Settings for the record of an evaluation."""
        towers = {"image_parameters": self.network.image, "text_parameters": self.network.text}
        sizes = {name: sum(part.numel() for part in tower.parameters()) for name, tower in towers.items()}
        return {**sizes, "device": self.device.type, "cache_key": self.cache_key}


def whole_scan_steps(preprocessing: Sequence[Transform]) -> list[Transform]:
    """The image pipeline with everything that ``collect_scores`` reads."""
    load, *others = preprocessing
    return [load, ChestRegionsd("image"), *others, KeepGeometryd("image")]


def collect_scores(
    loader: Iterable[dict[str, Any]],
    model: VisionLanguageModel,
    device: str | torch.device = "cpu",
    name: str = "",
    queries: Sequence[str] = (),
) -> SplitScores:
    """Encodes and scores every scan of a loader once; no mask and no report reaches the network.

    The batches come from ``whole_scan_steps``; `name` labels the progress bar. `queries` are asked of every scan.
    """
    parts: dict[str, list[Any]] = {field.name: [] for field in fields(SplitScores)}
    with torch.no_grad():
        scorer = _ScanScorer(model, device, queries)
        for batch in progress_bar(loader, name, unit="scan"):
            for field, rows in scorer(batch).items():
                parts[field].extend(rows)
    lists = ("ids", "patients", "depth", "depth_mm")
    values: dict[str, Any] = {field: rows if field in lists else np.stack(rows) for field, rows in parts.items()}
    return SplitScores(**values)


def perturbation_pairs(text: TextTower) -> tuple[Tensor, Tensor]:
    """Positive and negative embedding of every finding in every perturbation, ``[W C, E]`` each."""
    pairs = [perturbation.pair(finding) for perturbation in PERTURBATIONS for finding in FINDINGS]
    embedded: Tensor = text([pair[0] for pair in pairs] + [pair[1] for pair in pairs], "prompt")
    positive, negative = embedded.chunk(2)
    return positive, negative


def _lung_ends(chest: ChestRegions) -> NDArray[np.float64]:
    z_mm = voxel_to_world(np.argwhere(chest.labels == LUNG), chest.affine)[:, 2]
    return np.asarray([z_mm.min(), z_mm.max()] if len(z_mm) else [np.nan, np.nan])


class _ScanScorer:
    """A batch of scans to the rows of `SplitScores`."""

    def __init__(self, model: VisionLanguageModel, device: str | torch.device, queries: Sequence[str]) -> None:
        model.to(device).eval()
        self.device, self.image = device, model.image
        self.stride: tuple[int, int, int] = tuple(model.image.tower.stride)  # type: ignore[assignment,arg-type]
        self.classifier = ZeroShotClassifier(model.image, model.scorer).to(device)
        self.classifier.bank.prompts.copy_(template_bank(model.text))
        self.perturbed = perturbation_pairs(model.text)
        self.questions = read_questions(self.classifier, model.text, queries) if queries else None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Sequence[Any]]:
        image = batch["image"].to(self.device).float()
        tokens = [token_affine(affine.numpy(), self.stride) for affine in batch["image_affine"]]
        grid = [size // step for size, step in zip(image.shape[2:], self.stride, strict=True)]
        chests = [
            ChestRegions(labels[0].numpy(), affine.numpy())
            for labels, affine in zip(batch["regions"], batch["regions_affine"], strict=True)
        ]
        inside = [body_tokens(chest, affine, grid) for chest, affine in zip(chests, tokens, strict=True)]
        body = torch.from_numpy(np.stack(inside)).flatten(1).to(self.device)
        encoded = self.image(image, body=body)
        scores = self.classifier.score(encoded)
        peaks_mm, random_mm = self._places(batch, encoded, scores.evidence, chests, tokens)
        depth_mm = depth_positions(batch["image_affine"].to(self.device), image, self.image.depth_patch)
        rows = self.classifier.finding_anatomy.repeat(len(PERTURBATIONS))
        wordings, _ = self.classifier.pair_logits(encoded, self.perturbed[0] - self.perturbed[1], rows)
        return {
            "ids": batch["id"],
            "patients": batch["patient"],
            "labels": batch["labels"].numpy(),
            "logits": scores.logits.double().cpu().numpy(),
            "template_logits": scores.template_logits.double().cpu().numpy(),
            "wording_logits": wordings.unflatten(1, (len(PERTURBATIONS), -1)).double().cpu().numpy(),
            "anatomy": encoded.anatomy.double().cpu().numpy(),
            "anatomy_valid": encoded.anatomy_valid.cpu().numpy(),
            "domain_features": domain_features(image, encoded, self.stride, body).double().cpu().numpy(),
            "peaks_mm": peaks_mm,
            "random_mm": random_mm,
            "anatomy_dice": self._dice(batch, (encoded.anatomy_logits > 0).cpu()),
            "depth": list(encoded.depth.cpu()),
            "depth_mm": list(depth_mm.cpu()),
            "query_logits": self._asked(encoded),
            "lung_mm": [_lung_ends(chest) for chest in chests],
            "observed": self._observed(encoded, *self.classifier.bank.pairs().unbind(0)),
            "observed_wordings": self._observed(encoded, *self.perturbed),
        }

    def _asked(self, encoded: ImageEmbedding) -> NDArray[np.float64]:
        if self.questions is None:
            return np.zeros((len(encoded.field), 0))
        logits, _ = self.classifier.pair_logits(encoded, self.questions.delta, self.questions.anatomy)
        return logits.double().cpu().numpy()

    def _observed(self, encoded: ImageEmbedding, positive: Tensor, negative: Tensor) -> NDArray[np.float64]:
        logits = observation_logits(encoded.pathology, encoded.pathology_valid, positive, negative)
        return logits.view(len(logits), -1, len(FINDINGS)).double().cpu().numpy()

    def _places(
        self,
        batch: Mapping[str, Any],
        encoded: ImageEmbedding,
        evidence: Tensor,
        chests: Sequence[ChestRegions],
        tokens: Sequence[NDArray[np.float64]],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Peaks of the evidence within the region of the anatomy that answers, as in inference, and random places."""
        rows = answering_rows(encoded.anatomy_valid, self.classifier.finding_anatomy).tolist()
        peaks = np.full((len(chests), evidence.shape[2], 3), np.nan)
        random = np.full((*peaks.shape[:2], RANDOM_PLACES, 3), np.nan)
        generator = np.random.default_rng(0)
        for study, chest in enumerate(chests):
            regions = find_regions(chest, encoded, study, tokens[study])
            maps = evidence[study].float().cpu().numpy().T.reshape(-1, *encoded.grid)
            scan_affine = batch["image_scan_affine"][study].numpy()
            scan_shape = batch["image_scan_shape"][study].tolist()
            for finding, row in enumerate(rows[study]):
                found = locate(regions.confine(maps[finding], row), regions.affine, scan_affine, scan_shape)
                inside = np.argwhere(regions.region(row).inside)
                if found is not None and len(inside):
                    peaks[study, finding] = found.peak_mm
                    random[study, finding] = voxel_to_world(generator.choice(inside, RANDOM_PLACES), regions.affine)
        return peaks, random

    def _dice(self, batch: Mapping[str, Any], predicted: Tensor) -> NDArray[np.float64]:
        if not isinstance(batch.get("anatomy"), Tensor):
            return np.full((predicted.shape[0], predicted.shape[2]), np.nan)
        true = token_membership(batch["anatomy"], self.stride)
        # 0/0 is NaN: the Dice of an anatomy that is neither present nor predicted is not defined.
        dice = 2 * (predicted & true).sum(dim=1).double() / (predicted.sum(dim=1) + true.sum(dim=1))
        dice[~batch["anatomy_known"]] = torch.nan
        return dice.numpy()
