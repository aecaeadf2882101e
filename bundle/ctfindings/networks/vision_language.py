"""The image-text model: an image tower, a text tower and a scorer, with everything the losses read."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bundle.ctfindings.anatomy import ANATOMY_NAMES, THORAX
from bundle.ctfindings.findings import FINDING_ANATOMY
from bundle.ctfindings.networks.correlation_explorer import CorrelationExplorer
from bundle.ctfindings.networks.image.depth import depth_positions
from bundle.ctfindings.networks.image.image_encoder import ImageEmbedding, ImageEncoder
from bundle.ctfindings.networks.image.pooling import finding_tokens, token_membership
from bundle.ctfindings.networks.image.standardization import frozen_statistics
from bundle.ctfindings.networks.image.token_teacher import TokenTeacher
from bundle.ctfindings.networks.scoring import FindingScorer
from bundle.ctfindings.networks.text.prompts import drawn_prompts, mean_over_templates, template_bank
from bundle.ctfindings.networks.text.text_rows import caption_rows, observation_rows, report_rows, snippet_rows
from bundle.ctfindings.networks.text.text_tower import TextTower
from bundle.ctfindings.step_keys import NetworkOutputs

TEMPERATURE, TEMPERATURE_RANGE = 0.07, (0.001, 0.5)
"""Start and bounds of the learned temperatures of the contrastive losses, as in fVLM."""


class VisionLanguageModel(nn.Module):
    """Chest CT and its report in one space; both towers have the same embedding size.

    Args:
        image: Image encoder.
        text: Text tower.
        scorer: Scorer of the findings.
        correlation: Decoder of the proxy task of PLACE; inference does without.
        draws_prompts: Whether a training step scores drawn wordings of the findings, which costs a pass of the text
            encoder for each new wording. Objectives that read reports alone do without.
        teacher: Teacher of the proxy task; needed by its target "teacher" and by no other.

    Raises:
        ValueError: The proxy task has no teacher and needs one, or has one and does not need it.
    """

    finding_anatomy: Tensor

    def __init__(
        self,
        image: ImageEncoder,
        text: TextTower,
        scorer: FindingScorer,
        correlation: CorrelationExplorer | None = None,
        draws_prompts: bool = True,
        teacher: TokenTeacher | None = None,
    ) -> None:
        super().__init__()
        if (teacher is not None) != (correlation is not None and correlation.target == "teacher"):
            raise ValueError("a teacher is needed by the target 'teacher' of the proxy task, and by no other")
        self.teacher = teacher
        self.image = image
        self.correlation = correlation
        self.draws_prompts = draws_prompts
        self.text = text
        self.scorer = scorer
        self.log_temperature = nn.Parameter(torch.tensor(math.log(TEMPERATURE)))
        self.log_temperature_global = nn.Parameter(torch.tensor(math.log(TEMPERATURE)))
        self.register_buffer("finding_anatomy", torch.tensor(FINDING_ANATOMY), persistent=False)

    def encode_text(self, texts: Sequence[str], role: str = "prompt") -> Tensor:
        """Unit embeddings of texts in a role, ``[n, E]``."""
        return self.text(texts, role)

    def forward(
        self,
        image: Tensor,
        anatomy: Tensor | None = None,
        anatomy_known: Tensor | None = None,
        captions: Sequence[Mapping[str, str]] | None = None,
        finding_masks: Tensor | None = None,
        reports: Sequence[str] | None = None,
        snippets: Sequence[Sequence[Mapping[str, Any]]] | None = None,
        affine: Tensor | None = None,
        observations: Sequence[Sequence[Mapping[str, Any]]] | None = None,
        third_stage: Tensor | None = None,
        fourth_stage: Tensor | None = None,
    ) -> NetworkOutputs:
        """What the losses and the validation read, from an image ``[B, 1, X, Y, Z]`` in [0, 1] and ``NetworkInputs``.

        ValueError if snippets are given without the affine.
        """
        stride: tuple[int, int, int] = self.image.tower.stride  # type: ignore[assignment]
        membership = None if anatomy is None else token_membership(anatomy, stride)
        encoded: ImageEmbedding
        if third_stage is None:
            encoded = self.image(image, membership, anatomy_known)
        else:
            levels, grids = self.image.tower.tokens(third_stage, fourth_stage)  # type: ignore[operator]
            encoded = self.image.encode_levels(image, levels, grids, membership, anatomy_known)
        outputs: NetworkOutputs = {
            "anatomy": encoded.anatomy,
            "anatomy_valid": encoded.anatomy_valid,
            "anatomy_logits": encoded.anatomy_logits,
            "membership": membership,
            "temperature": temperature(self.log_temperature),
            "temperature_global": temperature(self.log_temperature_global),
        }
        if captions is not None and any(text.get(name) for text in captions for name in ANATOMY_NAMES):
            outputs["caption"], outputs["caption_valid"] = caption_rows(self.text, captions, encoded.anatomy)
        if reports is not None and any(reports):
            outputs["scan"], outputs["scan_valid"] = encoded.anatomy[:, THORAX], encoded.anatomy_valid[:, THORAX]
            outputs["report"], outputs["report_valid"] = report_rows(self.text, reports, encoded.anatomy[:, THORAX])
        if snippets is not None and any(snippets):
            if affine is None:
                raise ValueError("snippets need the affine of the image, because their depth is in world mm")
            depth_mm = depth_positions(affine, image, self.image.depth_patch)
            outputs.update(snippet_rows(self.text, snippets, encoded.depth, depth_mm))
        if self.image.pathology is not None:
            outputs["pathology"], outputs["pathology_valid"] = encoded.pathology, encoded.pathology_valid
            outputs["pathology_anatomy"] = self.image.pathology.query_anatomy.expand(len(image), -1)
        if observations is not None and any(observations):
            outputs["sentence"] = observation_rows(self.text, observations)
            if self.correlation is not None:
                count = torch.tensor([len(given) for given in observations], device=image.device)
                abnormal = _abnormal_anatomies(observations).to(image.device)
                taught = None if self.teacher is None else self.teacher(image, third_stage, fourth_stage)
                members = self.image.own_members(encoded.anatomy_logits, membership, anatomy_known)
                field, grid = encoded.field, encoded.grid
                outputs.update(
                    self.correlation(
                        image, field, members, grid, outputs["sentence"], count, abnormal, self._masked_field, taught
                    )
                )
        if self.training and not self.draws_prompts:
            return outputs
        if self.training:
            outputs["prompt_drawn"] = drawn = drawn_prompts(self.text, image.shape[0])
            deltas = drawn[0] - drawn[1]
        else:
            prompts = mean_over_templates(template_bank(self.text))
            deltas = (prompts[:, 0] - prompts[:, 1]).expand(image.shape[0], -1, -1)
        logits, token_logits = self.scorer(
            encoded.anatomy, encoded.anatomy_valid, encoded.field, encoded.membership, deltas, self.finding_anatomy
        )
        if self.training:
            outputs["finding_logits_drawn"], outputs["token_logits_drawn"] = logits, token_logits
            # Also without masks: the scan may be part of a larger batch, in which others have some.
            outputs["anatomy_tokens"] = encoded.membership[:, :, self.finding_anatomy]
            if finding_masks is not None:
                outputs["finding_tokens"] = finding_tokens(finding_masks, stride)
        else:
            outputs["logits"] = logits
        return outputs

    def _masked_field(self, image: Tensor) -> Tensor:
        """Token field of an image with masked patches, ``[B, N, E]``, which no running statistics count."""
        with frozen_statistics(self.image):
            levels, _ = self.image.tower(image)
            return self.image.token_field(levels[0])


def _abnormal_anatomies(observations: Sequence[Sequence[Mapping[str, Any]]]) -> Tensor:
    """Anatomies of which each report states an abnormality, bool ``[B, K]``."""
    named = torch.zeros(len(observations), len(ANATOMY_NAMES), dtype=torch.bool)
    for scan, given in enumerate(observations):
        for observation in given:
            if not observation["normal"] and observation["anatomy"] >= 0:
                named[scan, observation["anatomy"]] = True
    return named


def temperature(log_temperature: Tensor) -> Tensor:
    """A temperature of the contrastive losses from its logarithm, kept within ``TEMPERATURE_RANGE``."""
    low, high = (math.log(limit) for limit in TEMPERATURE_RANGE)
    bounded: Tensor = _Bounded.apply(log_temperature, low, high)
    return bounded.exp()


class _Bounded(torch.autograd.Function):
    """A clamp that passes the gradient that leads back into the limits; with none, a value outside would stay there."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward((value < low).to(value.dtype) - (value > high).to(value.dtype))
        return value.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (below,) = ctx.saved_tensors
        # A step goes against the gradient: a positive one leads out below the limits, a negative one above.
        return gradient.masked_fill(below * gradient > 0, 0), None, None
