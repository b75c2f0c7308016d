"""The model of movies against plain loops, its settings, and the generic movie format."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest
import torch
from nnfabrik.builder import get_model
from torch import nn

from december_plugin.datasets import movie_loaders
from december_plugin.embeddings.readout_vectors import readout_embeddings, unit_ids_of
from december_plugin.errors import SettingsError
from december_plugin.evaluation.performance import correlation_to_average, stimulus_ids_of
from december_plugin.evaluation.predictions import predict_sessions
from december_plugin.models import movie_core_gaussian_readout
from december_plugin.models.layers.spatiotemporal_core import MovieCore, roughness_in_time
from december_plugin.simulate.movies import write_movie_recording
from december_plugin.trainers import december_trainer
from helpers.clips import MODEL, SIZE, movie_loaders_in_memory

INFO = {"a": {"input_dimensions": [1, 2, 12, *SIZE], "output_dimension": 5}}


def build(seed=1, *, info=INFO, **settings):
    return movie_core_gaussian_readout(None, seed, data_info=info, **{**MODEL, **settings})


def core_of(*, separable, **settings):
    settings = {
        "input_channels": 2,
        "hidden_channels": [2],
        "temporal_kernels": [3],
        "spatial_kernels": [3],
        "spatial_dilations": [1],
        "padded": [False],
        "gamma_input": 0.0,
        "gamma_temporal": 0.0,
        "batch_norm": False,
        "momentum": 0.1,
        "final_nonlinearity": False,
        **settings,
    }
    torch.manual_seed(0)
    return MovieCore(separable=separable, **settings)


@pytest.mark.parametrize("separable", [True, False])
def test_a_layer_is_a_sum_over_space_and_the_frames_before(separable):
    core, videos = core_of(separable=separable), torch.randn(1, 2, 6, 5, 5)
    layer = core.features[0]
    if separable:
        kernel = torch.einsum("oiyx,pot->pityx", layer.space.weight[:, :, 0], layer.time.weight[..., 0, 0])
        bias = layer.time.bias
    else:
        kernel, bias = layer.conv.weight, layer.conv.bias
    found = core(videos)
    assert found.shape == (1, 2, 4, 3, 3)
    assert (core.lost_frames, core.lost_pixels) == (2, 2)
    for channel in range(2):
        for frame in range(4):
            for y in range(3):
                patch = videos[0, :, frame : frame + 3, y : y + 3, 1:4]
                expected = (patch * kernel[channel]).sum() + bias[channel]
                torch.testing.assert_close(found[0, channel, frame, y, 1], expected)


def test_penalties_of_the_first_kernels():
    for separable in (True, False):
        core = core_of(separable=separable, gamma_input=2.0, gamma_temporal=3.0)
        layer = core.features[0]
        space = layer.space.weight[:, :, 0] if separable else layer.conv.weight.flatten(1, 2)
        time = layer.time.weight[..., 0] if separable else layer.conv.weight
        curved = np.diff(time.detach().numpy(), n=2, axis=2)
        kernel = torch.tensor([[0.0, -1.0, 0.0], [-1.0, 4.0, -1.0], [0.0, -1.0, 0.0]])[None, None]
        laplacian = nn.functional.conv2d(space.flatten(0, 1)[:, None], kernel, padding=1)
        expected = 2 * (laplacian**2).sum() / (space**2).sum() + 3 * (curved**2).sum() / (time**2).sum()
        assert core.regularizer().item() == pytest.approx(expected.item(), rel=1e-5)
    assert roughness_in_time(torch.ones(1, 1, 2)) == 0
    assert roughness_in_time(torch.arange(1.0, 6)[None, None]) == 0


def test_every_frame_is_read_at_the_neurons_position():
    model = build().double().eval()
    videos = torch.randn(2, 2, 9, *SIZE, dtype=torch.float64)
    readout = model.readout["a"]
    readout._features.data.normal_()
    with torch.no_grad():
        readout._mu.copy_(torch.tensor([[0, 0], [-1, -1], [1, 1], [1, -1], [-1, 1]]).reshape(readout._mu.shape))
    maps, found = model.core(videos), model(videos, data_key="a")
    assert maps.shape == (2, 4, 5, 4, 5)
    assert found.shape == (2, 5, 5)
    vectors = torch.as_tensor(readout_embeddings(model).vectors)
    # The positions of the corners are pixels; x comes first.
    for neuron, (y, x) in {1: (0, 0), 2: (-1, -1), 3: (0, -1), 4: (-1, 0)}.items():
        drive = torch.einsum("bct,c->bt", maps[:, :, :, y, x], vectors[neuron]) + readout.bias[neuron]
        torch.testing.assert_close(found[..., neuron], nn.functional.elu(drive) + 1)
    # Frames do not depend on later ones: the model can go on with a movie.
    torch.testing.assert_close(model(videos[:, :, :7], data_key="a"), found[:, :3])


def test_in_training_the_frames_of_a_clip_share_a_position():
    model = build(temporal_kernels=[1, 1], batch_norm=False).train()
    video = torch.randn(1, 2, 1, *SIZE).expand(-1, -1, 12, -1, -1)
    model.readout["a"]._features.data.normal_()
    rates = model(video, data_key="a")
    torch.testing.assert_close(rates, rates[:, :1].expand_as(rates))
    assert not torch.equal(rates, model(video, data_key="a"))


def test_same_seed_same_bytes_and_no_trace_in_the_global_state():
    loaders = movie_loaders_in_memory()
    torch.manual_seed(3)
    first = movie_core_gaussian_readout(loaders, 5, **MODEL).state_dict()
    drawn = torch.rand(1)
    again = movie_core_gaussian_readout(loaders, 5, **MODEL).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(value, build(6).state_dict().get(name)) for name, value in build(5).state_dict().items())
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1))
    copy.deepcopy(movie_core_gaussian_readout(loaders, 5, **MODEL))


def test_neurons_without_drive_start_at_their_mean_response():
    rates = np.array([0.2, 1.0, 3.0, 0.5, 2.0])
    model = build(info={"a": {**INFO["a"], "mean_responses": rates}}, elu_offset=0.3).eval()
    model.readout["a"]._features.data.zero_()
    found = model(torch.randn(1, 2, 6, *SIZE), data_key="a")[0, 0]
    np.testing.assert_allclose(found.detach(), rates, rtol=1e-5)
    loaders = movie_loaders_in_memory()
    model = movie_core_gaussian_readout(loaders, 1, **MODEL)
    mean = loaders["train"]["one"].dataset.responses.mean(dim=(0, 1))
    expected = torch.where(mean < 1, mean.log(), mean - 1)
    torch.testing.assert_close(model.readout["one"].bias.detach(), expected, rtol=1e-4, atol=1e-5)


def test_padding_dilation_and_stacks():
    settings = {"hidden_channels": [2, 2], "temporal_kernels": [2, 3], "spatial_kernels": [5, 3]}
    videos = torch.zeros(1, 2, 12, *SIZE)
    model = build(**settings, pad_input=True, pad_hidden=True, spatial_dilations=[1, 2], separable=False)
    assert model.core(videos).shape == (1, 2, 9, *SIZE)
    assert build(**settings, spatial_dilations=[1, 2]).core(videos).shape == (1, 2, 9, 2, 3)
    assert build(**settings, final_nonlinearity=False).core.features[1][-1]._get_name() == "BatchNorm3d"
    defaults = movie_core_gaussian_readout(
        None, 0, data_info={"a": {"input_dimensions": [1, 1, 40, 40, 40], "output_dimension": 3}}
    )
    assert (defaults.core.lost_frames, defaults.core.lost_pixels) == (34, 28)
    assert readout_embeddings(defaults).vectors.shape == (3, 32)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_channels": 8}, "hidden_channels is 8; a list with one number for each layer is expected."),
        (
            {"temporal_kernels": [3]},
            "temporal_kernels is [3]; a list with one number for each layer is expected, as many as hidden_channels "
            "has ([3, 4]).",
        ),
        ({"spatial_kernels": 5}, "spatial_kernels is 5; a list with one number for each layer is expected, as many"),
        ({"spatial_kernels": [5, 0]}, "spatial_kernels is 0; it must be at least 1."),
        (
            {"spatial_kernels": [9, 5]},
            "The movies of session 'a' have 10 x 11 pixels, but spatial_kernels=[9, 5] need at least 13 x 13. Use",
        ),
        (
            {"temporal_kernels": [8, 6]},
            "The clips of session 'a' have 12 frames, but temporal_kernels=[8, 6] need at least 13: use longer clips "
            "(chunk_frames) or shorter kernels.",
        ),
        (
            {"spatial_kernels": [5, 4], "pad_hidden": True},
            "spatial_kernels is [5, 4]; a layer that keeps the size of the map (pad_input, pad_hidden) needs an odd",
        ),
        ({"separable": "yes"}, "separable is 'yes'; it must be true or false."),
        (
            {"temporal_kernel": [3, 3]},
            "movie_core_gaussian_readout has no setting 'temporal_kernel'. Did you mean 'temporal_kernels'?",
        ),
        ({"gauss_type": "diagonal"}, "gauss_type is 'diagonal'. Allowed: full, isotropic, uncorrelated."),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(SettingsError, match=re.escape(message)):
        build(**settings)


def test_sessions_that_do_not_fit():
    images = {"a": {"input_dimensions": [1, 1, *SIZE], "output_dimension": 5}}
    message = (
        "session 'a' has images, 1 x 10 x 11, but this model is for movies, (batch, channels, frames, height, width)"
    )
    with pytest.raises(SettingsError, match=re.escape(message)):
        build(info=images)
    info = {**INFO, "b": {"input_dimensions": [1, 1, 12, *SIZE], "output_dimension": 5}}
    with pytest.raises(SettingsError, match="The sessions' movies have different numbers of channels"):
        build(info=info)


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    folder = tmp_path_factory.mktemp("movies") / "one"
    sizes = {"n_train": 3, "n_validation": 1, "n_test": 2, "n_repeats": 3, "n_frames": 120, "n_test_frames": 40}
    return write_movie_recording(folder, n_neurons=12, image_shape=(12, 12), **sizes)


def test_the_generic_movie_format_trains_and_is_scored(recording, tmp_path, monkeypatch):
    monkeypatch.setenv("DECEMBER_PRETRAINING", str(tmp_path / "pretraining"))
    loaders = movie_loaders([str(recording)], 4, chunk_frames=30)
    info = movie_loaders([str(recording)], 4, chunk_frames=30, return_data_info=True)

    def trained():
        model = movie_core_gaussian_readout(loaders, 1, **MODEL)
        settings = {"n_clusters": 2, "pretrain_epochs": 1, "max_iter": 3, "lr_init": 0.03, "device": "cpu"}
        return december_trainer(model, loaders, 1, **settings)

    score, _, state_dict = trained()
    assert np.isfinite(score)
    again = trained()[2]  # the second time with the pretraining of the first
    assert all(torch.equal(value, again[name]) for name, value in state_dict.items())
    embeddings = readout_embeddings(state_dict, unit_ids=unit_ids_of(loaders))
    assert embeddings.vectors.shape == (12, 4)
    model = get_model("december_plugin.models.movie_core_gaussian_readout", MODEL, seed=2, data_info=info)
    model.load_state_dict(state_dict)
    (data_key,) = loaders["test"]
    loader = loaders["test"][data_key]
    session = predict_sessions(model, loaders["test"])[data_key]
    assert session.frames.tolist() == [36] * 6
    ids = stimulus_ids_of(loader, session.frames)
    assert np.unique(ids, return_counts=True)[1].tolist() == [3] * 72
    # Repeats show the same frames, so their predictions are the same.
    means = np.stack([session.predictions[ids == stimulus] for stimulus in range(72)])
    np.testing.assert_allclose(means, means[:, :1].repeat(3, axis=1), atol=1e-5)
    assert np.isfinite(correlation_to_average(session.responses, session.predictions, ids)).all()
