"""Geometry of text embeddings: against SciPy, scikit-learn, repeated rows and numbers worked out by hand."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import silhouette_score

from bundle.ctfindings.metrics.text_collapse import (
    PAIR_KINDS,
    STATISTICS,
    TextRows,
    anatomy_accuracy,
    anatomy_silhouette,
    cone,
    cosine_moments,
    effective_rank,
    histogram,
    pair_cosines,
    share_of_equal_texts,
    text_statistics,
    uniformity,
)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def texts(scans: int = 12, width: int = 6, seed: int = 0) -> TextRows:
    """Three anatomies per scan around directions of their own; about half of the texts normal."""
    random = np.random.default_rng(seed)
    anatomy = np.tile(np.arange(3), scans)
    rows = unit(np.eye(width)[anatomy] + 0.6 * random.normal(size=(3 * scans, width)))
    return TextRows(
        rows, anatomy, random.random(3 * scans) < 0.5, random.integers(0, 9, 3 * scans), np.repeat(np.arange(scans), 3)
    )


def value_of(values: np.ndarray, name: str) -> float:
    return float(values[STATISTICS.index(name)])


def pairs_by_hand(rows: TextRows, kind: str) -> list[float]:
    cosines = []
    for i in range(len(rows.anatomy)):
        for j in range(i):
            same = rows.anatomy[i] == rows.anatomy[j]
            wanted = {
                "cross_anatomy": not same,
                "abnormal_abnormal": same and not rows.normal[i] and not rows.normal[j],
                "normal_abnormal": same and rows.normal[i] != rows.normal[j],
            }[kind]
            if wanted:
                cosines.append(float(rows.embeddings[i] @ rows.embeddings[j]))
    return cosines


@pytest.mark.parametrize("kind", PAIR_KINDS)
def test_pairs_and_their_moments_are_those_of_a_double_loop_and_of_scipy(kind: str) -> None:
    rows = texts()
    expected = pairs_by_hand(rows, kind)
    found = pair_cosines(rows, kind)
    assert sorted(set(np.round(found, 12))) == sorted(set(np.round(expected, 12)))
    values = text_statistics(rows, np.ones((1, 12)))[0]
    g1, g2 = stats.skew(expected), stats.kurtosis(expected)
    reference = [
        np.mean(expected),
        np.std(expected),
        g1,
        g2,
        (g1**2 + 1) / (g2 + 3),
        np.mean(np.asarray(expected) > 0.9),
    ]
    moments = [
        value_of(values, f"{kind}.{name}")
        for name in ("mean", "sd", "skewness", "excess_kurtosis", "bimodality", "share_above")
    ]
    np.testing.assert_allclose(moments, reference, atol=1e-9)
    np.testing.assert_allclose(list(cosine_moments(expected).values()), reference, atol=1e-9)


def test_weights_count_as_repeated_scans_whose_copies_are_not_paired_with_themselves() -> None:
    """Weight 2 and a scan that is there twice differ in the pairs of the copies alone, which cross-anatomy pairs do not
    exclude.
    """
    rows, weights = texts(5), np.asarray([[2.0, 1, 0, 1, 3]])
    drawn = np.concatenate([np.flatnonzero(rows.scan == scan) for scan in (0, 0, 1, 3, 4, 4, 4)])
    repeated = TextRows(
        rows.embeddings[drawn], rows.anatomy[drawn], rows.normal[drawn], rows.text_id[drawn], rows.scan[drawn]
    )
    weighted = text_statistics(rows, weights)[0]
    plain = pairs_by_hand(repeated, "cross_anatomy")
    assert value_of(weighted, "cross_anatomy.mean") == pytest.approx(np.mean(plain))
    assert value_of(weighted, "cross_anatomy.skewness") == pytest.approx(stats.skew(plain))
    assert value_of(weighted, "effective_rank") == pytest.approx(
        effective_rank(repeated.embeddings, np.ones(len(drawn)))
    )
    assert value_of(weighted, "cone") == pytest.approx(np.linalg.norm(repeated.embeddings.mean(axis=0)))


def test_moments_keep_their_digits_when_all_cosines_are_nearly_one() -> None:
    """Collapsed texts: an SD of 1e-4 about 1, where plain sums of powers would have no digits left."""
    random = np.random.default_rng(0)
    cosines = 1 - 1e-4 * random.gamma(2.0, size=4000)
    found = cosine_moments(cosines)
    assert found["skewness"] == pytest.approx(stats.skew(cosines), rel=1e-6)
    assert found["excess_kurtosis"] == pytest.approx(stats.kurtosis(cosines), rel=1e-5)
    assert found["share_above"] == 1


def test_texts_in_one_point_are_collapsed_by_every_measure() -> None:
    rows = texts()
    one = TextRows(np.tile(np.eye(6)[:1], (36, 1)), rows.anatomy, rows.normal, rows.text_id, rows.scan)
    values = text_statistics(one, np.ones((1, 12)))[0]
    assert value_of(values, "cross_anatomy.mean") == 1
    assert value_of(values, "cross_anatomy.share_above") == 1
    assert np.isnan(value_of(values, "cross_anatomy.skewness"))
    assert value_of(values, "uniformity") == pytest.approx(0)
    assert value_of(values, "cone") == 1
    assert value_of(values, "anatomy_accuracy") == 0, "anatomies that are one point are not told apart"
    assert np.isnan(value_of(values, "effective_rank"))


def test_effective_rank_counts_equal_axes() -> None:
    cross = np.concatenate([np.eye(4), -np.eye(4)])
    assert effective_rank(cross, np.ones(8)) == pytest.approx(4)
    assert effective_rank(np.concatenate([cross[:1], cross[4:5]]), np.ones(2)) == pytest.approx(1)


def test_uniformity_of_two_opposite_points_is_minus_eight() -> None:
    assert uniformity(np.asarray([[1.0, 0], [-1, 0]]), np.ones((1, 2)))[0] == pytest.approx(-8)


def test_cone_of_a_right_angle() -> None:
    assert cone(np.eye(2), np.ones((1, 2)))[0] == pytest.approx(np.sqrt(0.5))


def test_a_text_does_not_vote_for_itself() -> None:
    """The first text is at right angles to the only other one of its anatomy; with its own vote its centroid would be
    near enough.
    """
    rows = unit(np.asarray([[1.0, 0, 0], [0.05, 1, 0], [0.6, 0, 0.8], [0.6, 0, 0.8]]))
    anatomy = np.asarray([0, 0, 1, 1])
    with_own_vote = unit(np.stack([rows[anatomy == k].mean(axis=0) for k in (0, 1)])) @ rows[0]
    assert with_own_vote[0] > with_own_vote[1]
    right = []
    for text in range(4):
        others = np.arange(4) != text
        centroids = unit(np.stack([rows[others & (anatomy == k)].mean(axis=0) for k in (0, 1)]))
        right.append(int((centroids @ rows[text]).argmax()) == anatomy[text])
    assert right == [False, True, True, True]
    assert (
        anatomy_accuracy(TextRows(rows, anatomy, np.zeros(4, dtype=bool), np.arange(4), np.arange(4)), np.ones(4))
        == 0.75
    )


def test_silhouette_is_that_of_scikit_learn_under_the_cosine_distance() -> None:
    rows = texts()
    assert anatomy_silhouette(rows) == pytest.approx(silhouette_score(rows.embeddings, rows.anatomy, metric="cosine"))


def test_equal_texts_and_sampling_and_histogram() -> None:
    rows = texts()
    equal = [
        rows.text_id[i] == rows.text_id[j] for i in range(36) for j in range(i) if rows.anatomy[i] != rows.anatomy[j]
    ]
    assert share_of_equal_texts(rows, "cross_anatomy") == pytest.approx(np.mean(equal))
    sampled = rows.sample(4)
    assert np.bincount(sampled.anatomy).tolist() == [4, 4, 4]
    assert sum(histogram(np.asarray([-1.0, 0, 1 + 1e-12]))["counts"]) == 3


def test_a_kind_without_pairs_is_nan() -> None:
    rows = texts()
    lone = TextRows(rows.embeddings[:1], rows.anatomy[:1], rows.normal[:1], rows.text_id[:1], rows.scan[:1])
    values = text_statistics(lone, np.ones((1, 12)))[0]
    assert np.isnan(value_of(values, "cross_anatomy.mean"))
    assert np.isnan(value_of(values, "anatomy_accuracy"))
