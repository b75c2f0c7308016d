"""k-means on a device, here the CPU, against scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans, kmeans_plusplus
from sklearn.metrics import adjusted_rand_score

from december_plugin.clustering import kmeans
from december_plugin.clustering.device_kmeans import DeviceKMeans
from december_plugin.clustering.kmeans import kmeans_start
from december_plugin.errors import EmbeddingError
from helpers.mixtures import random_problem

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def vectors(n=1500, k=12, d=16, seed=0, *, dtype=np.float32, separation=0.5):
    return random_problem(n, k, d, seed, separation=separation, dtype=dtype)[0] + dtype(3)


@pytest.fixture
def on_device(monkeypatch):
    """Let every k-means run as on a GPU."""
    monkeypatch.setattr(kmeans, "runs_on_device", lambda w: True)


@DTYPES
@pytest.mark.parametrize("k", [1, 2, 30])
def test_starts_are_scikit_learns(dtype, k):
    w = vectors(dtype=dtype)
    ours = DeviceKMeans(torch.as_tensor(w), k)
    centered = w - w.mean(axis=0)
    starts = ours.starts(ours.draw([7, 8], n_init=3))
    randoms = [np.random.RandomState(seed) for seed in (7, 8)]
    for at, start in enumerate(starts):  # three from each generator, one after the other
        expected = kmeans_plusplus(centered, k, random_state=randoms[at // 3])[1]
        np.testing.assert_array_equal(start, expected)


@DTYPES
@pytest.mark.parametrize("k", [2, 12, 40])
def test_partitions_from_the_same_starts_are_scikit_learns(dtype, k, monkeypatch):
    w = vectors(dtype=dtype)
    monkeypatch.setattr("december_plugin.clustering.device_kmeans.BLOCK_NUMBERS_ELSEWHERE", 400 * (k + 16))
    ours = DeviceKMeans(torch.as_tensor(w), k)
    for seed in range(3):
        start = ours.starts(ours.draw([seed]))[0]
        expected = KMeans(k, init=w[start], n_init=1).fit(w)
        run = ours.runs(start[None])[0]
        np.testing.assert_array_equal(run.labels, expected.labels_)
        assert run.inertia == pytest.approx(expected.inertia_, rel=1e-5)
        assert run.n_iter == expected.n_iter_


def test_it_stops_within_the_tolerance_as_scikit_learn():
    w = vectors(4000, 3, 4, dtype=np.float64, separation=0.1)  # no clusters: labels would change for long
    ours = DeviceKMeans(torch.as_tensor(w), 20)
    start = ours.starts(ours.draw([0]))[0]
    expected = KMeans(20, init=w[start], n_init=1).fit(w)
    run = ours.runs(start[None])[0]
    assert run.n_iter == expected.n_iter_ > 5
    np.testing.assert_array_equal(run.labels, expected.labels_)
    to_the_end = KMeans(20, init=w[start], n_init=1, tol=0).fit(w)
    assert to_the_end.n_iter_ > run.n_iter
    ours.tolerance = 0.0
    np.testing.assert_array_equal(ours.runs(start[None])[0].labels, to_the_end.labels_)
    assert ours.runs(start[None])[0].n_iter == to_the_end.n_iter_


@DTYPES
def test_empty_clusters_move_to_the_farthest_vectors_as_in_scikit_learn(dtype):
    rng = np.random.default_rng(0)
    w = np.vstack([rng.standard_normal((60, 3)), rng.standard_normal((30, 3)) + 20, [[100.0] * 3]]).astype(dtype)
    w[1:4] = w[0]  # as centres all the same: the first gets all neurons, the others none
    start = np.array([0, 1, 2, 3, 70])
    run = DeviceKMeans(torch.as_tensor(w), 5).runs(start[None])[0]
    expected = KMeans(5, init=w[start], n_init=1).fit(w)
    assert adjusted_rand_score(run.labels, expected.labels_) == 1
    assert run.inertia == pytest.approx(expected.inertia_, rel=1e-5)
    assert run.n_iter == expected.n_iter_


@pytest.mark.parametrize("seeds", ["spawned", "joint"])
@DTYPES
def test_the_best_of_restarts_is_that_of_the_cpu(seeds, dtype, request):
    w = torch.as_tensor(vectors(800, 8, 6, dtype=dtype, separation=1.0))
    expected = kmeans_start(w, 8, seed=3, n_init=5, seeds=seeds)
    request.getfixturevalue("on_device")
    actual = kmeans_start(w, 8, seed=3, n_init=5, seeds=seeds)
    order, expected_order = (values[0][:, 0].argsort() for values in (actual, expected))
    for mine, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(mine[order], theirs[expected_order], rtol=1e-12, atol=1e-12)


def test_the_same_seed_gives_the_same_bytes(on_device):
    w = torch.as_tensor(vectors(600))
    results = [kmeans_start(w, 5, seed=1, n_init=2) for _ in range(2)]
    assert all(a.numpy().tobytes() == b.numpy().tobytes() for a, b in zip(*results, strict=True))


def test_fewer_different_vectors_than_clusters(on_device):
    with pytest.raises(EmbeddingError, match=r"k-means finds only 2 different clusters among 10 readout vectors"):
        kmeans_start(torch.eye(2).repeat(5, 1), 3, seed=0)


def test_a_vector_beside_which_the_others_are_equal_in_float32(on_device):
    rng = np.random.default_rng(0)
    w = rng.standard_normal((200, 8)) + np.repeat([0.0, 4.0], 100)[:, None]
    w = torch.as_tensor(np.vstack([w, np.full((1, 8), 1e13)]))
    centers, _ = kmeans_start(w, 3, seed=1)
    assert sorted(centers[:, 0].round(decimals=-1).tolist()) == [0, 0, 1e13]


@pytest.mark.parametrize("tails", [False, True])
def test_restarts_of_few_vectors_go_together_to_scikit_learns_clusters(tails):
    rng = np.random.default_rng(3)
    for k in (1, 3, 10):
        # Heavy tails have pairs of vectors that are far from all others, either of which is as good a centre.
        w = vectors(70, 5, 8, seed=k, dtype=np.float64) * (rng.gamma(1, 1, (70, 1)) if tails else 1)
        assert kmeans.restarts_go_together(torch.as_tensor(w), k)
        seeds = kmeans.spawn_seeds(k, 20)
        expected = [KMeans(k, n_init=1, random_state=seed).fit(w) for seed in seeds]
        ours = DeviceKMeans(torch.as_tensor(w), k)
        for run, theirs in zip(ours.runs(ours.starts(ours.draw(seeds))), expected, strict=True):
            np.testing.assert_array_equal(run.labels, theirs.labels_)
            assert run.n_iter == theirs.n_iter_
        best = min(expected, key=lambda fitted: fitted.inertia_)
        np.testing.assert_array_equal(ours.best(seeds, n_init=1), best.labels_)


def test_restarts_of_float32_and_of_many_vectors_are_scikit_learns():
    assert not kmeans.restarts_go_together(torch.empty(70, 2), 3)
    few = torch.empty(1_000, 2, dtype=torch.float64)
    assert kmeans.restarts_go_together(few, 8)
    assert not kmeans.restarts_go_together(few, 9)
    assert not kmeans.restarts_go_together(torch.empty(1_001, 2, dtype=torch.float64), 2)


def test_only_many_vectors_on_a_gpu_are_clustered_there():
    assert not kmeans.runs_on_device(torch.empty(20_000, 2))
    assert not kmeans.runs_on_device(torch.empty(20_000, 2, device="meta"))


@pytest.mark.gpu
def test_on_a_gpu():
    w = torch.as_tensor(vectors(12_000))
    assert kmeans.runs_on_device(w.cuda())
    assert not kmeans.runs_on_device(w[:5000].cuda())
    expected = kmeans_start(w, 12, seed=0, n_init=3)
    actual = kmeans_start(w.cuda(), 12, seed=0, n_init=3)
    order, expected_order = (values[0][:, 0].argsort().cpu() for values in (actual, expected))
    torch.testing.assert_close(actual[0].cpu()[order], expected[0][expected_order], rtol=1e-3, atol=1e-3)
