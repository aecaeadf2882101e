"""From embeddings to the logit of a finding: the row of its anatomy and the strongest tokens inside that anatomy."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bundle.ctfindings.anatomy import THORAX


class FindingScorer(nn.Module):
    """Logit of a pair of prompts: ``d = s (row . delta) + log(mean_n exp(r z_n)) / r`` with ``delta = positive -
    negative``.

    The first term is the prompt difference of RadFinder (https://arxiv.org/abs/2603.02026) on the row of the finding's
    anatomy. The second is ours: ``z_n = s_t (token_n . delta)`` over the anatomy's tokens, pooled by the log-mean-exp
    of multiple-instance learning (Pinheiro and Collobert, https://arxiv.org/abs/1411.6228), which lies between their
    mean and their maximum, so that a small lesion is not drowned by a large organ, and the map of z is the evidence
    itself. A scan that misses the anatomy is scored on the thorax.

    Args:
        row_scale: initial s.
        token_scale: initial s_t.
        sharpness: r; the mean of the tokens for a small one, their maximum for a large one.
        tokens: whether the second term is used; False scores as fVLM and CA-GCL do, whose losses do not train a token
            field.

    Raises:
        ValueError: when the sharpness is not positive.
    """

    def __init__(
        self, row_scale: float = 5.0, token_scale: float = 10.0, sharpness: float = 1.0, tokens: bool = True
    ) -> None:
        super().__init__()
        if sharpness <= 0:
            raise ValueError(f"sharpness is {sharpness}; it must be positive")
        self.tokens = tokens
        self.sharpness = sharpness
        self.thorax = THORAX
        self.log_row_scale = nn.Parameter(torch.tensor(math.log(row_scale)))
        self.log_token_scale = nn.Parameter(torch.tensor(math.log(token_scale)))

    def token_logits(self, field: Tensor, delta: Tensor) -> Tensor:
        """``[B, N, E]`` and ``[B, P, E]`` to the logits of every token, ``[B, N, P]``."""
        return torch.bmm(field, delta.transpose(1, 2)) * self.log_token_scale.exp()

    def forward(
        self, anatomy: Tensor, anatomy_valid: Tensor, field: Tensor, membership: Tensor, delta: Tensor, rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scores P prompt pairs on each scan.

        Args:
            anatomy: unit anatomy rows, ``[B, K, E]``.
            anatomy_valid: bool ``[B, K]``.
            field: unit token field, ``[B, N, E]``.
            membership: bool ``[B, N, K]``.
            delta: positive minus negative unit prompt embedding, ``[B, P, E]``.
            rows: index of the anatomy of each pair, ``[P]``.

        Returns:
            Logits ``[B, P]`` and token logits ``[B, N, P]``.
        """
        found = anatomy_valid[:, rows]
        used = torch.where(found, rows.unsqueeze(0), torch.full_like(found, self.thorax, dtype=rows.dtype))
        index = used.unsqueeze(-1).expand(-1, -1, anatomy.shape[-1])
        row_logits = (anatomy.gather(1, index) * delta).sum(-1) * self.log_row_scale.exp()
        z = self.token_logits(field, delta)
        if not self.tokens:
            return row_logits, z
        members = membership.gather(2, used.unsqueeze(1).expand(-1, z.shape[1], -1))
        members = members | ~members.any(dim=1, keepdim=True)
        # Single precision also where z is half: a scan may have more tokens than half precision can count.
        counts = members.sum(dim=1).to(torch.float32)
        pooled = torch.logsumexp((self.sharpness * z).masked_fill(~members, float("-inf")), dim=1) - counts.log()
        return row_logits + pooled / self.sharpness, z
