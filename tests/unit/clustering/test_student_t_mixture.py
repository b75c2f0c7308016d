"""The Student-t mixture against SciPy, scikit-learn and plain loops in float64."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_t
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from december_plugin.clustering.kmeans import kmeans_start
from december_plugin.clustering.student_t_mixture import StudentTMixture
from december_plugin.errors import EmbeddingError, SettingsError
from helpers.mixtures import loop_e_step, loop_m_step, make_mixture, random_problem

# Densities


@pytest.mark.parametrize("dof", [0.5, 1.0, 2.1, 30.0])
@pytest.mark.parametrize("d", [1, 3, 40])
def test_log_prob_is_scipys_multivariate_t(dof, d, blocks):
    w, centers, scales = random_problem(600, 3, d)
    expected = np.stack(
        [multivariate_t.logpdf(w, m, np.diag(s), df=dof) for m, s in zip(centers, scales, strict=True)], axis=1
    )
    actual = make_mixture(centers, scales, dof=dof).log_prob(torch.as_tensor(w))
    np.testing.assert_allclose(actual.numpy().reshape(600, 3), expected.reshape(600, 3), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dof", [1e6, 1e9])
def test_many_degrees_of_freedom_meet_the_gaussian_mixture(dof):
    w, centers, scales = random_problem(500, 4, 10)
    pi = np.array([0.1, 0.2, 0.3, 0.4])
    gaussian = GaussianMixture(4, covariance_type="diag")
    gaussian.means_, gaussian.covariances_, gaussian.weights_ = centers, scales, pi
    gaussian.precisions_cholesky_ = 1 / np.sqrt(scales)
    mixture = make_mixture(centers, scales, mixing_weights=pi, weights="learned", dof=dof)
    w_ = torch.as_tensor(w)
    tolerance = 1e3 / dof + 1e-7
    np.testing.assert_allclose(mixture.score_samples(w_), gaussian.score_samples(w), atol=tolerance)
    np.testing.assert_allclose(mixture.predict_proba(w_), gaussian.predict_proba(w), atol=tolerance)
    np.testing.assert_array_equal(mixture.predict(w_), gaussian.predict(w))


def test_one_em_iteration_meets_scikit_learns():
    w, centers, scales = random_problem(400, 3, 5, separation=2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        gaussian = GaussianMixture(
            3, covariance_type="diag", reg_covar=0, max_iter=1, means_init=centers, precisions_init=1 / scales,
            weights_init=[0.5, 0.25, 0.25],
        ).fit(w)  # fmt: skip
    mixture = make_mixture(centers, scales, mixing_weights=[0.5, 0.25, 0.25], weights="learned", dof=1e9)
    mixture.m_step(torch.as_tensor(w), *mixture.e_step(torch.as_tensor(w)))
    np.testing.assert_allclose(mixture.centers, gaussian.means_, rtol=1e-6)
    np.testing.assert_allclose(mixture.scales, gaussian.covariances_, rtol=1e-6)
    np.testing.assert_allclose(mixture.mixing_weights, gaussian.weights_, rtol=1e-6)


# E- and M-step against plain loops


@pytest.mark.parametrize("weights", ["uniform", "learned"])
def test_e_and_m_step_equal_plain_loops_in_float64(weights, blocks):
    w, centers, scales = random_problem(300, 4, 6)
    pi = np.full(4, 0.25) if weights == "uniform" else np.array([0.4, 0.3, 0.2, 0.1])
    mixture = make_mixture(centers, scales, mixing_weights=pi, weights=weights, scale_bounds=(0.7, 0.9))
    w_ = torch.as_tensor(w)
    q, u, evidence, _ = loop_e_step(w, centers, scales, pi, 2.1)
    q_, u_ = mixture.e_step(w_)
    np.testing.assert_allclose(q_, q, rtol=1e-10)
    np.testing.assert_allclose(u_, u, rtol=1e-11)
    np.testing.assert_allclose(mixture.score_samples(w_), evidence, rtol=1e-12)
    assert mixture.score(w_) == pytest.approx(evidence.mean(), rel=1e-12)

    expected = loop_m_step(w, q, u, (0.7, 0.9))
    mixture.m_step(w_, q_, u_)
    np.testing.assert_allclose(mixture.centers, expected[0], rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(mixture.scales, expected[1], rtol=1e-11)
    assert (mixture.scales.min(), mixture.scales.max()) == (0.7, 0.9)
    np.testing.assert_allclose(mixture.mixing_weights, expected[2] if weights == "learned" else pi, rtol=1e-11)


@pytest.mark.parametrize("offset", [0.0, 10.0, -1000.0])
def test_float32_vectors_agree_with_a_float64_loop(offset):
    n, k, d = 20_000, 12, 128
    w, centers, scales = random_problem(n, k, d, separation=0.2)
    units = np.logspace(-2, 1.5, d)  # features of very different size
    w = ((w + offset) * units).astype(np.float32)
    centers, scales = (centers + offset) * units, scales * units**2
    q, u, _, log_t = loop_e_step(w, centers, scales, np.full(k, 1 / k), 2.1)
    mixture = make_mixture(centers, scales, scale_bounds=(1e-8, 1e8))
    w_ = torch.as_tensor(w)
    q_, u_ = mixture.e_step(w_)
    assert q_.dtype == u_.dtype == mixture.log_prob(w_).dtype == torch.float32
    assert np.mean(mixture.predict(w_).numpy() == q.argmax(1)) >= 0.9999
    np.testing.assert_allclose(q_, q, atol=1e-5)
    np.testing.assert_allclose(u_, u, rtol=1e-5)
    np.testing.assert_allclose(mixture.log_prob(w_), log_t, rtol=1e-6)

    mixture.m_step(w_, q_, u_)
    qu = q * u
    m = qu.T @ w / qu.sum(0)[:, None]
    s = np.stack([(qu[:, j, None] * (w - m[j]) ** 2).sum(0) / q[:, j].sum() for j in range(k)])
    np.testing.assert_allclose(mixture.centers.numpy() / units, m / units, atol=1e-5, rtol=1e-6)
    np.testing.assert_allclose(mixture.scales, s, rtol=1e-4)


def test_float32_scales_survive_clusters_that_are_narrow_and_far_apart():
    """float32 sums alone would get the squared scale, 1e-8 of the squared centre, entirely wrong."""
    rng = np.random.default_rng(0)
    w = (np.repeat([-100.0, 100.0], 500)[:, None] + 0.01 * rng.standard_normal((1000, 2))).astype(np.float32)
    mixture = make_mixture([[-100, -100], [100, 100]], np.full((2, 2), 1e-4), scale_bounds=(1e-9, 1), dof=1e6)
    w_ = torch.as_tensor(w)
    mixture.m_step(w_, *mixture.e_step(w_))
    expected = np.stack([part.astype(float).var(axis=0) for part in np.split(w, 2)])
    np.testing.assert_allclose(mixture.scales, expected, rtol=1e-3)


def test_gradients_of_log_prob_and_e_step(blocks):
    w, centers, scales = random_problem(7, 3, 4)
    mixture = make_mixture(centers, scales, mixing_weights=[0.5, 0.3, 0.2], weights="learned")
    w_ = torch.as_tensor(w).requires_grad_()
    assert torch.autograd.gradcheck(mixture.log_prob, w_)
    assert torch.autograd.gradcheck(mixture.e_step, w_)
    with torch.no_grad():
        q, u = mixture.e_step(w_)
    torch.testing.assert_close(mixture.e_step(w_), (q, u))


# Properties

problems = st.fixed_dictionaries(
    {"n": st.integers(2, 60), "k": st.integers(1, 5), "d": st.integers(1, 8), "seed": st.integers(0, 10_000)}
)


@settings(max_examples=40, deadline=None)
@given(problems, st.sampled_from([np.float32, np.float64]), st.floats(0, 1e3))
def test_responsibilities_sum_to_one_and_precisions_are_bounded(problem, dtype, separation):
    w, centers, scales = random_problem(**problem, separation=separation, dtype=dtype)
    q, u = make_mixture(centers, scales).e_step(torch.as_tensor(w))
    np.testing.assert_allclose(q.sum(1), 1, rtol=1e-5)
    assert (q >= 0).all()
    assert (u > 0).all()
    assert (u <= (2.1 + problem["d"]) / 2.1 * (1 + 1e-6)).all()


@settings(max_examples=40, deadline=None)
@given(problems, st.randoms(use_true_random=False))
def test_order_of_neurons_and_clusters_does_not_matter(problem, random):
    w, centers, scales = random_problem(**problem)
    neurons, clusters = list(range(problem["n"])), list(range(problem["k"]))
    random.shuffle(neurons)
    random.shuffle(clusters)
    plain = make_mixture(centers, scales)
    shuffled = make_mixture(centers[clusters], scales[clusters])
    w_ = torch.as_tensor(w)
    q, u = plain.e_step(w_)
    q_, u_ = shuffled.e_step(w_[neurons])
    np.testing.assert_allclose(q_, q[neurons][:, clusters], atol=1e-12)
    np.testing.assert_allclose(u_, u[neurons][:, clusters], rtol=1e-10)
    plain.m_step(w_, q, u)
    shuffled.m_step(w_[neurons], q_, u_)
    np.testing.assert_allclose(shuffled.centers, plain.centers[clusters], atol=1e-9)
    np.testing.assert_allclose(shuffled.scales, plain.scales[clusters], atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(problems, st.sampled_from(["uniform", "learned"]), st.sampled_from([1.0, 2.1, 50.0]))
def test_likelihood_never_falls(problem, weights, dof):
    w, _, _ = random_problem(**{**problem, "n": problem["n"] + 5}, separation=0.5)
    w[: len(w) // 3, 0] = w[0, 0]  # a feature that is constant in part of the neurons
    mixture = StudentTMixture(problem["k"], problem["d"], dof=dof, weights=weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(torch.as_tensor(w), seed=problem["seed"], n_init=1, max_iter=30, tol=0)
    assert np.all(np.diff(mixture.log_likelihoods_) >= -1e-10)
    assert mixture.score(torch.as_tensor(w)) == pytest.approx(mixture.log_likelihood_, rel=1e-10)


# Fitting


def heavy_tailed_groups(seed=0):
    rng = np.random.default_rng(seed)
    sizes, d = (600, 250, 100), 12
    centers = rng.standard_normal((3, d)) * 2
    labels = np.repeat(range(3), sizes)
    tails = np.sqrt(2.1 / rng.chisquare(2.1, len(labels)))
    w = centers[labels] + 0.3 * tails[:, None] * rng.standard_normal((len(labels), d))
    return w.astype(np.float32), labels, centers


@pytest.mark.parametrize("weights", ["uniform", "learned"])
def test_fit_recovers_planted_clusters_with_heavy_tails(weights):
    w, labels, centers = heavy_tailed_groups()
    mixture = StudentTMixture(3, 12, weights=weights).fit(torch.as_tensor(w), seed=1)
    assert mixture.converged_
    assert mixture.n_iter_ == len(mixture.log_likelihoods_) - 1
    assert mixture.log_likelihood_ == mixture.log_likelihoods_[-1]
    predicted = mixture.predict(torch.as_tensor(w)).numpy()
    assert adjusted_rand_score(labels, predicted) > 0.98
    order = [np.bincount(predicted[labels == group]).argmax() for group in range(3)]
    np.testing.assert_allclose(mixture.centers[order], centers, atol=0.15)
    np.testing.assert_allclose(mixture.scales[order].mean(1), 0.09, rtol=0.25)
    expected = [600 / 950, 250 / 950, 100 / 950] if weights == "learned" else [1 / 3] * 3
    np.testing.assert_allclose(mixture.mixing_weights[order], expected, atol=0.01)


def test_fit_keeps_the_most_likely_of_its_runs():
    w, _, _ = random_problem(200, 6, 3, separation=0.7)
    w_ = torch.as_tensor(w)
    scores = [StudentTMixture(6, 3).fit(w_, seed=3, n_init=n).log_likelihood_ for n in (1, 4, 8)]
    assert scores == sorted(scores)
    assert scores[0] < scores[-1]


def test_fit_starts_with_the_shared_kmeans_start():
    w, _, _ = random_problem(150, 3, 4)
    w_ = torch.as_tensor(w)
    started = StudentTMixture(3, 4)
    started.initialize(w_, seed=7)
    centers, variances = kmeans_start(w_, 3, seed=7)
    torch.testing.assert_close(started.centers, centers, rtol=0, atol=0)
    torch.testing.assert_close(started.scales, variances, rtol=0, atol=0)
    torch.testing.assert_close(started.mixing_weights, torch.full((3,), 1 / 3, dtype=torch.float64))
    fitted = StudentTMixture(3, 4).fit(w_, seed=7, n_init=1)
    assert fitted.log_likelihoods_[0] == pytest.approx(started.score(w_), rel=1e-12)


def test_fit_gives_the_same_bytes_whatever_the_number_of_threads():
    w, _, _ = random_problem(2500, 8, 5, separation=0.8, dtype=np.float32)
    states = []
    before = torch.get_num_threads()
    for threads in (1, 1, 2):
        torch.set_num_threads(threads)
        centers, variances = kmeans_start(torch.as_tensor(w), 8, seed=0, n_init=6)
        states.append(centers.numpy().tobytes() + variances.numpy().tobytes())
    torch.set_num_threads(before)
    assert len(set(states)) == 1
    fits = [StudentTMixture(8, 5).fit(torch.as_tensor(w[:500]), seed=0, n_init=2) for _ in range(2)]
    assert fits[0].centers.numpy().tobytes() == fits[1].centers.numpy().tobytes()
    assert fits[0].log_likelihoods_ == fits[1].log_likelihoods_


def test_fit_warns_when_it_has_not_converged():
    w, _, _ = random_problem(200, 6, 3, separation=0.5)
    with pytest.warns(ConvergenceWarning) as caught:
        mixture = StudentTMixture(6, 3).fit(torch.as_tensor(w), seed=0, n_init=2, max_iter=2)
    assert str(caught[0].message) == (
        "The most likely of 2 runs has not converged after 2 M-steps. Raise max_iter or tol."
    )
    assert caught[0].filename == __file__
    assert not mixture.converged_
    assert mixture.n_iter_ == 2
    assert len(mixture.log_likelihoods_) == 3


def test_kmeans_start_is_the_mean_and_variance_of_its_clusters():
    w = torch.tensor([[0.0, 0.0], [0.0, 2.0], [100.0, 5.0]])
    centers, variances = kmeans_start(w, 2, seed=0)
    order = centers[:, 0].argsort()
    assert centers[order].tolist() == [[0.0, 1.0], [100.0, 5.0]]
    np.testing.assert_allclose(variances[order], [[1e-6, 1 + 1e-6], [1e-6, 1e-6]], rtol=1e-12)


def test_parameters_go_through_the_state_dict():
    w, _, _ = random_problem(100, 3, 4)
    w_ = torch.as_tensor(w)
    fitted = StudentTMixture(3, 4, weights="learned").fit(w_, seed=0)
    state = fitted.state_dict()
    assert {name: value.dtype for name, value in state.items()} == dict.fromkeys(
        ["centers", "scales", "mixing_weights"], torch.float64
    )
    loaded = StudentTMixture(3, 4, weights="learned")
    loaded.load_state_dict(state)
    torch.testing.assert_close(loaded.predict_proba(w_), fitted.predict_proba(w_), rtol=0, atol=0)
    assert list(fitted.parameters()) == []


def test_assign_gives_labels_and_confidences():
    w, centers, scales = random_problem(50, 3, 4, dtype=np.float32)
    mixture = make_mixture(centers, scales)
    q, _ = mixture.e_step(torch.as_tensor(w))
    labels, confidences = mixture.assign(torch.as_tensor(w).requires_grad_())
    assert labels.dtype == torch.int64
    assert not confidences.requires_grad
    torch.testing.assert_close(labels, q.argmax(1))
    torch.testing.assert_close(confidences, q.amax(1))


def test_other_kinds_of_vectors():
    w, centers, scales = random_problem(50, 3, 4, dtype=np.float32)
    mixture = make_mixture(centers, scales)
    expected = mixture.predict_proba(torch.as_tensor(w))
    torch.testing.assert_close(mixture.predict_proba(w), expected)  # NumPy
    torch.testing.assert_close(mixture.predict_proba(torch.as_tensor(w.T.copy()).T), expected)  # not contiguous
    torch.testing.assert_close(mixture.predict_proba(torch.as_tensor(w).half()), expected, atol=1e-2, rtol=0)
    assert mixture.predict_proba(torch.zeros(2, 4, dtype=torch.int64)).dtype == torch.float64
    assert "dof=2.1, weights='uniform', scale_bounds=(0.0001, 10000.0)" in repr(mixture)


@pytest.mark.gpu
def test_results_on_a_gpu_are_those_of_the_cpu():
    w, centers, scales = random_problem(500, 3, 4, dtype=np.float32)
    cpu, gpu = make_mixture(centers, scales), make_mixture(centers, scales).cuda()
    for mixture, w_ in ((cpu, torch.as_tensor(w)), (gpu, torch.as_tensor(w).cuda())):
        mixture.m_step(w_, *mixture.e_step(w_))
        mixture.fit(w_, seed=0)
    torch.testing.assert_close(gpu.cpu().state_dict(), cpu.state_dict(), rtol=1e-4, atol=1e-4)


# Edge cases


def test_one_neuron():
    w = torch.tensor([[1.0, 2.0, 3.0]])
    mixture = StudentTMixture(1, 3).fit(w, seed=0)
    assert mixture.centers.tolist() == [[1.0, 2.0, 3.0]]
    assert mixture.scales.tolist() == [[1e-4] * 3]
    assert mixture.predict(w).tolist() == [0]
    assert mixture.e_step(w)[0].tolist() == [[1.0]]


def test_constant_features_get_the_smallest_scale():
    w, labels, _ = heavy_tailed_groups()
    w[:, 4] = 7.3
    mixture = StudentTMixture(3, 12).fit(torch.as_tensor(w), seed=0)
    np.testing.assert_allclose(mixture.centers[:, 4], 7.3, rtol=1e-6)
    assert mixture.scales[:, 4].tolist() == [1e-4] * 3
    assert adjusted_rand_score(labels, mixture.predict(torch.as_tensor(w))) > 0.98


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_empty_cluster_keeps_its_parameters(dtype):
    rng = np.random.default_rng(0)
    w = torch.as_tensor(rng.standard_normal((100, 40))).to(dtype)
    # 1,000 scales away in 40 dimensions: not one neuron has a responsibility above 1e-60.
    mixture = make_mixture([[0.0] * 40, [1e3] * 40], np.ones((2, 40)), weights="learned")
    for _ in range(3):
        mixture.m_step(w, *mixture.e_step(w))
    assert mixture.centers[1].tolist() == [1e3] * 40
    assert mixture.scales[1].tolist() == [1.0] * 40
    np.testing.assert_allclose(mixture.centers[0], w.double().mean(0), atol=0.2)
    np.testing.assert_allclose(mixture.mixing_weights, [1, 0], atol=1e-50)
    q, u = mixture.e_step(w)
    assert torch.isfinite(q).all()
    assert torch.isfinite(u).all()
    assert math.isfinite(mixture.score(w))


def test_float32_sums_that_overflow_are_not_taken_for_infinities():
    w = torch.tensor([[3e38, 1.0], [3e38, 2.0]])
    assert make_mixture([[3e38, 1.0], [0.0, 0.0]], np.ones((2, 2))).predict(w).tolist() == [0, 0]


def far_vectors(far, dtype=np.float64):
    """Two clusters of 100 vectors, and one vector that is far away."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal((200, 8)) + np.repeat([0.0, 4.0], 100)[:, None]
    return np.vstack([w, np.full((1, 8), far)]).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("far", [1e3, 1e8, -1e10, 1e13])
def test_one_neuron_far_from_all_others_spoils_nothing(far, dtype, blocks):
    w = far_vectors(far, dtype)
    mixture = StudentTMixture(3, 8).fit(w, seed=1)
    labels, confidences, margins = mixture.assign_with_margins(w)
    assert sorted(np.bincount(labels)) == [1, 100, 100]
    assert adjusted_rand_score(labels[:200], np.repeat([0, 1], 100)) == 1
    assert torch.isfinite(confidences).all()
    assert torch.isfinite(margins).all()
    assert confidences.min() >= 1 / 3
    assert math.isfinite(mixture.log_likelihood_)
    assert np.all(np.diff(mixture.log_likelihoods_) >= -1e-6)
    single = int(labels[200])
    np.testing.assert_allclose(mixture.scales[single], 1e-4)


def test_steps_equal_plain_loops_beside_a_neuron_far_away(blocks):
    w = far_vectors(1e8)
    centers = np.stack([np.zeros(8), np.full(8, 4.0), np.full(8, 1e8)])
    scales = np.stack([np.ones(8), np.full(8, 2.0), np.full(8, 1e-2)])
    mixture = make_mixture(centers, scales, scale_bounds=(1e-4, 1e4))
    q, u, evidence, _ = loop_e_step(w, centers, scales, np.full(3, 1 / 3), 2.1)
    w_ = torch.as_tensor(w)
    q_, u_ = mixture.e_step(w_)
    np.testing.assert_allclose(q_, q, atol=1e-8)
    np.testing.assert_allclose(u_, u, rtol=1e-8)
    np.testing.assert_allclose(mixture.score_samples(w_), evidence, rtol=1e-8)
    expected = loop_m_step(w, q, u, (1e-4, 1e4))
    mixture.m_step(w_, q_, u_)
    np.testing.assert_allclose(mixture.centers, expected[0], rtol=1e-8, atol=1e-7)
    np.testing.assert_allclose(mixture.scales, expected[1], rtol=1e-6)


@pytest.mark.parametrize(
    ("far", "message"),
    [
        (
            1e20,
            "k-means finds only 2 different clusters among 201 readout vectors, but n_clusters is 3: 201 of them "
            "differ, but too little for the distance of row 200, which is 2.8e+20 from the median vector, where "
            "half of all vectors are within 6.3. Leave out neurons that are so far from all others, or check whether "
            "the training diverged.",
        ),
        (
            1e200,
            "The largest readout weight is 1e+200, whose square is not a finite number. Check whether the training "
            "diverged (lower its learning rate), or leave out the neurons with such weights.",
        ),
    ],
)
def test_a_neuron_beside_which_the_others_are_equal(far, message):
    with pytest.raises(EmbeddingError) as caught:
        StudentTMixture(3, 8).fit(far_vectors(far), seed=1)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((0, 3), {}), "n_clusters is 0, but must be an integer of at least 1."),
        (((2.5, 3), {}), "n_clusters is 2.5, but must be an integer of at least 1."),
        (((True, 3), {}), "n_clusters is True, but must be an integer of at least 1."),
        (((2, 0), {}), "n_features is 0, but must be an integer of at least 1."),
        (((2, 3), {"dof": 0}), "dof is 0, but the degrees of freedom must be a positive, finite number."),
        (((2, 3), {"dof": -1.0}), "dof is -1.0, but the degrees of freedom must be a positive, finite number."),
        (((2, 3), {"dof": math.inf}), "dof is inf, but the degrees of freedom must be a positive, finite number."),
        (
            ((2, 3), {"weights": "learnt"}),
            "weights is 'learnt', which is unknown. Did you mean 'learned'? Allowed: learned, uniform.",
        ),
        (
            ((2, 3), {"scale_bounds": (1, 0.1)}),
            "scale_bounds is (1, 0.1), but must be two positive, finite numbers in rising order, e.g. (1e-4, 1e4).",
        ),
        (
            ((2, 3), {"scale_bounds": (0, 1)}),
            "scale_bounds is (0, 1), but must be two positive, finite numbers in rising order, e.g. (1e-4, 1e4).",
        ),
        (
            ((2, 3), {"scale_bounds": 1e-4}),
            "scale_bounds is 0.0001, but must be two positive, finite numbers in rising order, e.g. (1e-4, 1e4).",
        ),
    ],
)
def test_settings_that_are_not_allowed(arguments, message):
    positional, keywords = arguments
    with pytest.raises(SettingsError) as caught:
        StudentTMixture(*positional, **keywords)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"seed": -1}, "seed is -1, but must be an integer from 0 to 2**32 - 1."),
        ({"seed": None}, "seed is None, but must be an integer from 0 to 2**32 - 1."),
        ({"seed": 0, "n_init": 0}, "n_init is 0, but must be an integer of at least 1."),
        ({"seed": 0, "max_iter": 0}, "max_iter is 0, but must be an integer of at least 1."),
        ({"seed": 0, "tol": -1}, "tol is -1, but must be a finite number of nats, 0 or more."),
    ],
)
def test_settings_of_fit_that_are_not_allowed(keywords, message):
    with pytest.raises(SettingsError) as caught:
        StudentTMixture(2, 3).fit(torch.eye(3), **keywords)
    assert str(caught.value) == message


def test_more_clusters_than_neurons():
    with pytest.raises(SettingsError) as caught:
        StudentTMixture(4, 3).fit(torch.eye(3), seed=0)
    assert str(caught.value) == "n_clusters is 4, but there are only 3 neurons. Choose n_clusters between 1 and 3."


def test_fewer_different_vectors_than_clusters():
    with pytest.raises(EmbeddingError) as caught:
        StudentTMixture(3, 2).fit(torch.eye(2).repeat(5, 1), seed=0)
    assert str(caught.value) == (
        "k-means finds only 2 different clusters among 10 readout vectors, but n_clusters is 3: too many vectors are "
        "equal. Choose a smaller n_clusters, or begin the clustering later in the training, when the readouts have "
        "learned to differ."
    )


def test_vectors_that_are_not_finite():
    w = torch.zeros(10, 2)
    w[3, 1], w[7, 0] = math.nan, -math.inf
    message = (
        "2 of 10 readout vectors hold NaN or infinite values, the first is row 3. Clustering needs finite vectors: "
        "check whether the training diverged (lower its learning rate), or leave these neurons out."
    )
    mixture = make_mixture([[0, 0]], [[1, 1]])
    good = torch.zeros(10, 2)
    for call in (
        mixture.log_prob,
        mixture.e_step,
        mixture.predict,
        mixture.score,
        lambda v: mixture.e_step(v.clone().requires_grad_()),
        lambda v: mixture.fit(v, seed=0),
        lambda v: mixture.initialize(v, seed=0),
        lambda v: mixture.m_step(v, *mixture.e_step(good)),
    ):
        with pytest.raises(EmbeddingError) as caught:
            call(w)
        assert str(caught.value) == message


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            (5,),
            "Readout vectors must form a matrix (neurons, features), but have the shape (5,). Reshape them to one row "
            "per neuron.",
        ),
        ((0, 2), "There are no readout vectors to cluster: the matrix has 0 rows and 2 columns."),
        (
            (5, 3),
            "The readout vectors have 3 features, but n_features is 2. Pass vectors with 2 columns, or build it with "
            "n_features=3.",
        ),
    ],
)
def test_vectors_of_the_wrong_shape(shape, message):
    mixture = make_mixture([[0, 0]], [[1, 1]])
    for call in (mixture.predict, lambda w: mixture.fit(w, seed=0)):
        with pytest.raises(EmbeddingError) as caught:
            call(torch.zeros(shape))
        assert str(caught.value) == message


def test_responsibilities_of_other_neurons():
    mixture = make_mixture([[0, 0]], [[1, 1]])
    q, u = mixture.e_step(torch.zeros(5, 2))
    with pytest.raises(EmbeddingError) as caught:
        mixture.m_step(torch.zeros(6, 2), q, u)
    assert str(caught.value) == (
        "q and u must have the shape (6, 1) (neurons, clusters), but have (5, 1) and (5, 1). "
        "Pass the e_step of the same neurons."
    )


def test_a_mixture_without_clusters():
    with pytest.raises(EmbeddingError) as caught:
        StudentTMixture(2, 3).predict(torch.eye(3))
    assert str(caught.value) == (
        "The mixture has no clusters yet: call fit or initialize, or load a state_dict with fitted clusters."
    )
