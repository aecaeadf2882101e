"""From one encoded scan to its answers: the findings of the table and free-text questions, each with its token map.

Shapes: T templates, C findings, K anatomies, N tokens, Q queries, E embedding.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from torch import Tensor

from bundle.ctfindings.anatomy import ANATOMY_NAMES, THORAX
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.inference.depth import snippet_logits
from bundle.ctfindings.inference.findings_record import FindingAnswer, NearestFinding, QueryAnswer, template_spread
from bundle.ctfindings.networks.classifier import ZeroShotClassifier
from bundle.ctfindings.networks.image.image_encoder import ImageEmbedding
from bundle.ctfindings.networks.text.text_tower import TextTower
from bundle.ctfindings.scan.coordinates import Array, as_affine

MAX_QUERY_CHARACTERS = 300
NEAREST_FINDINGS = 5


@dataclass(frozen=True)
class Answers:
    """What the model says about one scan, before it is placed on the scan's own grid.

    Attributes:
        findings: the findings in table order, without evidence.
        queries: the questions in the order asked, without evidence.
        maps: token map ``[gx, gy, gz]`` of every answer by its key, in [0, 1]; zero outside the answer's anatomy.
        token_affine: token index to RAS mm of the token's centre, ``(4, 4)``.
        midline_mm: world x of the patient's midline.
        warnings: one line each.
        seconds: time of the stages ``encode`` and ``score``.
        depth_logits: of the depth rows, ``[D]`` by the key of each query; none of weights that were not trained on
            slice references.
    """

    findings: Sequence[FindingAnswer]
    queries: Sequence[QueryAnswer]
    maps: Mapping[str, Tensor]
    token_affine: Array
    midline_mm: float
    warnings: Sequence[str]
    seconds: Mapping[str, float]
    depth_logits: Mapping[str, Tensor] = field(default_factory=dict)


class FindingsPredictor:
    """Encodes a scan once and answers everything from that encoding; a further question is a matrix product.

    Args:
        classifier: with its weights and prompt bank loaded.
        text: the text tower of the same checkpoint; needed for queries only.
        queries: questions in free text that every scan is asked, such as ``"fluid around the lung"``.

    Raises:
        ValueError: for a query that cannot be asked.
    """

    def __init__(
        self, classifier: ZeroShotClassifier, text: TextTower | None = None, queries: Sequence[str] = ()
    ) -> None:
        self.classifier = classifier
        self.text = text
        self.queries = check_queries(queries)

    def __call__(self, image: MetaTensor, anatomy: Tensor | None = None, known: Tensor | None = None) -> Answers:
        """Answers for one scan.

        Args:
            image: ``[1, 1, X, Y, Z]`` in [0, 1] on the network's grid, with the affine of that grid.
            anatomy: integer anatomy mask ``[1, 1, X, Y, Z]``; the anatomy head's prediction is used without one.
            known: bool ``[1, K]``, anatomies the mask speaks of; all by default.

        Raises:
            ValueError: when the image is not one scan.
        """
        if image.ndim != 5 or image.shape[:2] != (1, 1):
            raise ValueError(f"image: shape {tuple(image.shape)} was given; one scan [1, 1, X, Y, Z] is expected")
        started = time.perf_counter()
        encoded = self.encode(image, anatomy, known)
        return self.answer(encoded, image.affine, image.shape[2:], {"encode": time.perf_counter() - started})

    def answer(
        self, encoded: ImageEmbedding, image_affine: Tensor, shape: Sequence[int], seconds: Mapping[str, float]
    ) -> Answers:
        """The findings and the queries of an encoded scan.

        Args:
            encoded: one scan.
            image_affine: of the network's grid, ``(4, 4)``.
            shape: ``(X, Y, Z)`` of the network's grid.
            seconds: of the stages before this one; ``score`` is added.
        """
        started = time.perf_counter()
        findings, finding_maps = self.score_findings(encoded)
        queries, query_maps = self.ask(encoded, self.queries)
        depth_logits = self.ask_depth(encoded, self.queries)
        scored = time.perf_counter() - started
        affine = as_affine(image_affine.reshape(-1, 4, 4)[0].cpu())
        return Answers(
            findings=findings,
            queries=queries,
            maps={**finding_maps, **query_maps},
            token_affine=token_affine(affine, self.classifier.image.tower.stride),  # type: ignore[arg-type]
            midline_mm=_centre_x(affine, shape),
            warnings=self.classifier.warnings(encoded.anatomy_valid[0].tolist()),
            seconds={**seconds, "score": scored},
            depth_logits={answer.key: depth_logits[answer.text] for answer in queries if answer.text in depth_logits},
        )

    @torch.inference_mode()
    def encode(self, image: Tensor, anatomy: Tensor | None = None, known: Tensor | None = None) -> ImageEmbedding:
        """The encoding that all questions share; arguments as in ``__call__``."""
        mask = None if anatomy is None else torch.as_tensor(anatomy)
        return self.classifier.image.encode_scan(_plain(image).float(), mask, known)

    @torch.inference_mode()
    def score_findings(self, encoded: ImageEmbedding) -> tuple[list[FindingAnswer], dict[str, Tensor]]:
        """The findings of the table, and their token maps ``[gx, gy, gz]`` by answer key."""
        scores = self.classifier.score(encoded)
        rows = self.classifier.finding_anatomy.tolist()
        maps = _inside_anatomy(scores.evidence, encoded, rows)
        by_template = self.classifier.bank.calibrate(scores.template_logits)[0].double().cpu()
        found = encoded.anatomy_valid[0].tolist()
        answers = []
        for column, (name, row) in enumerate(zip(FINDING_NAMES, rows, strict=True)):
            if not self.classifier.scored[column]:
                continue
            templates = {
                template: float(by_template[index, column])
                for index, template in enumerate(self.classifier.template_ids)
            }
            probability, threshold = (
                float(scores.probabilities[0, column]),
                float(self.classifier.bank.threshold[column]),
            )
            answers.append(
                FindingAnswer(
                    name=name,
                    probability=probability,
                    threshold=threshold,
                    present=probability >= threshold,
                    anatomy=ANATOMY_NAMES[row],
                    anatomy_found=found[row],
                    template_spread=template_spread(templates),
                    template_probabilities=templates,
                )
            )
        return answers, {answer.key: maps[FINDING_NAMES.index(answer.name)] for answer in answers}

    @torch.inference_mode()
    def ask(self, encoded: ImageEmbedding, queries: Sequence[str]) -> tuple[list[QueryAnswer], dict[str, Tensor]]:
        """Questions in free text about an encoded scan, and their token maps ``[gx, gy, gz]`` by answer key.

        The question's text is set against its denial, as the findings are, in the anatomy of the finding whose prompts
        are nearest to it. The probability is the sigmoid of the raw logit: no calibration was fitted for free text.

        Raises:
            ValueError: for a query that cannot be asked, or without a text tower.
        """
        texts = check_queries(queries)
        if not texts:
            return [], {}
        if self.text is None:
            raise ValueError("queries: a text tower is needed to answer free text; give the one of the checkpoint")
        embedded = self.text([*texts, *(denial(text) for text in texts)], "prompt")
        positive, negative = embedded.chunk(2)
        similarity = positive @ F.normalize(self.classifier.bank.prompts[:, 0].mean(dim=1), dim=-1).T
        scored = torch.tensor(self.classifier.scored, device=similarity.device)
        nearest = similarity.masked_fill(~scored, float("-inf")).topk(NEAREST_FINDINGS, dim=1)
        rows = self.classifier.finding_anatomy[nearest.indices[:, 0]].tolist()
        logits, tokens = self.classifier.scorer(
            encoded.anatomy,
            encoded.anatomy_valid,
            encoded.field,
            encoded.membership,
            (positive - negative).unsqueeze(0),
            torch.tensor(rows, device=positive.device),
        )
        maps = _inside_anatomy(torch.sigmoid(tokens), encoded, rows)
        answers = [
            QueryAnswer(
                text=text,
                score=float(torch.sigmoid(logits[0, index])),
                anatomy=ANATOMY_NAMES[rows[index]],
                anatomy_found=bool(encoded.anatomy_valid[0, rows[index]]),
                nearest_findings=[
                    NearestFinding(FINDING_NAMES[int(column)], float(value))
                    for column, value in zip(nearest.indices[index], nearest.values[index], strict=True)
                ],
            )
            for index, text in enumerate(texts)
        ]
        return answers, {answer.key: maps[index] for index, answer in enumerate(answers)}

    @torch.inference_mode()
    def ask_depth(self, encoded: ImageEmbedding, queries: Sequence[str]) -> dict[str, Tensor]:
        """Logits of the depth rows for each query by its text, ``[D]``; none of weights that were not trained on slice
        references.
        """
        texts = check_queries(queries)
        logits = None if self.text is None or not texts else snippet_logits(encoded.depth[0], self.text, texts)
        return {} if logits is None else dict(zip(texts, logits, strict=True))


def check_queries(queries: Sequence[str] | str) -> list[str]:
    """Queries without surrounding space, each once.

    Raises:
        ValueError: when one is empty, without a word, too long or no text, or a list was written that cannot be read as
            one, as by a quote inside a text.
    """
    if isinstance(queries, str) and queries.lstrip().startswith("["):
        raise ValueError(
            f"queries: {queries[:40]!r} cannot be read as a list; write it as \"['fluid around the lung','air']\", or one text alone"
        )
    texts = []
    for query in [queries] if isinstance(queries, str) else queries:
        if not isinstance(query, str):
            raise ValueError(
                f"queries: {query!r} is not text; give a list of texts, such as \"['fluid around the lung']\""
            )
        text = " ".join(query.split())
        if not text:
            raise ValueError("queries: one of them is empty; say what to look for, such as 'fluid around the lung'")
        if not any(character.isalpha() for character in text):
            raise ValueError(
                f"queries: {text[:40]!r} holds no word; say what to look for, such as 'fluid around the lung'"
            )
        if len(text) > MAX_QUERY_CHARACTERS:
            raise ValueError(
                f"queries: '{text[:40]}...' has {len(text)} characters; ask in at most {MAX_QUERY_CHARACTERS}"
            )
        texts.append(text)
    return list(dict.fromkeys(texts))


def denial(query: str) -> str:
    """The opposite of a query: ``"Fluid around the lung"`` gives ``"No fluid around the lung"``; abbreviations keep
    their capitals.
    """
    first = query.split()[0]
    return f"No {query}" if first[1:] != first[1:].lower() else f"No {query[:1].lower()}{query[1:]}"


def token_affine(affine: Array, stride: Sequence[int]) -> Array:
    """Token index to RAS mm of the token's centre, ``(4, 4)``.

    Args:
        affine: voxel index of the network's grid to RAS mm, ``(4, 4)``.
        stride: voxels per token along each axis.
    """
    to_voxel = torch.diag(torch.tensor([*stride, 1.0], dtype=torch.float64)).numpy()
    to_voxel[:3, 3] = [(step - 1) / 2 for step in stride]
    placed: Array = affine @ to_voxel
    return placed


def _centre_x(affine: Array, shape: Sequence[int]) -> float:
    """World x in mm of the centre of the network's grid. The pipeline crops to the body and pads evenly, so it is the
    body's centre.
    """
    return float((affine @ [*((size - 1) / 2 for size in shape), 1.0])[0])


def _inside_anatomy(evidence: Tensor, encoded: ImageEmbedding, rows: Sequence[int]) -> Tensor:
    """Evidence ``[1, N, P]`` of P answers as maps ``[P, gx, gy, gz]``, zero outside the tokens that the scorer pooled
    for each.
    """
    used = [row if encoded.anatomy_valid[0, row] else THORAX for row in rows]
    members = encoded.membership[0][:, used]
    members = members | ~members.any(dim=0, keepdim=True)
    return (evidence[0] * members).T.reshape(len(used), *encoded.grid).cpu()


def _plain(image: Tensor) -> Tensor:
    return image.as_tensor() if isinstance(image, MetaTensor) else image
