"""Valleys between clusters: against plain loops, and what has none."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from december_plugin.evaluation import null
from december_plugin.evaluation.null import null_agreement
from december_plugin.evaluation.valleys import is_deep, valleys_between

RNG = np.random.default_rng(5)
PLACES = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])
TYPES = np.arange(90) % 3


def plain_depth(vectors, first, second):
    """Return the depth between two clusters of rows of one matrix, point by point."""
    a, b = vectors[first].mean(axis=0), vectors[second].mean(axis=0)
    density = []
    for place in np.linspace(0, 1, 21):
        value = 0.0
        for own in (first, second):
            along = [(vectors[at] - a) @ (b - a) / ((b - a) @ (b - a)) for at in own]
            value += np.mean([np.exp(-((place - x) ** 2) / (2 * 0.15**2)) for x in along])
        density.append(value)
    left, right = int(np.argmax(density[:11])), 10 + int(np.argmax(density[10:]))
    return 1 - min(density[left : right + 1]) / min(density[left], density[right])


def plain_valleys(readouts, labels):
    """Connect clusters over the shallowest pass that leads out of what is connected already (Prim)."""
    vectors = np.concatenate([(own - own.mean(axis=0)) / np.sqrt(own.var(axis=0).sum()) for own in readouts], axis=1)
    members = {label: np.flatnonzero(labels == label) for label in sorted(set(labels) - {-1})}
    vectors = vectors.copy()
    connected, values, weights = [min(members)], [], []
    while len(connected) < len(members):
        pairs = [(a, b) for a in connected for b in members if b not in connected]
        passes = {(a, b): plain_depth(vectors, members[a], members[b]) for a, b in pairs}
        a, b = min(passes, key=passes.get)
        values.append(passes[a, b])
        weights.append(np.sqrt(min(len(members[a]), len(members[b]))))
        connected.append(b)
    return np.average(values, weights=weights)


def types_in(n_features, noise=1.0):
    mixing = RNG.normal(size=(2, n_features))
    return PLACES[TYPES] @ mixing + noise * RNG.normal(size=(len(TYPES), n_features))


@pytest.mark.parametrize("noise", [1.0, 6.0])
def test_valleys_are_those_of_a_plain_search(noise):
    readouts = [types_in(3, noise), types_in(5, noise)]
    labels = [TYPES.copy(), RNG.integers(4, size=len(TYPES))]
    found = valleys_between(readouts, labels)
    expected = [plain_valleys(readouts, own) for own in labels]
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    if noise == 1.0:
        assert found[0] > 2 * found[1]


def test_units_origin_and_basis_of_a_seed_do_not_matter():
    readouts = [types_in(3), types_in(4)]
    turn = np.linalg.qr(RNG.normal(size=(4, 4)))[0]
    moved = [1e3 * readouts[0] - 7, readouts[1] @ turn]
    labels = [TYPES, TYPES]
    np.testing.assert_allclose(valleys_between(moved, labels), valleys_between(readouts, labels), rtol=1e-9)


def test_neurons_without_a_cluster_and_tiny_clusters_make_no_valley():
    readouts = [types_in(3)]
    few = np.where(TYPES == 2, -1, TYPES)
    kept = few >= 0
    # The scale is that of all neurons, which a depth does not depend on.
    np.testing.assert_allclose(valleys_between(readouts, [few]), valleys_between([readouts[0][kept]], [few[kept]]))
    pair = TYPES.copy()
    pair[pair == 2] = 0
    pair[:2] = 3
    two = np.where(TYPES == 1, 1, 0)
    assert valleys_between(readouts, [pair]) < valleys_between(readouts, [two])  # 2 neurons connect at no depth
    assert valleys_between(readouts, [np.zeros(90, int)]) == valleys_between(readouts, [np.full(90, -1)]) == 0
    assert valleys_between([np.ones((6, 2))], [np.arange(6) % 2]) == 0


def test_clusters_around_one_place_with_nobody_at_their_centres_are_connected():
    angle = (np.arange(8) + 0.5) * np.pi / 4
    ring = np.column_stack([np.cos(angle), np.sin(angle)])
    assert valleys_between([np.concatenate([ring, 3 * ring + [0.01, 0.0]])], [np.repeat([0, 1], 8)]) == 0


def test_opposite_parts_of_a_ring_are_connected_over_others():
    angle = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    ring = np.column_stack([np.cos(angle), np.sin(angle)]) + 0.05 * RNG.normal(size=(400, 2))
    arcs = (angle // (np.pi / 3)).astype(int)
    (on_ring,) = valleys_between([ring], [arcs])
    opposite = np.isin(arcs, (0, 3))
    (across,) = valleys_between([ring[opposite]], [arcs[opposite]])
    assert on_ring < 0.25 * across


def test_the_null_has_the_valleys_of_the_kind_with_the_most_distinct_ones():
    readouts = [types_in(3), types_in(4)]

    def cluster(vectors, _):
        return (vectors[:, 0] > np.median(vectors[:, 0])).astype(int) + 2 * (vectors[:, 1] > np.median(vectors[:, 1]))

    found = null_agreement(readouts, cluster, n_draws=2, method="combined")
    assert found.valleys.shape == (2, 2)
    for number, own in enumerate(found.valleys):
        drawn = [kind.draw(number).readouts for kind in null.surrogates_of(readouts, method="combined")]
        each = [valleys_between(vectors, [cluster(one, 0) for one in vectors]) for vectors in drawn]
        assert len(each) == 3
        np.testing.assert_array_equal(own, max(each, key=np.mean))
    pairs = list(itertools.combinations(range(2), 2))
    assert found.agreements.shape == (2, len(pairs))


def test_deep_valleys_are_significant_and_much_deeper():
    found = is_deep([0.36, 0.36, 0.34, np.nan, 0.36], 0.2, [0.05, 0.06, 0.01, 0.01, np.nan])
    assert found.tolist() == [True, False, False, False, False]
    # Of types that hardly touch surrogates have valleys, too, and none is deeper than 1.
    assert is_deep([0.97, 0.8, 0.97], 0.89, [0.05, 0.05, 0.06]).tolist() == [True, False, False]
    assert is_deep([0.78, 0.75], 0.6, 0.05).tolist() == [True, False]
