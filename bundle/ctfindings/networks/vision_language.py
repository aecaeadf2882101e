"""The image-text model: two towers behind ``encode_image`` and ``encode_text``, and what the losses need of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.findings import FINDING_ANATOMY
from bundle.ctfindings.networks.image_encoder import ImageEmbedding, ImageEncoder
from bundle.ctfindings.networks.pooling import finding_tokens, token_membership
from bundle.ctfindings.networks.prompts import drawn_deltas, mean_over_templates, template_bank
from bundle.ctfindings.networks.scoring import FindingScorer
from bundle.ctfindings.networks.text_tower import TextTower


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
    ) -> dict[str, Tensor | None]:
        """What the losses and the validation read.

        Args:
            image: ``[B, 1, X, Y, Z]`` in [0, 1].
            anatomy: integer anatomy mask ``[B, 1, X, Y, Z]``.
            anatomy_known: bool ``[B, K]``, anatomies the mask speaks of.
            captions: for each scan the caption of each anatomy that its report speaks of.
            finding_masks: int32 bit masks of the findings ``[B, 1, X, Y, Z]``.

        Returns:
            ``anatomy`` and ``anatomy_valid``, ``anatomy_logits``, ``membership`` (of the mask), ``caption`` and
            ``caption_valid`` (``[B, K, E]``, ``[B, K]``), both temperatures, and the finding logits ``[B, C]``:
            ``finding_logits_drawn`` for wordings drawn from the training bank while training, with the logits of each token
            ``token_logits_drawn`` (``[B, N, C]``) and the tokens of the masks ``finding_tokens``; ``logits`` for the mean of the
            scoring templates otherwise.
        """
        membership = None if anatomy is None else token_membership(anatomy, self.image.tower.stride)  # type: ignore[arg-type]
        encoded: ImageEmbedding = self.image(image, membership, anatomy_known)
        low, high = self.temperature_range
        outputs: dict[str, Tensor | None] = {
            "anatomy": encoded.anatomy,
            "anatomy_valid": encoded.anatomy_valid,
            "anatomy_logits": encoded.anatomy_logits,
            "membership": membership,
            "temperature": self.log_temperature.exp().clamp(low, high),
            "temperature_global": self.log_temperature_global.exp().clamp(low, high),
        }
        if captions is not None and any(text.get(name) for text in captions for name in ANATOMY_NAMES):
            outputs["caption"], outputs["caption_valid"] = self._encode_captions(captions, encoded.anatomy)
        if self.training:
            deltas = drawn_deltas(self.text, image.shape[0])
        else:
            prompts = mean_over_templates(template_bank(self.text))
            deltas = (prompts[:, 0] - prompts[:, 1]).expand(image.shape[0], -1, -1)
        logits, token_logits = self.scorer(
            encoded.anatomy, encoded.anatomy_valid, encoded.field, encoded.membership, deltas, self.finding_anatomy
        )
        if self.training:
            outputs["finding_logits_drawn"], outputs["token_logits_drawn"] = logits, token_logits
            if finding_masks is not None:
                outputs["finding_tokens"] = finding_tokens(finding_masks, self.image.tower.stride)  # type: ignore[arg-type]
        else:
            outputs["logits"] = logits
        return outputs

    def _encode_captions(self, captions: Sequence[Mapping[str, str]], like: Tensor) -> tuple[Tensor, Tensor]:
        places = [(scan, row, text[name]) for scan, text in enumerate(captions) for row, name in enumerate(ANATOMY_NAMES) if text.get(name)]
        embedded = self.text([text for _, _, text in places], "anatomy")
        scans = torch.tensor([scan for scan, _, _ in places], device=like.device)
        rows = torch.tensor([row for _, row, _ in places], device=like.device)
        caption = like.new_zeros(like.shape).index_put((scans, rows), embedded)
        valid = torch.zeros(like.shape[:2], dtype=torch.bool, device=like.device)
        valid[scans, rows] = True
        return caption, valid
