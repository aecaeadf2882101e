"""From an encoded scan to its answers: the findings of the table and free-text queries, each with a token map.

Shapes: T templates, C findings, K anatomies, N tokens, P answers, E embedding.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.inference.findings_record import Answer, FindingAnswer, NearestFinding, QueryAnswer
from bundle.ctfindings.networks.classifier import ZeroShotClassifier
from bundle.ctfindings.networks.image.image_encoder import ImageEmbedding
from bundle.ctfindings.networks.scoring import answering_rows
from bundle.ctfindings.networks.text.prompts import mean_over_templates
from bundle.ctfindings.networks.text.text_tower import TextTower

NEAREST_FINDINGS = 5


class ScoredAnswer(NamedTuple):
    """An answer with its scores by token."""

    answer: Answer  # it gets its evidence when it is placed in the scan
    score: float  # sigmoid of the logit before calibration, 0..1; it ranks scans by one text
    token_map: Tensor  # [gx, gy, gz] in [0, 1], on the CPU, of all tokens
    row: int  # anatomy that answered; the evidence lies in its region


@torch.inference_mode()
def score_findings(classifier: ZeroShotClassifier, encoded: ImageEmbedding) -> list[ScoredAnswer]:
    """The findings that the classifier scores, in table order, for one scan on the device of the classifier."""
    scores = classifier.score(encoded)
    rows = classifier.finding_anatomy.tolist()
    used = answering_rows(encoded.anatomy_valid, classifier.finding_anatomy)[0].tolist()
    maps = _token_maps(scores.evidence, encoded)
    by_template = classifier.bank.calibrate(scores.template_logits)[0].double().cpu()
    found = encoded.anatomy_valid[0].tolist()
    raw = torch.sigmoid(scores.logits)[0].tolist()
    answers = []
    for column, (name, row) in enumerate(zip(FINDING_NAMES, rows, strict=True)):
        if not classifier.scored[column]:
            continue
        templates = dict(zip(classifier.template_ids, by_template[:, column].tolist(), strict=True))
        probability, threshold = float(scores.probabilities[0, column]), float(classifier.bank.threshold[column])
        finding = FindingAnswer(
            name,
            probability,
            threshold,
            present=probability >= threshold,
            anatomy=ANATOMY_NAMES[row],
            anatomy_found=found[row],
            template_spread=template_spread(templates),
            template_probabilities=templates,
        )
        answers.append(ScoredAnswer(finding, raw[column], maps[column], used[column]))
    return answers


class Questions(NamedTuple):
    """Free texts as embeddings, and the anatomy that each asks of."""

    delta: Tensor  # [P, E]: embedding of the text minus that of its denial
    nearest: Tensor  # [P, NEAREST_FINDINGS]: findings with the nearest prompts, the nearest first
    similarity: Tensor  # [P, NEAREST_FINDINGS]: theirs to the text
    anatomy: Tensor  # [P]: anatomy of the nearest finding


def read_questions(classifier: ZeroShotClassifier, text: TextTower, queries: Sequence[str]) -> Questions:
    """Each text is compared with its denial, in the anatomy of the scored finding with the nearest prompts."""
    bank = mean_over_templates(classifier.bank.prompts)[:, 0]
    positive, negative = _with_denials(text, queries)
    scored = torch.tensor(classifier.scored, device=positive.device)
    similarity, nearest = (positive @ bank.T).masked_fill(~scored, float("-inf")).topk(NEAREST_FINDINGS, dim=1)
    return Questions(positive - negative, nearest, similarity, classifier.finding_anatomy[nearest[:, 0]])


@torch.inference_mode()
def score_queries(
    classifier: ZeroShotClassifier,
    text: TextTower,
    encoded: ImageEmbedding,
    queries: Sequence[str],
    unrelated: Tensor | None = None,
) -> list[ScoredAnswer]:
    """Queries from ``check_queries`` about one scan, on the device of the classifier, in the order given.

    Each text is compared with its denial, as the findings are, in the anatomy of the finding with the nearest prompts.
    The score is the sigmoid of the raw logit: no calibration was fitted for free text. Its percentile is among the
    scores of ``unrelated`` texts, from ``differences``, in the same anatomy of the same scan.
    """
    if not queries:
        return []
    questions = read_questions(classifier, text, queries)
    anatomy = questions.anatomy
    rows, used = anatomy.tolist(), answering_rows(encoded.anatomy_valid, anatomy)[0].tolist()
    logits, tokens = classifier.pair_logits(encoded, questions.delta, anatomy)
    maps = _token_maps(classifier.scorer.evidence(tokens), encoded)
    shares = None if unrelated is None else _percentiles(classifier, encoded, unrelated, anatomy, logits[0])
    scores, found = torch.sigmoid(logits[0]).tolist(), encoded.anatomy_valid[0].tolist()
    answers = []
    for index, (query, score, row) in enumerate(zip(queries, scores, rows, strict=True)):
        near = [
            NearestFinding(FINDING_NAMES[column], similar)
            for column, similar in zip(
                questions.nearest[index].tolist(), questions.similarity[index].tolist(), strict=True
            )
        ]
        share = None if shares is None else shares[index]
        answer = QueryAnswer(query, score, ANATOMY_NAMES[row], found[row], nearest_findings=near, percentile=share)
        answers.append(ScoredAnswer(answer, score, maps[index], used[index]))
    return answers


@torch.inference_mode()
def differences(text: TextTower, texts: Sequence[str]) -> Tensor:
    """Embeddings of texts minus those of their denials, ``[n, E]``."""
    positive, negative = _with_denials(text, texts)
    return positive - negative


def _with_denials(text: TextTower, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Embeddings of texts, and of their denials, ``[n, E]`` each."""
    positive, negative = text([*texts, *(denial(each) for each in texts)], "prompt").chunk(2)
    return positive, negative


def _percentiles(
    classifier: ZeroShotClassifier, encoded: ImageEmbedding, unrelated: Tensor, anatomy: Tensor, logits: Tensor
) -> list[float]:
    """Share of the unrelated texts ``[n, E]`` whose logit is below each of ``logits`` ``[P]`` in its anatomy."""
    others = {
        int(row): classifier.pair_logits(encoded, unrelated, row.expand(len(unrelated)))[0][0]
        for row in anatomy.unique()
    }
    return [
        int((others[row] < logit).sum()) / len(unrelated) for row, logit in zip(anatomy.tolist(), logits, strict=True)
    ]


def denial(query: str) -> str:
    """``"Fluid around the lung"`` gives ``"No fluid around the lung"``; ``"COPD"`` keeps its capitals."""
    first = query.split()[0]
    return f"No {query}" if first[1:] != first[1:].lower() else f"No {query[:1].lower()}{query[1:]}"


def template_spread(probabilities: Mapping[str, float]) -> dict[str, float]:
    """``mean``, ``sd`` (population), ``min`` and ``max`` of the probabilities of the templates."""
    values = np.asarray(list(probabilities.values()), dtype=np.float64)
    mean, sd, least, most = values.mean(), values.std(), values.min(), values.max()
    return {"mean": float(mean), "sd": float(sd), "min": float(least), "max": float(most)}


def _token_maps(evidence: Tensor, encoded: ImageEmbedding) -> Tensor:
    """Evidence ``[1, N, P]`` as maps ``[P, gx, gy, gz]``."""
    return evidence[0].T.reshape(-1, *encoded.grid).cpu()
