"""Models of images beside the baseline: attention and factorized readouts, equivariant and task-driven cores."""

from __future__ import annotations

import copy
import importlib
import math
import re
import sys
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pytest
import torch
from neuralpredictors.layers import hermite
from nnfabrik.builder import get_model
from torch import nn

from december_plugin.embeddings.readout_vectors import readout_embeddings, unit_ids_of
from december_plugin.errors import SettingsError
from december_plugin.models import (
    equivariant_core_factorized_readout,
    equivariant_core_gaussian_readout,
    stacked_core_attention_readout,
    stacked_core_factorized_readout,
    task_core_attention_readout,
)
from december_plugin.models.layers.equivariant_core import EquivariantCore
from december_plugin.models.layers.steerable import hermite_basis, rotated_bases
from december_plugin.trainers import december_trainer
from helpers.image_models import INFO, SMALL, TURNED, Network
from helpers.trainings import N_NEURONS, make_loaders

pytestmark = pytest.mark.usefixtures("own_pretrainings")

MODELS = {
    "attention": (stacked_core_attention_readout, {**SMALL, "gamma_readout": 0.01}, 4),
    "attention, two layers": (
        stacked_core_attention_readout,
        {**SMALL, "attention_layers": 2, "attention_kernel": 3, "readout_regularizer": "adaptive_log_norm"},
        4,
    ),
    "factorized": (stacked_core_factorized_readout, {**SMALL, "readout_regularizer": "adaptive_log_norm"}, 4),
    "equivariant": (equivariant_core_gaussian_readout, {**TURNED, "gamma_hidden": 0.1}, 8),
    "equivariant, factorized": (equivariant_core_factorized_readout, TURNED, 8),
}


@pytest.fixture(scope="module")
def loaders():
    """Load images of 8 x 8 pixels in two sessions, of another package."""
    return make_loaders()


@pytest.fixture(params=MODELS)
def case(request):
    """Return a model function, small settings and the length of its readout vectors."""
    return MODELS[request.param]


class TestEveryModel:
    def test_december_trains_it_and_its_readout_vectors_are_found(self, case, loaders):
        build, settings, width = case
        model = build(loaders, 1, **settings)
        score, output, state_dict = december_trainer(
            model, loaders, 1, n_clusters=2, pretrain_epochs=1, max_iter=3, lr_init=0.03, device="cpu", verbose=False
        )
        assert np.isfinite(score)
        assert output["mixture"]["centers"].shape == (2, width)
        unit_ids = unit_ids_of(loaders)
        embeddings = readout_embeddings(state_dict, unit_ids=unit_ids)
        assert embeddings.vectors.shape == (sum(N_NEURONS.values()), width)
        np.testing.assert_array_equal(embeddings.vectors, readout_embeddings(model, unit_ids=unit_ids).vectors)

    def test_same_seed_same_bytes_and_no_trace_in_the_global_state(self, case, loaders):
        build, settings, _ = case
        torch.manual_seed(3)
        first = build(loaders, 5, **settings).state_dict()
        drawn = torch.rand(1)
        again = build(loaders, 5, **settings).state_dict()
        other = build(loaders, 6, **settings).state_dict()
        assert all(torch.equal(first[name], again[name]) for name in first)
        assert not all(torch.equal(first[name], other[name]) for name in first)
        torch.manual_seed(3)
        assert torch.equal(drawn, torch.rand(1))

    def test_is_built_from_a_description_and_by_name(self, case):
        build, settings, width = case
        model = get_model(f"december_plugin.models.{build.__name__}", settings, seed=1, data_info=INFO)
        assert model(torch.zeros(2, 1, 9, 9), data_key="a").shape == (2, 5)
        assert readout_embeddings(model).vectors.shape == (5, width)
        copy.deepcopy(model.eval())

    def test_neurons_without_drive_start_at_their_mean_response(self, case):
        build, settings, _ = case
        info = {"a": {**INFO["a"], "mean_responses": np.array([0.2, 1.0, 3.0, 0.5, 2.0])}}
        model = build(None, 1, data_info=info, elu_offset=0.4, **settings).eval()
        features = dict(model.readout["a"].named_parameters())
        features.get("_features", features.get("features")).data.zero_()
        rates = model(torch.randn(2, 1, 9, 9), data_key="a")
        torch.testing.assert_close(rates[0], torch.tensor([0.2, 1.0, 3.0, 0.5, 2.0]), rtol=1e-5, atol=1e-6)

    def test_movies(self, case):
        build, settings, _ = case
        info = {"a": {**INFO["a"], "input_dimensions": [1, 1, 20, 9, 9]}}
        message = "session 'a' has movies of 20 frames, but this model is for images. Use movie_core_gaussian_readout"
        with pytest.raises(SettingsError, match=re.escape(message)):
            build(None, 1, data_info=info, **settings)

    def test_images_that_are_too_small(self, case):
        build, settings, _ = case
        with pytest.raises(SettingsError, match="The images of session 'a' have 9 x 9 pixels, but input_kern=11 and"):
            build(None, 1, data_info=INFO, **{**settings, "input_kern": 11})


def test_rates_of_an_attention_readout_by_a_plain_loop():
    model = stacked_core_attention_readout(None, 1, data_info=INFO, **SMALL).eval()
    readout = model.readout["a"]
    readout.features.data.normal_()
    images = torch.randn(2, 1, 9, 9)
    maps, found = model.core(images), model(images, data_key="a")
    weight, bias = readout.attention[0].weight[:, :, 0, 0], readout.attention[0].bias
    for trial in range(2):
        for neuron in range(5):
            pixels = maps[trial].flatten(1)
            attention = torch.softmax(weight[neuron] @ pixels + bias[neuron], dim=0)
            drive = (readout.features[neuron] * (pixels * attention).sum(dim=1)).sum() + readout.bias[neuron]
            torch.testing.assert_close(found[trial, neuron], nn.functional.elu(drive) + 1)


def test_the_factorized_readouts_penalties():
    settings = {**SMALL, "gamma_readout": 0.5, "gamma_masks": 0.25}
    readout = stacked_core_factorized_readout(None, 1, data_info=INFO, **settings).readout["a"]
    masks = readout.spatial.detach().flatten(1)
    masks = masks / (masks.norm(dim=1, keepdim=True) + 1e-6)
    expected = 0.5 * readout.features.abs().sum() + 0.25 * masks.abs().sum()
    assert readout.regularizer().item() == pytest.approx(expected.item(), rel=1e-5)


class TestEquivariance:
    def test_turning_the_image_by_90_degrees_rolls_the_orientations_by_a_quarter(self):
        torch.manual_seed(0)
        core = EquivariantCore(
            input_channels=2,
            features=3,
            orientations=8,
            kernels=[13, 5, 5],
            paddings=[0, 2, 2],
            gamma_input=1.0,
            gamma_hidden=1.0,
            upsampling=2,
            batch_norm=True,
            momentum=0.9,
            final_nonlinearity=True,
        ).double()
        images = torch.randn(3, 2, 20, 24, dtype=torch.float64)
        core(images)  # gives the normalisation statistics
        core.eval()
        turned = core(images.rot90(1, (2, 3))).unflatten(1, (8, 3))
        expected = core(images).unflatten(1, (8, 3)).roll(8 // 4, dims=1).rot90(1, (3, 4))
        torch.testing.assert_close(turned, expected, rtol=0, atol=1e-12)
        assert turned.std() > 0.1
        assert (turned - turned.roll(1, dims=1)).abs().max() > 0.1  # the orientations differ

    def test_a_readout_whose_vector_is_rolled_answers_the_turned_image_alike(self):
        info = {"a": {"input_dimensions": [1, 1, 11, 11], "output_dimension": 4}}
        settings = {**TURNED, "orientations": 8, "features": 3}
        model = equivariant_core_gaussian_readout(None, 2, data_info=info, **settings).double().eval()
        readout, images = model.readout["a"], torch.randn(5, 1, 11, 11, dtype=torch.float64)
        readout._features.data.normal_()
        readout._mu.data.zero_()
        before = model(images, data_key="a")
        vectors = readout_embeddings(model).vectors.reshape(4, 8, 3)  # orientation-major
        rolled = torch.as_tensor(np.roll(vectors, 2, axis=1).reshape(4, 24)).T
        readout._features.data = rolled.reshape(readout._features.shape)
        after = model(images.rot90(1, (2, 3)), data_key="a")
        torch.testing.assert_close(after, before, rtol=0, atol=1e-12)

    def test_a_turned_mask_and_a_rolled_vector_answer_the_turned_image_alike(self):
        info = {"a": {"input_dimensions": [1, 1, 11, 11], "output_dimension": 4}}
        model = equivariant_core_factorized_readout(None, 2, data_info=info, **TURNED).double().eval()
        readout, images = model.readout["a"], torch.randn(5, 1, 11, 11, dtype=torch.float64)
        readout.features.data.normal_()
        readout.spatial.data.normal_()
        before = model(images, data_key="a")
        readout.spatial.data = readout.spatial.data.rot90(1, (1, 2))
        vectors = torch.as_tensor(readout_embeddings(model).vectors.reshape(4, 4, 2))  # orientation-major
        readout.features.data.copy_(vectors.roll(1, dims=1).reshape(4, 8).reshape(readout.features.shape))
        after = model(images.rot90(1, (2, 3)), data_key="a")
        torch.testing.assert_close(after, before, rtol=0, atol=1e-6)

    @pytest.mark.parametrize("size", [3, 5, 8, 13])
    def test_the_filters_are_neuralpredictors_hermite_functions(self, size, monkeypatch):
        # On current Python its factorial is given a float.
        monkeypatch.setattr(hermite, "math", SimpleNamespace(factorial=lambda value: math.factorial(int(value))))
        reference, *_ = hermite.hermite_2d(size, 2 * size, 2 * np.sqrt(size))
        reference = reference.reshape(-1, size, 2, size, 2).sum(axis=(2, 4)).reshape(len(reference), -1)
        found = hermite_basis(size).reshape(len(reference), -1)
        for function in found:  # in another order, and some with another sign
            distances = np.minimum(abs(reference - function).max(axis=1), abs(reference + function).max(axis=1))
            assert distances.min() < 1e-12

    def test_turned_filters_are_those_of_the_turned_functions(self):
        for orientation, basis in enumerate(rotated_bases(7, 8)):
            np.testing.assert_allclose(basis, hermite_basis(7, angle=orientation * np.pi / 4), atol=1e-12)
        assert rotated_bases(3, 6).shape == (6, 6, 3, 3)

    def test_penalties(self):
        model = equivariant_core_gaussian_readout(
            None, 1, data_info=INFO, **{**TURNED, "gamma_input": 2.0, "gamma_hidden": 3.0}
        )
        first, second = (layer.conv.filters().detach() for layer in model.core.features)
        padded = nn.functional.pad(first, (1, 1, 1, 1))
        kernel = torch.tensor([[0.0, -1.0, 0.0], [-1.0, 4.0, -1.0], [0.0, -1.0, 0.0]])
        laplacian = nn.functional.conv2d(padded.flatten(0, 1)[:, None], kernel[None, None])
        expected = 2 * laplacian.square().sum() / first.square().sum() + 3 * second.norm(dim=(2, 3)).mean()
        assert model.core.regularizer().item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("build", "settings", "message"),
    [
        (
            equivariant_core_gaussian_readout,
            {"orientations": 6},
            "orientations is 6; it must be a multiple of 4, such as 8.",
        ),
        (equivariant_core_gaussian_readout, {"hidden_kern": 4}, "hidden_kern is 4; it must be odd."),
        (equivariant_core_gaussian_readout, {"pad_input": True, "input_kern": 4}, "input_kern is 4; it must be odd."),
        (
            equivariant_core_gaussian_readout,
            {"orientation": 8},
            "equivariant_core_gaussian_readout has no setting 'orientation'. Did you mean 'orientations'?",
        ),
        (equivariant_core_factorized_readout, {"orientations": 2}, "orientations is 2; it must be at least 4."),
        (
            equivariant_core_factorized_readout,
            {"init_mu_range": 0.3},
            "equivariant_core_factorized_readout has no setting 'init_mu_range'.",
        ),
        (
            equivariant_core_factorized_readout,
            {"input_kern": 13},
            "have 9 x 9 pixels, but input_kern=13",
        ),
        (stacked_core_attention_readout, {"attention_kernel": 2}, "attention_kernel is 2; it must be odd."),
        (stacked_core_attention_readout, {"init_noise": 0}, "init_noise is 0; it must be a number above 0."),
        (stacked_core_factorized_readout, {"gamma_masks": -1}, "gamma_masks is -1; it must be a number of at least 0."),
        (stacked_core_factorized_readout, {"bias_start": "mean"}, "bias_start is 'mean'."),
    ],
)
def test_settings_that_do_not_fit(build, settings, message):
    small = TURNED if "equivariant" in build.__name__ else SMALL
    with pytest.raises(SettingsError, match=re.escape(message)):
        build(None, 0, data_info=INFO, **{**small, **settings})


@pytest.fixture
def torchvision(monkeypatch):
    """Put a torchvision in place that has one network; count what it is asked for."""
    asked = []

    def get_model(name, weights=None):
        asked.append((name, weights))
        return Network()

    models = SimpleNamespace(
        list_models=lambda module: ["resnet50", "alexnet"],
        get_model_weights=lambda name: [SimpleNamespace(name="IMAGENET1K_V1")],
        get_model=get_model,
    )
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    return asked


class TestTaskCore:
    settings = MappingProxyType({"layer": "bn1", "gamma_readout": 0.01})

    def test_features_of_a_frozen_network(self, torchvision, loaders):
        model = task_core_attention_readout(loaders, 1, **self.settings)
        assert torchvision == [("resnet50", "DEFAULT")]
        before = {name: value.clone() for name, value in model.core.network.state_dict().items()}
        _, output, state_dict = december_trainer(
            model, loaders, 1, n_clusters=2, pretrain_epochs=1, max_iter=2, lr_init=0.03, device="cpu", verbose=False
        )
        assert output["mixture"]["centers"].shape == (2, 6)
        assert readout_embeddings(state_dict).vectors.shape == (23, 6)
        assert all(torch.equal(value, before[name]) for name, value in model.core.network.state_dict().items())
        images = torch.randn(2, 1, 8, 8)
        network = model.core.network
        features = network.bn1(network.conv1(images.expand(-1, 3, -1, -1)))
        expected = torch.relu(model.core.norm(features))  # not rectified twice, though the network goes on in place
        torch.testing.assert_close(model.core(images), expected)

    def test_a_network_that_is_trained_too(self, torchvision):
        model = task_core_attention_readout(None, 1, data_info=INFO, fine_tune=True, **self.settings)
        model(torch.randn(2, 1, 9, 9), data_key="a").sum().backward()
        assert model.core.network.conv1.weight.grad.abs().sum() > 0
        assert model.core.network.training
        frozen = task_core_attention_readout(None, 1, data_info=INFO, **self.settings)
        assert not frozen.train().core.network.training

    def test_weights_of_a_file(self, torchvision, tmp_path):
        network, path = Network(), tmp_path / "weights.pt"
        torch.save({"state_dict": {f"module.{name}": value for name, value in network.state_dict().items()}}, path)
        model = task_core_attention_readout(None, 1, data_info=INFO, weights_file=str(path), **self.settings)
        assert torch.equal(model.core.network.conv1.weight, network.conv1.weight)
        assert torchvision == [("resnet50", None)]

    def test_seeds(self, torchvision):
        first, again, other = (task_core_attention_readout(None, s, data_info=INFO, **self.settings) for s in (1, 1, 2))
        assert torch.equal(first.core.network.conv1.weight, again.core.network.conv1.weight)
        assert not torch.equal(first.core.network.conv1.weight, other.core.network.conv1.weight)

    def test_files_that_do_not_fit(self, torchvision, tmp_path):
        def build(content):
            path = tmp_path / "weights.pt"
            path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
            task_core_attention_readout(None, 1, data_info=INFO, weights_file=str(path), **self.settings)

        state = Network().state_dict()
        with pytest.raises(SettingsError, match="does not fit the network 'resnet50': it has no entry 'fc"):
            build({name: value for name, value in state.items() if name != "fc.bias"})
        with pytest.raises(SettingsError, match=r"it has 'fc\.bias' in another shape"):
            build({**state, "fc.bias": torch.zeros(7)})
        with pytest.raises(SettingsError, match="cannot be read as a state dict"):
            build(b"not a file of torch")
        with pytest.raises(SettingsError, match="cannot be read as a state dict"):
            build(Network())  # a whole module would run code
        with pytest.raises(SettingsError, match="does not contain a state dict: names and tensors are expected"):
            build([torch.zeros(2)])
        with pytest.raises(SettingsError, match=r"weights_file is '/nowhere/weights\.pt', which does not exist"):
            task_core_attention_readout(None, 1, data_info=INFO, weights_file="/nowhere/weights.pt", **self.settings)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"network": "resnet5"}, "network is 'resnet5'. Did you mean 'resnet50'?"),
            ({"layer": "bn2"}, "layer is 'bn2'. Did you mean 'bn1'?"),
            ({"layer": "fc"}, "layer 'fc' has an output of shape (1, 2); an attention readout needs a map"),
            ({"weights": "IMAGENET1K_V3"}, "weights is 'IMAGENET1K_V3'. Did you mean 'IMAGENET1K_V1'?"),
            (
                {"weights": "IMAGENET1K_V1", "weights_file": "a.pt"},
                "weights and weights_file are both given; a network has one set of weights.",
            ),
        ],
    )
    def test_settings_that_do_not_fit(self, torchvision, settings, message):
        with pytest.raises(SettingsError, match=re.escape(message)):
            task_core_attention_readout(None, 1, data_info=INFO, **{**self.settings, **settings})

    def test_images_that_do_not_fit(self, torchvision):
        info = {"a": {"input_dimensions": [1, 2, 9, 9], "output_dimension": 5}}
        with pytest.raises(SettingsError, match="the images have 2 channels, but a network trained on a task takes 1"):
            task_core_attention_readout(None, 1, data_info=info, **self.settings)
        info = {"a": {"input_dimensions": [1, 1, 2, 2], "output_dimension": 5}}
        with pytest.raises(SettingsError, match="The images of session 'a' have 2 x 2 pixels, too few for layer 'bn1'"):
            task_core_attention_readout(None, 1, data_info=info, **self.settings)

    def test_without_torchvision(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "torchvision", None)
        monkeypatch.delitem(sys.modules, "torchvision.models", raising=False)
        with pytest.raises(ImportError):
            importlib.import_module("torchvision.models")
        message = "a task-driven core needs torchvision, which is not installed. Install the torchvision release that"
        with pytest.raises(SettingsError, match=re.escape(message)):
            task_core_attention_readout(None, 1, data_info=INFO)

    def test_a_torchvision_of_another_torch(self, monkeypatch):
        def fail(name):
            raise RuntimeError("operator torchvision::nms does not exist")

        monkeypatch.setattr(importlib, "import_module", fail)
        message = (
            f"which does not work with torch {torch.__version__} (operator torchvision::nms does not exist). Install"
        )
        with pytest.raises(SettingsError, match=re.escape(message)):
            task_core_attention_readout(None, 1, data_info=INFO)
