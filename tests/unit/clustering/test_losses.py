"""The clustering losses against plain autograd of the equations, with an (N, K, D) tensor."""

import copy
import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import rel_entr

from december_plugin.clustering.kmeans import kmeans_start
from december_plugin.clustering.losses import DECEMber, VanillaDEC, kl_divergence, target_distribution
from december_plugin.errors import EmbeddingError, SettingsError
from helpers.devices import LargestTensor


def naive_loss(w, centers, log_density, *, detach_target):
    """KL divergence of the paper (section 3); ``log_density`` maps the squares (N, K, D) to log densities (N, K)."""
    log_q = torch.log_softmax(log_density((w[:, None] - centers) ** 2), dim=1)
    q = log_q.exp()
    p = q**2 / q.sum(0)
    p = p / p.sum(1, keepdim=True)
    if detach_target:
        p = p.detach()
    return (p * (p.log() - log_q)).sum()


def student_t(scales, pi, nu=2.1):
    d = scales.shape[1]

    def log_density(squares):
        delta = (squares / scales).sum(-1)
        return pi.log() - scales.log().sum(-1) / 2 - (nu + d) / 2 * torch.log1p(delta / nu)

    return log_density


def random_problem(n, k, d, seed=0, *, separation=1.0):
    rng = np.random.default_rng(seed)
    centers = separation * rng.standard_normal((k, d))
    w = torch.as_tensor(centers[rng.integers(0, k, n)] + rng.standard_normal((n, d)))
    return w, torch.as_tensor(centers + 0.2 * rng.standard_normal((k, d)))


def make_december(centers, scales, **settings_):
    december = DECEMber(*centers.shape, **settings_)
    december.mixture.centers.copy_(centers)
    december.mixture.scales.copy_(scales)
    return december


# Target and divergence


def test_target_distribution_of_a_worked_example():
    q = torch.tensor([[0.5, 0.5], [0.9, 0.1]], dtype=torch.float64)
    # f = (1.4, 0.6); q^2 / f = (0.25 / 1.4, 0.25 / 0.6), (0.81 / 1.4, 0.01 / 0.6)
    expected = [[0.3, 0.7], [0.81 / 1.4 / (0.81 / 1.4 + 0.01 / 0.6), 0.01 / 0.6 / (0.81 / 1.4 + 0.01 / 0.6)]]
    np.testing.assert_allclose(target_distribution(q), expected, rtol=1e-12)


def test_target_distribution_of_a_cluster_without_neurons():
    q = torch.tensor([[1.0, 0.0], [1.0, 0.0]], requires_grad=True)
    p = target_distribution(q)
    assert p.tolist() == [[1.0, 0.0], [1.0, 0.0]]
    kl_divergence(p, q.detach().log()).backward()
    assert torch.isfinite(q.grad).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 30), st.integers(1, 6), st.integers(0, 10_000), st.floats(0.1, 50))
def test_kl_divergence_is_the_summed_relative_entropy(n, k, seed, spread):
    rng = np.random.default_rng(seed)
    log_q = torch.log_softmax(torch.as_tensor(spread * rng.standard_normal((n, k))), dim=1)
    p = target_distribution(log_q.exp())
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-12)
    expected = rel_entr(p.numpy(), log_q.exp().numpy()).sum()
    assert float(kl_divergence(p, log_q)) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert float(kl_divergence(p, p.log())) == 0


def test_kl_divergence_sums_over_neurons():
    p = torch.tensor([[0.5, 0.5]]).repeat(7, 1)
    log_q = torch.tensor([[0.25, 0.75]]).log().repeat(7, 1)
    assert float(kl_divergence(p, log_q)) == pytest.approx(7 * (0.5 * math.log(2) + 0.5 * math.log(2 / 3)), rel=1e-6)


def test_kl_divergence_where_both_are_zero():
    p = torch.tensor([[1.0, 0.0]], requires_grad=True)
    log_q = torch.tensor([[0.0, -math.inf]], requires_grad=True)
    loss = kl_divergence(p, log_q)
    loss.backward()
    assert loss.item() == 0
    assert p.grad.tolist() == [[1.0, 0.0]]
    assert log_q.grad.tolist() == [[-1.0, 0.0]]


# DECEMber


@pytest.mark.parametrize("detach_target", [False, True])
@pytest.mark.parametrize("weights", ["uniform", "learned"])
@pytest.mark.parametrize("separation", [0.1, 0.7])
def test_loss_and_gradient_equal_plain_autograd(detach_target, weights, separation, blocks):
    w, centers = random_problem(700, 5, 12, separation=separation)
    scales = torch.rand(5, 12, dtype=torch.float64) + 0.5
    december = make_december(centers, scales, weights=weights, detach_target=detach_target)
    pi = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05] if weights == "learned" else [0.2] * 5, dtype=torch.float64)
    december.mixture.mixing_weights.copy_(pi)

    plain = w.clone().requires_grad_()
    expected = naive_loss(plain, centers, student_t(scales, pi), detach_target=detach_target)
    (3 * expected).backward()
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 1e-4)):
        w_ = w.clone().to(dtype).requires_grad_()
        loss = december.loss(w_)
        (3 * loss).backward()
        assert loss.dtype == w_.grad.dtype == dtype
        assert loss.item() == pytest.approx(expected.item(), rel=tolerance)
        assert torch.dist(w_.grad.double(), plain.grad) < tolerance * plain.grad.norm()


@pytest.mark.parametrize("offset", [0.0, 10.0])
def test_a_float32_step_agrees_with_float64(offset):
    w, centers = random_problem(4000, 12, 128, separation=0.2)
    units = torch.logspace(-1.5, 1.5, 128, dtype=torch.float64)  # features of very different size
    w, centers, scales = (w + offset) * units, (centers + offset) * units, (units**2).repeat(12, 1)
    w = w.float()
    results = []
    for vectors in (w, w.double()):
        december = make_december(centers, scales, scale_bounds=(1e-8, 1e8))
        vectors = vectors.clone().requires_grad_()
        loss = december.loss(vectors)
        loss.backward()
        december.m_step(vectors)
        results.append((loss, vectors.grad * units, december.mixture.centers / units, december.mixture.scales / scales))
    single, double = results
    assert single[0].item() == pytest.approx(double[0].item(), rel=1e-5)
    assert torch.dist(single[1], double[1]) < 1e-4 * double[1].norm()
    torch.testing.assert_close(single[2:], double[2:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("detach_target", [False, True])
def test_gradcheck_of_the_loss(detach_target):
    w, centers = random_problem(6, 3, 4)
    december = make_december(centers, torch.full((3, 4), 0.8), detach_target=detach_target)
    pi = december.mixture.mixing_weights
    if not detach_target:
        assert torch.autograd.gradcheck(december.loss, w.requires_grad_())
        return
    # Numerical differences see the target move: hold it still.
    with torch.no_grad():
        p = target_distribution(december.mixture.e_step(w)[0])
    scales = december.mixture.scales

    def with_constant_target(w):
        log_q = torch.log_softmax(student_t(scales, pi)((w[:, None] - centers) ** 2), dim=1)
        return kl_divergence(p, log_q)

    w = w.requires_grad_()
    assert torch.autograd.gradcheck(with_constant_target, w)
    expected = torch.autograd.grad(with_constant_target(w), w)
    torch.testing.assert_close(torch.autograd.grad(december.loss(w), w), expected)


def test_loss_equals_its_parts():
    w, centers = random_problem(80, 4, 6)
    december = make_december(centers, torch.ones(4, 6))
    w_ = w.clone().requires_grad_()
    q, _ = december.mixture.e_step(w_)
    parts = kl_divergence(target_distribution(q), q.log())
    expected = torch.autograd.grad(parts, w_)
    loss = december.loss(w_)
    torch.testing.assert_close(loss, parts)
    torch.testing.assert_close(torch.autograd.grad(loss, w_), expected)


def test_gradient_does_not_depend_on_when_the_m_step_is_made():
    w, centers = random_problem(80, 4, 6)
    gradients, states = [], []
    for m_step_first in (False, True):
        december = make_december(centers, torch.ones(4, 6))
        w_ = w.clone().requires_grad_()
        loss = december.loss(w_)
        if m_step_first:
            december.m_step(w_)
        loss.backward()
        if not m_step_first:
            december.m_step(w_)
        gradients.append(w_.grad)
        states.append(december.state_dict())
    torch.testing.assert_close(*gradients, rtol=0, atol=0)
    torch.testing.assert_close(*states, rtol=0, atol=0)


def test_m_step_uses_the_last_e_step():
    w, centers = random_problem(80, 4, 6)
    december = make_december(centers, torch.ones(4, 6))
    expected = copy.deepcopy(december.mixture)
    q, u = expected.e_step(w)
    moved = w + 0.1
    expected.m_step(moved, q, u)
    december.loss(w.clone().requires_grad_())
    december.m_step(moved)
    torch.testing.assert_close(december.mixture.state_dict(), expected.state_dict(), rtol=1e-10, atol=1e-10)


def test_em_on_fixed_vectors_raises_the_likelihood():
    w, _ = random_problem(300, 4, 6)
    december = DECEMber(4, 6)
    december.initialize(w, seed=0)
    scores = []
    for _ in range(10):
        scores.append(december.mixture.score(w))
        december.loss(w)
        december.m_step(w)
    assert np.all(np.diff(scores) > -1e-10)
    assert scores[-1] > scores[0] + 0.01


def test_equal_clusters_are_the_degenerate_optimum():
    """Equal centres give q = p = 1 / K and no loss (paper, section 5)."""
    w, _ = random_problem(50, 3, 4)
    w.requires_grad_()
    loss = make_december(torch.zeros(3, 4), torch.ones(3, 4)).loss(w)
    loss.backward()
    assert abs(loss.item()) < 1e-12
    assert w.grad.abs().max() < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("detach_target", [False, True])
def test_responsibilities_that_underflow_leave_loss_and_gradient_finite(dtype, detach_target):
    rng = np.random.default_rng(0)
    w = torch.as_tensor(rng.standard_normal((300, 128))).to(dtype).requires_grad_()
    centers = torch.zeros(3, 128, dtype=torch.float64)
    centers[1], centers[2] = 50, 1e6
    loss = make_december(centers, torch.full((3, 128), 0.01), detach_target=detach_target).loss(w)
    loss.backward()
    assert abs(loss.item()) < 1e-9
    assert w.grad.abs().max() < 1e-9


def test_loss_without_a_gradient_and_with_gradients_kept():
    w, centers = random_problem(50, 3, 4)
    december = make_december(centers, torch.ones(3, 4))
    with torch.no_grad():
        value = december.loss(w.clone().requires_grad_())
    assert not value.requires_grad
    assert not december.loss(w).requires_grad
    w.requires_grad_()
    loss = december.loss(w)
    first = torch.autograd.grad(loss, w, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(loss, w), first, rtol=0, atol=0)
    assert loss.item() == value.item()


def test_loss_is_the_same_under_autocast():
    w, centers = random_problem(50, 3, 4)
    december = make_december(centers, torch.ones(3, 4))
    results = []
    for enabled in (False, True):
        w_ = w.float().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = december.loss(w_)
            loss.backward()
            december.m_step(w_)
        results.append((loss, w_.grad))
        december = make_december(centers, torch.ones(3, 4))
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_the_same_call_gives_the_same_bytes():
    w, centers = random_problem(3000, 6, 16)
    results = []
    for _ in range(3):
        december = make_december(centers, torch.ones(6, 16))
        w_ = w.float().requires_grad_()
        december.loss(w_).backward()
        december.m_step(w_)
        results.append(w_.grad.numpy().tobytes() + december.mixture.scales.numpy().tobytes())
    assert len(set(results)) == 1


def test_no_tensor_has_neurons_times_clusters_times_features():
    w, centers = random_problem(2000, 10, 20)
    for module in (make_december(centers, torch.ones(10, 20)), VanillaDEC(10, 20)):
        with torch.no_grad():
            getattr(module, "mixture", module).centers.copy_(centers)
        with LargestTensor() as largest:
            module.loss(w.clone().requires_grad_()).backward()
            module.m_step(w)
            module.assign(w)
        assert largest.numbers <= 2000 * 2 * 20


def test_december_starts_from_kmeans_and_recovers_planted_groups():
    w, _ = random_problem(400, 3, 8, separation=3.0)
    december = DECEMber(3, 8, weights="learned")
    december.initialize(w, seed=5)
    centers, variances = kmeans_start(w, 3, seed=5)
    torch.testing.assert_close(december.mixture.centers, centers, rtol=0, atol=0)
    torch.testing.assert_close(december.mixture.scales, variances.clamp(1e-4, 1e4), rtol=0, atol=0)
    labels, confidences = december.assign(w)
    torch.testing.assert_close(labels, december.mixture.predict(w))
    assert labels.dtype == torch.int64
    assert confidences.min() > 0.9
    assert list(december.state_dict()) == ["mixture.centers", "mixture.scales", "mixture.mixing_weights"]


def test_settings_are_passed_on_and_checked():
    december = DECEMber(3, 8, dof=5, weights="learned", scale_bounds=(1e-3, 10), detach_target=True)
    mixture = december.mixture
    assert (mixture.n_clusters, mixture.n_features, mixture.dof) == (3, 8, 5.0)
    assert (mixture.weights, mixture.scale_bounds, december.detach_target) == ("learned", (1e-3, 10.0), True)
    assert DECEMber(3, 8).detach_target is False
    for build in (DECEMber, VanillaDEC):
        with pytest.raises(SettingsError) as caught:
            build(0, 8)
        assert str(caught.value) == "n_clusters is 0, but must be an integer of at least 1."


def test_m_step_without_an_e_step():
    w, centers = random_problem(50, 3, 4)
    message = "m_step needs the responsibilities of an E-step, but there was none: call loss first."
    december = make_december(centers, torch.ones(3, 4))
    with pytest.raises(EmbeddingError) as caught:
        december.m_step(w)
    assert str(caught.value) == message
    december.loss(w)
    december.initialize(w, seed=0)
    with pytest.raises(EmbeddingError) as caught:
        december.m_step(w)
    assert str(caught.value) == message


def test_m_step_with_other_neurons_than_the_e_step():
    w, centers = random_problem(50, 3, 4)
    december = make_december(centers, torch.ones(3, 4))
    december.loss(w)
    with pytest.raises(EmbeddingError) as caught:
        december.m_step(w[:-1])
    assert str(caught.value) == (
        "q and u must have the shape (49, 3) (neurons, clusters), but have (50, 3) and (50, 3). "
        "Pass the e_step of the same neurons."
    )


def test_loss_before_the_clusters_exist():
    for module, message in (
        (
            DECEMber(2, 3),
            "The mixture has no clusters yet: call fit or initialize, or load a state_dict with fitted clusters.",
        ),
        (
            VanillaDEC(2, 3),
            "There are no clusters yet: call initialize, or load a state_dict with their centres.",
        ),
    ):
        with pytest.raises(EmbeddingError) as caught:
            module.loss(torch.eye(3))
        assert str(caught.value) == message


def test_vectors_that_diverged():
    w, centers = random_problem(50, 3, 4)
    vanilla = VanillaDEC(3, 4)
    vanilla.initialize(w, seed=0)
    w[10:12, 3] = math.nan
    for module in (make_december(centers, torch.ones(3, 4)), vanilla):
        with pytest.raises(EmbeddingError) as caught:
            module.loss(w.clone().requires_grad_())
        assert str(caught.value) == (
            "2 of 50 readout vectors hold NaN or infinite values, the first is row 10. Clustering needs finite "
            "vectors: check whether the training diverged (lower its learning rate), or leave these neurons out."
        )


@pytest.mark.gpu
def test_a_step_on_a_gpu_is_that_of_the_cpu():
    w, centers = random_problem(500, 3, 4)
    results = []
    for device in ("cpu", "cuda"):
        december = make_december(centers, torch.ones(3, 4)).to(device)
        w_ = w.float().to(device).requires_grad_()
        loss = december.loss(w_)
        loss.backward()
        december.m_step(w_)
        results.append((loss.cpu(), w_.grad.cpu(), december.cpu().state_dict()))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


def test_the_benchmark_compares_two_ways_to_the_same_step():
    spec = importlib.util.spec_from_file_location("em_step", Path(__file__).parents[3] / "benchmarks" / "em_step.py")
    em_step = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(em_step)
    data = em_step.make_data(500, 8, 4)
    steps = [build(*data) for build in (em_step.plain_step, em_step.december_step, em_step.step_of_a_gpu)]
    for _ in range(3):
        plain, *ours = (step() for step in steps)
        for each in ours:
            torch.testing.assert_close(each, plain, rtol=1e-3, atol=1e-3, check_dtype=False)
    errors = em_step.errors_of_step(500, 8, 4, device="cpu")
    assert list(errors) == ["loss", "gradient", "centres", "scales"]
    assert max(errors.values()) < 1e-4
    # In functional space it is the plain step on the embeddings, whose gradient goes through the root once more.
    w, centers = data
    root = em_step.root_of_features(8).astype("float32")
    loss, gradient, *clusters = em_step.CASES["functional"](w, centers)()
    expected, inner, *expected_clusters = em_step.plain_step(w @ root, centers)()
    torch.testing.assert_close(
        [loss, *clusters], [expected, *expected_clusters], rtol=1e-3, atol=1e-3, check_dtype=False
    )
    torch.testing.assert_close(gradient, inner @ torch.as_tensor(root), rtol=1e-3, atol=1e-3)
    times = em_step.measure_times(100, 4, 10, 1)
    assert list(times) == [
        *("DECEMber", "functional", "functional l2", "as on a GPU", "plain", "sklearn32", "sklearn64")
    ]
    assert "case/DECEMber: functional 2.00 x" in em_step.report_spaces(10, {**times, "DECEMber": 1, "functional": 2})


# Vanilla DEC


@pytest.mark.parametrize("detach_target", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_vanilla_loss_and_gradients_equal_plain_autograd(detach_target, dtype, blocks):
    w, centers = random_problem(600, 4, 6, separation=0.5)
    dec = VanillaDEC(4, 6, detach_target=detach_target)
    dec.centers.data.copy_(centers)
    plain, plain_centers = w.clone().requires_grad_(), centers.clone().requires_grad_()
    expected = naive_loss(plain, plain_centers, lambda s: -torch.log1p(s.sum(-1)), detach_target=detach_target)
    expected.backward()
    w_ = w.clone().to(dtype).detach().requires_grad_()
    loss = dec.loss(w_)
    loss.backward()
    assert loss.dtype == dtype
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-10}[dtype]
    assert loss.item() == pytest.approx(expected.item(), rel=tolerance)
    torch.testing.assert_close(w_.grad.double(), plain.grad, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(dec.centers.grad, plain_centers.grad, rtol=tolerance, atol=tolerance * 100)


def test_gradcheck_of_the_vanilla_loss():
    class Loss(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.dec = VanillaDEC(3, 4)

        def forward(self, w):
            return self.dec.loss(w)

    w, centers = random_problem(6, 3, 4)
    module = Loss()
    assert torch.autograd.gradcheck(
        lambda w, centers: torch.func.functional_call(module, {"dec.centers": centers}, (w,)),
        (w.requires_grad_(), centers.requires_grad_()),
    )


def test_vanilla_verbs():
    w, _ = random_problem(200, 3, 4, separation=4.0)
    dec = VanillaDEC(3, 4)
    assert [name for name, _ in dec.named_parameters()] == ["centers"]
    dec.initialize(w, seed=2)
    expected = kmeans_start(w, 3, seed=2)[0]
    torch.testing.assert_close(dec.centers.data, expected, rtol=0, atol=0)
    dec.m_step(w)
    torch.testing.assert_close(dec.centers.data, expected, rtol=0, atol=0)
    q = 1 / (1 + torch.cdist(w, expected) ** 2)
    q /= q.sum(1, keepdim=True)
    labels, confidences = dec.assign(w)
    torch.testing.assert_close(labels, q.argmax(1))
    torch.testing.assert_close(confidences, q.amax(1))
