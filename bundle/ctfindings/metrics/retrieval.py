"""Does a report find its scan? Ranks, recall and mean average precision of retrieval between reports and scans.

Shapes: Q queries, G gallery items, N volumes, E embedding, C findings. Similarities are cosines of unit embeddings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bundle.ctfindings.metrics.bootstrap import weight_bootstrap_interval
from bundle.ctfindings.metrics.classification import FloatArray, IntArray

CUTOFFS = (1, 5, 10, 50, 100)
MAP_CUTOFFS = (5, 10, 50)
POOL_SIZES = (32, 64, 128)
POOL_CUTOFFS = (1, 8)
_BLOCK = 512
"""Queries compared at a time: memory is that of a block, whatever the size of the pool."""


def retrieval_ranks(queries: ArrayLike, gallery: ArrayLike, targets: ArrayLike | None = None) -> IntArray:
    """Rank of each query's own item in the gallery, from 1, [Q].

    Items as similar as the own one count as ahead of it, so that embeddings that are all alike rank last and not first.

    Args:
        queries: unit embeddings, [Q, E].
        gallery: unit embeddings, [G, E].
        targets: index of each query's own item, [Q]; by default query i belongs to item i.

    Raises:
        ValueError: shapes do not fit, an embedding is not finite, or a target is not in the gallery.
    """
    asked, held = _embeddings(queries, "queries"), _embeddings(gallery, "gallery")
    own = np.arange(len(asked)) if targets is None else np.asarray(targets, dtype=np.int64)
    if asked.shape[1] != held.shape[1] or own.shape != (len(asked),):
        raise ValueError(
            f"queries {asked.shape}, gallery {held.shape} and targets {own.shape} must be [Q, E], [G, E] and [Q]"
        )
    if len(own) and not (own.min() >= 0 and own.max() < len(held)):
        raise ValueError(f"targets reach from {own.min()} to {own.max()}; the gallery has items 0 to {len(held) - 1}")
    ranks = np.empty(len(asked), dtype=np.int64)
    for start in range(0, len(asked), _BLOCK):
        rows = slice(start, min(start + _BLOCK, len(asked)))
        similarity = asked[rows] @ held.T
        best = similarity[np.arange(rows.stop - rows.start), own[rows]]
        ranks[rows] = (similarity >= best[:, None]).sum(axis=1)
    return ranks


def recall_at(ranks: ArrayLike, cutoffs: Sequence[int] = CUTOFFS) -> FloatArray:
    """Share of the queries whose own item is among the first k, for each k of `cutoffs`, [K]."""
    return (np.asarray(ranks)[:, None] <= np.asarray(cutoffs)[None, :]).mean(axis=0)


def retrieval_record(
    queries: ArrayLike,
    gallery: ArrayLike,
    patients: Sequence[str],
    cutoffs: Sequence[int] = CUTOFFS,
    resamples: int = 1000,
    seed: int = 42,
    level: float = 0.95,
) -> dict[str, Any]:
    """Recall at each cutoff with intervals by patient and what chance gives, median and mean rank, as plain numbers.

    The intervals resample the queries; the pool that is searched stays whole, so that a rank keeps its meaning.

    Args:
        queries: unit embeddings, [N, E]; query i belongs to gallery item i.
        gallery: unit embeddings, [N, E].
        patients: the patient of each query, N.
        cutoffs: k of the recalls; those above N are left out, because they are 1 for any model.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        level: coverage of the intervals.

    Raises:
        ValueError: there are fewer than two patients, or queries and gallery do not pair.
    """
    if len(np.asarray(queries)) != len(np.asarray(gallery)):
        raise ValueError(f"{len(np.asarray(queries))} queries and {len(np.asarray(gallery))} gallery items do not pair")
    ranks = retrieval_ranks(queries, gallery)
    used = [k for k in cutoffs if k <= len(ranks)]
    hits = (ranks[:, None] <= np.asarray(used)).astype(np.float64)

    def weighted_recall(weights: FloatArray) -> FloatArray:
        result: FloatArray = weights @ hits / weights.sum(axis=1, keepdims=True)
        return result

    recall = weight_bootstrap_interval(weighted_recall, patients, resamples, seed, level)
    return {
        "pool": len(ranks),
        "patients": len(set(patients)),
        "recall": {
            str(k): {
                "value": float(recall.estimate[i]),
                "interval": [float(recall.low[i]), float(recall.high[i])],
                "chance": k / len(ranks),
            }
            for i, k in enumerate(used)
        },
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


def random_partitions(count: int, size: int, partitions: int = 100, seed: int = 42) -> Iterator[IntArray]:
    """Random partitions of N items into P pools of one size; the rest that fills no pool is left out.

    Args:
        count: items N.
        size: of a pool.
        partitions: how often the items are dealt anew.
        seed: of the random generator.

    Yields:
        Indices of the pools of a partition, [P, size].

    Raises:
        ValueError: a pool has less than two items, or more than there are.
    """
    if not 2 <= size <= count:
        raise ValueError(f"a pool of {size} out of {count} items was asked for; it needs at least 2 and at most all")
    random = np.random.default_rng(seed)
    for _ in range(partitions):
        yield random.permutation(count)[: count // size * size].reshape(-1, size)


def pool_recall(
    queries: ArrayLike,
    gallery: ArrayLike,
    size: int,
    cutoffs: Sequence[int] = POOL_CUTOFFS,
    partitions: int = 100,
    seed: int = 42,
) -> FloatArray:
    """Mean recall over random pools of one size, [K]: the protocol of Merlin, query i belonging to item i.

    Args:
        queries: unit embeddings, [N, E].
        gallery: unit embeddings, [N, E].
        size: of a pool.
        cutoffs: k of the recalls.
        partitions: how often the items are dealt anew.
        seed: of the random generator.
    """
    asked, held = _embeddings(queries, "queries"), _embeddings(gallery, "gallery")
    recalls = []
    for pools in random_partitions(len(asked), size, partitions, seed):
        similarity = asked[pools] @ held[pools].transpose(0, 2, 1)
        own = np.diagonal(similarity, axis1=1, axis2=2)
        recalls.append(recall_at((similarity >= own[..., None]).sum(axis=2).ravel(), cutoffs))
    mean: FloatArray = np.mean(recalls, axis=0)
    return mean


def image_to_image_map(embeddings: ArrayLike, labels: ArrayLike, cutoffs: Sequence[int] = MAP_CUTOFFS) -> FloatArray:
    """Mean average precision of finding scans with a finding in common, for each k of `cutoffs`, [K].

    The protocol of CT-CLIP and RadFinder: abnormal scans only, each asks for all others, one is relevant if it shares a
    positive label; ``AP@k`` is the sum over relevant ranks r <= k of the precision at r, divided by k.

    Args:
        embeddings: unit embeddings of the scans, [N, E].
        labels: 1, 0 or -1, [N, C]; unknown counts as absent.
        cutoffs: the k; each at most the number of abnormal scans without the one that asks.

    Returns:
        NaN for a cutoff that is larger.

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


def _embeddings(values: ArrayLike, name: str) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2:
        raise ValueError(f"{name} of shape {array.shape} were given; [items, embedding] is expected")
    if not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(array))[0, 0])
        raise ValueError(f"{name}: embedding {row} is not finite; leave out what was not encoded")
    return array


def report_retrieval(
    scans: ArrayLike,
    reports: ArrayLike,
    report_ids: Sequence[Any],
    patients: Sequence[str],
    labels: ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 42,
) -> dict[str, Any]:
    """Everything the published tables say about retrieval, as one dictionary of plain numbers.

    Args:
        scans: unit embeddings of the volumes, [N, E].
        reports: unit embeddings of their reports, [N, E].
        report_ids: what tells reports apart, N; reconstructions of one examination share theirs.
        patients: the patient of each volume, N.
        labels: 1, 0 or -1, [N, C], for image to image; None leaves that out.
        resamples: of the bootstrap.
        seed: of the bootstrap and the random pools.

    Returns:
        ``pools``: for ``dup_all`` and ``first_all`` a `retrieval_record` of each direction; ``random_pools``: by size
            and direction the
        mean recall over random partitions; ``image_to_image``: mean average precision by cutoff.

    Raises:
        ValueError: shapes do not fit, or there are fewer than two patients.
    """
    image, text = _embeddings(scans, "scans"), _embeddings(reports, "reports")
    if not len(image) == len(text) == len(report_ids) == len(patients):
        raise ValueError(
            f"{len(image)} scans, {len(text)} reports, {len(report_ids)} report ids and {len(patients)} patients do not pair"
        )
    record: dict[str, Any] = {"pools": {}, "random_pools": {}}
    for name, rows in (("dup_all", np.arange(len(image))), ("first_all", first_of_each(report_ids))):
        people = [patients[row] for row in rows]
        record["pools"][name] = {
            "text_to_image": retrieval_record(text[rows], image[rows], people, resamples=resamples, seed=seed),
            "image_to_text": retrieval_record(image[rows], text[rows], people, resamples=resamples, seed=seed),
        }
    first = first_of_each(report_ids)
    for size in POOL_SIZES:
        if size <= len(first):
            record["random_pools"][str(size)] = {
                direction: dict(
                    zip(
                        map(str, POOL_CUTOFFS),
                        pool_recall(asked[first], held[first], size, seed=seed).tolist(),
                        strict=True,
                    )
                )
                for direction, asked, held in (("text_to_image", text, image), ("image_to_text", image, text))
            }
    if labels is not None:
        precision = image_to_image_map(image, labels)
        record["image_to_image"] = {
            f"map@{k}": None if np.isnan(value) else float(value)
            for k, value in zip(MAP_CUTOFFS, precision, strict=True)
        }
    return record
