"""Surrogates: what they preserve, what they do not, and whether their p values mean what they say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest, spearmanr
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from december_plugin.errors import EmbeddingError, NoClustersError, SettingsError
from december_plugin.evaluation.null import SurrogateReadouts, null_agreement, null_band
from december_plugin.evaluation.surrogate_settings import SurrogateSettings

METHODS = ["elliptical", "gaussian", "planar", "axial"]


def continuum(
    n: int = 400, *, seed: int = 0, width: int = 10, n_seeds: int = 2, tails: float = 0.0
) -> list[np.ndarray]:
    """Return readouts of a normal continuum that the seeds share, in channels of their own."""
    rng = np.random.default_rng(seed)
    places, strength = rng.standard_normal((n, 5)), np.exp(tails * rng.standard_normal((n, 1)))
    return [
        strength * (places @ rng.standard_normal((5, width)) / 2 + 0.4 * rng.standard_normal((n, width)) + 0.3)
        for _ in range(n_seeds)
    ]


def types(n: int = 300, *, seed: int = 0, width: int = 10, n_seeds: int = 2) -> list[np.ndarray]:
    """Return readouts of three types that are far apart."""
    rng = np.random.default_rng(seed)
    own = np.arange(n) % 3
    return [2 * rng.standard_normal((3, width))[own] + 0.4 * rng.standard_normal((n, width)) for _ in range(n_seeds)]


def correlations(readouts: list[np.ndarray]) -> np.ndarray:
    return np.corrcoef(np.concatenate(readouts, axis=1).T)


def kmeans(n_clusters: int, n_init: int = 1):
    def cluster(vectors: np.ndarray, _: int) -> np.ndarray:
        return KMeans(n_clusters, n_init=n_init, random_state=0).fit(vectors).labels_

    return cluster


# --- what is preserved -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("readouts", [continuum(tails=0.8), types()], ids=["heavy tails", "types"])
def test_values_of_every_channel_are_exactly_the_real_ones(method, readouts):
    draw = SurrogateReadouts(readouts, method=method).draw(0)
    for real, surrogate in zip(readouts, draw.readouts, strict=True):
        np.testing.assert_array_equal(np.sort(surrogate, axis=0), np.sort(real, axis=0))


@pytest.mark.parametrize("method", METHODS)
def test_correlations_within_and_across_seeds_are_close(method):
    readouts = continuum(1000, tails=0.5)
    draw = SurrogateReadouts(readouts, method=method).draw(0)
    errors = (correlations(draw.readouts) - correlations(readouts))[np.triu_indices(20, 1)]
    assert np.sqrt(np.mean(errors**2)) < 0.01  # correlations of 1,000 neurons are off by 0.03 by chance
    assert draw.correlation_error == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-6)
    assert draw.largest_correlation_error == pytest.approx(np.abs(errors).max(), rel=1e-6)
    across = correlations(readouts)[:10, 10:]
    assert np.abs(across).max() > 0.3  # or there would be nothing to preserve


def test_the_correlations_of_the_start_are_made_better():
    surrogates = SurrogateReadouts(continuum(1000, tails=0.8))
    start = surrogates._start(np.random.default_rng([0, 0]))
    draw = surrogates.draw(0)
    started = (
        np.corrcoef(start)[np.triu_indices(20, 1)] - correlations(continuum(1000, tails=0.8))[np.triu_indices(20, 1)]
    )
    assert draw.correlation_error < 0.2 * np.sqrt(np.mean(started**2))


def test_elliptical_surrogates_keep_the_sizes_and_gaussian_ones_do_not():
    readouts = continuum(1000, tails=0.8)

    def sizes(vectors: list[np.ndarray]) -> list[np.ndarray]:
        return [np.log(np.linalg.norm(own, axis=1)) for own in vectors]

    real = sizes(readouts)
    spread, related = np.std(real[0]), spearmanr(*real).statistic
    assert related > 0.85  # a neuron that is strong in one seed is in the other
    elliptical, gaussian = (sizes(SurrogateReadouts(readouts, method=m).draw(0).readouts) for m in METHODS[:2])
    assert np.std(elliptical[0]) == pytest.approx(spread, rel=0.1)
    assert spearmanr(*elliptical).statistic == pytest.approx(related, abs=0.05)
    assert np.std(gaussian[0]) < 0.9 * spread
    assert spearmanr(*gaussian).statistic < related - 0.1


@pytest.mark.parametrize("method", METHODS)
def test_clusters_are_gone(method):
    readouts = types()
    real = [kmeans(3)(readout, 0) for readout in readouts]
    assert adjusted_rand_score(*real) > 0.95
    draw = SurrogateReadouts(readouts, method=method).draw(0)
    surrogate = [kmeans(3)(readout, 0) for readout in draw.readouts]
    assert adjusted_rand_score(*surrogate) < 0.6
    # Nor are they the real neurons in another order.
    assert adjusted_rand_score(real[0], surrogate[0]) < 0.1


def ring(n: int, *, seed: int = 0, n_seeds: int = 2) -> list[np.ndarray]:
    """Return readouts around a circle that the seeds share, in channels of their own."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi, n)
    circle = np.column_stack([np.cos(angle), np.sin(angle)])
    return [
        circle @ np.linalg.qr(rng.standard_normal((8, 8)))[0][:2] + 0.05 * rng.standard_normal((n, 8))
        for _ in range(n_seeds)
    ]


def test_planar_surrogates_of_a_ring_are_a_ring_with_other_neurons():
    readouts = ring(500)

    def in_plane(vectors: np.ndarray) -> np.ndarray:
        left, _, _ = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
        return left[:, :2] * np.sqrt(len(vectors))

    def related(first: np.ndarray, second: np.ndarray) -> float:
        """Return the smaller canonical correlation of two planes."""
        return float(np.linalg.svd(in_plane(first).T @ in_plane(second) / len(first))[1].min())

    assert related(*readouts) > 0.95
    spread = {}
    for method in METHODS:
        first, second = SurrogateReadouts(readouts, method=method).draw(0).readouts
        assert related(first, second) > 0.95  # the seeds share it
        assert related(first, readouts[0]) < 0.2  # and a neuron is where another one was
        radii = np.linalg.norm(in_plane(first), axis=1)
        spread[method] = radii.std() / radii.mean()
    assert spread["planar"] < 0.15
    assert spread["gaussian"] > 0.2


def test_planes_keep_the_distances_and_the_axis_left_over_its_sizes():
    readouts = continuum(60, width=3, n_seeds=1)
    surrogates = SurrogateReadouts(readouts, method="planar")
    scaled = (readouts[0] - readouts[0].mean(0)) / readouts[0].std(0)
    variances, axes = np.linalg.eigh(np.cov(scaled.T, bias=True))
    expected = scaled @ axes / np.sqrt(variances)
    drawn = (surrogates._start(np.random.default_rng(0)).T @ axes) / np.sqrt(variances)
    radii, drawn_radii = (np.sort(np.hypot(own[:, 2], own[:, 1])) for own in (expected, drawn))
    np.testing.assert_allclose(drawn_radii, radii)
    np.testing.assert_allclose(np.sort(np.abs(drawn[:, 0])), np.sort(np.abs(expected[:, 0])))
    assert kstest(np.arctan2(drawn[:, 1], drawn[:, 2]) / (2 * np.pi) + 0.5, "uniform").pvalue > 0.001


def test_axial_surrogates_keep_the_sizes_along_every_principal_axis():
    rng = np.random.default_rng(0)
    places = rng.standard_normal((300, 3)) * rng.standard_normal((300, 3)) * [4, 2, 1]
    readouts = [places @ np.linalg.qr(rng.standard_normal((6, 6)))[0][:3] for _ in range(2)]
    real = np.concatenate(readouts, axis=1)
    scaled = (real - real.mean(axis=0)) / real.std(axis=0)
    axes = np.linalg.svd(scaled, full_matrices=False)[2][:3]
    drawn = SurrogateReadouts(readouts, method="axial")._start(np.random.default_rng(0)).T
    for axis in axes:
        np.testing.assert_allclose(np.sort(np.abs(drawn @ axis)), np.sort(np.abs(scaled @ axis)), atol=1e-9)
        assert abs(np.mean(drawn @ axis > 0) - 0.5) < 0.15
    # What is large along one axis is not so along another more often than chance has it.
    assert np.abs(np.corrcoef(np.abs(drawn @ axes.T).T)[np.triu_indices(3, 1)]).max() < 0.2


@pytest.mark.parametrize("method", METHODS)
def test_directions_stay_directions(method):
    plain, other = continuum(200)
    unit = plain / np.linalg.norm(plain, axis=1, keepdims=True)
    draw = SurrogateReadouts([unit, other], method=method).draw(0)
    np.testing.assert_allclose(np.linalg.norm(draw.readouts[0], axis=1), 1)
    np.testing.assert_array_equal(np.sort(draw.readouts[1], axis=0), np.sort(other, axis=0))
    errors = (correlations(draw.readouts) - correlations([unit, other]))[np.triu_indices(20, 1)]
    assert draw.correlation_error == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-6)
    assert draw.correlation_error < 0.07  # correlations of 200 neurons are off by 0.07 by chance
    # A neuron without weights has no direction, and makes no other space of it.
    unit[3] = 0
    lengths = np.linalg.norm(SurrogateReadouts([unit, other], method=method).draw(0).readouts[0], axis=1)
    np.testing.assert_allclose(lengths[lengths > 0], 1)


def test_draws_are_reproducible_and_differ():
    readouts = continuum(60)
    first, again = (SurrogateReadouts(readouts, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.draw(4).readouts[1], again.draw(4).readouts[1])
    assert not np.array_equal(first.draw(4).readouts[1], first.draw(5).readouts[1])
    other = SurrogateReadouts(readouts, seed=4).draw(4).readouts[1]
    assert not np.array_equal(first.draw(4).readouts[1], other)


# --- awkward readouts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_more_channels_than_neurons(method):
    readouts = continuum(40, width=30, n_seeds=3)
    draw = SurrogateReadouts(readouts, method=method).draw(0)
    np.testing.assert_array_equal(np.sort(draw.readouts[2], axis=0), np.sort(readouts[2], axis=0))
    assert draw.correlation_error < 0.5 / np.sqrt(40)


@pytest.mark.parametrize("method", METHODS)
def test_constant_channels_and_neurons_without_weights(method):
    readouts = continuum(50)
    readouts[0][:, 3] = 0.1
    readouts[1][:, :2] = 0.0
    readouts[1][7] = 0.0
    draw = SurrogateReadouts(readouts, method=method).draw(0)
    assert (draw.readouts[0][:, 3] == 0.1).all()
    assert (draw.readouts[1][:, :2] == 0.0).all()
    assert np.isfinite(draw.readouts[1]).all()
    assert draw.correlation_error < 0.3


@pytest.mark.parametrize("method", METHODS)
def test_nothing_varies(method):
    draw = SurrogateReadouts([np.ones((5, 2)), np.zeros((5, 3))], method=method).draw(0)
    assert (draw.readouts[0] == 1).all()
    assert draw.correlation_error == 0.0


def test_seeds_of_different_width_and_channels_that_are_copies():
    first = continuum(80)[0]
    draw = SurrogateReadouts([first, np.column_stack([first[:, :2], first[:, 0]])]).draw(0)
    assert [readout.shape for readout in draw.readouts] == [(80, 10), (80, 3)]
    copies = draw.readouts[1]
    assert np.corrcoef(copies[:, 0], copies[:, 2])[0, 1] > 0.999


# --- the null ----------------------------------------------------------------------------------------------------


def test_the_null_is_what_clustering_the_draws_gives():
    readouts = continuum(80, n_seeds=3)
    null = null_agreement(readouts, kmeans(4), n_draws=3, seed=5)
    assert null.agreements.shape == (3, 3)
    surrogates = SurrogateReadouts(readouts, seed=5)
    for number in range(3):
        labels = [kmeans(4)(readout, 0) for readout in surrogates.draw(number).readouts]
        expected = [adjusted_rand_score(labels[a], labels[b]) for a, b in [(0, 1), (0, 2), (1, 2)]]
        assert null.agreements[number] == pytest.approx(expected)
    assert 0 < null.correlation_error < null.largest_correlation_error


def test_a_combined_draw_is_the_one_that_agrees_best():
    readouts = continuum(80, n_seeds=3, tails=0.5)
    names = ("elliptical", "planar", "axial")
    kinds = [null_agreement(readouts, kmeans(4), n_draws=4, seed=5, method=kind) for kind in names]
    null = null_agreement(readouts, kmeans(4), n_draws=4, seed=5, method="combined")
    for number in range(4):
        np.testing.assert_array_equal(null.agreements[number], max((k.agreements[number] for k in kinds), key=sum))
    assert {tuple(own) for kind in kinds for own in kind.agreements} > {tuple(own) for own in null.agreements}


def test_every_seed_may_have_a_clustering_of_its_own():
    seen = []

    def record(vectors, at):
        seen.append(at)
        return kmeans(2)(vectors, at)

    readouts = continuum(30)
    null_agreement(readouts, record, n_draws=2)
    assert seen == [0, 1, 0, 1]
    null = null_agreement(readouts, [kmeans(2), lambda vectors, _: np.zeros(len(vectors), dtype=int)], n_draws=2)
    assert null.agreements.tolist() == [[0.0], [0.0]]


def test_band_and_p_value_by_hand():
    band = null_band([0.1, 0.2, 0.3, 0.4], 0.3)
    assert (band.mean, band.sd) == pytest.approx((0.25, np.std([0.1, 0.2, 0.3, 0.4], ddof=1)))
    assert (band.low, band.high) == pytest.approx((0.1075, 0.3925))
    assert band.p_value == pytest.approx(3 / 5)
    assert null_band([0.1, 0.2, 0.3, 0.4], 0.5).p_value == pytest.approx(1 / 5)
    assert null_band([0.1, 0.2], 0.0).p_value == 1.0
    assert np.isnan(null_band([0.1], np.nan).p_value)
    assert np.isnan(null_band([0.1], 0.1).sd)


def p_value(readouts: list[np.ndarray], n_clusters: int, method: str = "elliptical") -> float:
    labels = [kmeans(n_clusters)(readout, 0) for readout in readouts]
    null = null_agreement(readouts, kmeans(n_clusters), n_draws=19, method=method)
    return null_band(null.agreements[:, 0], adjusted_rand_score(*labels)).p_value


def test_p_values_are_uniform_on_a_continuum_with_heavy_tails_and_tiny_with_types():
    values = [p_value(continuum(100, seed=seed, width=6, tails=0.7), 4) for seed in range(14)]
    # With 19 draws p takes the values 1/20 to 1, each as often as the others; a little noise makes it continuous.
    smooth = np.array(values) - np.random.default_rng(0).uniform(0, 1 / 20, len(values))
    assert kstest(smooth, "uniform").pvalue > 0.01
    assert np.mean(np.array(values) <= 0.05) <= 0.25
    assert [p_value(types(100, seed=seed), 3) for seed in range(2)] == [1 / 20] * 2


# --- mistakes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("readouts", "message"),
    [
        ([np.zeros((5, 2)), np.zeros((6, 2))], "the readouts have the shapes (5, 2), (6, 2); all must be (neurons,"),
        ([np.zeros(5)], "the readouts have the shapes (5,); all must be (neurons, channels), of the same neurons."),
        ([np.zeros((2, 2))], "surrogates need at least 3 neurons; there are 2."),
        ([np.ones((4, 2)), np.full((4, 2), np.nan)], "the readouts of seed 2 of 2 hold NaN or infinite values."),
    ],
)
def test_bad_readouts(readouts, message):
    with pytest.raises(EmbeddingError) as raised:
        SurrogateReadouts(readouts)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: SurrogateReadouts([]),
            "there are no readouts to draw surrogates of; give those of at least one seed.",
        ),
        (
            lambda: SurrogateReadouts(continuum(9), method="elliptic"),
            "method is 'elliptic', which is unknown. Did you mean 'elliptical'?",
        ),
        (
            lambda: SurrogateReadouts(continuum(9), method="combined"),
            "method is 'combined', which is unknown. Allowed: axial, elliptical, gaussian, planar.",
        ),
        (lambda: null_agreement(continuum(9)[:1], kmeans(2), n_draws=2), "agreement between seeds needs at least two"),
        (
            lambda: null_agreement(continuum(9), kmeans(2), n_draws=0),
            "n_draws is 0, but must be an integer of at least 1.",
        ),
        (lambda: SurrogateSettings(n_draws=20_000), "n_draws is 20000; at most 10000 are allowed."),
        (lambda: SurrogateSettings(seed=-1), "seed is -1; it must be an integer from 0 to 2**32 - 1."),
        (lambda: SurrogateSettings(name=""), "name is ''; it must be a string of 1 to 64 characters."),
    ],
)
def test_bad_settings(call, message):
    with pytest.raises(SettingsError) as raised:
        call()
    assert str(raised.value).startswith(message)


def test_surrogates_in_which_a_method_finds_no_cluster_agree_on_nothing():
    readouts = [np.random.default_rng(seed).normal(size=(30, 4)) for seed in (0, 1)]

    def cluster(vectors, at):
        raise NoClustersError("none")

    assert (null_agreement(readouts, cluster, n_draws=2).agreements == 0).all()
