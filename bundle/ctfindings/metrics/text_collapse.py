"""Text-embedding collapse metrics: cosines of pairs of texts, and the geometry of all texts together.

Every number is a function of text weights, so a bootstrap by patient costs a matrix product. Shapes: A texts,
E embedding, R resamples, M statistics.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import silhouette_score

from bundle.ctfindings.metrics.classification import FloatArray, IntArray

BoolArray = NDArray[np.bool_]

PAIR_KINDS: tuple[str, ...] = ("cross_anatomy", "abnormal_abnormal", "normal_abnormal")
"""Pairs of texts of two anatomies; two abnormal texts of one anatomy; a normal and an abnormal text of one anatomy."""

PAIR_TITLES = {
    "cross_anatomy": "captions of two anatomies",
    "abnormal_abnormal": "two abnormal captions of one anatomy",
    "normal_abnormal": "a normal and an abnormal caption of one anatomy",
    "polarity": "positive and negative prompt of one finding",
}

MOMENTS: tuple[str, ...] = ("mean", "sd", "skewness", "excess_kurtosis", "bimodality", "share_above")
GEOMETRY: tuple[str, ...] = ("effective_rank", "uniformity", "cone", "anatomy_accuracy")
"""Numbers of all texts together, by the functions of these names."""

STATISTICS: tuple[str, ...] = (*(f"{kind}.{moment}" for kind in PAIR_KINDS for moment in MOMENTS), *GEOMETRY)

SHARE_ABOVE = 0.9
HISTOGRAM_BINS = 80
SILHOUETTE_TEXTS = 3000


@dataclass(frozen=True)
class TextRows:
    """Embedded texts."""

    embeddings: FloatArray  # Unit rows [A, E]
    anatomy: IntArray  # Index of the anatomy of each text, [A]
    normal: BoolArray  # Whether a text reports no abnormality, [A]
    text_id: IntArray  # A number that is equal for equal texts, [A]
    scan: IntArray  # Index of the scan of each text, which the bootstrap weights, [A]

    def take(self, rows: IntArray) -> Self:
        """The texts of these indices."""
        return type(self)(*(getattr(self, field.name)[rows] for field in fields(self)))

    def sample(self, per_anatomy: int) -> Self:
        """At most `per_anatomy` random texts of each anatomy, in their order."""
        generator = np.random.default_rng(0)
        groups = [np.flatnonzero(self.anatomy == anatomy) for anatomy in np.unique(self.anatomy)]
        kept = [group[generator.permutation(len(group))[:per_anatomy]] for group in groups]
        return self.take(np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *kept])))


def pair_blocks(rows: TextRows, kind: str) -> Iterator[tuple[IntArray, IntArray]]:
    """Indices of the texts on both sides of a kind of pairs, block by block.

    "abnormal_abnormal" yields each pair twice, and pairs of a text with itself, which the caller leaves out.
    """
    for anatomy in np.unique(rows.anatomy):
        own = rows.anatomy == anatomy
        normal, abnormal = np.flatnonzero(own & rows.normal), np.flatnonzero(own & ~rows.normal)
        if kind == "cross_anatomy":
            yield np.flatnonzero(own), np.flatnonzero(rows.anatomy > anatomy)
        elif kind == "abnormal_abnormal":
            yield abnormal, abnormal
        else:
            yield normal, abnormal


def pair_cosines(rows: TextRows, kind: str) -> FloatArray:
    """The cosine of every pair of a kind, [P]."""
    parts = [
        (rows.embeddings[one] @ rows.embeddings[two].T)[one[:, None] != two] for one, two in pair_blocks(rows, kind)
    ]
    return np.concatenate([np.zeros(0), *parts])


def share_of_equal_texts(rows: TextRows, kind: str) -> float:
    """Share of the pairs of a kind with equal text, whose cosine is 1 for any network; NaN without pairs."""
    parts = [
        (rows.text_id[one][:, None] == rows.text_id[two])[one[:, None] != two] for one, two in pair_blocks(rows, kind)
    ]
    equal = np.concatenate([np.zeros(0, dtype=bool), *parts])
    return float(equal.mean()) if equal.size else float("nan")


def cosine_moments(cosines: ArrayLike) -> dict[str, float]:
    """`MOMENTS` of cosines; NaN without cosines, and the last moments are NaN if all are equal.

    Mean; SD; skewness g1 and excess kurtosis g2 (population moments, SciPy's default); Sarle's bimodality coefficient
    (g1^2 + 1) / (g2 + 3), 5/9 for a uniform and 1/3 for a normal distribution; share above 0.9.
    """
    values = np.asarray(cosines, dtype=np.float64).ravel()
    if not values.size:
        return dict.fromkeys(MOMENTS, float("nan"))
    middle = values.mean()
    sums = np.asarray([[((values - middle) ** power).sum() for power in range(5)]])
    moments = _moments(sums, middle, np.asarray([(values > SHARE_ABOVE).sum()]))[0]
    return dict(zip(MOMENTS, moments.tolist(), strict=True))


def histogram(cosines: ArrayLike) -> dict[str, list[float] | list[int]]:
    """Counts of cosines in `HISTOGRAM_BINS` equal bins of [-1, 1]."""
    # Rounding can put a cosine slightly outside.
    counts, edges = np.histogram(np.clip(np.asarray(cosines), -1, 1), bins=HISTOGRAM_BINS, range=(-1.0, 1.0))
    return {"edges": np.round(edges, 6).tolist(), "counts": counts.tolist()}


def text_statistics(rows: TextRows, scan_weights: FloatArray) -> FloatArray:
    """`STATISTICS` of the texts under each set of weights, [R, M]; NaN for a kind without pairs.

    The weight of a pair is the product of the weights of its texts. Scan weights are not negative, [R, S].
    """
    weights = np.ascontiguousarray(scan_weights[:, rows.scan], dtype=np.float64)
    single = [
        np.asarray([effective_rank(rows.embeddings, row) for row in weights]),
        uniformity(rows.embeddings, weights),
        cone(rows.embeddings, weights),
        np.asarray([anatomy_accuracy(rows, row) for row in weights]),
    ]
    moments = [_kind_statistics(rows, kind, weights) for kind in PAIR_KINDS]
    return np.concatenate([*moments, np.stack(single, axis=1)], axis=1)


def effective_rank(embeddings: FloatArray, weight: FloatArray) -> float:
    """Effective rank of the centred texts: exp of the entropy of their normalised singular values.

    Roy and Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007. 1 if all texts lie on
    one line, E if they spread evenly, NaN if they are one point. Embeddings are [A, E], text weights [A].
    """
    used = weight > 0
    centred = embeddings[used] - np.average(embeddings[used], axis=0, weights=weight[used])
    scatter = (centred * weight[used, None]).T @ centred / weight.sum()
    singular = np.sqrt(np.clip(np.linalg.eigvalsh(scatter), 0, None))
    # Smaller singular values are the rounding of unit vectors in single precision.
    singular[singular < 1e-6] = 0
    if not singular.any():
        return float("nan")
    share = singular[singular > 0] / singular.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def uniformity(embeddings: FloatArray, weights: FloatArray) -> FloatArray:
    """Log of the mean of ``exp(-2 |x - y|^2)`` over pairs of texts, [R]; 0 for one point, about -4 for a full sphere.

    Wang and Isola, "Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere", ICML 2020, https://arxiv.org/abs/2005.10242. Embeddings are unit rows [A, E], text weights [R, A].
    """
    # |x - y|^2 is 2 - 2 cos for unit rows.
    potential = np.exp(4 * (embeddings @ embeddings.T) - 4)
    np.fill_diagonal(potential, 0)
    pairs = weights.sum(axis=1) ** 2 - (weights**2).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        value: FloatArray = np.log(((weights @ potential) * weights).sum(axis=1) / pairs)
    return value


def cone(embeddings: FloatArray, weights: FloatArray) -> FloatArray:
    """Length of the mean embedding, [R]: 1 if all texts are one point, near 0 if they point in all directions."""
    return np.linalg.norm(weights @ embeddings, axis=1) / weights.sum(axis=1)


def anatomy_accuracy(rows: TextRows, weight: FloatArray) -> float:
    """Share of texts that are nearer to the centroid of their own anatomy than to any other; NaN with one anatomy.

    A text, with its copies in a resample, is left out of its own centroid. Text weights are [A].
    """
    anatomies, own = np.unique(rows.anatomy, return_inverse=True)
    members = np.zeros((len(anatomies), len(own)))
    members[own, np.arange(len(own))] = weight
    sums = members @ rows.embeddings
    dots = rows.embeddings @ sums.T
    lengths = np.broadcast_to((sums**2).sum(axis=1), dots.shape).copy()
    index = np.arange(len(own))
    lengths[index, own] += weight**2 - 2 * weight * dots[index, own]
    dots[index, own] -= weight
    alone = (members > 0).sum(axis=1) - (weight > 0)[:, None] * (own[:, None] == np.arange(len(anatomies))) == 0
    cosine = np.where(alone, -np.inf, dots / np.sqrt(np.maximum(lengths, 1e-12)))
    counted = (weight > 0) & ~alone[index, own]
    if (members.sum(axis=1) > 0).sum() < 2 or not counted.any():
        return float("nan")
    # A tie counts against the text: anatomies that collapsed onto one point are not separated.
    rivals = cosine.copy()
    rivals[index, own] = -np.inf
    right = cosine[index, own] > rivals.max(axis=1) + 1e-9
    return float(np.average(right[counted], weights=weight[counted]))


def anatomy_silhouette(rows: TextRows) -> float:
    """Mean silhouette by anatomy (cosine distance) of at most `SILHOUETTE_TEXTS` texts; NaN with one anatomy."""
    if len(np.unique(rows.anatomy)) < 2 or len(rows.anatomy) <= len(np.unique(rows.anatomy)):
        return float("nan")
    distance = np.clip(1 - rows.embeddings @ rows.embeddings.T, 0, None)
    np.fill_diagonal(distance, 0)
    size = SILHOUETTE_TEXTS if len(distance) > SILHOUETTE_TEXTS else None
    return float(silhouette_score(distance, rows.anatomy, metric="precomputed", sample_size=size, random_state=0))


def _kind_statistics(rows: TextRows, kind: str, weights: FloatArray) -> FloatArray:
    """`MOMENTS` of a kind, [R, 6]; powers about the unweighted mean stay accurate if all cosines are alike."""
    cosines = pair_cosines(rows, kind)
    if not cosines.size:
        return np.full((len(weights), len(MOMENTS)), np.nan)
    middle = float(cosines.mean())
    sums, above = np.zeros((len(weights), 5)), np.zeros(len(weights))
    for one, two in pair_blocks(rows, kind):
        cosine = rows.embeddings[one] @ rows.embeddings[two].T
        power = (one[:, None] != two).astype(np.float64)
        above += ((weights[:, one] @ (power * (cosine > SHARE_ABOVE))) * weights[:, two]).sum(axis=1)
        for column in range(5):
            sums[:, column] += ((weights[:, one] @ power) * weights[:, two]).sum(axis=1)
            power *= cosine - middle
    return _moments(sums, middle, above)


def _moments(sums: FloatArray, middle: float, above: FloatArray) -> FloatArray:
    """`MOMENTS` [R, 6] from sums of the powers 0..4 of ``cosine - middle``, [R, 5], and the weight above 0.9, [R]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        first, second, third, fourth = (sums[:, power] / sums[:, 0] for power in range(1, 5))
        variance = np.maximum(second - first**2, 0)
        variance = np.where(variance > 1e-14, variance, np.nan)
        skewness = (third - 3 * first * second + 2 * first**3) / variance**1.5
        kurtosis = (fourth - 4 * first * third + 6 * first**2 * second - 3 * first**4) / variance**2 - 3
        bimodality = (skewness**2 + 1) / (kurtosis + 3)
        sd = np.sqrt(np.where(sums[:, 0] > 0, np.nan_to_num(variance), np.nan))
        return np.stack([middle + first, sd, skewness, kurtosis, bimodality, above / sums[:, 0]], axis=1)
