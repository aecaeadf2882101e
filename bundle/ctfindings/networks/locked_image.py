"""The image-text model over a locked image tower: pooled features of each scan are its input, the text side is what trains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from bundle.ctfindings.anatomy import ANATOMIES
from bundle.ctfindings.findings import FINDING_ANATOMY
from bundle.ctfindings.networks.pooling import project_rows
from bundle.ctfindings.networks.prompts import mean_over_templates, template_bank
from bundle.ctfindings.networks.scoring import FindingScorer
from bundle.ctfindings.networks.text_tower import TextTower
from bundle.ctfindings.networks.vision_language import caption_rows, temperatures


class LockedImageModel(nn.Module):
    """A projection for each anatomy over features that were pooled once, beside a text tower.

    Locking the image tower is the tuning of Zhai et al., "LiT" (https://arxiv.org/abs/2111.07991), and what RadFinder's released recipe
    does with its windows. What an objective does to the text space is then seen in minutes, at batches that scans would not allow.

    Args:
        text: the text tower.
        features: size F of the pooled features, see ``AnatomyPooling.pool``.
        embedding: size E of the shared space, the text tower's.
        temperature: initial temperature of the contrastive losses; learned, and kept in ``temperature_range``.
        temperature_range: bounds of the temperatures (fVLM: 0.001 to 0.5).
    """

    finding_anatomy: Tensor

    def __init__(
        self,
        text: TextTower,
        features: int,
        embedding: int,
        temperature: float = 0.07,
        temperature_range: Sequence[float] = (0.001, 0.5),
    ) -> None:
        super().__init__()
        self.text = text
        self.projection = nn.Parameter(torch.empty(len(ANATOMIES), features, embedding))
        nn.init.normal_(self.projection, std=features**-0.5)
        self.bias = nn.Parameter(torch.zeros(len(ANATOMIES), embedding))
        self.scorer = FindingScorer(tokens=False)
        self.temperature_range = (float(temperature_range[0]), float(temperature_range[1]))
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))
        self.log_temperature_global = nn.Parameter(torch.tensor(math.log(temperature)))
        self.register_buffer("finding_anatomy", torch.tensor(FINDING_ANATOMY), persistent=False)

    def forward(self, features: Tensor, valid: Tensor, captions: Sequence[Mapping[str, str]] | None = None) -> dict[str, Tensor]:
        """What the losses on captions read.

        Args:
            features: pooled features ``[B, K, F]``.
            valid: bool ``[B, K]``, anatomies the scan shows.
            captions: for each scan the caption of each anatomy that its report speaks of.

        Returns:
            ``anatomy``, ``anatomy_valid``, both temperatures and, with captions, ``caption`` and ``caption_valid``.
        """
        rows = project_rows(features, valid, self.projection, self.bias)
        outputs = {
            "anatomy": rows,
            "anatomy_valid": valid,
            **temperatures(self.log_temperature, self.log_temperature_global, self.temperature_range),
        }
        if captions is not None and any(captions):
            outputs["caption"], outputs["caption_valid"] = caption_rows(self.text, captions, rows)
        return outputs

    def score(self, features: Tensor, valid: Tensor, deltas: Tensor) -> Tensor:
        """Logits ``[B, P, C]`` of P prompt differences of each finding, ``[P, C, E]``, by the row of the finding's anatomy alone."""
        rows = project_rows(features, valid, self.projection, self.bias)
        batch, prompts = len(rows), deltas.shape[0]
        no_tokens = rows.new_zeros(batch, 1, rows.shape[2])
        no_members = torch.zeros(batch, 1, rows.shape[1], dtype=torch.bool, device=rows.device)
        flat = deltas.flatten(0, 1).expand(batch, -1, -1)
        logits, _ = self.scorer(rows, valid, no_tokens, no_members, flat, self.finding_anatomy.repeat(prompts))
        scored: Tensor = logits.view(batch, prompts, -1)
        return scored

    def template_deltas(self) -> Tensor:
        """Positive minus negative prompt of each finding: of the mean over the scoring templates, then of each, ``[1 + T, C, E]``."""
        bank = template_bank(self.text)
        mean = mean_over_templates(bank)
        each = (bank[:, 0] - bank[:, 1]).transpose(0, 1)
        return torch.cat([(mean[:, 0] - mean[:, 1]).unsqueeze(0), each])
