"""Retrieval between reports and scans by the cosine of embeddings. Shapes: N volumes, E embedding, C findings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bundle.ctfindings.metrics.bootstrap import Bootstrap
from bundle.ctfindings.metrics.classification import FloatArray, IntArray
from bundle.ctfindings.metrics.json_numbers import number

CUTOFFS = (1, 5, 10, 50, 100)
MAP_CUTOFFS = (5, 10, 50)
POOL_SIZES = (32, 64, 128)
POOL_CUTOFFS = (1, 8)
PARTITIONS = 100  # Random partitions into pools of one size
_BLOCK = 512  # Queries compared at a time, to limit the memory of a large pool


def retrieval_ranks(queries: ArrayLike, gallery: ArrayLike) -> IntArray:
    """Rank of each query's own item in the gallery, from 1, [N]; query i belongs to item i.

    Both are unit embeddings, [N, E]. A tie counts against the query, so embeddings that are all alike rank last.

    Raises:
        ValueError: shapes differ, or an embedding is not finite.
    """
    asked, held = _embeddings(queries, "queries"), _embeddings(gallery, "gallery")
    if asked.shape != held.shape:
        raise ValueError(f"queries {asked.shape} and gallery {held.shape} must both be [N, E]")
    ranks = np.empty(len(asked), dtype=np.int64)
    for start in range(0, len(asked), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(asked)))
        similarity = asked[rows] @ held.T
        ranks[rows] = (similarity >= similarity[np.arange(len(rows)), rows][:, None]).sum(axis=1)
    return ranks


def recall_at(ranks: ArrayLike, cutoffs: Sequence[int]) -> FloatArray:
    """Share of the queries whose own item ranks among the first k, for each k of `cutoffs`."""
    return (np.asarray(ranks)[:, None] <= np.asarray(cutoffs)[None, :]).mean(axis=0)


def retrieval_record(queries: ArrayLike, gallery: ArrayLike, bootstrap: Bootstrap) -> dict[str, Any]:
    """Recall at `CUTOFFS` with intervals and chance, median and mean rank.

    The intervals resample the queries, not the pool, so a rank keeps its meaning. Cutoffs above N are left out,
    because their recall is 1 for any model.
    """
    ranks = retrieval_ranks(queries, gallery)
    used = [k for k in CUTOFFS if k <= len(ranks)]
    hits = (ranks[:, None] <= np.asarray(used)).astype(np.float64)
    recall = bootstrap.interval(lambda weights: weights @ hits / weights.sum(axis=1, keepdims=True))
    return {
        "pool": len(ranks),
        "patients": len(set(bootstrap.patients)),
        "recall": {str(k): recall.entry(i) | {"chance": k / len(ranks)} for i, k in enumerate(used)},
        "median_rank": float(np.median(ranks)),
        "mean_rank": float(ranks.mean()),
    }


def first_of_each(groups: Sequence[Any]) -> IntArray:
    """Index of the first member of each group, in order.

    With the report of every volume as groups this is CT-RATE's pool ``first_all`` (1,564 volumes); all indices are
    ``dup_all`` (3,039 volumes), in which the other reconstructions of an examination count as wrong.
    """
    seen: dict[Any, int] = {}
    for index, group in enumerate(groups):
        seen.setdefault(group, index)
    return np.asarray(list(seen.values()), dtype=np.int64)


def random_partitions(count: int, size: int, seed: int = 42) -> Iterator[IntArray]:
    """`PARTITIONS` random partitions of `count` items into P pools of indices, [P, size]; the remainder is left out.

    Raises:
        ValueError: a pool has fewer than two items, or more than there are.
    """
    if not 2 <= size <= count:
        raise ValueError(f"expected a pool size of 2 to {count} items, found {size}")
    random = np.random.default_rng(seed)
    for _ in range(PARTITIONS):
        yield random.permutation(count)[: count // size * size].reshape(-1, size)


def pool_recall(queries: ArrayLike, gallery: ArrayLike, size: int, seed: int = 42) -> FloatArray:
    """Mean recall at `POOL_CUTOFFS` over random pools of one size: the protocol of Merlin."""
    asked, held = _embeddings(queries, "queries"), _embeddings(gallery, "gallery")
    recalls = []
    for pools in random_partitions(len(asked), size, seed):
        similarity = asked[pools] @ held[pools].transpose(0, 2, 1)
        own = np.diagonal(similarity, axis1=1, axis2=2)
        recalls.append(recall_at((similarity >= own[..., None]).sum(axis=2).ravel(), POOL_CUTOFFS))
    mean: FloatArray = np.mean(recalls, axis=0)
    return mean


def image_to_image_map(embeddings: ArrayLike, labels: ArrayLike, cutoffs: Sequence[int] = MAP_CUTOFFS) -> FloatArray:
    """Mean average precision of retrieving scans with a finding in common, for each k of `cutoffs`.

    The protocol of CT-CLIP and RadFinder: only abnormal scans take part, each queries all others, and a scan is
    relevant if it shares a positive label. ``AP@k`` is the sum of the precision at the relevant ranks r <= k, over k;
    NaN for a k above the number of other abnormal scans. Embeddings are unit rows [N, E], labels 1, 0 or -1, [N, C];
    unknown counts as absent.

    Raises:
        ValueError: shapes do not fit.
    """
    rows, truth = _embeddings(embeddings, "embeddings"), np.asarray(labels) == 1
    if truth.ndim != 2 or len(truth) != len(rows):
        raise ValueError(f"embeddings {rows.shape} and labels {truth.shape} must be [N, E] and [N, C]")
    abnormal = truth.any(axis=1)
    rows, truth = rows[abnormal], truth[abnormal]
    possible = [k for k in cutoffs if k < len(rows)]
    result = np.full(len(cutoffs), np.nan)
    if not possible:
        return result
    total, deepest = np.zeros(len(possible)), max(possible)
    place = 1 + np.arange(deepest)
    for start in range(0, len(rows), _BLOCK):
        block = slice(start, min(start + _BLOCK, len(rows)))
        similarity = rows[block] @ rows.T
        similarity[np.arange(block.stop - start), np.arange(start, block.stop)] = -np.inf
        nearest = np.argpartition(-similarity, deepest - 1, axis=1)[:, :deepest]
        order = np.argsort(-np.take_along_axis(similarity, nearest, axis=1), axis=1, kind="stable")
        nearest = np.take_along_axis(nearest, order, axis=1)
        relevant = (truth[block][:, None, :] & truth[nearest]).any(axis=2)
        gained = relevant * np.cumsum(relevant, axis=1) / place
        total += [gained[:, :k].sum() / k for k in possible]
    result[[list(cutoffs).index(k) for k in possible]] = total / len(rows)
    return result


def report_retrieval(
    scans: ArrayLike, reports: ArrayLike, report_ids: Sequence[Any], labels: ArrayLike, bootstrap: Bootstrap
) -> dict[str, Any]:
    """The retrieval numbers of the published tables.

    Scans and their reports are unit embeddings, [N, E]; reconstructions of one examination share a report id. Labels
    are 1, 0 or -1, [N, C], for image to image. The seed of the bootstrap also draws the random pools.

    Returns:
        ``pools``: a `retrieval_record` of each direction for ``dup_all`` and ``first_all``; ``random_pools``: mean
        recall by size and direction; ``image_to_image``: mean average precision by cutoff.

    Raises:
        ValueError: shapes do not fit, or there are fewer than two patients.
    """
    image, text = _embeddings(scans, "scans"), _embeddings(reports, "reports")
    if not len(image) == len(text) == len(report_ids) == len(bootstrap.patients):
        raise ValueError(
            f"{len(image)} scans, {len(text)} reports, {len(report_ids)} report ids and {len(bootstrap.patients)} "
            "patients do not pair"
        )
    first = first_of_each(report_ids)
    pools = {"dup_all": np.arange(len(image)), "first_all": first}
    precision = image_to_image_map(image, labels)
    return {
        "pools": {
            name: {
                "text_to_image": retrieval_record(text[rows], image[rows], bootstrap.of(rows)),
                "image_to_text": retrieval_record(image[rows], text[rows], bootstrap.of(rows)),
            }
            for name, rows in pools.items()
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
