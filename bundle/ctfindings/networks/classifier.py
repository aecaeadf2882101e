"""The exported classifier: an image encoder with a frozen, calibrated prompt bank."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.findings import FINDING_ANATOMY, FINDING_NAMES, FINDINGS, TEMPLATES
from bundle.ctfindings.networks.checkpoint import load_checkpoint
from bundle.ctfindings.networks.domain import Domain
from bundle.ctfindings.networks.image.image_encoder import ImageEmbedding, ImageEncoder
from bundle.ctfindings.networks.observation_scoring import observation_logits
from bundle.ctfindings.networks.scoring import FindingScorer
from bundle.ctfindings.networks.text.prompts import mean_over_templates

NO_THRESHOLD = 2.0
"""The threshold of a finding that a checkpoint does not assess, because no threshold could be fitted."""


class FindingScores(NamedTuple):
    """Answers for a batch of scans."""

    logits: Tensor  # [B, C]: logit of the mean over the templates, before calibration
    probabilities: Tensor  # [B, C]: calibrated
    template_logits: Tensor  # [B, T, C]: logit of each single template
    evidence: Tensor  # [B, N, C]: evidence in [0, 1] of every token of the finest grid


class PromptBank(nn.Module):
    """Frozen prompt embeddings with their calibration and thresholds, all stored in the checkpoint.

    Args:
        embedding: Size E of the shared space.
        templates: Number of templates T.
        observes: Whether the image encoder has pathology queries, whose weight is then stored too.
    """

    def __init__(self, embedding: int, templates: int = len(TEMPLATES), observes: bool = False) -> None:
        super().__init__()
        findings = len(FINDINGS)
        self.prompts: Tensor
        self.calibration_scale: Tensor
        self.calibration_shift: Tensor
        self.threshold: Tensor
        self.register_buffer("prompts", torch.zeros(findings, 2, templates, embedding))
        self.register_buffer("calibration_scale", torch.ones(findings))
        self.register_buffer("calibration_shift", torch.zeros(findings))
        self.register_buffer("threshold", torch.full((findings,), 0.5))
        # How much the pathology queries add to a logit, fitted on calibration scans.
        self.observation_weight: Tensor
        self.register_buffer("observation_weight", torch.zeros(()), persistent=observes)

    def pairs(self) -> Tensor:
        """Positive and negative prompts: the mean over templates first, then each template, ``[2, C (1 + T), E]``."""
        every = torch.cat([mean_over_templates(self.prompts).unsqueeze(1), self.prompts.transpose(1, 2)], dim=1)
        return every.permute(2, 1, 0, 3).flatten(1, 2)

    def calibrate(self, logits: Tensor) -> Tensor:
        """Logits ``[..., C]`` to calibrated probabilities."""
        return torch.sigmoid(logits * self.calibration_scale + self.calibration_shift)


class ZeroShotClassifier(nn.Module):
    """Scores the 18 findings of a scan against the frozen prompt bank.

    Attributes:
        template_ids: Ids of the T templates in the prompt bank.
        scored: Whether each of the C findings is scored.
    """

    def __init__(self, image: ImageEncoder, scorer: FindingScorer) -> None:
        super().__init__()
        self.image = image
        self.scorer = scorer
        self.bank = PromptBank(image.embedding, observes=getattr(image, "pathology", None) is not None)
        self.domain = Domain()
        self.template_ids = tuple(template.id for template in TEMPLATES)
        self.scored = (True,) * len(FINDINGS)
        self.finding_anatomy: Tensor
        self.register_buffer("finding_anatomy", torch.tensor(FINDING_ANATOMY), persistent=False)
        self.register_load_state_dict_post_hook(_allow_text_tower)

    def forward(self, image: Tensor) -> Tensor:
        """``[B, 1, X, Y, Z]`` in [0, 1] to the calibrated probability of each finding, ``[B, C]``."""
        return self.score(self.image(image)).probabilities

    def score(self, encoded: ImageEmbedding) -> FindingScores:
        """Scores all findings with all templates on encoded scans."""
        count = self.finding_anatomy.shape[0]
        pairs = self.bank.pairs()
        rows = self.finding_anatomy.repeat(pairs.shape[1] // count)
        logits, tokens = self.pair_logits(encoded, pairs[0] - pairs[1], rows)
        if encoded.pathology.shape[1] > 0:
            observed = observation_logits(encoded.pathology, encoded.pathology_valid, pairs[0], pairs[1])
            logits = logits + self.bank.observation_weight * observed
        logits = logits.view(logits.shape[0], -1, count)
        return FindingScores(
            logits=logits[:, 0],
            probabilities=self.bank.calibrate(logits[:, 0]),
            template_logits=logits[:, 1:],
            evidence=self.scorer.evidence(tokens[:, :, :count]),
        )

    def pair_logits(self, encoded: ImageEmbedding, delta: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Scores the same P pairs of prompts on every scan, before calibration.

        Args:
            encoded: Encoded scans.
            delta: Positive minus negative prompt, ``[P, E]``.
            rows: Index of the anatomy of each pair, ``[P]``.

        Returns:
            Logits ``[B, P]`` and token logits ``[B, N, P]``.
        """
        deltas = delta.expand(encoded.field.shape[0], -1, -1)
        logits, tokens = self.scorer(
            encoded.anatomy, encoded.anatomy_valid, encoded.field, encoded.membership, deltas, rows
        )
        return logits, tokens

    def warnings(self, found: Sequence[bool]) -> list[str]:
        """See ``anatomy_warnings``."""
        return anatomy_warnings(found, self.finding_anatomy.tolist())


def load_classifier(
    classifier: ZeroShotClassifier,
    path: str | Path,
    text: nn.Module | None = None,
    text_tower: Callable[[], nn.Module] | None = None,
) -> None:
    """Loads a classifier, and the text tower of the same checkpoint if one is given.

    If the checkpoint has no prompt embeddings (published weights converted without a tokenizer), computes them.

    Args:
        classifier: Classifier, which stays on its device.
        path: Bundle checkpoint.
        text: Text tower, for free text.
        text_tower: Builds a text tower if the prompts have to be encoded.

    Raises:
        ValueError: The checkpoint does not fit, or lacks prompts and there is no text tower.
    """
    device = classifier.finding_anatomy.device
    modules: dict[str, nn.Module] = dict(classifier.named_children())
    if text is not None:
        modules["text"] = text
    # PublishedClassifier may lack prompt embeddings, and its parameters are too large to hold twice.
    fill_prompts: Callable[[nn.Module], None] | None = getattr(classifier, "fill_prompts", None)
    load_checkpoint(modules, path, assign=fill_prompts is not None)
    if fill_prompts is not None and not bool(classifier.bank.prompts.any()):
        if text is None:
            if text_tower is None:
                raise ValueError(f"{path}: holds no prompt embeddings; convert it again with --text-encoder")
            text = text_tower().eval()
            load_checkpoint({"text": text}, path, assign=True)
        fill_prompts(text)
    for module in modules.values():
        module.to(device)


def anatomy_warnings(
    found: Sequence[bool], rows: Sequence[int] = FINDING_ANATOMY, what: str = "not assessed"
) -> list[str]:
    """One line for each anatomy outside the field of view that a finding is scored on.

    Args:
        found: Whether each of the K anatomies was found.
        rows: Index of the anatomy of each finding; negative for a finding that is not scored.
        what: What happened to the findings.
    """
    lines = []
    for row, name in enumerate(ANATOMY_NAMES):
        affected = [finding for finding, anatomy in zip(FINDING_NAMES, rows, strict=True) if anatomy == row]
        if affected and not found[row]:
            scored = "was" if len(affected) == 1 else "were"
            lines.append(f"{name.capitalize()} was not found in the scan: {', '.join(affected)} {scored} {what}")
    return lines


def _allow_text_tower(module: nn.Module, incompatible) -> None:  # type: ignore[no-untyped-def]
    # The weights file also holds the text tower and the temperatures, which MONAI's ckpt_export passes on.
    incompatible.unexpected_keys[:] = [
        key for key in incompatible.unexpected_keys if not key.startswith(("text.", "log_temperature"))
    ]
