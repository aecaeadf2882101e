"""Prompts as embeddings: the scoring templates and the training wordings of every finding."""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from bundle.ctfindings.findings import FINDINGS, TEMPLATES, fill_template, training_wordings


class TextEncoder(Protocol):
    """Interface of a text tower."""

    def __call__(self, texts: list[str], role: str) -> Tensor: ...


def template_bank(text: TextEncoder) -> Tensor:
    """Unit embeddings of the scoring templates, ``[C, 2, T, E]``; the second axis is positive, negative."""
    texts = [
        fill_template(getattr(template, polarity), finding.name)
        for finding in FINDINGS
        for polarity in ("positive", "negative")
        for template in TEMPLATES
    ]
    return text(texts, "prompt").view(len(FINDINGS), 2, len(TEMPLATES), -1)


def mean_over_templates(bank: Tensor) -> Tensor:
    """The ``mean7`` prompts of RadFinder: unit mean of unit embeddings, ``[C, 2, T, E]`` to ``[C, 2, E]``."""
    return F.normalize(bank.mean(dim=2), dim=-1)


def drawn_prompts(text: TextEncoder, batch: int) -> Tensor:
    """Unit embeddings of a training wording drawn for each scan and finding, ``[2, B, C, E]``: statement, denial."""
    wordings = [training_wordings(finding) for finding in FINDINGS]
    draw = torch.rand(batch, len(FINDINGS)).tolist()
    pairs = [pairs[int(share * len(pairs))] for row in draw for pairs, share in zip(wordings, row, strict=True)]
    embedded = text([pair[0] for pair in pairs] + [pair[1] for pair in pairs], "prompt")
    return embedded.view(2, batch, len(FINDINGS), -1)
