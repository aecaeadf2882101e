"""The answer of pathology queries to a pair of prompts: our reading of PLACE (https://arxiv.org/abs/2506.10573)."""

import torch.nn.functional as F
from torch import Tensor

MATCH_TEMPERATURE = 0.1
"""Divides the cosines of prompt and queries when queries are matched, as in ``PathologyAlignmentLoss``."""


def observation_answers(
    pathology: Tensor, pathology_valid: Tensor, positive: Tensor, temperature: float = MATCH_TEMPERATURE
) -> tuple[Tensor, Tensor]:
    """How the queries of each scan answer to statements.

    Args:
        pathology: Unit rows of the queries, ``[B, Q, E]``.
        pathology_valid: bool ``[B, Q]``.
        positive: Unit rows of the statements, ``[P, E]``.
        temperature: Divides the cosines.

    Returns:
        Unit answers ``[B, P, E]``, zero for a scan without a valid query, and the shares of the queries, ``[B, P, Q]``.
    """
    scores = positive @ pathology.transpose(1, 2) / temperature
    possible = pathology_valid.any(dim=1).view(-1, 1, 1)
    shares = scores.masked_fill(~pathology_valid.unsqueeze(1) & possible, float("-inf")).softmax(dim=2) * possible
    return F.normalize(shares @ pathology, dim=-1), shares


def observation_logits(pathology: Tensor, pathology_valid: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Cosine of the answer to each statement with the statement, minus that with its denial, ``[B, P]``.

    The denial is compared with the same answer: matched by itself, it would find a query for normal anatomy, which
    every scan has.

    Args:
        pathology, pathology_valid: As in ``ImageEmbedding``.
        positive, negative: Unit rows of the statements and of their denials, ``[P, E]``.
    """
    answers, _ = observation_answers(pathology, pathology_valid, positive)
    return (answers * (positive - negative)).sum(dim=-1)
