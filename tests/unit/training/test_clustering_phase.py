"""DECEMber in functional space: gradients, what does not depend on the basis, and the covariance of each epoch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import nn

from december_plugin.clustering.student_t_mixture import StudentTMixture
from december_plugin.errors import EmbeddingError
from december_plugin.trainers import december_trainer
from december_plugin.training import loop
from december_plugin.training.clustering_phase import ClusteringPhase
from december_plugin.training.covariance import CovarianceStimuli
from december_plugin.training.settings import ClusteringSettings
from helpers.mixtures import plain_loss
from helpers.trainings import make_loaders, make_model

pytestmark = pytest.mark.usefixtures("own_pretrainings")

FUNCTIONAL = [{"space": "functional"}, {"space": "functional", "normalize": "l2"}]
RNG = np.random.default_rng(3)
N, D, K = 30, 4, 3
FACTORS = RNG.normal(size=(D, D))
SIGMA = FACTORS @ np.diag([1.0, 0.3, 0.1, 0.0]) @ FACTORS.T  # singular, as with a channel that is redundant
W = RNG.normal(size=(N, D)) + 2 * RNG.normal(size=(K, D))[np.arange(N) % K]


class Vectors(nn.Module):
    """The readout of a session of which there is nothing but its vectors (n, D)."""

    def __init__(self, vectors):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(vectors))

    def embedding_vectors(self):
        return self.weights


def model_of(vectors):
    model = nn.Module()
    model.readout = nn.ModuleDict({"one": Vectors(vectors[:20]), "two": Vectors(vectors[20:])})
    return model


def phase_on(model, covariance, **settings):
    phase = ClusteringPhase(ClusteringSettings(n_clusters=K, strength=1.0, **settings))
    phase.measure_by(lambda model: covariance, model)
    phase.begin(model, seed=0)
    return phase


def gradient_of(model):
    return np.concatenate([readout.weights.grad.numpy() for readout in model.readout.values()])


# --- one step -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", FUNCTIONAL, ids=["functional", "directions"])
def test_the_gradient_in_the_readout_vectors_is_that_of_finite_differences(settings):
    """Of the equations as they stand, in float64, with the root of the covariance as a constant."""
    model = model_of(W)
    phase = phase_on(model, SIGMA, weights="learned", **settings)
    mixture, root = phase.regularizer.mixture, sqrtm(SIGMA).real

    def loss_of(vectors):
        embedded = vectors @ root
        if "normalize" in settings:
            embedded = embedded / np.linalg.norm(embedded, axis=1, keepdims=True)
        return plain_loss(embedded, *(buffer.numpy() for buffer in (mixture.centers, mixture.scales)))

    expected, step = np.empty_like(W), 1e-5
    for at in np.ndindex(*W.shape):
        sides = []
        for sign in (1, -1):
            moved = W.copy()
            moved[at] += sign * step
            sides.append(loss_of(moved))
        expected[at] = (sides[0] - sides[1]) / (2 * step)
    loss = loss_of(W)
    with pytest.warns(UserWarning, match="so strong"):
        assert phase.backward(model).item() == pytest.approx(loss, rel=1e-9)
    np.testing.assert_allclose(gradient_of(model), expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("settings", FUNCTIONAL, ids=["functional", "directions"])
@pytest.mark.filterwarnings("ignore:the clustering loss is so strong")
def test_a_reparametrised_core_changes_neither_partition_nor_loss(settings):
    """``A Phi`` with ``A^-T w`` is the same model; embeddings are the same up to a rotation, as are round clusters."""
    a = RNG.normal(size=(D, D))
    models = [model_of(W), model_of(W @ np.linalg.inv(a))]
    covariances = [SIGMA, a @ SIGMA @ a.T]
    phases = [phase_on(model, covariance, **settings) for model, covariance in zip(models, covariances, strict=True)]
    for phase in phases:
        phase.regularizer.mixture.scales.fill_(0.5)
    losses = [phase.backward(model).item() for phase, model in zip(phases, models, strict=True)]
    assert losses[0] > 0.1
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    assert torch.equal(phases[0].initial_labels, phases[1].initial_labels)
    np.testing.assert_allclose(gradient_of(models[1]), gradient_of(models[0]) @ a.T, rtol=1e-5, atol=1e-6)
    # On the readout vectors themselves the basis decides.
    spaces = [phase_on(model, SIGMA) for model in models]
    losses = [phase.backward(model).item() for phase, model in zip(spaces, models, strict=True)]
    assert losses[1] != pytest.approx(losses[0], rel=0.01)


def test_the_clusters_start_from_the_likeliest_of_several_mixtures():
    fitted = StudentTMixture(K, D, weights="learned")
    fitted.fit(torch.tensor(W), seed=4, n_init=3)
    plain, chosen = (
        ClusteringPhase(ClusteringSettings(n_clusters=K, weights="learned", mixture_n_init=n)) for n in (0, 3)
    )
    for phase in (plain, chosen):
        phase.begin(model_of(W), seed=4)
    for name, value in fitted.named_buffers():
        torch.testing.assert_close(dict(chosen.regularizer.mixture.named_buffers())[name], value)
    vectors = torch.tensor(W)
    assert chosen.regularizer.mixture.score(vectors) > plain.regularizer.mixture.score(vectors)
    assert torch.equal(chosen.initial_labels, fitted.predict(vectors))


def test_a_new_covariance_leaves_the_neurons_in_their_clusters():
    """The units become a hundredth; the root stays in its memory, where a recorded step reads it."""
    model = model_of(W)
    sigma = SIGMA + np.eye(D)
    covariances = iter([sigma, sigma, 1e4 * sigma])
    settings = {"strength": 0.0, "space": "functional", "scale_bounds": (1e-8, 1e8)}
    phase = ClusteringPhase(ClusteringSettings(n_clusters=K, **settings))
    phase.measure_by(lambda model: next(covariances), model)
    phase.begin(model, seed=0)
    for _ in range(100):
        phase.backward(model)
    before, (labels, confidences) = phase.vectors(model).detach(), assigned(phase, model)
    mixture, root = phase.regularizer.mixture, phase._root
    centers, scales = mixture.centers.clone(), mixture.scales.clone()
    phase.begin_epoch(model)  # the first: nothing has changed since the start
    torch.testing.assert_close(phase.vectors(model), before)
    phase.begin_epoch(model)
    torch.testing.assert_close(phase.vectors(model), 100 * before)
    assert phase._root is root
    assert torch.equal(assigned(phase, model)[0], labels)
    torch.testing.assert_close(assigned(phase, model)[1], confidences, rtol=1e-4, atol=0)
    torch.testing.assert_close(mixture.centers, 100 * centers, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(mixture.scales, 1e4 * scales, rtol=1e-3, atol=0)


def assigned(phase, model):
    return phase.regularizer.assign(phase.vectors(model).detach())


# --- trainings ------------------------------------------------------------------------------------------------

QUICK = {"n_clusters": 2, "max_iter": 5, "pretrain_epochs": 3, "device": "cpu", "lr_init": 0.01}


def december(**settings):
    return december_trainer(make_model(), make_loaders(), 1, **{**QUICK, "space": "functional", **settings})


@pytest.fixture
def measured(monkeypatch):
    """Collect the covariances in the order in which they are measured."""
    found, original = [], CovarianceStimuli.covariance_of

    def noted(self, model):
        found.append(original(self, model))
        return found[-1]

    monkeypatch.setattr(CovarianceStimuli, "covariance_of", noted)
    return found


def scored(monkeypatch, *scores):
    stream = iter(scores)
    monkeypatch.setattr(loop, "validation_correlation", lambda *args, **kwargs: next(stream))


@pytest.mark.parametrize(("refresh", "n_measured"), [("epoch", 5), ("never", 2)])
def test_the_covariance_of_each_epoch(refresh, n_measured, measured, monkeypatch):
    """Tried out at the beginning, then taken when the clustering begins, and at the start of epochs 2 to 4 of it."""
    scored(monkeypatch, *[0.1] * 3, *[0.2, 0.3, 0.4, 0.5])
    mixture = december(max_iter=7, covariance_refresh=refresh)[1]["mixture"]
    assert len(measured) == n_measured
    np.testing.assert_array_equal(mixture["covariance"], measured[-1])
    assert (mixture["space"], mixture["normalize"]) == ("functional", "none")
    assert all(not np.array_equal(one, other) for one, other in itertools.pairwise(measured))


def test_mixture_and_covariance_are_restored_together_with_the_weights(monkeypatch):
    scored(monkeypatch, 0.1, 0.1, 0.1, 0.9, 0.2)
    output = december(normalize="l2", share_pretraining=False)[1]
    scored(monkeypatch, 0.1, 0.1, 0.1, 0.9)
    expected = december(normalize="l2", share_pretraining=False, max_iter=4)[1]
    assert output["best_epoch"] == 4
    np.testing.assert_equal(output["mixture"], expected["mixture"])


def test_weights_that_are_restored_alone_have_their_own_covariance(monkeypatch):
    settings = {"share_pretraining": False, "restore_mixture": False}
    scored(monkeypatch, 0.1, 0.1, 0.1, 0.9, 0.2)
    last = december(**settings)[1]["mixture"]
    scored(monkeypatch, 0.1, 0.1, 0.1, 0.9)
    best = december(**settings, max_iter=4)[1]["mixture"]
    np.testing.assert_array_equal(last["covariance"], best["covariance"])
    assert not np.array_equal(last["centers"], best["centers"])


def test_the_pretraining_is_that_of_every_other_space():
    plain = december(space="readout", share_pretraining=False)[1]
    functional = december(share_pretraining=False)[1]
    for name in ("train_loss", "validation_correlation"):
        np.testing.assert_array_equal(functional["curves"][name][:3], plain["curves"][name][:3])
    assert functional["curves"]["train_loss"][3] != plain["curves"]["train_loss"][3]
    assert plain["mixture"]["covariance"] is None
    assert functional["clustering"]["gradient_ratio"] == pytest.approx(0.01, rel=1e-6)


def test_shared_or_not_a_functional_training_has_the_same_bytes():
    december(n_clusters=3, space="readout")  # leaves its pretraining
    (_, shared, state), (_, alone, expected) = december(), december(share_pretraining=False)
    np.testing.assert_equal(shared, alone)
    assert all(torch.equal(state[name], value) for name, value in expected.items())


class WithoutFeatures(nn.Module):
    """A readout of a lab, which does not say what it receives from the core."""

    def __init__(self, n):
        super().__init__()
        self.weights = nn.Parameter(torch.randn(n, 6))

    def embedding_vectors(self):
        return self.weights

    def forward(self, x, **kwargs):
        return nn.functional.elu(x.mean(dim=(2, 3)) @ self.weights.T) + 1

    def regularizer(self, *args, **kwargs):
        return self.weights.abs().sum()


def test_a_readout_without_features_is_told_of_before_the_pretraining():
    model, epochs = make_model(), []
    torch.nn.ModuleDict.__setitem__(model.readout, "two", WithoutFeatures(9))
    settings = {**QUICK, "cb": lambda **arguments: epochs.append(arguments["epoch"])}
    with pytest.raises(EmbeddingError, match=r"what WithoutFeatures receives from the core.*`embedding_features"):
        december_trainer(model, make_loaders(), 1, **settings, space="functional")
    assert epochs == []
    december_trainer(model, make_loaders(), 1, **settings)
    assert epochs == [1, 2, 3, 4, 5]
