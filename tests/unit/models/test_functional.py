"""Functional embeddings of the package's own models, with recordings: behaviour, shifter, movies, resident data."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from december_plugin.datasets import static_loaders
from december_plugin.embeddings import feature_covariance, functional_embeddings
from december_plugin.embeddings.batches import split_batch
from december_plugin.embeddings.received_features import core_output_and_shift, received_features
from december_plugin.models import (
    equivariant_core_gaussian_readout,
    movie_core_gaussian_readout,
    stacked_core_attention_readout,
    stacked_core_factorized_readout,
    stacked_core_gaussian_readout,
)
from december_plugin.training.resident import resident_loaders
from helpers import pages
from helpers.clips import MODEL, movie_loaders_in_memory
from helpers.image_models import TURNED

SIZES = {"hidden_channels": 4, "layers": 3, "input_kern": 5, "hidden_kern": 3}
BUILDERS = {
    "Gaussian": (stacked_core_gaussian_readout, SIZES),
    "attention": (stacked_core_attention_readout, SIZES),
    "factorized": (stacked_core_factorized_readout, SIZES),
    "equivariant": (equivariant_core_gaussian_readout, TURNED),
}


@pytest.fixture(scope="module")
def loaders(recording_folders):
    return static_loaders(recording_folders, 16, include_behavior=True, include_eye_position=True)


def with_neurons_elsewhere(model):
    """Give the readouts weights that differ, and a shifter that shifts."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if not name.startswith("core."):
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def from_all_features(model, loaders):
    """Return the covariance from all features at once."""
    covariances = []
    for data_key, loader in loaders.items():
        received = []
        for batch in loader:
            inputs, _, extras = split_batch(batch)
            core_output, shift = core_output_and_shift(model, data_key, inputs, extras)
            received.append(received_features(model.readout[data_key], core_output, shift=shift))
        features = torch.cat(received).double().numpy()
        covariances += [np.cov(features[:, neuron].T) for neuron in range(features.shape[1])]
    return np.mean(covariances, axis=0)


@pytest.mark.parametrize("name", BUILDERS)
@torch.no_grad()
def test_with_behaviour_and_shifter(loaders, name):
    builder, sizes = BUILDERS[name]
    model = with_neurons_elsewhere(builder(loaders, 0, **sizes))
    if name == "Gaussian":
        assert model.shifter is not None
    expected = from_all_features(model, loaders["train"])
    found = feature_covariance(model.train(), loaders, n_images=None)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())
    embeddings = functional_embeddings(model, loaders)
    assert embeddings.unit_ids is not None
    assert embeddings.vectors.shape == (sum(len(r.bias) for r in model.readout.values()), len(expected))


@torch.no_grad()
def test_of_movies():
    loaders = movie_loaders_in_memory()
    model = with_neurons_elsewhere(movie_core_gaussian_readout(loaders, 0, **MODEL)).eval()
    expected = from_all_features(model, loaders["train"])
    np.testing.assert_allclose(feature_covariance(model, loaders, n_images=None), expected, rtol=1e-4, atol=1e-7)


def test_data_on_the_device_give_the_same_bytes(loaders):
    model = stacked_core_gaussian_readout(loaders, 0, **SIZES)
    held = resident_loaders(loaders, torch.device("cpu"), True)
    assert held is not None
    of_both = [feature_covariance(model, each, n_images=20).tobytes() for each in (loaders, held)]
    assert of_both[0] == of_both[1]


def test_the_code_on_the_page_runs(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        image = rng.integers(0, 256, size=(36, 64), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / "images" / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    info = {"a": {"input_dimensions": [1, 1, 36, 64], "output_dimension": 60}}
    built = [
        stacked_core_gaussian_readout(None, seed, data_info=info, grid_mean_predictor=None, bias_start="zero", **SIZES)
        for seed in (0, 1)
    ]
    dataset = TensorDataset(torch.randn(20, 1, 36, 64), torch.zeros(20, 60))
    dataset.neurons = SimpleNamespace(unit_ids=np.arange(60))
    loaders = {"train": {"a": DataLoader(dataset, batch_size=8, shuffle=True)}}
    names = {"model": built[0], "other_model": built[1], "dataloaders": loaders}
    for block in pages.claim("docs/functional-embeddings.md", "python"):
        block.run(names)
    assert names["embeddings"].vectors.shape == (60, 4)
    assert names["sigma"].shape == (4, 4)
    assert issubclass(names["Readout"], torch.nn.Module)
