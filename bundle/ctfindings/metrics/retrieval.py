"""Retrieval between reports and scans: by whole reports, by captions of anatomies, and judged by labels.

Exact recall punishes a scan for reports that say the same, as most normal ones do; precision by label counts an item as
relevant if its findings agree with those of the query. Shapes: N items, Q studies, K anatomies, E embedding,
C findings.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bundle.ctfindings.metrics.bootstrap import Bootstrap, exact_at_ends
from bundle.ctfindings.metrics.classification import FloatArray, IntArray
from bundle.ctfindings.metrics.json_numbers import number

CUTOFFS = (1, 5, 10, 50, 100)
MAP_CUTOFFS = (5, 10, 50)
POOL_SIZES = (32, 64, 128)
POOL_CUTOFFS = (1, 8)
PARTITIONS = 100  # Random partitions into pools of one size
JACCARD = 0.5  # Least overlap of the positive findings of two items that agree
PRECISION_CUTOFFS = (1, 5, 10)


def rank_of_own(similarity: ArrayLike, own: ArrayLike | None = None) -> IntArray:
    """Rank of each query's own item in its row of a similarity matrix [Q, G], from 1, [Q].

    A tie counts against the query. `own` is the index of the own items, [Q]; by default query i belongs to item i.
    ValueError if a similarity is not finite.
    """
    # Rounded so that equal texts tie whatever the order of summation.
    matrix = np.round(np.asarray(similarity, dtype=np.float64), 9)
    if not np.isfinite(matrix).all():
        row = int(np.argwhere(~np.isfinite(matrix))[0, 0])
        raise ValueError(f"the similarities of query {row} are not finite; leave out what was not encoded")
    index = np.arange(len(matrix))
    return (matrix >= matrix[index, index if own is None else np.asarray(own)][:, None]).sum(axis=1)


def recall_at(ranks: ArrayLike, cutoffs: Sequence[int]) -> FloatArray:
    """Share of the queries whose own item ranks among the first k, for each k of `cutoffs`."""
    return (np.asarray(ranks)[:, None] <= np.asarray(cutoffs)[None, :]).mean(axis=0)


def retrieval_record(similarity: ArrayLike, bootstrap: Bootstrap) -> dict[str, Any]:
    """Recall at `CUTOFFS` with intervals and chance, and median rank, from the similarity of queries and items [N, N].

    The intervals resample the queries, not the pool, so a rank keeps its meaning. A recall of 0 or 1 has the exact
    limit for one trial a patient. Cutoffs above N are left out, because their recall is 1 for any model.
    """
    ranks = rank_of_own(similarity)
    used = [k for k in CUTOFFS if k <= len(ranks)]
    hits = (ranks[:, None] <= np.asarray(used)).astype(np.float64)
    patients = len(set(bootstrap.patients))
    recall = bootstrap.interval(lambda weights: weights @ hits / weights.sum(axis=1, keepdims=True))
    # At k = N the recall is 1 for any model.
    recall = exact_at_ends(recall, [patients if k < len(ranks) else 0 for k in used])
    return {
        "pool": len(ranks),
        "patients": patients,
        "recall": {str(k): recall.entry(i) | {"chance": k / len(ranks)} for i, k in enumerate(used)},
        "median_rank": float(np.median(ranks)),
    }


def first_of_each(groups: Sequence[Any]) -> IntArray:
    """Index of the first member of each group, in order."""
    seen: dict[Any, int] = {}
    for index, group in enumerate(groups):
        seen.setdefault(group, index)
    return np.asarray(list(seen.values()), dtype=np.int64)


def retrieval_pools(report_ids: Sequence[Any], patients: Sequence[str]) -> dict[str, IntArray]:
    """Indices of the volumes of CT-RATE's pools, from the report and the patient of each.

    ``dup_all`` has all (3,039 of CT-RATE), so the other reconstructions of an examination count as wrong; ``first_all``
    has the first of each report (1,564). A pool with a single patient has no interval and is left out.
    """
    pools = {"dup_all": np.arange(len(report_ids)), "first_all": first_of_each(report_ids)}
    return {name: rows for name, rows in pools.items() if len({patients[row] for row in rows}) > 1}


def random_partitions(count: int, size: int, seed: int = 42) -> Iterator[IntArray]:
    """`PARTITIONS` random partitions of `count` items into P pools of indices, [P, size]; the remainder is left out.

    ValueError if a pool has fewer than two items, or more than there are.
    """
    if not 2 <= size <= count:
        raise ValueError(f"expected a pool size of 2 to {count} items, found {size}")
    random = np.random.default_rng(seed)
    for _ in range(PARTITIONS):
        yield random.permutation(count)[: count // size * size].reshape(-1, size)


def pool_recall(queries: ArrayLike, gallery: ArrayLike, size: int, seed: int = 42) -> FloatArray:
    """Mean recall at `POOL_CUTOFFS` over random pools of one size: the protocol of Merlin."""
    asked, held = np.asarray(queries), np.asarray(gallery)
    recalls = []
    for pools in random_partitions(len(asked), size, seed):
        similarity = asked[pools] @ held[pools].transpose(0, 2, 1)
        own = np.diagonal(similarity, axis1=1, axis2=2)
        recalls.append(recall_at((similarity >= own[..., None]).sum(axis=2).ravel(), POOL_CUTOFFS))
    return np.mean(recalls, axis=0)


def image_to_image_map(embeddings: ArrayLike, labels: ArrayLike, cutoffs: Sequence[int] = MAP_CUTOFFS) -> FloatArray:
    """Mean average precision of retrieving scans with a finding in common, for each k of `cutoffs`.

    The protocol of CT-CLIP and RadFinder: only abnormal scans take part, each queries all others, and a scan is
    relevant if it shares a positive label. ``AP@k`` is the sum of the precision at the relevant ranks r <= k, over k;
    NaN for a k above the number of other abnormal scans. Embeddings are unit rows [N, E], labels 1, 0 or -1, [N, C];
    unknown counts as absent. ValueError if shapes do not fit.
    """
    rows, truth = np.asarray(embeddings), np.asarray(labels) == 1
    if truth.ndim != 2 or len(truth) != len(rows):
        raise ValueError(f"embeddings {rows.shape} and labels {truth.shape} must be [N, E] and [N, C]")
    abnormal = truth.any(axis=1)
    rows, truth = rows[abnormal], truth[abnormal]
    possible = [k for k in cutoffs if k < len(rows)]
    result = np.full(len(cutoffs), np.nan)
    if not possible:
        return result
    similarity = rows @ rows.T
    np.fill_diagonal(similarity, -np.inf)
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, : max(possible)]
    relevant = (truth[:, None, :] & truth[nearest]).any(axis=2)
    gained = relevant * np.cumsum(relevant, axis=1) / (1 + np.arange(max(possible)))
    result[[list(cutoffs).index(k) for k in possible]] = [gained[:, :k].sum(axis=1).mean() / k for k in possible]
    return result


def report_retrieval(
    scans: ArrayLike, reports: ArrayLike, report_ids: Sequence[Any], labels: ArrayLike, bootstrap: Bootstrap
) -> dict[str, Any]:
    """The retrieval numbers of the published tables.

    Scans and their reports are unit embeddings, [N, E]; reconstructions of one examination share a report id. Labels
    are 1, 0 or -1, [N, C], for image to image. The seed of the bootstrap also draws the random pools.

    Returns:
        ``pools``: a `retrieval_record` of each direction of the `retrieval_pools`; ``random_pools``: mean recall by
        size and direction; ``image_to_image``: mean average precision by cutoff.

    Raises:
        ValueError: an embedding is not finite, or there are fewer than two patients.
    """
    image, text = _embeddings(scans, "scans"), _embeddings(reports, "reports")
    first = first_of_each(report_ids)
    similarity = text @ image.T
    precision = image_to_image_map(image, labels)
    return {
        "pools": {
            name: {
                "text_to_image": retrieval_record(similarity[np.ix_(rows, rows)], bootstrap.of(rows)),
                "image_to_text": retrieval_record(similarity[np.ix_(rows, rows)].T, bootstrap.of(rows)),
            }
            for name, rows in retrieval_pools(report_ids, bootstrap.patients).items()
        },
        "random_pools": {
            str(size): {
                direction: dict(
                    zip(map(str, POOL_CUTOFFS), pool_recall(*pair, size, bootstrap.seed).tolist(), strict=True)
                )
                for direction, pair in (
                    ("text_to_image", (text[first], image[first])),
                    ("image_to_text", (image[first], text[first])),
                )
            }
            for size in POOL_SIZES
            if size <= len(first)
        },
        "image_to_image": {f"map@{k}": number(value) for k, value in zip(MAP_CUTOFFS, precision, strict=True)},
    }


def _embeddings(values: ArrayLike, name: str) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2:
        raise ValueError(f"{name}: expected an array [items, embedding], found shape {array.shape}")
    if not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(array))[0, 0])
        raise ValueError(f"{name}: embedding {row} is not finite; leave out scans that were not encoded")
    return array


def drop_sentences(sentences: Sequence[str], keep: float, generator: np.random.Generator) -> str:
    """A text with a random share of its sentences in their order, rounded up to at least one."""
    count = max(1, math.ceil(keep * len(sentences)))
    kept = np.sort(generator.permutation(len(sentences))[:count])
    return " ".join(sentences[index] for index in kept)


def report_similarity(
    reports: ArrayLike, reports_valid: ArrayLike, scans: ArrayLike, scans_valid: ArrayLike
) -> FloatArray:
    """Mean cosine of a report and a scan over the anatomies that both have, [Q, Q]; -1 if they share none.

    Rows are unit embeddings, [Q, K, E]. Valid anatomies, [Q, K], have a caption or lie in the field of view.
    """
    said, shown = (np.asarray(values, dtype=bool) for values in (reports_valid, scans_valid))
    text = np.where(said[..., None], np.asarray(reports, dtype=np.float64), 0.0)
    image = np.where(shown[..., None], np.asarray(scans, dtype=np.float64), 0.0)
    common = said.astype(np.float64) @ shown.T.astype(np.float64)
    total = np.einsum("ake,bke->ab", text, image, optimize=True)
    similarity = np.full(total.shape, -1.0)
    np.divide(total, common, out=similarity, where=common > 0)
    return similarity


def agreement(labels: ArrayLike) -> dict[str, NDArray[np.bool_]]:
    """Which items agree, [N, N] each: ``equal`` sets of positive findings, or a ``jaccard`` index of `JACCARD`.

    Labels are 1, 0 or -1, [N, C]; unknown counts as absent. Two items without a finding agree.
    """
    positive = (np.asarray(labels) == 1).astype(np.int64)
    shared, sizes = positive @ positive.T, positive.sum(axis=1)
    union = sizes[:, None] + sizes[None, :] - shared
    return {"equal": union == shared, "jaccard": shared >= JACCARD * union}


def label_precision(similarity: ArrayLike, labels: ArrayLike, bootstrap: Bootstrap) -> dict[str, Any]:
    """Share of relevant items among the first k, by kind of `agreement` and k of `PRECISION_CUTOFFS`.

    Each with its interval and chance.

    Args:
        similarity: of query i (row) and item j (column), [N, N]; item i belongs to query i, and counts.
        labels: of the items.
        bootstrap: by patient of the queries.
    """
    scores = np.asarray(similarity, dtype=np.float64)
    order = np.argsort(-scores, axis=1, kind="stable")
    used = [k for k in PRECISION_CUTOFFS if k < len(scores)]
    return {
        kind: _precision(np.take_along_axis(relevant, order, axis=1), used, bootstrap)
        for kind, relevant in agreement(labels).items()
    }


def _precision(relevant: NDArray[np.bool_], cutoffs: Sequence[int], bootstrap: Bootstrap) -> dict[str, Any]:
    """From the relevance of the items of each query in the order of the ranks."""
    at: FloatArray = np.stack([relevant[:, :k].mean(axis=1) for k in cutoffs], axis=1)
    found = bootstrap.interval(lambda weights: weights @ at / weights.sum(axis=1, keepdims=True))
    found = exact_at_ends(found, len(set(bootstrap.patients)))
    chance = float(relevant.mean())
    return {str(k): found.entry(i) | {"chance": chance} for i, k in enumerate(cutoffs)}
