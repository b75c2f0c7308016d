"""DECEMber's steps as they run on a GPU: on the CPU, where that can be asked for, and on tensors without numbers."""

import contextlib
import math

import numpy as np
import pytest
import torch

from december_plugin.clustering.losses import DECEMber, kernels_work
from december_plugin.clustering.student_t_mixture import StudentTMixture
from december_plugin.errors import EmbeddingError, TrainingDivergedError
from december_plugin.trainers import december_trainer
from helpers.devices import MetaDevice, NoWaiting
from helpers.mixtures import loop_e_step, random_problem
from helpers.trainings import make_loaders, make_model

VARIANTS = pytest.mark.parametrize(
    "settings",
    [
        {},
        {"weights": "learned", "detach_target": True},
        {"weights": "learned", "scale_centers": "old", "empty_clusters": "reseed"},
    ],
    ids=["default", "learned, constant target", "learned, as published"],
)


def make_december(centers, scales, *, asynchronous=True, **settings):
    december = DECEMber(*centers.shape, asynchronous=asynchronous, **settings)
    december.mixture.centers.copy_(torch.as_tensor(centers))
    december.mixture.scales.copy_(torch.as_tensor(scales))
    return december


def step(december, w):
    """Return loss and gradient."""
    w = w.clone().requires_grad_()
    loss = december.loss(w)
    loss.backward()
    december.m_step(w.detach())
    return loss.detach(), w.grad


def plain_step(w, centers, scales, pi, *, detach_target=False, scale_centers="new", nu=2.1):
    """Return loss, gradient, centres, scales and weights by the equations as they stand, in float64."""
    w = torch.as_tensor(w).double().requires_grad_()
    centers, scales, pi = (torch.as_tensor(values).double() for values in (centers, scales, pi))
    d = w.shape[1]
    delta = ((w[:, None] - centers) ** 2 / scales).sum(-1)
    log_q = torch.log_softmax(pi.log() - scales.log().sum(-1) / 2 - (nu + d) / 2 * torch.log1p(delta / nu), dim=1)
    q = log_q.exp()
    p = q**2 / q.sum(0)
    p = p / p.sum(1, keepdim=True)
    p = p.detach() if detach_target else p
    loss = torch.special.xlogy(p, p).sum() - (p * log_q).sum()
    (gradient,) = torch.autograd.grad(loss, w)
    with torch.no_grad():
        qu = q * (nu + d) / (nu + delta)
        means = qu.T @ w / qu.sum(0)[:, None]
        about = means if scale_centers == "new" else centers
        spread = ((w[:, None] - about) ** 2 * qu[:, :, None]).sum(0) / q.sum(0)[:, None]
    return loss.detach(), gradient, means, spread, q.mean(0).detach()


@VARIANTS
def test_the_host_never_waits(settings):
    w, centers, scales = random_problem(200, 4, 6, dtype=np.float32)
    december = make_december(centers, scales, **settings)
    w = torch.as_tensor(w)
    step(december, w)  # the first step looks whether there are clusters at all
    for _ in range(2):
        with NoWaiting():
            step(december, w)
    looking = make_december(centers, scales, asynchronous=False, **settings)
    with pytest.raises(AssertionError, match="the host would wait for"), NoWaiting():
        step(looking, w)


@VARIANTS
def test_everything_stays_on_the_device_and_in_its_memory(settings, monkeypatch):
    """At the size of the paper's seven mice; the device is torch's "meta", on which any look at a number fails."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # not known there
    n, k, d = 54_569, 100, 128
    december = DECEMber(k, d, asynchronous=True, **settings).to("meta")
    monkeypatch.setattr(december.mixture, "check", lambda w: w)  # the first step looks
    w = torch.empty(n, d, device="meta")
    with MetaDevice() as device, NoWaiting():
        step(december, w)
    assert 100e6 < device.peak < 500e6
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        december.check_steps()


@VARIANTS
@pytest.mark.parametrize("offset", [0.0, 10.0])
def test_a_step_equals_the_equations_in_float64(settings, offset):
    n, k, d = 1000, 6, 64
    w, centers, scales = random_problem(n, k, d, separation=0.3)
    units = np.logspace(-1.5, 1.5, d)  # features of very different size
    w = ((w + offset) * units).astype(np.float32)
    centers, scales = (centers + offset) * units, scales * units**2
    pi = np.arange(1, k + 1) / 21 if settings else np.full(k, 1 / k)
    december = make_december(centers, scales, scale_bounds=(1e-8, 1e8), **settings)
    december.mixture.mixing_weights.copy_(torch.as_tensor(pi))
    loss, gradient = step(december, torch.as_tensor(w))
    december.check_steps()
    options = {name: settings[name] for name in ("detach_target", "scale_centers") if name in settings}
    expected = plain_step(w, centers, scales, pi, **options)
    assert loss.item() == pytest.approx(expected[0].item(), rel=1e-5)
    units = torch.as_tensor(units)
    assert torch.dist(gradient * units, expected[1] * units) < 1e-5 * (expected[1] * units).norm()
    torch.testing.assert_close(december.mixture.centers / units, expected[2] / units, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(december.mixture.scales / units**2, expected[3] / units**2, rtol=1e-5, atol=0)
    weights = expected[4] if settings else pi
    np.testing.assert_allclose(december.mixture.mixing_weights, weights, rtol=1e-5)


@pytest.mark.parametrize("far", [1e3, 1e6, -1e8, 1e13])
@pytest.mark.parametrize("k", [2, 3])
def test_neurons_far_from_all_others_spoil_nothing(far, k):
    """Where float32 vectors of clusters near and far are resolved, so are their distances, scales and gradients."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal((205, 8)) + 1.5 * (np.arange(205) % (k - 1))[:, None]
    w[-5:] = far * (1 + 1e-3 * rng.standard_normal((5, 8)))
    w = w.astype(np.float32)
    centers = np.vstack([np.full((k - 1, 8), 0.0) + 1.5 * np.arange(k - 1)[:, None], np.full((1, 8), far)])
    scales = np.vstack([np.ones((k - 1, 8)), np.full((1, 8), (1e-3 * far) ** 2)])
    december = make_december(centers, scales, scale_bounds=(1e-4, 1e30))
    loss, gradient = step(december, torch.as_tensor(w))
    december.check_steps()
    expected = plain_step(w, centers, scales, np.full(k, 1 / k))
    assert loss.item() == pytest.approx(expected[0].item(), rel=1e-4, abs=1e-6)
    assert torch.dist(gradient, expected[1]) < 1e-4 * max(expected[1].norm(), 1e-3)
    np.testing.assert_allclose(december.mixture.centers, expected[2], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(december.mixture.scales, expected[3], rtol=1e-4)
    labels = loop_e_step(w, centers, scales, np.full(k, 1 / k), 2.1)[0].argmax(1)
    assert sorted(np.bincount(labels))[0] == 5


@pytest.mark.parametrize("r", [1e2, 1e4, 1e6])
def test_a_narrow_cluster_far_away_is_as_precise_as_its_vectors(r):
    """A cluster is ``r`` scales from the other: the products lose less than float32 vectors have lost there."""
    rng = np.random.default_rng(0)
    exact = np.vstack([rng.standard_normal((300, 16)), r + rng.standard_normal((100, 16))])
    w = exact.astype(np.float32)
    centers, scales = np.stack([np.zeros(16), np.full(16, r)]), np.ones((2, 16))
    december = make_december(centers, scales)
    _, gradient = step(december, torch.as_tensor(w))
    of_exact, of_rounded = (plain_step(values, centers, scales, [0.5, 0.5]) for values in (exact, w))
    lost = (of_exact[3] - of_rounded[3]).abs().max()
    assert (december.mixture.scales - of_rounded[3]).abs().max() < 1e-6 + lost
    assert torch.dist(gradient, of_rounded[1]) < 1e-5


@VARIANTS
def test_empty_clusters_as_on_the_cpu(settings):
    rng = np.random.default_rng(0)
    w = torch.as_tensor(rng.standard_normal((100, 40)), dtype=torch.float32)
    centers, scales = np.stack([np.zeros(40), np.full(40, 1e3)]), np.ones((2, 40))
    here, device = (make_december(centers, scales, asynchronous=a, **settings) for a in (False, True))
    for _ in range(3):
        step(here, w), step(device, w)
    torch.testing.assert_close(device.state_dict(), here.state_dict(), rtol=1e-5, atol=1e-6)
    assert (device.mixture.centers[1, 0] == 1e3) == ("empty_clusters" not in settings)


def test_m_step_of_the_mixture_alone():
    w, centers, scales = random_problem(300, 4, 6, dtype=np.float32)
    mixtures = []
    for asynchronous in (False, True):
        mixture = StudentTMixture(4, 6)
        mixture.centers.copy_(torch.as_tensor(centers))
        mixture.scales.copy_(torch.as_tensor(scales))
        mixture.m_step(torch.as_tensor(w), *mixture.e_step(torch.as_tensor(w)), asynchronous=asynchronous)
        mixtures.append(mixture.state_dict())
    torch.testing.assert_close(*mixtures, rtol=1e-5, atol=1e-6)


def test_float64_vectors_are_always_looked_at():
    december = DECEMber(2, 3, asynchronous=True)
    assert december.is_asynchronous(torch.zeros(4, 3))
    assert december.is_asynchronous(torch.zeros(4, 3, dtype=torch.bfloat16))
    assert not december.is_asynchronous(torch.zeros(4, 3, dtype=torch.float64))
    assert not DECEMber(2, 3).is_asynchronous(torch.zeros(4, 3))


def test_vectors_that_are_not_finite_are_told_when_somebody_looks():
    w, centers, scales = random_problem(10, 2, 3, dtype=np.float32)
    december = make_december(centers, scales)
    w = torch.as_tensor(w)
    december.check_steps()
    step(december, w)
    december.check_steps()
    bad = w.clone()
    bad[3, 1], bad[7, 0] = math.nan, -math.inf
    for vectors in (bad, w, w):  # all steps after the first one are NaN, which is not told
        step(december, vectors)
    message = (
        "2 of 10 readout vectors hold NaN or infinite values, the first is row 3. Clustering needs finite vectors: "
        "check whether the training diverged (lower its learning rate), or leave these neurons out."
    )
    with pytest.raises(EmbeddingError) as caught:
        december.check_steps()
    assert str(caught.value) == message
    with pytest.raises(EmbeddingError, match="The mixture has no clusters yet"):
        DECEMber(2, 3, asynchronous=True).loss(w)


# In a training


@pytest.fixture
def asynchronous(monkeypatch):
    """Let every training take the steps of a GPU."""
    monkeypatch.setattr(DECEMber, "is_asynchronous", lambda self, w: True)


def train(**settings):
    defaults = {"n_clusters": 2, "pretrain_epochs": 2, "max_iter": 4, "device": "cpu", "share_pretraining": False}
    return december_trainer(make_model(), make_loaders(), 3, **{**defaults, **settings})


@pytest.mark.parametrize("settings", [{"strength": "auto"}, {"strength": 0.5}, {"space": "functional"}])
def test_a_training_is_that_of_looking_steps_within_rounding(settings, request):
    score, output, _ = train(**settings)
    request.getfixturevalue("asynchronous")
    score_, output_, _ = train(**settings)
    assert score_ == pytest.approx(score, abs=1e-4)
    assert output_["clustering"]["strength"] == pytest.approx(output["clustering"]["strength"], rel=1e-4)
    assert output_["clustering"]["gradient_ratio"] == pytest.approx(output["clustering"]["gradient_ratio"], rel=1e-4)
    for name, values in output["mixture"].items():
        if isinstance(values, np.ndarray):
            np.testing.assert_allclose(output_["mixture"][name], values, rtol=1e-3, atol=1e-4)
    for name in ("train_loss", "clustering_loss"):
        np.testing.assert_allclose(output_["curves"][name], output["curves"][name], rtol=1e-3, atol=1e-3)


def test_a_training_that_diverges_is_explained(asynchronous):
    message = r"diverged in epoch 3: the weights are no longer finite\. Lower .* or strength \(now 1e\+300\)"
    with pytest.warns(UserWarning, match="so strong"), pytest.raises(TrainingDivergedError, match=message):
        train(strength=1e300)


# On a GPU


@pytest.mark.gpu
@VARIANTS
def test_a_step_in_a_cuda_graph_is_that_of_the_cpu(settings):
    w, centers, scales = random_problem(2000, 8, 32, dtype=np.float32)
    expected = make_december(centers, scales, asynchronous=False, **settings)
    december = make_december(centers, scales, asynchronous=None, **settings).cuda()
    vectors = torch.as_tensor(w).cuda().requires_grad_()
    assert december.is_asynchronous(vectors)
    results = []

    def one_step():
        loss = december.loss(vectors)
        (gradient,) = torch.autograd.grad(loss, vectors)
        december.m_step(vectors)
        return loss, gradient

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            one_step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = one_step()
    for _ in range(2):
        graph.replay()
    december.check_steps()
    for _ in range(5):
        of_cpu = step(expected, torch.as_tensor(w))
    torch.testing.assert_close([value.cpu() for value in results], list(of_cpu), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(december.cpu().state_dict(), expected.state_dict(), rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
def test_a_step_on_a_gpu_never_waits():
    w, centers, scales = random_problem(2000, 8, 32, dtype=np.float32)
    december = make_december(centers, scales, asynchronous=None).cuda()
    w = torch.as_tensor(w).cuda()
    step(december, w)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(december, w)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.parametrize("k", [1, 5, 100, 1000])
@pytest.mark.parametrize("detach_target", [False, True])
def test_the_kernels_work_on_a_gpu(k, detach_target):
    assert kernels_work(torch.device("cuda", 0), k, 17, 2.1, detach_target)
    w, centers, scales = random_problem(3000, k, 17, separation=0.5, dtype=np.float32)
    w, results = torch.as_tensor(w).cuda(), []
    for by_kernels in (False, True):
        december = make_december(centers, scales, weights="learned", detach_target=detach_target).cuda()
        december.prepare(w, by_kernels=by_kernels)
        results.append([*step(december, w), *december.state_dict().values()])
    for plain, here in zip(*results, strict=True):
        assert (plain - here).norm() < 1e-4 * plain.norm() + 1e-4
