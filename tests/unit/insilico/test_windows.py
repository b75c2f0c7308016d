"""Neurons that see windows of images respond as they do to the whole images."""

import numpy as np
import pytest
import torch

from december_plugin import models
from december_plugin.insilico import Canvas
from december_plugin.insilico.responses import NeuronResponses
from december_plugin.insilico.windows import Windows

SIZE = (24, 30)
INFO = {"a": {"input_dimensions": [1, 2, *SIZE], "output_dimension": 60}}
SETTINGS = {"grid_mean_predictor": None, "bias_start": "zero", "init_mu_range": 0.98}
STACKED = {"hidden_channels": 3, "layers": 3, "input_kern": 5, "hidden_kern": 3}
CORES = {
    "stacked": lambda: models.stacked_core_gaussian_readout(None, 0, data_info=INFO, **STACKED, **SETTINGS),
    "padded, dilated, not separable": lambda: models.stacked_core_gaussian_readout(
        *(None, 0),
        data_info=INFO,
        **STACKED,
        **SETTINGS,
        pad_input=True,
        hidden_dilation=2,
        depth_separable=False,
    ),
    "rotation-equivariant": lambda: models.equivariant_core_gaussian_readout(
        *(None, 0), data_info=INFO, features=2, orientations=4, layers=2, input_kern=5, hidden_kern=3, **SETTINGS
    ),
}


@pytest.mark.parametrize("name", CORES)
def test_responses_and_gradients_are_those_of_the_whole_image_up_to_its_edges(name):
    model = CORES[name]().eval().double()
    generator = torch.Generator().manual_seed(0)
    for buffer in (buffer for key, buffer in model.named_buffers() if "running_mean" in key):
        buffer.normal_(generator=generator)
    readout = model.readout["a"]
    readout.features.data.normal_(generator=generator)
    readout.mu.data[0, :4, 0] = torch.tensor([[-1.0, -1], [1, 1], [1, -1], [-1, 1]], dtype=torch.float64)
    neurons = torch.arange(60)
    responses = NeuronResponses(model, "a", neurons, Canvas((2, *SIZE), image_channels=1, behavior=(0.7,)))
    assert responses.windows is not None
    images = torch.randn(60, 1, *SIZE, generator=generator, dtype=torch.float64, requires_grad=True)
    found = responses(images, neurons)
    inputs = torch.cat([images, torch.full_like(images, 0.7)], dim=1)
    expected = model(inputs, data_key="a").diagonal()
    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-10)
    gradients = [torch.autograd.grad(each.sum(), images)[0] for each in (found, expected)]
    assert torch.allclose(*gradients, rtol=1e-9, atol=1e-10)
    alone = images[:1].detach().requires_grad_()
    of_one = torch.autograd.grad(responses(alone, neurons[:1]).sum(), alone)[0]
    assert torch.allclose(of_one, gradients[1][:1], rtol=1e-9, atol=1e-10)
    assert torch.equal(model(inputs, data_key="a").diagonal(), expected)  # the core is as before


def test_other_cores_have_no_windows():
    image = torch.zeros(1, 1, *SIZE)
    strided = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3, stride=2))
    pooled = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.MaxPool2d(2))
    wide = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 23))
    reflecting = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"))
    averaged = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.AvgPool2d(3, stride=1, padding=1))
    for core in (strided, pooled, wide, averaged):
        assert Windows.of(core, image) is None
    assert Windows.of(reflecting, image) is None
    again = torch.nn.Conv2d(1, 1, 3, padding=1)
    assert Windows.of(torch.nn.Sequential(again, again), image) is None
    found = Windows.of(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 5), torch.nn.Conv2d(2, 2, 3, padding=1)), image)
    assert found is not None
    assert (found.size, found.before, found.map_size) == ((8, 8), (1, 1), (20, 26))


def test_a_core_that_takes_something_else_than_the_inputs_is_shown_whole_images():
    class Model(torch.nn.Module):
        def __init__(self, whole):
            super().__init__()
            self.core, self.readout = whole.core, whole.readout

        def forward(self, inputs, data_key=None):
            return self.readout(self.core(inputs[:, :, None].mean(dim=2)[:, [0, 1]]), data_key=data_key)

    whole = CORES["stacked"]().eval()
    canvas = Canvas((3, *SIZE))  # the third channel is not for the core
    responses = NeuronResponses(Model(whole), "a", torch.arange(60), canvas)
    assert responses.windows is None
    assert responses.reading is not None


def test_a_convolution_with_a_forward_pass_of_its_own_keeps_it():
    model = CORES["stacked"]().eval()
    first = next(module for module in model.core.modules() if isinstance(module, torch.nn.Conv2d))
    own = first.forward = lambda maps, forward=first.forward: forward(maps)
    responses = NeuronResponses(model, "a", torch.arange(60), Canvas((2, *SIZE)))
    assert responses.windows is not None
    assert vars(first)["forward"] is own


def test_a_core_that_is_no_chain_is_shown_whole_images():
    model = models.stacked_core_gaussian_readout(
        *(None, 0), data_info=INFO, **STACKED, **SETTINGS, pad_input=True, stack=[0, 2]
    ).eval()
    model.readout["a"].features.data.normal_(generator=torch.Generator().manual_seed(0))
    responses = NeuronResponses(model, "a", torch.arange(60), Canvas((2, *SIZE)))
    assert responses.windows is None
    images = torch.randn(60, 2, *SIZE)
    expected = model(images, data_key="a").diagonal().detach().numpy()
    assert responses(images, torch.arange(60)).detach().numpy() == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert np.isfinite(expected).all()
