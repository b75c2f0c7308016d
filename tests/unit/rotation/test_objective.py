"""Mean distances and the objective of alignment, against SciPy, plain loops and finite differences."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist

from december_plugin.rotation import pair_distances
from december_plugin.rotation.objective import AlignmentObjective, alignment_loss
from december_plugin.rotation.pair_distances import mean_distance, mean_squared_distance
from december_plugin.rotation.shifts import shifted, weighted_shifts

ORIENTATIONS, F = 4, 2


@pytest.fixture
def few_at_once(monkeypatch):
    """Take a few pairs at a time."""
    monkeypatch.setattr(pair_distances, "BLOCK_NUMBERS", 20)


@pytest.fixture
def vectors():
    return torch.tensor(np.random.default_rng(0).normal(size=(7, ORIENTATIONS, F)))


@pytest.mark.usefixtures("few_at_once")
@pytest.mark.parametrize("n", [2, 3, 11])
def test_distances_are_scipys_and_their_gradient_that_of_finite_differences(n):
    vectors = torch.tensor(np.random.default_rng(n).normal(size=(n, 5)) + 100, requires_grad=True)
    found = mean_distance(vectors)
    assert found.item() == pytest.approx(pdist(vectors.detach().numpy()).mean(), rel=1e-12)
    assert torch.autograd.gradcheck(mean_distance, vectors)


@pytest.mark.usefixtures("few_at_once")
def test_equal_vectors_have_no_distance_and_no_gradient():
    vectors = torch.ones(9, 3, dtype=torch.float64) * 1e3
    vectors[4:] += 1
    vectors.requires_grad_()
    found = mean_distance(vectors)
    found.backward()
    pairs, apart = 36, 20
    assert found.item() == pytest.approx(apart / pairs * math.sqrt(3), rel=1e-12)
    expected = torch.full((9, 3), 4 / math.sqrt(3) / pairs, dtype=torch.float64)
    expected[:4] *= -5 / 4
    torch.testing.assert_close(vectors.grad, expected)


def test_squared_distances_have_a_closed_form():
    vectors = torch.tensor(np.random.default_rng(1).normal(size=(9, 4)))
    found = mean_squared_distance(vectors.square().sum(dim=1), vectors.sum(dim=0))
    assert found.item() == pytest.approx((pdist(vectors.numpy()) ** 2).mean())


def loop_objective(vectors, angles, temperature, beta, power):
    """Return equation 5 of the paper, with means in place of sums."""

    def relaxed(vector, angle):
        densities = [
            math.exp(temperature * math.cos(angle - 2 * math.pi * k / ORIENTATIONS)) for k in range(ORIENTATIONS)
        ]
        return sum(d / sum(densities) * np.roll(vector, k, axis=0) for k, d in enumerate(densities))

    aligned = [relaxed(vector, angle) for vector, angle in zip(vectors, angles, strict=True)]
    n = len(vectors)
    pairs = [np.linalg.norm(aligned[i] - aligned[j]) ** power for i in range(n) for j in range(i + 1, n)]
    rebuilt = [np.linalg.norm(relaxed(vector, 0.0) - vector) ** power for vector in vectors]
    return np.mean(pairs) + beta * np.mean(rebuilt)


@pytest.mark.parametrize("power", [1, 2])
def test_the_objective_is_that_of_a_plain_loop(vectors, power):
    objective = AlignmentObjective(vectors, power)
    angles = torch.tensor(np.random.default_rng(2).uniform(0, 6, 7), requires_grad=True)
    temperature = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    expected = loop_objective(vectors.numpy(), angles.detach().numpy(), 1.7, 0.3, power)
    assert objective(angles, temperature, 0.3).item() == pytest.approx(expected, rel=1e-12)
    assert torch.autograd.gradcheck(lambda a, t: objective(a, t, 0.3), (angles, temperature))


def test_squared_lengths_of_all_shifts(vectors):
    weights = torch.tensor(np.random.default_rng(4).normal(size=(3, ORIENTATIONS)))
    found = AlignmentObjective(vectors, 2).squared_lengths_of_all(weights)
    expected = [weighted_shifts(vectors, row[None]).square().sum(dim=(1, 2)) for row in weights]
    torch.testing.assert_close(found, torch.stack(expected, dim=1))


def test_the_alignment_loss_is_the_mean_distance_of_linear_shifts(vectors):
    readouts, angles = vectors.flatten(1).numpy(), np.random.default_rng(3).uniform(0, 6, 7)
    assert alignment_loss(readouts, angles, ORIENTATIONS) == pytest.approx(
        pdist(shifted(readouts, angles, ORIENTATIONS)).mean(), rel=1e-12
    )
