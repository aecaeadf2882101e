"""Retrieval by hand, against plain loops, and fast enough for CT-RATE's pool; of whole reports, captions and labels."""

import time

import numpy as np
import pytest

from bundle.ctfindings.metrics.bootstrap import Bootstrap
from bundle.ctfindings.metrics.retrieval import (
    PARTITIONS,
    agreement,
    drop_sentences,
    first_of_each,
    image_to_image_map,
    label_precision,
    pool_recall,
    random_partitions,
    rank_of_own,
    recall_at,
    report_retrieval,
    report_similarity,
    retrieval_pools,
    retrieval_record,
)

LABELS = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [0, -1, 0], [1, 1, 0], [0, 0, 1]])


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def pairs(count: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    rows = random.standard_normal((count, 16))
    return unit(rows), unit(rows + noise * random.standard_normal((count, 16)))


def test_ranks_by_hand() -> None:
    assert rank_of_own([[3.0, 2, 1], [3, 2, 1], [3, 2, 1]]).tolist() == [1, 2, 3]
    assert rank_of_own([[3.0, 2, 1], [3, 2, 1]], [2, 0]).tolist() == [3, 1]


def test_ranks_agree_with_sorting() -> None:
    queries, gallery = pairs(300, noise=2.0)
    expected = [1 + list(np.argsort(-(gallery @ query), kind="stable")).index(i) for i, query in enumerate(queries)]
    assert rank_of_own(queries @ gallery.T).tolist() == expected


def test_a_model_that_says_the_same_of_everything_ranks_last_not_first() -> None:
    assert rank_of_own(np.ones((5, 5))).tolist() == [5] * 5


def test_recall_is_the_share_within_the_cutoff() -> None:
    assert recall_at([1, 2, 5, 11], (1, 5, 10)).tolist() == [0.25, 0.75, 0.75]


def test_record_has_chance_and_intervals_that_hold_the_value() -> None:
    queries, gallery = pairs(60, noise=1.5)
    record = retrieval_record(queries @ gallery.T, Bootstrap([f"p{i // 2}" for i in range(60)], resamples=200))
    ranks = rank_of_own(queries @ gallery.T)
    assert (record["pool"], record["patients"]) == (60, 30)
    assert list(record["recall"]) == ["1", "5", "10", "50"], "a cutoff above the pool says nothing"
    assert record["recall"]["10"]["value"] == np.mean(ranks <= 10) and record["recall"]["10"]["chance"] == 10 / 60
    for entry in record["recall"].values():
        assert entry["interval"][0] <= entry["value"] <= entry["interval"][1]
    assert record["median_rank"] == np.median(ranks)


def test_a_recall_of_zero_has_the_exact_limit_and_that_of_the_whole_pool_none() -> None:
    # Every query is nearest to the item of another one, and farthest from its own.
    similarity = -np.eye(5)
    record = retrieval_record(similarity, Bootstrap([str(i) for i in range(5)], resamples=50))
    # Clopper-Pearson, no success in five trials: 1 - 0.025 ** (1 / 5).
    assert record["recall"]["1"]["interval"] == pytest.approx([0, 0.5218], abs=1e-4)
    assert record["recall"]["5"]["interval"] == [1, 1]


def test_a_pool_with_a_single_patient_has_no_interval_and_is_refused() -> None:
    queries, gallery = pairs(4, noise=1.0)
    with pytest.raises(ValueError, match="at least 2 patients; got 1"):
        retrieval_record(queries @ gallery.T, Bootstrap(["p"] * 4))


def test_a_similarity_that_is_not_finite_has_no_rank() -> None:
    with pytest.raises(ValueError, match="the similarities of query 1 are not finite"):
        rank_of_own([[1.0, 0.5], [0.5, np.nan]])


def test_the_first_volume_of_each_report() -> None:
    assert first_of_each(["a", "a", "b", "c", "b"]).tolist() == [0, 2, 3]


def test_a_pool_of_one_patient_is_left_out_of_the_numbers() -> None:
    scans, reports = pairs(4, noise=1.0)
    patients = Bootstrap(["a", "a", "b", "b"], resamples=20)
    record = report_retrieval(scans, reports, ["No acute findings."] * 4, np.zeros((4, 18)), patients)
    assert list(record["pools"]) == ["dup_all"]
    pools = retrieval_pools(["no", "no", "yes", "yes"], patients.patients)
    assert {name: rows.tolist() for name, rows in pools.items()} == {"dup_all": [0, 1, 2, 3], "first_all": [0, 2]}


@pytest.mark.parametrize(
    ("scans", "message"),
    [(np.full((2, 2), np.nan), "scans: embedding 0 is not finite"), (np.zeros(3), r"scans: expected an array")],
)
def test_what_cannot_be_ranked_is_refused(scans: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        report_retrieval(scans, np.eye(2), [1, 2], np.ones((2, 1)), Bootstrap(["a", "b"]))


def test_random_pools_are_partitions() -> None:
    dealt = list(random_partitions(10, 3))
    assert [pools.shape for pools in dealt] == [(3, 3)] * PARTITIONS and not np.array_equal(*dealt[:2])
    assert all(len(set(pools.ravel().tolist())) == 9 for pools in dealt), "pools of a partition share nothing"
    with pytest.raises(ValueError, match="pool size of 2 to 10 items, found 11"):
        next(random_partitions(10, 11))


def test_pool_recall_is_the_mean_over_its_pools() -> None:
    queries, gallery = pairs(50, noise=1.5)
    dealt = [pool for pools in random_partitions(50, 16, seed=3) for pool in pools]
    by_pool = [recall_at(rank_of_own(queries[pool] @ gallery[pool].T), (1, 8)) for pool in dealt]
    np.testing.assert_allclose(pool_recall(queries, gallery, 16, seed=3), np.mean(by_pool, axis=0))
    assert pool_recall(*pairs(320, 1e9), size=32)[0] == pytest.approx(1 / 32, abs=0.02), "noise finds one in 32"


def looped_map(rows: np.ndarray, labels: np.ndarray, cutoff: int) -> float:
    """The definition, one scan after the other."""
    precisions = []
    abnormal = [i for i in range(len(rows)) if (labels[i] == 1).any()]
    for query in abnormal:
        similarity = rows @ rows[query]
        others = sorted((i for i in abnormal if i != query), key=lambda i: -similarity[i])[:cutoff]
        hits, total = 0, 0.0
        for place, other in enumerate(others, 1):
            if ((labels[query] == 1) & (labels[other] == 1)).any():
                hits += 1
                total += hits / place
        precisions.append(total / cutoff)
    return float(np.mean(precisions))


def test_image_to_image_map_agrees_with_its_definition() -> None:
    random = np.random.default_rng(4)
    rows, labels = (
        unit(random.standard_normal((600, 8))),
        np.where(random.random((600, 5)) < 0.15, 1, random.integers(-1, 1, (600, 5))),
    )
    found = image_to_image_map(rows, labels)
    assert found == pytest.approx([looped_map(rows, labels, k) for k in (5, 10, 50)])
    assert np.isnan(image_to_image_map(rows[:6], np.ones((6, 1)))[1:]).all(), "five others cannot fill a list of ten"


def test_image_to_image_by_hand() -> None:
    angle = np.radians([0, 10, 25, 45])
    rows = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    labels = np.array([[1, 0], [0, 1], [1, 0], [1, 0]])
    # Nearest two of each: 1,2 | 0,2 | 1,0 | 2,1. Relevant: no,yes | no,no | no,yes | yes,no.
    assert image_to_image_map(rows, labels, (2,))[0] == pytest.approx((0.25 + 0 + 0.25 + 0.5) / 4)


def test_ct_rates_pool_takes_seconds() -> None:
    random = np.random.default_rng(0)
    scans, reports = pairs(3039, noise=2.0)
    ids = np.minimum(np.arange(3039), 2 * (np.arange(3039) // 2))
    started = time.perf_counter()
    bootstrap = Bootstrap([f"p{i // 3}" for i in range(3039)])
    record = report_retrieval(scans, reports, ids.tolist(), random.integers(0, 2, (3039, 18)), bootstrap)
    assert time.perf_counter() - started < 60, "this limit is for a busy machine"
    assert record["pools"]["dup_all"]["text_to_image"]["pool"] == 3039
    assert record["pools"]["first_all"]["image_to_text"]["pool"] == 1520
    assert set(record["random_pools"]) == {"32", "64", "128"} and set(
        record["random_pools"]["32"]["text_to_image"]
    ) == {"1", "8"}
    assert set(record["image_to_image"]) == {"map@5", "map@10", "map@50"}


def test_only_anatomies_that_both_have_are_compared() -> None:
    reports = np.asarray([[[1.0, 0], [0, 1]], [[1, 0], [1, 0]]])
    scans = np.asarray([[[1.0, 0], [1, 0]], [[0, 1], [1, 0]]])
    said, shown = np.asarray([[True, False], [True, True]]), np.asarray([[True, True], [False, True]])
    found = report_similarity(reports, said, scans, shown)
    # Report 0 speaks of anatomy 0 alone, which scan 1 does not show.
    np.testing.assert_allclose(found, [[1, -1], [1, 1]])


def test_without_reports_there_is_nothing_to_rank() -> None:
    empty, none = np.zeros((0, 2, 3)), np.zeros((0, 2), dtype=bool)
    assert rank_of_own(report_similarity(empty, none, empty, none)).shape == (0,)


def test_a_tie_counts_against_the_query() -> None:
    assert rank_of_own(np.asarray([[0.5, 0.5, 0.1], [0.9, 0.8, 0.7], [0.1, 0.2, 0.3 + 1e-13]])).tolist() == [2, 2, 1]


def test_half_of_the_sentences_are_left_in_their_order() -> None:
    sentences = ["One.", "Two.", "Three.", "Four.", "Five."]
    texts = {drop_sentences(sentences, 0.5, np.random.default_rng(seed)) for seed in range(60)}
    assert all(len(text.split()) == 3 for text in texts)
    assert len(texts) == 10, "five choose three"
    assert all(
        [sentences.index(word) for word in text.split()] == sorted(sentences.index(word) for word in text.split())
        for text in texts
    )


def test_a_single_sentence_stays() -> None:
    assert drop_sentences(["One."], 0.0, np.random.default_rng(0)) == "One."


def test_similarity_of_a_report_is_the_mean_over_common_anatomies() -> None:
    reports = np.array([[[1.0, 0], [0, 1]], [[0, 1], [np.nan, np.nan]]])
    scans = np.array([[[1.0, 0], [1, 0]], [[0.6, 0.8], [0, 1]]])
    said, shown = [[True, True], [True, False]], [[True, True], [False, True]]
    # Report 0 has both anatomies in scan 0: (1 + 0) / 2; scan 1 shows only the second: 1. Report 1 has nothing in
    # common with scan 1.
    assert report_similarity(reports, said, scans, shown) == pytest.approx(np.array([[0.5, 1.0], [0.0, -1.0]]))


def test_rank_of_own_counts_equals_as_ahead() -> None:
    assert rank_of_own([[0.9, 0.1, 0.9], [0.2, 0.5, 0.1], [0.7, 0.6, 0.5]]).tolist() == [2, 1, 3]


def test_items_agree_by_equal_sets_or_by_half_of_their_union() -> None:
    found = agreement(LABELS)
    assert found["equal"][0].tolist() == [True, False, False, False, True, False]
    assert found["jaccard"][0].tolist() == [True, True, False, False, True, False]
    # Nothing is known to be present in either.
    assert found["equal"][2].tolist() == [False, False, True, True, False, False]


def test_precision_is_the_share_of_agreeing_items_among_the_first() -> None:
    similarity = -np.abs(np.arange(6)[:, None] - np.arange(6)[None, :]) - np.arange(6) / 100
    found = label_precision(similarity, LABELS, Bootstrap([str(i) for i in range(6)], 50))
    # At rank 1 every query finds itself.
    assert found["equal"]["1"]["value"] == 1
    nearest = [[0, 1, 2, 3, 4], [1, 0, 2, 3, 4], [2, 1, 3, 0, 4], [3, 2, 4, 1, 5], [4, 3, 5, 2, 1], [5, 4, 3, 2, 1]]
    equal = agreement(LABELS)["equal"]
    by_hand = np.mean([equal[query, items].mean() for query, items in enumerate(nearest)])
    assert np.isclose(found["equal"]["5"]["value"], by_hand)
    assert found["equal"]["5"]["chance"] == equal.mean()
    assert "10" not in found["equal"]
