"""Which pathology queries answer for a sentence: the shares of the queries, by softmax, assignment or transport."""

import math

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

SINKHORN_STEPS = 10
"""Normalisations of the optimal transport; the last one makes the shares of each sentence sum to 1."""

MATCHINGS = ("soft", "hungarian", "sinkhorn")
"""Names of the matchings."""


def match_sentences(
    cosine: Tensor, allowed: Tensor, sentence_count: Tensor, matching: str, temperature: float
) -> Tensor:
    """Share of each query in the answer of each scan to each sentence, ``[B, S, Q]``; sums to 1 over the queries.

    - ``soft``: softmax over the queries, for each sentence by itself.
    - ``hungarian``: each sentence of a report gets a query of its own, as long as there are enough, so that the sum of
      the cosines is largest. PRIOR (https://arxiv.org/abs/2307.12577) assigns by the L1 distance. No gradient.
    - ``sinkhorn``: optimal transport between the sentences of a report and the queries, all of which take equal shares.

    Args:
        cosine: Cosine of each sentence and the queries of each scan, ``[B, S, Q]``.
        allowed: Queries that may answer, bool ``[B, S, Q]``; if none may, the shares are zero.
        sentence_count: Sentences of each report, ``[L]``; they follow each other along S.
        matching: One of ``MATCHINGS``.
        temperature: Divides the cosines.
    """
    possible = allowed.any(dim=2, keepdim=True)
    scores = (cosine / temperature).masked_fill(~allowed & possible, -torch.inf)
    if matching == "soft":
        shares = scores.softmax(dim=2)
    elif matching == "hungarian":
        shares = torch.cat([_assigned(part) for part in scores.detach().split(sentence_count.tolist(), dim=1)], dim=1)
    else:
        shares = torch.cat([_transported(part) for part in scores.split(sentence_count.tolist(), dim=1)], dim=1)
    return shares * possible


def _assigned(scores: Tensor) -> Tensor:
    """One-hot shares ``[B, s, Q]`` of the sentences of one report."""
    shares = torch.zeros_like(scores)
    queries = scores.shape[2]
    # With more sentences than queries, each query takes several.
    repeated = scores.repeat(1, 1, math.ceil(scores.shape[1] / queries)).nan_to_num(neginf=-1e4).cpu().numpy()
    for scan, table in enumerate(repeated):
        sentences, chosen = linear_sum_assignment(table, maximize=True)
        shares[scan, torch.as_tensor(sentences), torch.as_tensor(chosen) % queries] = 1
    return shares


def _transported(scores: Tensor) -> Tensor:
    """Shares ``[B, s, Q]`` of the sentences of one report, in log space; the queries that may answer share alike."""
    usable = scores.isfinite().any(dim=1, keepdim=True)
    for _ in range(SINKHORN_STEPS):
        # The gradient of a logarithm of nothing is not a number, even where it is not used.
        over_sentences = scores.masked_fill(~usable, 0.0).logsumexp(dim=1, keepdim=True)
        scores = (scores - over_sentences).log_softmax(dim=2)
    return scores.exp()
