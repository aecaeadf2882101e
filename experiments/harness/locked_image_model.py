"""An image-text model over a locked image tower: pooled features of each scan are the input, the text side trains."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bundle.ctfindings.anatomy import ANATOMIES, THORAX
from bundle.ctfindings.findings import FINDING_ANATOMY
from bundle.ctfindings.networks.image.pooling import project_rows
from bundle.ctfindings.networks.scoring import FindingScorer
from bundle.ctfindings.networks.text.prompts import drawn_prompts, mean_over_templates, template_bank
from bundle.ctfindings.networks.text.text_rows import caption_rows, report_rows, snippet_rows
from bundle.ctfindings.networks.text.text_tower import TextTower
from bundle.ctfindings.networks.vision_language import TEMPERATURE, temperature
from bundle.ctfindings.step_keys import NetworkOutputs


class LockedImageModel(nn.Module):
    """Projections of pooled anatomy and depth features, and a text tower.

    The image tower is locked as in Zhai et al., "LiT" (https://arxiv.org/abs/2111.07991), and in RadFinder's released
    recipe. The effect of an objective on the text space then shows within minutes, with batches too large for scans.

    Args:
        text: The text tower.
        features: Size F of the pooled features of an anatomy, see ``PooledFeatures``.
        depth_features: Size G of the features of a depth.
        embedding: Size E of the shared space, as in the text tower.
    """

    finding_anatomy: Tensor

    def __init__(
        self,
        text: TextTower,
        features: int,
        depth_features: int,
        embedding: int,
    ) -> None:
        super().__init__()
        self.text = text
        self.projection = nn.Parameter(torch.empty(len(ANATOMIES), features, embedding))
        nn.init.normal_(self.projection, std=features**-0.5)
        self.bias = nn.Parameter(torch.zeros(len(ANATOMIES), embedding))
        self.depth = nn.Sequential(nn.LayerNorm(depth_features), nn.Linear(depth_features, embedding))
        self.scorer = FindingScorer(tokens=False)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(TEMPERATURE)))
        self.log_temperature_global = nn.Parameter(torch.tensor(math.log(TEMPERATURE)))
        self.register_buffer("finding_anatomy", torch.tensor(FINDING_ANATOMY), persistent=False)

    def forward(
        self,
        features: Tensor,
        valid: Tensor,
        captions: Sequence[Mapping[str, str]] | None = None,
        reports: Sequence[str] | None = None,
        snippets: Sequence[Sequence[Mapping[str, Any]]] | None = None,
        depth: Tensor | None = None,
        depth_mm: Tensor | None = None,
        prompts: bool = False,
    ) -> NetworkOutputs:
        """Inputs of the losses that read no tokens.

        Args:
            features: Pooled features ``[B, K, F]``.
            valid: Anatomies in the field of view, bool ``[B, K]``.
            captions: For each scan, the captions of the anatomies in its report.
            reports: Report of each scan, or an empty text.
            snippets: For each scan, sentences that name a slice, with ``text`` and world z ``z_mm``.
            depth: Features of the depths ``[B, D, G]``; required with snippets.
            depth_mm: World z of the depths in mm ``[B, D]``, NaN where padded; required with snippets.
            prompts: Whether to draw a wording of each finding for each scan.

        Returns:
            The outputs of ``VisionLanguageModel.forward`` that these inputs give (``step_keys``).

        Raises:
            ValueError: There are snippets but no depths.
        """
        rows = project_rows(features, valid, self.projection, self.bias)
        outputs: NetworkOutputs = {
            "anatomy": rows,
            "anatomy_valid": valid,
            "temperature": temperature(self.log_temperature),
            "temperature_global": temperature(self.log_temperature_global),
        }
        if captions is not None and any(captions):
            outputs["caption"], outputs["caption_valid"] = caption_rows(self.text, captions, rows)
        if reports is not None and any(reports):
            outputs["scan"], outputs["scan_valid"] = rows[:, THORAX], valid[:, THORAX]
            outputs["report"], outputs["report_valid"] = report_rows(self.text, reports, rows[:, THORAX])
        if snippets is not None and any(snippets):
            if depth is None or depth_mm is None:
                raise ValueError("snippets: expected depth and depth_mm with them, found none")
            outputs.update(snippet_rows(self.text, snippets, self.depth_rows(depth), depth_mm))
        if prompts:
            drawn = drawn_prompts(self.text, len(rows))
            outputs["prompt_drawn"] = drawn
            outputs["finding_logits_drawn"] = self._logits(rows, valid, drawn[0] - drawn[1], self.finding_anatomy)
        return outputs

    def encode_text(self, texts: Sequence[str], role: str = "prompt") -> Tensor:
        """Unit embeddings of texts in a role, ``[n, E]``."""
        return self.text(texts, role)

    def depth_rows(self, depth: Tensor) -> Tensor:
        """Unit rows ``[B, D, E]`` of depth features ``[B, D, G]``."""
        return F.normalize(self.depth(depth), dim=-1)

    def score(self, features: Tensor, valid: Tensor, deltas: Tensor) -> Tensor:
        """Logits ``[B, P, C]`` of P prompt differences per finding, ``[P, C, E]``, from the anatomy row alone."""
        rows = project_rows(features, valid, self.projection, self.bias)
        flat = deltas.flatten(0, 1).expand(len(rows), -1, -1)
        return self._logits(rows, valid, flat, self.finding_anatomy.repeat(len(deltas))).view(
            len(rows), len(deltas), -1
        )

    def _logits(self, rows: Tensor, valid: Tensor, deltas: Tensor, anatomies: Tensor) -> Tensor:
        """Logits ``[B, P]`` of prompt differences ``[B, P, E]`` on the rows of their anatomies."""
        no_tokens = rows.new_zeros(len(rows), 1, rows.shape[2])
        no_members = torch.zeros(len(rows), 1, rows.shape[1], dtype=torch.bool, device=rows.device)
        return self.scorer(rows, valid, no_tokens, no_members, deltas, anatomies)[0]

    def template_deltas(self) -> Tensor:
        """Positive minus negative prompt of each finding, of the mean template and of each, ``[1 + T, C, E]``."""
        bank = template_bank(self.text)
        mean = mean_over_templates(bank)
        each = (bank[:, 0] - bank[:, 1]).transpose(0, 1)
        return torch.cat([(mean[:, 0] - mean[:, 1]).unsqueeze(0), each])
