"""The logit of a finding, from the row of its anatomy and the tokens inside that anatomy."""

import math

import torch
from torch import Tensor, nn

from bundle.ctfindings.anatomy import THORAX
from bundle.ctfindings.networks.trained_settings import TrainedSettings

TOKEN_SCALE = 10.0
"""Initial scale of the token term."""


def answering_rows(anatomy_valid: Tensor, rows: Tensor, thorax: int = THORAX) -> Tensor:
    """The anatomy that answers each question: its own, or the thorax where that is outside the field of view.

    Args:
        anatomy_valid: Anatomies in the field of view, bool ``[B, K]``.
        rows: Index of the anatomy of each question, ``[P]``.

    Returns:
        Index of the anatomy that answers, ``[B, P]``.
    """
    return torch.where(anatomy_valid[:, rows], rows.unsqueeze(0), torch.full_like(rows, thorax).unsqueeze(0))


class FindingScorer(nn.Module):
    """Logit of a pair of prompts: ``d = s (row . delta) + log(mean_n exp(r z_n)) / r`` with ``delta = positive -
    negative``.

    The first term is the prompt difference of RadFinder (https://arxiv.org/abs/2603.02026) on the row of the finding's
    anatomy. The second is ours: ``z_n = s_t (token_n . delta)`` over the anatomy's tokens, pooled by the log-mean-exp
    of multiple-instance learning (Pinheiro and Collobert, https://arxiv.org/abs/1411.6228). It lies between their mean
    and their maximum, so that a large organ does not hide a small lesion, and the map of z is the evidence. If the
    anatomy is outside the field of view, the finding is scored on the thorax.

    Args:
        row_scale: Initial s.
        token_scale: Initial s_t.
        sharpness: r; small values approach the mean of the tokens, large ones their maximum.
        tokens: Whether to use the second term; fVLM and CA-GCL, whose losses train no token field, do not.

    Raises:
        ValueError: The sharpness is not positive.
    """

    def __init__(
        self, row_scale: float = 5.0, token_scale: float = TOKEN_SCALE, sharpness: float = 1.0, tokens: bool = True
    ) -> None:
        super().__init__()
        if sharpness <= 0:
            raise ValueError(f"sharpness: expected a positive number, got {sharpness}")
        self.settings = TrainedSettings({"score_tokens": tokens, "token_sharpness": sharpness})
        self.tokens = tokens
        self.sharpness = sharpness
        self.thorax = THORAX
        self.log_row_scale = nn.Parameter(torch.tensor(math.log(row_scale)))
        self.log_token_scale = nn.Parameter(torch.tensor(math.log(token_scale)))

    def evidence(self, token_logits: Tensor) -> Tensor:
        """Evidence in [0, 1] of token logits; zero everywhere if the scale of the token term is zero."""
        return torch.sigmoid(token_logits) * (self.log_token_scale.exp() > 0)

    def token_logits(self, field: Tensor, delta: Tensor) -> Tensor:
        """``[B, N, E]`` and ``[B, P, E]`` to the logits of every token, ``[B, N, P]``, in memory by pair."""
        return (torch.bmm(delta, field.transpose(1, 2)) * self.log_token_scale.exp()).transpose(1, 2)

    def forward(
        self, anatomy: Tensor, anatomy_valid: Tensor, field: Tensor, membership: Tensor, delta: Tensor, rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scores P prompt pairs on each scan.

        Args:
            anatomy, anatomy_valid, field, membership: As in ``ImageEmbedding``.
            delta: Positive minus negative unit prompt embedding, ``[B, P, E]``.
            rows: Index of the anatomy of each pair, ``[P]``.

        Returns:
            Logits ``[B, P]`` and token logits ``[B, N, P]``.
        """
        z = self.token_logits(field, delta)
        return self.logits(anatomy, anatomy_valid, z, membership, delta, rows), z

    def logits(
        self, anatomy: Tensor, anatomy_valid: Tensor, z: Tensor, membership: Tensor, delta: Tensor, rows: Tensor
    ) -> Tensor:
        """Logits ``[B, P]`` from the logits of the tokens, ``[B, N, P]``; other arguments as in ``forward``."""
        used = answering_rows(anatomy_valid, rows, self.thorax)
        index = used.unsqueeze(-1).expand(-1, -1, anatomy.shape[-1])
        row_logits = (anatomy.gather(1, index) * delta).sum(-1) * self.log_row_scale.exp()
        if not self.tokens:
            return row_logits
        # All tokens for an anatomy without one.
        away = (~membership & membership.any(dim=1, keepdim=True)).transpose(1, 2).contiguous()
        # In single precision: a scan may have more tokens than half precision can count.
        counts = (~away).sum(dim=2).to(torch.float32).gather(1, used)
        scan = torch.arange(used.shape[0], device=used.device).unsqueeze(1)
        scaled = (self.sharpness * z.transpose(1, 2)).masked_fill_(away[scan, used], float("-inf"))
        pooled = torch.logsumexp(scaled, dim=2) - counts.log()
        return row_logits + pooled / self.sharpness
