"""The published model and mixture: the scale of the last batch norm, the preset, and the published M-step and start."""

import inspect
import sys

import numpy as np
import pytest
import torch
from neuralpredictors.layers.cores import Stacked2dCore
from sklearn.cluster import KMeans
from torch import nn

from december_plugin import models
from december_plugin.clustering.kmeans import kmeans_start
from december_plugin.clustering.losses import DECEMber
from december_plugin.errors import SettingsError
from december_plugin.models.build import learn_final_scale
from december_plugin.sweeps.functions import config_mistakes
from december_plugin.trainers import baseline_trainer
from helpers.image_models import INFO, SMALL, TURNED, Network
from helpers.mixtures import loop_e_step, make_mixture, random_problem
from helpers.trainings import make_loaders

MOVIES = {"a": {"input_dimensions": [1, 2, 12, 8, 9], "output_dimension": 5}}
MOVIE_MODEL = {"hidden_channels": [2, 3], "temporal_kernels": [3, 2], "spatial_kernels": [3, 3]}
IMAGE_MODELS = {
    "stacked_core_gaussian_readout": {**SMALL, "grid_mean_predictor": None},
    "stacked_core_attention_readout": SMALL,
    "stacked_core_factorized_readout": SMALL,
    "equivariant_core_gaussian_readout": TURNED,
    "equivariant_core_factorized_readout": TURNED,
    "task_core_attention_readout": {"layer": "bn1"},
}
CORES = {**dict.fromkeys(IMAGE_MODELS, INFO), "movie_core_gaussian_readout": MOVIES}


@pytest.fixture
def build(monkeypatch):
    from types import SimpleNamespace

    monkeypatch.setitem(
        sys.modules,
        "torchvision.models",
        SimpleNamespace(
            list_models=lambda module: ["resnet50"],
            get_model_weights=lambda name: [SimpleNamespace(name="IMAGENET1K_V1")],
            get_model=lambda name, weights=None: Network(),
        ),
    )

    def made(name, **settings):
        small = {**IMAGE_MODELS.get(name, MOVIE_MODEL), **settings}
        return getattr(models, name)(None, 1, data_info=CORES[name], **small)

    return made


def norm_scales(core):
    """Return the scales of the batch norms that the core itself has, in their order."""
    return [
        parameter
        for name, parameter in core.named_parameters()
        if name.rpartition(".")[0].endswith("norm") and name.endswith("weight")
    ]


@pytest.mark.parametrize("name", CORES)
def test_the_last_scale_stays_at_one_and_nothing_else_changes(build, name):
    plain, held = build(name), build(name, final_batchnorm_scale=False)
    assert plain.state_dict().keys() == held.state_dict().keys()
    assert all(torch.equal(value, held.state_dict()[key]) for key, value in plain.state_dict().items())
    assert [scale.requires_grad for scale in norm_scales(plain.core)] == [True] * len(norm_scales(plain.core))
    *others, last = norm_scales(held.core)
    assert all(scale.requires_grad for scale in others)
    assert not last.requires_grad
    assert torch.equal(last, torch.ones_like(last))


@pytest.mark.parametrize("name", CORES)
def test_a_last_batch_norm_that_is_not_there_has_no_scale(build, name):
    without = {"final_batch_norm" if name.startswith("task") else "batch_norm": False}
    message = (
        r"final_batchnorm_scale is False, but the core's last layer has no batch normalisation whose scale could be "
        r"left out\. Leave it at True, or switch batch normalisation on\."
    )
    with pytest.raises(SettingsError, match=message):
        build(name, **without, final_batchnorm_scale=False)
    build(name, **without)


def test_final_batchnorm_scale_is_true_or_false(build):
    with pytest.raises(SettingsError, match=r"final_batchnorm_scale is 0; it must be true or false\."):
        build("stacked_core_gaussian_readout", final_batchnorm_scale=0)


def test_it_trains_like_a_batch_norm_without_parameters_and_a_bias_after_it():
    """So neuralpredictors' git version leaves the scale out."""
    settings = {
        **{
            "input_channels": 1,
            "hidden_channels": 3,
            "input_kern": 3,
            "hidden_kern": 3,
            "layers": 1,
            "gamma_input": 0.1,
        },
        **{"momentum": 0.1, "stack": -1},
    }
    git = "final_batchnorm_scale" in inspect.signature(Stacked2dCore).parameters
    without = {"final_batchnorm_scale": False} if git else {"batch_norm_scale": False, "independent_bn_bias": False}
    torch.manual_seed(0)
    theirs = Stacked2dCore(**settings, **without)
    torch.manual_seed(0)
    ours = Stacked2dCore(**settings)
    learn_final_scale(ours.features[-1], False)
    images = torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    for core in (ours, theirs):
        optimizer = torch.optim.SGD([each for each in core.parameters() if each.requires_grad], lr=0.1)
        for _ in range(5):
            optimizer.zero_grad()
            (core(images) - images[:, :, :1, :1]).square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(ours(images), theirs(images))
    assert isinstance(theirs.features[-1].bias, nn.Module)


def test_the_scale_stays_at_one_in_a_training():
    loaders = make_loaders()
    settings = {**SMALL, "grid_mean_predictor": None, "final_batchnorm_scale": False}
    model = models.stacked_core_gaussian_readout(loaders, 1, **settings)
    state = baseline_trainer(model, loaders, 1, max_iter=2, device="cpu", lr_init=0.05)[2]
    assert torch.equal(state["core.features.layer1.norm.weight"], torch.ones(4))
    assert not torch.equal(state["core.features.layer0.norm.weight"], torch.ones(4))
    assert not torch.equal(state["core.features.layer1.norm.bias"], torch.zeros(4))


def test_the_published_model():
    settings = {"preset": "published", "grid_mean_predictor": None}
    info = {"a": {"input_dimensions": [1, 4, 36, 64], "output_dimension": 5, "pupil_channels": 2}}
    model = models.stacked_core_gaussian_readout(None, 1, data_info=info, **settings)
    readout = model.readout["a"]
    assert readout.features.shape == (1, 128, 1, 5)
    assert (readout.feature_reg_weight, readout.regularizer_type, readout.gamma_sigma) == (10, "adaptive_log_norm", 0.1)
    assert torch.equal(readout.bias, torch.zeros(5))
    assert [scale.requires_grad for scale in norm_scales(model.core)] == [True, True, True, False]
    smaller = models.stacked_core_gaussian_readout(None, 1, data_info=info, hidden_channels=8, **settings)
    assert smaller.readout["a"].features.shape == (1, 8, 1, 5)
    with pytest.raises(SettingsError, match=r"preset is 'publishd'\. Did you mean 'published'\? Allowed: published\."):
        models.stacked_core_gaussian_readout(None, 1, data_info=info, preset="publishd")


def test_a_preset_of_the_model_is_checked_like_other_settings():
    found = config_mistakes("models", models.stacked_core_gaussian_readout, {"preset": "published", "layers": 0})
    assert [(name, str(error)) for name, error in found] == [("layers", "layers is 0; it must be at least 1.")]


# --- the mixture ----------------------------------------------------------------------------------------------


def test_scales_about_the_old_centres_by_a_plain_loop():
    w, centers, scales = random_problem(60, 3, 4)
    mixture = make_mixture(centers, scales)
    q, u = mixture.e_step(torch.as_tensor(w))
    mixture.m_step(torch.as_tensor(w), q, u, scale_centers="old")
    exact = make_mixture(centers, scales)
    exact.m_step(torch.as_tensor(w), q, u)
    q, u, *_ = loop_e_step(w, centers, scales, np.full(3, 1 / 3), 2.1)
    for k in range(3):
        weights = q[:, k] * u[:, k]
        new = (weights[:, None] * w).sum(0) / weights.sum()
        expected = (weights[:, None] * (w - centers[k]) ** 2).sum(0) / q[:, k].sum()
        np.testing.assert_allclose(mixture.centers[k], new, rtol=1e-10)
        np.testing.assert_allclose(mixture.scales[k], expected, rtol=1e-10)
    assert (mixture.scales > exact.scales).all()


@pytest.mark.parametrize("n", [20, 400])
@pytest.mark.parametrize("scale_centers", ["new", "old"])
def test_an_empty_cluster_is_put_where_a_floor_of_all_responsibilities_puts_it(n, scale_centers):
    w, centers, scales = random_problem(n, 3, 4)
    centers[2], scales[2] = 1e8, 1e-3  # nobody's
    w = torch.as_tensor(w)
    mixture = make_mixture(centers, scales)
    q, u = mixture.e_step(w)
    assert q[:, 2].sum() < 1e-12
    mixture.m_step(w, q, u, empty_clusters="reseed", scale_centers=scale_centers)
    weights = u[:, 2].numpy()
    new = (weights[:, None] * w.numpy()).sum(0) / weights.sum()
    about = new if scale_centers == "new" else centers[2]
    expected = ((weights[:, None] * (w.numpy() - about) ** 2).sum(0) / n).clip(1e-4, 1e4)
    np.testing.assert_allclose(mixture.centers[2], new, rtol=1e-6)
    np.testing.assert_allclose(mixture.scales[2], expected, rtol=1e-6)
    kept = make_mixture(centers, scales)
    kept.m_step(w, q, u, scale_centers=scale_centers)
    assert torch.equal(kept.centers[2], torch.full((4,), 1e8, dtype=torch.float64))
    assert torch.equal(kept.centers[:2], mixture.centers[:2])
    assert torch.equal(kept.scales[:2], mixture.scales[:2])


def test_an_m_step_without_empty_clusters_is_the_same_with_and_without_reseeding():
    w, centers, scales = random_problem(60, 3, 4)
    found = []
    for empty_clusters in ("keep", "reseed"):
        mixture = make_mixture(centers, scales)
        mixture.m_step(torch.as_tensor(w), *mixture.e_step(torch.as_tensor(w)), empty_clusters=empty_clusters)
        found.append(torch.cat([mixture.centers, mixture.scales]))
    assert torch.equal(*found)


def test_joint_seeds_are_those_of_scikit_learn():
    w = random_problem(80, 5, 3, separation=2.0)[0]
    reference = KMeans(5, n_init=4, random_state=3).fit(w)
    centers, _ = kmeans_start(w, 5, seed=3, n_init=4, seeds="joint")
    np.testing.assert_allclose(centers, reference.cluster_centers_, rtol=1e-10)


def test_unclamped_starts_are_unbiased_variances():
    w = np.array([[0.0, 0.0], [2.0, 1e-9], [50.0, 50.0]])
    mixture = make_mixture(np.zeros((2, 2)), np.ones((2, 2)))
    mixture.initialize(torch.as_tensor(w), seed=0, start_scales="unclamped")
    pair = int(mixture.centers[:, 0].argmin())
    np.testing.assert_allclose(mixture.scales[pair], [2 + 1e-6, 1e-6], rtol=1e-9)
    np.testing.assert_allclose(mixture.scales[1 - pair], [1e-6, 1e-6], rtol=1e-9)  # of a single member
    mixture.initialize(torch.as_tensor(w), seed=0)
    np.testing.assert_allclose(mixture.scales[pair], [1 + 1e-6, 1e-4], rtol=1e-9)


def test_the_clustering_loss_passes_its_settings_on():
    w, centers, scales = random_problem(60, 3, 4)
    w = torch.as_tensor(w)
    module = DECEMber(3, 4, scale_centers="old", empty_clusters="reseed")
    module.mixture.centers.copy_(torch.as_tensor(centers))
    module.mixture.scales.copy_(torch.as_tensor(scales))
    reference = make_mixture(centers, scales)
    reference.m_step(w, *reference.e_step(w), scale_centers="old", empty_clusters="reseed")
    module.loss(w)
    module.m_step(w)
    torch.testing.assert_close(module.mixture.scales, reference.scales, rtol=1e-10, atol=0)


WRONG = [
    ({"scale_centers": "mean"}, r"scale_centers is 'mean'\. Allowed: new, old\."),
    ({"empty_clusters": "reseeded"}, r"empty_clusters is 'reseeded'\. Did you mean 'reseed'\? Allowed: keep, reseed\."),
]


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_settings_of_the_m_step_that_are_not_allowed(settings, message):
    with pytest.raises(SettingsError, match=message):
        DECEMber(3, 4, **settings)
    w = torch.zeros(5, 4)
    with pytest.raises(SettingsError, match=message):
        make_mixture(np.zeros((3, 4)), np.ones((3, 4))).m_step(w, torch.ones(5, 3), torch.ones(5, 3), **settings)


def test_settings_of_the_start_that_are_not_allowed():
    w = torch.as_tensor(random_problem(20, 3, 4)[0])
    with pytest.raises(SettingsError, match=r"start_scales is 'clampd'\. Did you mean 'clamped'\? Allowed: clamped, u"):
        make_mixture(np.zeros((3, 4)), np.ones((3, 4))).initialize(w, seed=0, start_scales="clampd")
    with pytest.raises(SettingsError, match=r"seeds is 'one'\. Allowed: joint, spawned\."):
        kmeans_start(w, 3, seed=0, seeds="one")
