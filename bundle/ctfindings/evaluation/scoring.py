"""Scores of a split: every study through the image-only classifier in an Ignite evaluator, collected as arrays.

Shapes: S studies, T templates, W wordings, C findings, K anatomies, N tokens, E embedding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from monai.engines import SupervisedEvaluator
from numpy.typing import NDArray
from torch import Tensor, nn

from bundle.ctfindings.anatomy import THORAX
from bundle.ctfindings.data.batches import prepare_image_batch
from bundle.ctfindings.findings import FINDINGS
from bundle.ctfindings.inference.encoding import token_affine
from bundle.ctfindings.inference.evidence import locate
from bundle.ctfindings.metrics.wordings import WORDINGS
from bundle.ctfindings.networks.classifier import ZeroShotClassifier
from bundle.ctfindings.networks.image.pooling import token_membership
from bundle.ctfindings.networks.text.prompts import template_bank
from bundle.ctfindings.networks.text.text_tower import TextTower
from bundle.ctfindings.networks.vision_language import VisionLanguageModel

LOCALIZED = tuple(index for index, finding in enumerate(FINDINGS) if finding.localized)
"""Findings whose place is scored."""


@dataclass(frozen=True)
class SplitScores:
    """What the classifier says about the studies of a split, from the image alone.

    Attributes:
        ids: of the studies, S.
        patients: of the studies, S.
        labels: 1, 0 or -1, ``[S, C]``.
        logits: of the mean over the templates, before calibration, ``[S, C]``.
        template_logits: of each template alone, ``[S, T, C]``.
        wording_logits: of each of ``WORDINGS`` alone, ``[S, W, C]``.
        anatomy: unit image rows of the anatomies, ``[S, K, E]``.
        anatomy_valid: anatomies the scan shows, ``[S, K]``.
        peaks_mm: evidence peak of each localised finding in its anatomy, world RAS mm, ``[S, C, 3]``; NaN where there
            is none.
        anatomy_dice: overlap of the anatomy head's tokens with those of the mask, ``[S, K]``; NaN without a mask, or
            where neither has a token.
    """

    ids: list[str]
    patients: list[str]
    labels: NDArray[np.int64]
    logits: NDArray[np.float64]
    template_logits: NDArray[np.float64]
    wording_logits: NDArray[np.float64]
    anatomy: NDArray[np.float64]
    anatomy_valid: NDArray[np.bool_]
    peaks_mm: NDArray[np.float64]
    anatomy_dice: NDArray[np.float64]


def wording_deltas(text: TextTower) -> Tensor:
    """Positive minus negative embedding of every finding in every wording, ``[W C, E]``."""
    pairs = [wording.pair(finding) for wording in WORDINGS for finding in FINDINGS]
    embedded: Tensor = text([pair[0] for pair in pairs] + [pair[1] for pair in pairs], "prompt")
    positive, negative = embedded.chunk(2)
    return positive - negative


class ScoringNetwork(nn.Module):
    """A classifier that gives all it knows about a scan, not the probabilities alone.

    Args:
        model: the image-text model; its own text tower fills the prompt bank with the scoring templates.
    """

    wording_deltas: Tensor

    def __init__(self, model: VisionLanguageModel) -> None:
        super().__init__()
        self.classifier = ZeroShotClassifier(model.image, model.scorer)
        with torch.no_grad():
            self.classifier.bank.prompts.copy_(template_bank(model.text))
            self.register_buffer("wording_deltas", wording_deltas(model.text))

    def forward(self, image: Tensor) -> dict[str, Any]:
        """``[B, 1, X, Y, Z]`` to logits by template and wording, anatomy rows, the token evidence inside each finding's
        anatomy, and the head's tokens."""
        encoded = self.classifier.image(image)
        scores = self.classifier.score(encoded)
        rows = self.classifier.finding_anatomy
        wordings, _ = self.classifier.scorer(
            encoded.anatomy,
            encoded.anatomy_valid,
            encoded.field,
            encoded.membership,
            self.wording_deltas.expand(image.shape[0], -1, -1),
            rows.repeat(len(WORDINGS)),
        )
        rows = torch.where(encoded.anatomy_valid[:, rows], rows, THORAX)
        members = encoded.membership.gather(2, rows.unsqueeze(1).expand(-1, encoded.membership.shape[1], -1))
        members = members | ~members.any(dim=1, keepdim=True)
        return {
            "logits": scores.logits,
            "template_logits": scores.template_logits,
            "wording_logits": wordings.view(image.shape[0], len(WORDINGS), -1),
            "anatomy_rows": encoded.anatomy,
            "anatomy_valid": encoded.anatomy_valid,
            "evidence": scores.evidence * members,
            "anatomy": encoded.anatomy_logits > 0,
            "grid": encoded.grid,
        }


class ScoreCollector:
    """Collects the answers of every iteration of an evaluator over ``ScoringNetwork``.

    Args:
        stride: voxels per token along each axis.
    """

    def __init__(self, stride: tuple[int, int, int]) -> None:
        self.stride = stride
        self._parts: dict[str, list[Any]] = {}

    def attach(self, engine: Engine) -> None:
        """Registers the handler."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        # Ignite declares what a batch and an output are when there is none.
        batch = cast(Mapping[str, Any], engine.state.batch)
        answers = cast(Mapping[str, Any], engine.state.output)["pred"]
        values = {
            "ids": batch["id"],
            "patients": batch["patient"],
            "labels": batch["labels"].numpy(),
            "logits": answers["logits"].double().cpu().numpy(),
            "template_logits": answers["template_logits"].double().cpu().numpy(),
            "wording_logits": answers["wording_logits"].double().cpu().numpy(),
            "anatomy": answers["anatomy_rows"].double().cpu().numpy(),
            "anatomy_valid": answers["anatomy_valid"].cpu().numpy(),
            "peaks_mm": self._peaks(batch, answers),
            "anatomy_dice": self._dice(batch, answers),
        }
        for name, value in values.items():
            self._parts.setdefault(name, []).extend(value)

    def scores(self) -> SplitScores:
        """All studies seen so far."""
        arrays = {name: np.stack(parts) for name, parts in self._parts.items() if name not in ("ids", "patients")}
        return SplitScores(ids=self._parts["ids"], patients=self._parts["patients"], **arrays)

    def _peaks(self, batch: Mapping[str, Any], answers: Mapping[str, Any]) -> NDArray[np.float64]:
        grid = answers["grid"]
        evidence = answers["evidence"].float().cpu().numpy()
        peaks = np.full((len(evidence), evidence.shape[2], 3), np.nan)
        for study, maps in enumerate(evidence):
            affine = token_affine(batch["image_affine"][study].numpy(), self.stride)
            scan_affine, scan_shape = (
                batch["image_scan_affine"][study].numpy(),
                batch["image_scan_shape"][study].tolist(),
            )
            for finding in LOCALIZED:
                found = locate(maps[:, finding].reshape(grid), affine, scan_affine, scan_shape)
                if found is not None:
                    peaks[study, finding] = found.peak_mm
        return peaks

    def _dice(self, batch: Mapping[str, Any], answers: Mapping[str, Any]) -> NDArray[np.float64]:
        predicted = answers["anatomy"].cpu()
        if not isinstance(batch.get("anatomy"), Tensor):
            return np.full((predicted.shape[0], predicted.shape[2]), np.nan)
        true = token_membership(batch["anatomy"], self.stride)
        size = predicted.sum(dim=1) + true.sum(dim=1)
        # 0/0 is NaN: an anatomy that is neither there nor predicted has no overlap to speak of.
        dice = 2 * (predicted & true).sum(dim=1).double() / size
        dice[~batch["anatomy_known"]] = torch.nan
        return dice.numpy()


def collect_scores(
    loader: Iterable[dict[str, Any]],
    model: VisionLanguageModel,
    device: str | torch.device = "cpu",
    name: str = "scoring",
) -> SplitScores:
    """Scores every study of a loader from its image alone: no mask and no report reaches the network.

    Args:
        loader: batches of studies with ``image`` and the geometry of ``KeepGeometryd``.
        model: with its weights loaded.
        device: to run on.
        name: label of the progress bar.
    """
    network = ScoringNetwork(model).to(device)
    collector = ScoreCollector(tuple(model.image.tower.stride))  # type: ignore[arg-type]
    evaluator = SupervisedEvaluator(
        device=torch.device(device),
        val_data_loader=loader,
        network=network,
        prepare_batch=prepare_image_batch,
        val_handlers=[collector],
        decollate=False,
    )
    ProgressBar(desc=name).attach(evaluator)
    evaluator.run()
    return collector.scores()
