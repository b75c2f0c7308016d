"""Similarity of embeddings, against plain loops over pairs of neurons and the definition of CKA by kernels."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import pearsonr

from december_plugin.errors import EmbeddingError, SettingsError
from december_plugin.evaluation import similarity
from december_plugin.evaluation.similarity import SIMILARITIES, compare_embeddings, sampled_pairs

RNG = np.random.default_rng(0)
A = RNG.normal(size=(23, 5))
B = np.hstack([A[:, :3] + 0.5 * RNG.normal(size=(23, 3)), RNG.normal(size=(23, 1))])


def naive(a, b):
    distances, cosines = ([], []), ([], [])
    for i, j in itertools.combinations(range(len(a)), 2):
        for at, vectors in enumerate((a, b)):
            distances[at].append(math.dist(vectors[i], vectors[j]))
            cosines[at].append(vectors[i] @ vectors[j] / (math.hypot(*vectors[i]) * math.hypot(*vectors[j])))
    n = len(a)
    centering = np.eye(n) - 1 / n

    def hsic(k, m):
        return np.trace(k @ centering @ m @ centering)

    k, m = a @ a.T, b @ b.T
    return pearsonr(*distances).statistic, pearsonr(*cosines).statistic, hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m))


@pytest.mark.parametrize("few", [0, 8])
def test_measures_are_those_of_loops_over_all_pairs(few, monkeypatch):
    monkeypatch.setattr(similarity, "FEW_PER_PAIR", few)
    monkeypatch.setattr(similarity, "PAIRS_AT_ONCE", 100)
    found = compare_embeddings(A, B)
    assert (found.distance_correlation, found.cosine_correlation, found.linear_cka) == pytest.approx(naive(A, B))
    assert found.n_neurons == 23


def test_a_rotation_and_a_factor_change_nothing():
    rotation = np.linalg.qr(RNG.normal(size=(5, 5)))[0]
    found = compare_embeddings(A, 3 * A @ rotation)
    assert (found.distance_correlation, found.cosine_correlation, found.linear_cka) == pytest.approx((1, 1, 1))
    turned, plain = (compare_embeddings(each, B) for each in (A @ rotation, A))
    for name in SIMILARITIES:
        assert getattr(turned, name) == pytest.approx(getattr(plain, name))


def test_many_pairs_are_sampled_with_a_seed():
    pairs = sampled_pairs(300, 1000, seed=1)
    assert len(set(zip(*(at.tolist() for at in pairs), strict=True))) == 1000
    assert (pairs[0] < pairs[1]).all()
    assert pairs[0].min() >= 0
    assert pairs[1].max() < 300
    np.testing.assert_array_equal(pairs, sampled_pairs(300, 1000, seed=1))
    assert not np.array_equal(pairs, sampled_pairs(300, 1000, seed=2))
    vectors = RNG.normal(size=(300, 4))
    other = vectors + 0.3 * RNG.normal(size=(300, 4))
    sampled, every = (compare_embeddings(vectors, other, n_pairs=n) for n in (5000, 10**6))
    assert sampled.distance_correlation == pytest.approx(every.distance_correlation, abs=0.02)
    assert sampled.cosine_correlation == pytest.approx(every.cosine_correlation, abs=0.02)


@pytest.mark.parametrize("n", [2, 3, 150_000])
def test_numbers_of_pairs_are_pairs(n):
    n_all = n * (n - 1) // 2
    first, second = sampled_pairs(n, min(2000, max(1, n_all - 1)), seed=0)
    numbers = second * (second - 1) // 2 + first
    assert ((first >= 0) & (first < second) & (second < n)).all()
    assert len(np.unique(numbers)) == len(numbers)


def test_neurons_are_matched_by_identity():
    ids = {"s": np.arange(23)}
    order = RNG.permutation(23)[:20]
    found = compare_embeddings(A, B[order], ids_a=ids, ids_b={"s": order})
    assert found.n_neurons == 20
    kept = np.sort(order)
    expected = naive(A[kept], B[kept])
    assert (found.distance_correlation, found.cosine_correlation, found.linear_cka) == pytest.approx(expected)


def test_what_is_not_defined_is_nan():
    equal = compare_embeddings(np.ones((5, 2)), A[:5])
    assert all(map(math.isnan, (equal.distance_correlation, equal.cosine_correlation, equal.linear_cka)))
    for rounded in (np.full((23, 3), 0.1), np.tile(A[:1], (23, 1))):  # whose mean is another number
        assert math.isnan(compare_embeddings(rounded, B).linear_cka)
    parallel = np.outer(1 + np.arange(23), [0.3, 0.7, 0.9])  # cosines are 1 and next to 1
    assert math.isnan(compare_embeddings(parallel, B).cosine_correlation)
    assert math.isnan(compare_embeddings(A[:2], B[:2]).distance_correlation)
    zero = np.vstack([A[:5], np.zeros(5)])
    assert math.isfinite(compare_embeddings(zero, zero).cosine_correlation)


def test_bad_input():
    with pytest.raises(SettingsError, match="a has 23 neurons and b has 22; pass the identities of both"):
        compare_embeddings(A, B[:22])
    with pytest.raises(SettingsError, match="Compare models of the same sessions"):
        compare_embeddings(A, B, ids_a={"s": np.arange(23)}, ids_b={"t": np.arange(23)})
    with pytest.raises(EmbeddingError, match=r"b has shape \(23,\); an embedding is \(neurons, features\)"):
        compare_embeddings(A, B[:, 0])
    with pytest.raises(EmbeddingError, match="a holds NaN or infinite values"):
        compare_embeddings(A * np.nan, B)
    with pytest.raises(SettingsError, match="ids_b has the identities of 22 neurons, and b has 23"):
        compare_embeddings(A, B, ids_a={"s": np.arange(23)}, ids_b={"s": np.arange(22)})
    with pytest.raises(SettingsError, match="n_pairs is 0; it must be at least 1"):
        compare_embeddings(A, B, n_pairs=0)
