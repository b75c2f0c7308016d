"""The Triton kernels of the DECEMber step, in Triton's interpreter, against plain operations."""

import copy
import math
import os

import numpy as np
import pytest
import torch

from december_plugin.clustering import distances, losses
from december_plugin.clustering.losses import DECEMber
from december_plugin.errors import EmbeddingError
from helpers.mixtures import random_problem

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="needs Triton's interpreter")
VARIANTS = pytest.mark.parametrize(
    "settings",
    [
        {},
        {"weights": "learned", "detach_target": True, "dof": 5.0},
        {"weights": "learned", "scale_centers": "old", "empty_clusters": "reseed"},
    ],
    ids=["default", "learned, constant target", "learned, as published"],
)


def steps(w, centers, scales, *, by_kernels, n_steps=1, **settings):
    """Return what steps give, and the module."""
    december = DECEMber(*centers.shape, asynchronous=True, **settings)
    december.mixture.centers.copy_(torch.as_tensor(centers))
    december.mixture.scales.copy_(torch.as_tensor(scales))
    december.mixture.mixing_weights.copy_(torch.linspace(1, 2, len(centers)) / (1.5 * len(centers)))
    december.prepare(w, by_kernels=by_kernels)
    for _ in range(n_steps):
        vectors = w.clone().requires_grad_()
        loss = december.loss(vectors)
        (3 * loss).backward()
        december.m_step(vectors.detach())
    return [loss.detach(), vectors.grad, *december.state_dict().values()], december


@VARIANTS
@pytest.mark.parametrize(("n", "k", "d"), [(70, 5, 3), (3, 1, 1), (150, 33, 20)])
def test_a_step_is_that_of_plain_operations(settings, n, k, d):
    w, centers, scales = random_problem(n, k, d, separation=0.5, dtype=np.float32)
    w = torch.as_tensor(w)
    expected, _ = steps(w, centers, scales, by_kernels=False, **settings)
    actual, december = steps(w, centers, scales, by_kernels=True, **settings)
    december.check_steps()
    for here, there in zip(actual, expected, strict=True):
        assert here.dtype == there.dtype
        assert (here - there).norm() < 1e-5 * there.norm() + 1e-5


def test_several_blocks_of_vectors_that_are_not_contiguous(monkeypatch):
    w, centers, scales = random_problem(300, 4, 3, dtype=np.float32)
    w = torch.as_tensor(w.T.copy()).T
    expected, _ = steps(w, centers, scales, by_kernels=False)
    monkeypatch.setattr(distances, "BLOCK_NUMBERS_ELSEWHERE", 1)  # 256 vectors
    actual, _ = steps(w, centers, scales, by_kernels=True)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@VARIANTS
def test_empty_clusters_and_neurons_far_away(settings):
    rng = np.random.default_rng(0)
    w = torch.as_tensor(rng.standard_normal((80, 8)), dtype=torch.float32)
    w[-2:] = 1e6
    centers, scales = np.stack([np.zeros(8), np.full(8, 1e6), np.full(8, -1e9)]), np.ones((3, 8))
    expected, _ = steps(w, centers, scales, by_kernels=False, n_steps=2, **settings)
    actual, _ = steps(w, centers, scales, by_kernels=True, n_steps=2, **settings)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_vectors_of_less_precision():
    w, centers, scales = random_problem(60, 3, 5, dtype=np.float32)
    w = torch.as_tensor(w).bfloat16()
    expected, _ = steps(w, centers, scales, by_kernels=False)
    actual, _ = steps(w, centers, scales, by_kernels=True)
    assert actual[1].dtype == torch.bfloat16
    torch.testing.assert_close(actual, expected, rtol=1e-2, atol=1e-3)


@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")
def test_vectors_that_are_not_finite():
    w, centers, scales = random_problem(50, 3, 4, dtype=np.float32)
    w = torch.as_tensor(w)
    w[3, 1], w[40, 0] = math.nan, -math.inf
    _, december = steps(w, centers, scales, by_kernels=True)
    with pytest.raises(EmbeddingError, match="2 of 50 readout vectors hold NaN or infinite values, the first is row 3"):
        december.check_steps()


def test_kernels_are_used_where_they_give_the_same(monkeypatch):
    """The trial, here on the CPU: it passes, it is told why it does not, and a copy of the module goes on."""
    settings = (5, 4, 2.1, False)
    assert losses._difference_by_kernels(torch.device("cpu"), *settings) < 1e-4
    assert not losses.kernels_work(torch.device("cpu"), *settings)  # a GPU is what they are for
    assert not losses.kernels_work(torch.device("cuda"), 2000, *settings[1:])
    for result, reason in (
        (lambda *_: 0.5, r"its results differ by 0\.5 from theirs"),
        (no_compiler, "OSError: no cc"),
    ):
        losses.kernels_work.cache_clear()
        monkeypatch.setattr(losses, "_difference_by_kernels", result)
        with pytest.warns(UserWarning, match=rf"runs on torch's own operations.* work on cuda \({reason}\)\. Triton"):
            assert not losses.kernels_work(torch.device("cuda"), *settings)
    losses.kernels_work.cache_clear()
    w, centers, scales = random_problem(50, 3, 4, dtype=np.float32)
    december = copy.deepcopy(steps(torch.as_tensor(w), centers, scales, by_kernels=True)[1])
    december.loss(torch.as_tensor(w))


def no_compiler(*_):
    raise OSError("no cc\nlong story")
