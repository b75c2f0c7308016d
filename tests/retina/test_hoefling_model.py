"""The model of Höfling et al. 2024: openretina's parts in the shape that trainers and tables work on."""

from __future__ import annotations

import copy
import re
from typing import Any

import numpy as np
import pytest
import torch

from december_plugin.datasets import hoefling_2024_loaders
from december_plugin.embeddings.readout_vectors import (
    readout_embeddings,
    readout_vectors,
    stack_readout_vectors,
    unit_ids_of,
)
from december_plugin.errors import SettingsError
from december_plugin.models import hoefling_core_gaussian_readout

FIRST = "session_1_ventral1_20201021"
SMALL = {"hidden_channels": [3, 4], "temporal_kernels": [9, 6], "spatial_kernels": [3, 3]}
INFO = {
    "a": {"input_dimensions": [1, 2, 50, 18, 16], "output_dimension": 3},
    "b": {"input_dimensions": [1, 2, 50, 18, 16], "output_dimension": 5},
}


def build(data: Any, seed: int = 0, **settings: Any) -> Any:
    return hoefling_core_gaussian_readout(data, seed, **{**SMALL, **settings})


def test_defaults_are_the_published_model() -> None:
    model = hoefling_core_gaussian_readout(None, 0, data_info=INFO).eval()
    videos = torch.randn(2, 2, 50, 18, 16)
    # 21 + 11 - 2 frames are lost, and 10 pixels in each direction.
    assert model.core(videos).shape == (2, 16, 20, 8, 6)
    assert model(videos, data_key="a").shape == (2, 20, 3)
    assert model(videos, data_key="b", behavior=None).shape == (2, 20, 5)


def test_it_computes_what_openretinas_modules_compute() -> None:
    from openretina.modules.core.base_core import SimpleCoreWrapper
    from openretina.modules.readout.multi_readout import MultiGaussianMaskReadout

    ours = hoefling_core_gaussian_readout(None, 3, data_info=INFO).eval()
    core = SimpleCoreWrapper(
        channels=(2, 16, 16),
        temporal_kernel_sizes=(21, 11),
        spatial_kernel_sizes=(11, 5),
        gamma_input=0.0,
        gamma_temporal=40.0,
        gamma_in_sparse=0.0,
        gamma_hidden=0.0,
        cut_first_n_frames=0,
        input_padding=False,
        hidden_padding=(0, 2, 2),
    )
    readout = MultiGaussianMaskReadout((16, 20, 8, 6), {"a": 3, "b": 5}, True, True, 6.0, 4.0, True)
    core.load_state_dict(ours.core.state_dict())
    readout.load_state_dict(ours.readout.state_dict())
    videos = torch.randn(2, 2, 50, 18, 16)
    for data_key in INFO:
        theirs = readout.eval()(core.eval()(videos), data_key=data_key)
        assert torch.equal(ours(videos, data_key=data_key), theirs)
        torch.testing.assert_close(ours.readout.regularizer(data_key), readout.regularizer(data_key))
    assert torch.equal(ours.core.regularizer(), core.regularizer())


def test_readout_vectors_are_found_in_model_and_state_dict(hoefling_loaders: dict) -> None:
    model = build(hoefling_loaders)
    vectors = stack_readout_vectors(model)
    assert vectors.shape == (13, 4)
    assert vectors.requires_grad
    stored = readout_embeddings(model.state_dict(), unit_ids=unit_ids_of(hoefling_loaders))
    np.testing.assert_array_equal(stored.vectors, vectors.detach().numpy())
    assert list(stored.unit_ids[stored.sessions[FIRST]]) == [1, 2, 3, 4, 5, 6]


def test_the_adaptive_regularizer_learns_a_coefficient_per_neuron() -> None:
    model = build(None, data_info=INFO, readout_regularizer="adaptive_log_norm", gamma_readout=0.3, gamma_sigma=0.2)
    readout = model.readout["a"]
    coefficients = torch.tensor([0.5, -1.0, 2.0])
    readout.adaptive_neuron_reg_coefs.data.copy_(coefficients)
    expected = 0.0
    for neuron, (vector, coefficient) in enumerate(zip(readout_vectors(readout), coefficients, strict=True)):
        expected += 0.3 * abs(coefficient) * vector.abs().sum() + (abs(coefficient).log() / 0.2) ** 2
        expected += torch.exp(4 * readout.mask_log_var[neuron]) + ((6 * readout.mask_mean[neuron]) ** 2).sum()
    torch.testing.assert_close(model.readout.regularizer("a"), expected)
    assert readout.regularizer(reduction=None).shape == (3,)
    assert readout_embeddings(model.state_dict()).vectors.shape == (8, 4)


def test_biases_start_at_the_mean_rate(hoefling_loaders: dict) -> None:
    readout = build(hoefling_loaders).readout[FIRST]
    mean = hoefling_loaders["train"][FIRST].dataset.mean_responses
    np.testing.assert_allclose(torch.nn.functional.softplus(readout.bias).detach(), mean, rtol=1e-5)
    assert build(hoefling_loaders, bias_start="zero").readout[FIRST].bias.abs().max() == 0
    huge = {"a": {**INFO["a"], "mean_responses": np.array([1e4, 0.0, 5.0], dtype=np.float32)}}
    assert build(None, data_info=huge).readout["a"].bias.isfinite().all()


def test_a_seed_fixes_the_weights_and_nothing_else(hoefling_loaders: dict) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first, again, other = (build(hoefling_loaders, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(
        first["core.features.layer0.conv.weight_spatial"], other["core.features.layer0.conv.weight_spatial"]
    )


def test_loaders_and_data_info_give_the_same_model(hoefling_loaders: dict, hoefling: Any) -> None:
    info = hoefling_2024_loaders(hoefling.responses, hoefling.movie, 16, return_data_info=True)
    described, read = build(None, data_info=info).state_dict(), build(hoefling_loaders).state_dict()
    assert all(torch.equal(described[name], read[name]) for name in read)
    # Loaders whose dataset says nothing about itself are read.
    foreign = {key: torch.utils.data.DataLoader(_Plain(loader)) for key, loader in hoefling_loaders["train"].items()}
    torch.manual_seed(3)
    before = torch.get_rng_state()
    model = build({"train": foreign})
    assert torch.equal(torch.get_rng_state(), before)
    assert {key: readout.outdims for key, readout in model.readout.items()} == {
        key: loader.dataset.n_neurons for key, loader in hoefling_loaders["train"].items()
    }


class _Plain(torch.utils.data.Dataset):
    def __init__(self, loader: Any):
        self.stretches = [loader.dataset[start] for start in (0, 50, 100)]

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> dict:
        return self.stretches[index]._asdict()


def test_a_model_that_has_seen_a_batch_can_be_copied(hoefling_loaders: dict) -> None:
    model = build(hoefling_loaders)
    batch = next(iter(hoefling_loaders["train"][FIRST]))
    model(batch.videos, data_key=FIRST).sum().backward()
    assert torch.equal(copy.deepcopy(model).readout[FIRST].features, model.readout[FIRST].features)


def test_marmoset_movies_fit_too(sridhar_loaders: dict) -> None:
    model = build(sridhar_loaders, temporal_kernels=[4, 3])
    batch = next(iter(sridhar_loaders["train"]["retina_01"]))
    assert model(batch.videos, data_key="retina_01").shape == (4, 10, 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hiden_channels": [2]}, "has no setting 'hiden_channels'. Did you mean 'hidden_channels'?"),
        ({"hidden_channels": 16}, "hidden_channels is 16; a list with one number for each layer is expected"),
        (
            {"temporal_kernels": [9]},
            "temporal_kernels is [9]; a list with one number for each layer is expected, as many",
        ),
        ({"temporal_kernels": [9, 2]}, "temporal_kernels is 2; it must be at least 3."),
        (
            {"temporal_kernels": [40, 12]},
            "the videos have 50 frames, but temporal_kernels=[40, 12] need at least 51: use",
        ),
        (
            {"spatial_kernels": [17, 3]},
            "the videos have 18 x 16 pixels, but spatial_kernels=[17, 3] need at least 17 x 17",
        ),
        (
            {"spatial_kernels": [3, 4]},
            "spatial_kernels is [3, 4]; with pad_hidden=True those after the first must be odd",
        ),
        ({"gamma_temporal": -1}, "gamma_temporal is -1; it must be a number of at least 0."),
        ({"readout_regularizer": "l2"}, "readout_regularizer is 'l2'. Allowed: adaptive_log_norm, l1."),
        ({"bias_start": "mean"}, "bias_start is 'mean'. "),
        ({"pad_hidden": 1}, "pad_hidden is 1; it must be true or false."),
    ],
)
def test_a_setting_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        build(None, data_info=INFO, **settings)


def test_sessions_that_do_not_fit_are_refused() -> None:
    with pytest.raises(SettingsError, match="A model needs dataloaders or data_info to know its sessions"):
        build(None)
    images = {"a": {"input_dimensions": [1, 1, 36, 64], "output_dimension": 3}}
    with pytest.raises(SettingsError, match="session 'a' has images, 1 x 36 x 64, but this model is for movies"):
        build(None, data_info=images)
    mixed = {**INFO, "b": {"input_dimensions": [1, 1, 50, 18, 16], "output_dimension": 3}}
    with pytest.raises(
        SettingsError, match=r"videos differ in channels or size \(a: \(2, 18, 16\), b: \(1, 18, 16\)\)"
    ):
        build(None, data_info=mixed)


def test_hidden_layers_without_padding_shrink_the_map() -> None:
    model = build(None, data_info=INFO, spatial_kernels=[3, 4], pad_hidden=False)
    assert model.core(torch.randn(1, 2, 50, 18, 16)).shape == (1, 4, 37, 13, 11)
