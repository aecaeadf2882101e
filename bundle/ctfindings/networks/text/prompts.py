"""Prompts as embeddings: the scoring templates and the training wordings of every finding, through a text tower."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from bundle.ctfindings.findings import FINDINGS, TEMPLATES, fill_template, training_wordings


class TextEncoder(Protocol):
    """What a text tower must offer."""

    def __call__(self, texts: list[str], role: str) -> Tensor: ...


def template_bank(text: TextEncoder) -> Tensor:
    """Unit embeddings of the scoring templates, ``[C, 2, T, E]``; index 0 of the second axis is positive, 1 negative."""
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
    """Unit embeddings of one training wording drawn for each scan and finding, ``[2, B, C, E]``; index 0 is the
    statement, 1 its denial.
    """
    wordings = [training_wordings(finding) for finding in FINDINGS]
    draw = torch.rand(batch, len(FINDINGS)).tolist()
    pairs = [options[int(share * len(options))] for row in draw for options, share in zip(wordings, row, strict=True)]
    embedded = text([pair[0] for pair in pairs] + [pair[1] for pair in pairs], "prompt")
    return embedded.view(2, batch, len(FINDINGS), -1)
