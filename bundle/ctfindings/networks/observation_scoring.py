"""The answer of pathology queries to a pair of prompts: our reading of PLACE (https://arxiv.org/abs/2506.10573)."""

import torch.nn.functional as F
from torch import Tensor

MATCH_TEMPERATURE = 0.1
"""Divides the cosines of prompt and queries when queries are matched, as in ``PathologyAlignmentLoss``."""


def observation_answers(
    pathology: Tensor, pathology_valid: Tensor, positive: Tensor, temperature: float = MATCH_TEMPERATURE
) -> tuple[Tensor, Tensor]:
    """Unit answers of the queries to statements, ``[B, P, E]``, and the shares of the queries in them, ``[B, P, Q]``.

    ``pathology``, ``[B, Q, E]``, and ``positive``, ``[P, E]``, are unit rows of the queries and statements, whose
    cosines ``temperature`` divides. The answer is zero for a scan without a query that is valid, bool ``[B, Q]``.
    """
    scores = positive @ pathology.transpose(1, 2) / temperature
    possible = pathology_valid.any(dim=1).view(-1, 1, 1)
    shares = scores.masked_fill(~pathology_valid.unsqueeze(1) & possible, float("-inf")).softmax(dim=2) * possible
    return F.normalize(shares @ pathology, dim=-1), shares


def observation_logits(pathology: Tensor, pathology_valid: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Cosine of the answer to each statement with the statement, minus that with its denial, ``[B, P]``.

    The denial, a unit row of ``negative`` ``[P, E]``, is compared with the same answer: matched by itself, it would
    find a query for normal anatomy, which every scan has.
    """
    answers, _ = observation_answers(pathology, pathology_valid, positive)
    return (answers * (positive - negative)).sum(dim=-1)
