"""The baseline model against one built by hand, its start, its inputs, and settings that do not fit."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from neuralpredictors.data.datasets import FileTreeDataset
from neuralpredictors.data.transforms import NeuroNormalizer, ToTensor
from neuralpredictors.layers.cores import Stacked2dCore
from neuralpredictors.layers.encoders import FiringRateEncoder
from neuralpredictors.layers.readouts import FullGaussian2d, MultiReadoutSharedParametersBase
from neuralpredictors.layers.shifters import MLPShifter
from nnfabrik.builder import get_all_parts, get_model
from torch.utils.data import DataLoader

from december_plugin.datasets import static_loaders
from december_plugin.errors import SettingsError
from december_plugin.models import stacked_core_gaussian_readout

SIZES = {"hidden_channels": 4, "layers": 3, "input_kern": 5, "hidden_kern": 3}


@pytest.fixture(scope="module")
def loaders(recording_folders):
    """Load images, behaviour as channels, and pupil positions."""
    return static_loaders(recording_folders, 16, include_behavior=True, include_eye_position=True)


def built_by_hand(loaders, seed):
    """Build SENSORIUM's model from neuralpredictors' parts, in its order."""

    class Readouts(MultiReadoutSharedParametersBase):
        _base_readout = FullGaussian2d

    train = loaders["train"]
    torch.manual_seed(seed)
    core = Stacked2dCore(
        input_channels=4,
        hidden_channels=4,
        input_kern=5,
        hidden_kern=3,
        layers=3,
        gamma_input=6.3831,
        momentum=0.9,
        pad_input=False,
        laplace_padding=None,
        input_regularizer="LaplaceL2norm",
        use_avg_reg=False,
        depth_separable=True,
        stack=-1,
    )
    neurons = {key: loader.dataset.neurons for key, loader in train.items()}
    readout = Readouts(
        in_shape_dict=dict.fromkeys(train, (4, 8, 10)),
        n_neurons_dict={key: len(neurons[key].unit_ids) for key in train},
        bias=True,
        init_mu_range=0.3,
        init_sigma=0.1,
        feature_reg_weight=0.0076,
        gauss_type="full",
        grid_mean_predictor={"hidden_layers": 1, "hidden_features": 30, "final_tanh": True},
        grid_mean_predictor_type="cortex",
        source_grids={key: neurons[key].cell_motor_coordinates[:, :2] for key in train},
    )
    shifter = MLPShifter(data_keys=list(train), input_channels=2, hidden_channels_shifter=5, shift_layers=3)
    return FiringRateEncoder(core=core, readout=readout, shifter=shifter)


def test_is_sensoriums_model(loaders):
    model = stacked_core_gaussian_readout(loaders, 7, bias_start="zero", **SIZES)
    reference = built_by_hand(loaders, 7)
    state, expected = model.state_dict(), reference.state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], expected[name]) for name in state)
    for data_key, loader in loaders["train"].items():
        batch = next(iter(loader))
        for module in (model, reference):
            module.zero_grad()
            torch.manual_seed(1)
            module.prediction = module(batch.images, data_key=data_key, pupil_center=batch.pupil_center)
            (module.prediction.square().sum() + module.regularizer(data_key=data_key)).backward()
        assert torch.equal(model.prediction, reference.prediction)
        for parameter, other in zip(model.parameters(), reference.parameters(), strict=True):
            if other.grad is not None:
                torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-4, atol=1e-3)


def test_same_seed_same_bytes_and_no_trace_in_the_global_state(small_loaders):
    torch.manual_seed(11)
    first = stacked_core_gaussian_readout(small_loaders, 3, **SIZES).state_dict()
    drawn = torch.rand(1)
    torch.rand(5)
    second = stacked_core_gaussian_readout(small_loaders, 3, **SIZES).state_dict()
    other = stacked_core_gaussian_readout(small_loaders, 4, **SIZES).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["core.features.layer0.conv.weight"], other["core.features.layer0.conv.weight"])
    torch.manual_seed(11)
    assert torch.equal(drawn, torch.rand(1))


def test_neurons_without_drive_start_at_their_mean_response(small_loaders):
    model = stacked_core_gaussian_readout(small_loaders, 0, **SIZES, elu_offset=0.3).eval()
    for data_key, loader in small_loaders["train"].items():
        model.readout[data_key]._features.data.zero_()
        batches = list(loader)
        with torch.no_grad():
            rates = model(batches[0].images, data_key=data_key)
        mean = torch.cat([batch.responses for batch in batches]).mean(0).clamp_min(0.01)
        torch.testing.assert_close(rates, mean.expand_as(rates), rtol=1e-4, atol=1e-5)


def test_is_built_from_a_description_as_from_loaders(recording_folders, loaders):
    info = static_loaders(
        recording_folders, 16, include_behavior=True, include_eye_position=True, return_data_info=True
    )
    model = get_model(stacked_core_gaussian_readout, SIZES, seed=5, data_info=info)
    expected = get_model("december_plugin.models.stacked_core_gaussian_readout", SIZES, dataloaders=loaders, seed=5)
    state, expected_state = model.state_dict(), expected.state_dict()
    assert list(state) == list(expected_state)
    assert all(torch.equal(state[name], expected_state[name]) for name in state)
    bare = {
        key: {"input_dimensions": [32, 4, 12, 14], "input_channels": 4, "output_dimension": value["output_dimension"]}
        for key, value in info.items()
    }
    model = stacked_core_gaussian_readout(None, 5, data_info=bare, grid_mean_predictor=None, **SIZES)
    assert model.readout["first"].bias.shape == (20,)
    assert not model.readout["first"].bias.any()
    assert model.shifter is None


def test_takes_loaders_of_neuralpredictors(recording_folders, small_loaders):
    loaders = {}
    for data_key, folder in zip(("first", "second_v2"), recording_folders, strict=True):
        dataset = FileTreeDataset(str(folder), "images", "responses")
        dataset.transforms.extend([NeuroNormalizer(dataset), ToTensor(cuda=False)])
        trials = np.flatnonzero(dataset.trial_info.tiers == "train")
        loaders[data_key] = DataLoader(dataset, sampler=torch.utils.data.SubsetRandomSampler(trials), batch_size=7)
    torch.manual_seed(2)
    found = stacked_core_gaussian_readout({"train": loaders}, 5, **SIZES).state_dict()
    drawn = torch.rand(1)
    expected = stacked_core_gaussian_readout(small_loaders, 5, **SIZES).state_dict()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])
    torch.manual_seed(2)
    assert torch.equal(drawn, torch.rand(1))


def test_takes_any_loader_of_dicts():
    loader = [{"inputs": torch.zeros(3, 1, 9, 9), "targets": torch.full((3, 6), 2.0)}]
    model = stacked_core_gaussian_readout({"a": loader}, 5, grid_mean_predictor=None, **SIZES)
    assert model(loader[0]["inputs"]).shape == (3, 6)
    assert model.readout["a"].bias.tolist() == [1.0] * 6


def test_adaptive_regularizer_is_a_setting(small_loaders):
    model = stacked_core_gaussian_readout(
        small_loaders, 0, readout_regularizer="adaptive_log_norm", gamma_sigma=0.2, gamma_readout=0.5, **SIZES
    )
    readout = model.readout["first"]
    readout.adaptive_neuron_reg_coefs.data.fill_(2.0)
    l1 = readout.features.abs().sum().item()
    expected = 0.5 * 2 * l1 + 20 * np.log(2) ** 2 / 0.2**2
    assert readout.regularizer().item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("gauss_type", ["full", "uncorrelated", "isotropic"])
def test_sampling_positions_are_contiguous_and_those_of_neuralpredictors(small_loaders, gauss_type):
    readout = stacked_core_gaussian_readout(small_loaders, 0, gauss_type=gauss_type, **SIZES).readout["first"]
    torch.manual_seed(0)
    grid = readout.sample_grid(5)
    torch.manual_seed(0)
    assert torch.equal(grid, FullGaussian2d.sample_grid(readout, 5))
    assert grid.is_contiguous()


def test_fused_readouts_train_as_those_of_grid_sample(loaders):
    """The shifter and the network that predicts positions have gradients through the positions."""
    models = [stacked_core_gaussian_readout(loaders, 7, readout_kernel=k, **SIZES) for k in ("fused", "grid_sample")]
    batch = next(iter(loaders["train"]["first"]))
    predictions = []
    for model in models:
        torch.manual_seed(1)
        predictions.append(model(batch.images, data_key="first", pupil_center=batch.pupil_center))
        predictions[-1].square().sum().backward()
    torch.testing.assert_close(*predictions, rtol=1e-5, atol=1e-5)
    assert models[0].readout["first"].kernel == "fused"
    assert list(models[0].state_dict()) == list(models[1].state_dict())
    for parameter, other in zip(*(model.parameters() for model in models), strict=True):
        if other.grad is not None:
            torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-4, atol=1e-3)


def test_shifter_is_made_when_there_are_pupil_positions(loaders, small_loaders):
    assert list(stacked_core_gaussian_readout(loaders, 0, **SIZES).shifter) == ["first", "second_v2"]
    assert stacked_core_gaussian_readout(loaders, 0, shifter=False, **SIZES).shifter is None
    assert stacked_core_gaussian_readout(small_loaders, 0, **SIZES).shifter is None


def test_all_parts_through_nnfabrik(recording_folders):
    loaders, model = get_all_parts(
        dataset_fn="december_plugin.datasets.static_loaders",
        dataset_config={"paths": [str(path) for path in recording_folders], "batch_size": 16},
        model_fn="december_plugin.models.stacked_core_gaussian_readout",
        model_config=SIZES,
        seed=3,
    )
    batch = next(iter(loaders["test"]["first"]))
    assert model(batch.images, data_key="first").shape == (12, 20)


def test_every_layer_for_the_readout(small_loaders):
    model = stacked_core_gaussian_readout(small_loaders, 0, stack=None, **SIZES)
    assert model.readout["first"].features.shape == (1, 12, 1, 20)
    model = stacked_core_gaussian_readout(small_loaders, 0, stack=[0, -1], **SIZES)
    assert model.readout["first"].features.shape == (1, 8, 1, 20)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"gamma_redout": 1},
            "stacked_core_gaussian_readout has no setting 'gamma_redout'. Did you mean 'gamma_readout'?",
        ),
        (
            {"input_kern": 13},
            "The images of session 'first' have 12 x 14 pixels, but input_kern=13 and hidden_kern=[3, 3] need at least "
            "13 x 13. Use smaller kernels, pad_input=True, or a larger scale.",
        ),
        ({"hidden_kern": 6, "hidden_padding": 0}, "hidden_kern=[6, 6] need at least 15 x 15."),
        (
            {"hidden_kern": [3]},
            "hidden_kern has 1 kernel sizes, but layers=3 means 2 hidden layer(s). Give one size, or",
        ),
        (
            {"stack": None, "hidden_kern": [3, 5]},
            "stack=None and skip=0 combine layers whose maps differ in size: hidden_kern=[3, 5] with "
            "hidden_padding=1 does not keep the size. Use one odd kernel size.",
        ),
        ({"stack": 3}, "stack is 3, but the core has 3 layer(s): -3 to 2."),
        (
            {"readout_regularizer": "l2"},
            "readout_regularizer is 'l2'. Allowed: adaptive_log_norm, l1.",
        ),
        ({"input_regularizer": "Laplace"}, "input_regularizer is 'Laplace'. Did you mean 'LaplaceL"),
        ({"gauss_type": "diagonal"}, "gauss_type is 'diagonal'. Allowed: full, isotropic, uncorrelated."),
        ({"bias_start": "mean"}, "bias_start is 'mean'. "),
        ({"init_mu_range": 1.5}, "init_mu_range is 1.5; it must be a number above 0 and at most 1."),
        ({"grid_mean_predictor": {"type": "retina"}}, "grid_mean_predictor's type is 'retina'. Allowed: cortex."),
        (
            {"grid_mean_predictor": {"type": "cortex", "hidden_layer": 1}},
            "grid_mean_predictor has no setting 'hidden_layer'. Did you mean 'hidden_layers'?",
        ),
        (
            {"grid_mean_predictor": {"type": "cortex", "input_dimensions": 4}},
            "grid_mean_predictor's input_dimensions is 4, but the cortical positions of session 'first' have 3.",
        ),
        (
            {"shifter": True},
            "A shifter needs pupil positions in every session; the sessions serve first: None, second_v2: None. Load "
            "them with include_eye_position=True, or pass shifter=False.",
        ),
        ({"layers": 0}, "layers is 0; it must be at least 1."),
    ],
)
def test_settings_that_do_not_fit(small_loaders, settings, message):
    with pytest.raises(SettingsError, match=re.escape(message)):
        stacked_core_gaussian_readout(small_loaders, 0, **{**SIZES, **settings})


def test_images_of_another_package_whose_channels_come_last():
    info = {"a": {"input_dimensions": [8, 36, 64, 1], "output_dimension": 5}}
    message = (
        "session 'a' serves images of shape (36, 64, 1), which looks like (height, width, channels); (channels, "
        "height, width) is expected. Let its loader move the channels to the front."
    )
    with pytest.raises(SettingsError, match=re.escape(message)):
        stacked_core_gaussian_readout(None, 0, data_info=info, grid_mean_predictor=None, **SIZES)


def test_sessions_that_do_not_fit():
    def session(channels):
        return SimpleNamespace(**{"input_dimensions": [1, channels, 9, 9], "output_dimension": 5}).__dict__

    message = "The sessions' images have different numbers of channels (a: 1, b: 4), but they share a core."
    with pytest.raises(SettingsError, match=re.escape(message)):
        stacked_core_gaussian_readout(
            None, 0, data_info={"a": session(1), "b": session(4)}, grid_mean_predictor=None, **SIZES
        )
    message = "grid_mean_predictor needs cortical positions, but session 'a' has no cell_motor_coordinates."
    with pytest.raises(SettingsError, match=re.escape(message)):
        stacked_core_gaussian_readout(None, 0, data_info={"a": session(1)}, **SIZES)
    with pytest.raises(SettingsError, match="A model needs dataloaders or data_info to know its sessions; both are"):
        stacked_core_gaussian_readout(None, 0, **SIZES)
