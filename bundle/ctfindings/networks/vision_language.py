"""The image-text model: two towers behind ``encode_image`` and ``encode_text``, and what the losses need of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bundle.ctfindings.anatomy import ANATOMY_NAMES, THORAX
from bundle.ctfindings.findings import FINDING_ANATOMY
from bundle.ctfindings.networks.image.depth import depth_positions
from bundle.ctfindings.networks.image.image_encoder import ImageEmbedding, ImageEncoder
from bundle.ctfindings.networks.image.pooling import finding_tokens, token_membership
from bundle.ctfindings.networks.scoring import FindingScorer
from bundle.ctfindings.networks.text.prompts import drawn_prompts, mean_over_templates, template_bank
from bundle.ctfindings.networks.text.text_rows import caption_rows, report_rows, snippet_rows
from bundle.ctfindings.networks.text.text_tower import TextTower


class VisionLanguageModel(nn.Module):
    """Chest CT and its report in one space.

    Args:
        image: the image encoder.
        text: the text tower; both end in the same embedding size.
        scorer: turns prompts and embeddings into logits; one with the default settings by default.
        temperature: initial temperature of the contrastive losses; learned, and kept in ``temperature_range``.
        temperature_range: bounds of the temperatures (fVLM: 0.001 to 0.5).
    """

    finding_anatomy: Tensor

    def __init__(
        self,
        image: ImageEncoder,
        text: TextTower,
        scorer: FindingScorer | None = None,
        temperature: float = 0.07,
        temperature_range: Sequence[float] = (0.001, 0.5),
    ) -> None:
        super().__init__()
        self.image = image
        self.text = text
        self.scorer = FindingScorer() if scorer is None else scorer
        self.temperature_range = (float(temperature_range[0]), float(temperature_range[1]))
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))
        self.log_temperature_global = nn.Parameter(torch.tensor(math.log(temperature)))
        self.register_buffer("finding_anatomy", torch.tensor(FINDING_ANATOMY), persistent=False)

    def encode_image(self, image: Tensor, anatomy: Tensor | None = None, known: Tensor | None = None) -> ImageEmbedding:
        """Encodes scans once; every question is then a product with text vectors.

        Args:
            image: ``[B, 1, X, Y, Z]`` in [0, 1].
            anatomy: integer anatomy mask ``[B, 1, X, Y, Z]``; the anatomy head's prediction is used without one.
            known: bool ``[B, K]``, anatomies the mask speaks of; all by default.
        """
        membership = None if anatomy is None else token_membership(anatomy, self.image.tower.stride)  # type: ignore[arg-type]
        return self.image(image, membership, known)

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
    ) -> dict[str, Tensor | None]:
        """What the losses and the validation read.

        Args:
            image: ``[B, 1, X, Y, Z]`` in [0, 1].
            anatomy: integer anatomy mask ``[B, 1, X, Y, Z]``.
            anatomy_known: bool ``[B, K]``, anatomies the mask speaks of.
            captions: for each scan the caption of each anatomy that its report speaks of.
            finding_masks: int32 bit masks of the findings ``[B, 1, X, Y, Z]``.
            reports: the report of each scan, empty where it has none.
            snippets: for each scan the sentences that name a slice, with their ``text`` and its world z, ``z_mm``.
            affine: voxel index of the network's grid to RAS mm, ``[B, 4, 4]``; needed with snippets.

        Returns:
            ``anatomy`` and ``anatomy_valid``, ``anatomy_logits``, ``membership`` (of the mask), ``caption`` and
            ``caption_valid`` (``[B, K, E]``, ``[B, K]``), both temperatures, and the finding logits ``[B, C]``:
            ``logits`` for the mean of the scoring templates, or while training ``finding_logits_drawn`` for wordings
            drawn from the training bank (``prompt_drawn``, ``[2, B, C, E]``), with the logits of each token
            ``token_logits_drawn``, the tokens of the findings' anatomies ``anatomy_tokens`` and, with finding masks,
            those of the masks ``finding_tokens`` (``[B, N, C]``). With a report in the batch: ``scan`` (the thorax
            rows), ``scan_valid``, ``report`` and ``report_valid`` (``[B, E]``, ``[B]``). With a snippet in the batch,
            for each of the S snippets: ``snippet`` ``[S, E]``, its ``target_mm`` ``[S]``, and the rows of its scan,
            ``depth`` ``[S, D, E]`` with ``depth_mm`` ``[S, D]`` (NaN where a row is padding).

        Raises:
            ValueError: snippets are given without the affine.
        """
        membership = None if anatomy is None else token_membership(anatomy, self.image.tower.stride)  # type: ignore[arg-type]
        encoded: ImageEmbedding = self.image(image, membership, anatomy_known)
        outputs: dict[str, Tensor | None] = {
            "anatomy": encoded.anatomy,
            "anatomy_valid": encoded.anatomy_valid,
            "anatomy_logits": encoded.anatomy_logits,
            "membership": membership,
            **temperatures(self.log_temperature, self.log_temperature_global, self.temperature_range),
        }
        if captions is not None and any(text.get(name) for text in captions for name in ANATOMY_NAMES):
            outputs["caption"], outputs["caption_valid"] = caption_rows(self.text, captions, encoded.anatomy)
        if reports is not None and any(reports):
            outputs["scan"], outputs["scan_valid"] = encoded.anatomy[:, THORAX], encoded.anatomy_valid[:, THORAX]
            outputs["report"], outputs["report_valid"] = report_rows(self.text, reports, encoded.anatomy[:, THORAX])
        if snippets is not None and any(snippets):
            if affine is None:
                raise ValueError(
                    "snippets were given without the affine of the image; their depth is in mm of the world"
                )
            outputs.update(
                snippet_rows(self.text, snippets, encoded.depth, depth_positions(affine, image, self.image.depth_patch))
            )
        if self.training:
            drawn = drawn_prompts(self.text, image.shape[0])
            outputs["prompt_drawn"] = drawn
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
                outputs["finding_tokens"] = finding_tokens(finding_masks, self.image.tower.stride)  # type: ignore[arg-type]
        else:
            outputs["logits"] = logits
        return outputs


def temperatures(local: Tensor, everywhere: Tensor, limits: tuple[float, float]) -> dict[str, Tensor]:
    """``temperature`` and ``temperature_global`` of the contrastive losses, kept within limits.

    Args:
        local: logarithm of the first, a scalar.
        everywhere: logarithm of the second, a scalar.
        limits: lowest and highest temperature.
    """
    low, high = (math.log(limit) for limit in limits)
    bounded = [_Bounded.apply(value, low, high).exp() for value in (local, everywhere)]
    return dict(zip(("temperature", "temperature_global"), bounded, strict=True))


class _Bounded(torch.autograd.Function):
    """A clamp that lets through the gradient that leads back: a value that has left the limits would otherwise never
    learn again.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward((value < low).to(value.dtype) - (value > high).to(value.dtype))
        return value.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (below,) = ctx.saved_tensors
        # A step goes against the gradient: a positive one below the limits leads further out, and so does a negative
        # one above.
        return gradient.masked_fill(below * gradient > 0, 0), None, None
