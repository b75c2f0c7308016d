"""Maximally exciting images, where they are known, and of the models of the package."""

import numpy as np
import pytest
import torch
from neuralpredictors.layers.shifters import MLPShifter
from torch import nn

from december_plugin import models
from december_plugin.embeddings.neuron_ids import NeuronIds
from december_plugin.errors import SettingsError, StimulusError
from december_plugin.insilico import AscentSettings, Canvas, exciting_images, maximally_exciting_images
from december_plugin.insilico.responses import NeuronResponses
from helpers.image_models import INFO, SMALL, TURNED
from helpers.insilico_models import SIZE, FilterReadout, Model, gabor

EXACT = AscentSettings(norm=3.0, tolerance=1e-6, n_starts=2)


def filters(n, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack([gabor(SIZE, *rng.uniform(0, np.pi, 2))[None] for _ in range(n)])


def cosines(images, others):
    a, b = (np.asarray(x, dtype=np.float64).reshape(len(x), -1) for x in (images, others))
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_the_image_of_a_linear_neuron_is_its_filter(power):
    planted = filters(5)
    model = Model({"a": FilterReadout(planted)}, nonlinearity=lambda drives: nn.functional.elu(drives) + 1)
    found = maximally_exciting_images(
        model,
        {"a": range(5)},
        (1, *SIZE),
        settings=AscentSettings(norm=3.0, tolerance=1e-6, n_starts=2, frequency_power=power),
    )
    assert cosines(found.images, planted) == pytest.approx(1, abs=1e-3)
    assert found.norms == pytest.approx(3, rel=1e-5)
    expected = 1 + 3 * np.linalg.norm(planted.reshape(5, -1), axis=1)
    assert found.activities == pytest.approx(expected, rel=1e-3)
    assert set(found.endings) == {"converged"}
    assert (found.start_activities.max(axis=1) == found.activities).all()


def test_an_energy_model_reaches_its_largest_eigenvalue():
    even, odd = (np.stack([gabor(SIZE, angle, phase)[None] for angle in (0.3, 1.2, 2.0)]) for phase in (0, np.pi / 2))
    model = Model({"a": FilterReadout(even, odd)})
    found = maximally_exciting_images(model, {"a": range(3)}, (1, *SIZE), settings=EXACT)
    for image, e, o, activity in zip(found.images, even, odd, found.activities, strict=True):
        matrix = np.outer(e, e) + np.outer(o, o)
        values, vectors = np.linalg.eigh(matrix)
        assert activity == pytest.approx(9 * values[-1], rel=1e-3)
        plane = vectors[:, -2:]
        assert np.linalg.norm(plane.T @ image.ravel()) == pytest.approx(3, rel=1e-2)


def test_only_frequencies_of_the_pass_band_are_used():
    planted = np.random.default_rng(0).normal(size=(2, 1, *SIZE))
    settings = AscentSettings(norm=2.0, highest_frequency=0.2, tolerance=1e-6)
    found = maximally_exciting_images(
        Model({"a": FilterReadout(planted)}), {"a": [0, 1]}, (1, *SIZE), settings=settings
    )
    spectrum = np.fft.fft2(planted)
    frequency = np.hypot(np.fft.fftfreq(SIZE[0])[:, None], np.fft.fftfreq(SIZE[1])[None])
    low = np.fft.ifft2(np.where(frequency <= 0.2, spectrum, 0)).real
    assert cosines(found.images, low) == pytest.approx(1, abs=1e-3)
    assert np.abs(np.fft.fft2(found.images)[:, :, frequency > 0.2]).max() < 1e-4


def test_pixels_stay_within_bounds_and_the_norm_is_reached_where_it_can_be():
    planted = filters(3)
    canvas = Canvas((1, *SIZE), grey=0.2, bounds=(0.0, 1.0))
    found = maximally_exciting_images(Model({"a": FilterReadout(planted)}), {"a": range(3)}, canvas, settings=EXACT)
    assert found.images.min() >= 0
    assert found.images.max() <= 1
    assert found.norms == pytest.approx(3, rel=1e-4)
    # The maximum on the sphere within the box: pixels within the bounds are along the filter.
    for image, f in zip(found.images - 0.2, planted, strict=True):
        free = (image > -0.2 + 1e-3) & (image < 0.8 - 1e-3)
        assert cosines(image[free][None], f[free][None])[0] > 0.99


def test_an_ensemble_is_driven_together_and_its_neurons_may_be_in_another_order():
    a, b = filters(3, seed=1), filters(3, seed=2)
    order = [2, 0, 1]
    ensemble = [Model({"a": FilterReadout(a)}), Model({"a": FilterReadout(b[order])})]
    units = np.array([7, 5, 9])
    ids = [NeuronIds.of({"a": units}), NeuronIds.of({"a": units[order]})]
    found = maximally_exciting_images(ensemble, {"a": [9, 7]}, (1, *SIZE), neuron_ids=ids, settings=EXACT)
    assert cosines(found.images, (a + b)[[2, 0]]) == pytest.approx(1, abs=1e-3)
    assert found.activities == pytest.approx(3 * np.linalg.norm(((a + b) / 2)[[2, 0]].reshape(2, -1), axis=1), rel=1e-3)


def test_several_sessions_and_a_shifter_that_shifts_by_nothing():
    a, b = filters(2, seed=1), filters(2, seed=2)
    shifter = MLPShifter(["a", "b"], input_channels=3, hidden_channels_shifter=2, shift_layers=2)
    model = Model({"a": FilterReadout(a), "b": FilterReadout(b)}, shifter=shifter)
    wanted = (np.array(["b", "a", "b"]), np.array([1, 0, 0]))
    found = maximally_exciting_images(model, wanted, (1, *SIZE), settings=EXACT)
    assert cosines(found.images, np.stack([b[1], a[0], b[0]])) == pytest.approx(1, abs=1e-3)
    assert list(found.neuron_ids.data_keys) == ["b", "a", "b"]


@pytest.mark.parametrize("asks", [True, False])
def test_a_session_without_a_shifter_beside_others(asks):
    a, b = filters(2, seed=1), filters(2, seed=2)
    shifter = MLPShifter(["a"], input_channels=3, hidden_channels_shifter=2, shift_layers=2)
    model = Model({"a": FilterReadout(a), "b": FilterReadout(b)}, shifter=shifter)
    if asks:  # as models do that know it
        forward = model.forward

        def without(inputs, data_key=None, **extras):
            if data_key in shifter:
                return forward(inputs, data_key=data_key, **extras)
            return model.readout(inputs, data_key=data_key)

        model.forward = without
    found = maximally_exciting_images(model, {"a": [0], "b": [0, 1]}, (1, *SIZE), settings=EXACT)
    assert cosines(found.images, np.stack([a[0], b[0], b[1]])) == pytest.approx(1, abs=1e-3)
    assert list(shifter) == ["a"]


def test_behaviour_stays_as_given():
    planted = np.concatenate([filters(2), np.ones((2, 1, *SIZE))], axis=1)
    canvas = Canvas((2, *SIZE), image_channels=1, behavior=(0.5,))
    found = maximally_exciting_images(Model({"a": FilterReadout(planted)}), {"a": [0, 1]}, canvas, settings=EXACT)
    assert found.images.shape == (2, 1, *SIZE)
    expected = 3 * np.linalg.norm(planted[:, :1].reshape(2, -1), axis=1) + 0.5 * np.prod(SIZE)
    assert found.activities == pytest.approx(expected, rel=1e-3)


def stacked():
    return models.stacked_core_gaussian_readout(
        None, 0, data_info=INFO, grid_mean_predictor=None, bias_start="zero", **SMALL
    )


def test_the_usual_norm_leaves_room_within_the_bounds():
    assert Canvas((1, 36, 64)).usual_norm == 24
    canvas = Canvas((1, *SIZE), grey=0.5, bounds=(0.0, 1.0))
    planted = filters(3)
    found = maximally_exciting_images(Model({"a": FilterReadout(planted)}), {"a": range(3)}, canvas)
    assert found.norms == pytest.approx(3, rel=1e-4)  # a quarter of the range for each pixel
    for image, f in zip(found.images - 0.5, planted, strict=True):
        free = np.abs(image) < 0.499
        assert cosines(image[free][None], f[free][None])[0] > 0.98


def test_neurons_rise_in_parts_where_all_do_not_fit_into_memory(monkeypatch):
    call = {"neurons": {"a": range(5)}, "canvas": (1, *SIZE), "settings": EXACT}
    model = Model({"a": FilterReadout(filters(5))})
    together = maximally_exciting_images(model, **call)
    monkeypatch.setattr("december_plugin.insilico.exciting_images.VALUES_AT_ONCE", 2 * EXACT.n_starts * 144 + 1)
    in_parts = maximally_exciting_images(model, **call)
    assert in_parts.images == pytest.approx(together.images, abs=1e-3)
    assert in_parts.start_activities == pytest.approx(together.start_activities, rel=1e-4)


def test_what_a_model_does_to_each_neurons_response_is_done():
    slopes = torch.tensor([1.0, 2.0, 3.0])
    model = Model({"a": FilterReadout(filters(3))}, nonlinearity=lambda drives: drives * slopes).eval()
    images = torch.randn(4, 1, *SIZE, generator=torch.Generator().manual_seed(0))
    at = torch.tensor([2, 0, 1, 2])
    found = NeuronResponses(model, "a", torch.arange(3), Canvas((1, *SIZE)))(images, at)
    assert torch.allclose(found, model(images, data_key="a")[torch.arange(4), at])


MODELS = {
    "gaussian": stacked,
    "factorized": lambda: models.stacked_core_factorized_readout(None, 0, data_info=INFO, bias_start="zero", **SMALL),
    "attention": lambda: models.stacked_core_attention_readout(None, 0, data_info=INFO, bias_start="zero", **SMALL),
    "equivariant": lambda: models.equivariant_core_gaussian_readout(
        None, 0, data_info=INFO, grid_mean_predictor=None, bias_start="zero", **TURNED
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_neurons_respond_as_in_the_models_own_forward_pass(name):
    model = MODELS[name]().eval()
    for parameter in model.readout.parameters():  # some weights begin at 0
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    images = torch.randn(6, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    neurons, at = torch.tensor([4, 0, 3]), torch.tensor([2, 1, 0, 0, 1, 2])
    responses = NeuronResponses(model, "a", neurons, Canvas((1, 9, 9)))
    assert responses.reading is not None
    expected = model(images, data_key="a")
    found = responses(images, at)
    assert torch.allclose(found, expected[torch.arange(6), neurons[at]], atol=1e-5)
    for few in (1, 2):  # of one image, torch has computed wrong gradients
        shown = images[:few].clone().requires_grad_()
        slopes = torch.autograd.grad(responses(shown, at[:few]).sum(), shown)[0]
        own = model(shown, data_key="a")[torch.arange(few), neurons[at[:few]]]
        assert torch.allclose(slopes, torch.autograd.grad(own.sum(), shown)[0], atol=1e-5)
    assert torch.equal(model(images, data_key="a"), expected)


def test_the_gradient_of_a_single_image_is_right_behind_batch_normalisation():
    norm = nn.BatchNorm2d(3)
    norm.weight.data[:] = torch.tensor([0.5, 1.0, 2.0])
    with torch.random.fork_rng():
        core = nn.Sequential(nn.Conv2d(1, 3, 1), norm)

    class Einsum(FilterReadout):
        def forward(self, x, shift=None, **_):
            return torch.einsum("bchw,bhw->bc", x, torch.linspace(0, 1, 144).reshape(1, *SIZE).expand(len(x), -1, -1))

    model = Model({"a": Einsum(filters(3))}, core=core).eval()
    responses = NeuronResponses(model, "a", torch.arange(3), Canvas((1, *SIZE)))
    image = torch.randn(1, 1, *SIZE, generator=torch.Generator().manual_seed(0)).requires_grad_()
    twice = image.detach().repeat(2, 1, 1, 1).requires_grad_()
    alone = torch.autograd.grad(responses(image, torch.tensor([1])).sum(), image)[0]
    assert torch.allclose(alone, torch.autograd.grad(model(twice, data_key="a")[:, 1].sum(), twice)[0][:1])


def test_gradients_are_those_of_finite_differences():
    model = stacked().eval().double()
    model.readout["a"].features.data += torch.rand(
        model.readout["a"].features.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    responses = NeuronResponses(model, "a", torch.arange(5), Canvas((1, 9, 9)))
    assert responses.reading is not None
    images = torch.randn(3, 1, 9, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    at = torch.tensor([4, 1, 0])
    assert torch.autograd.gradcheck(lambda x: responses(x, at), images.requires_grad_(), fast_mode=True)


def test_the_same_seed_gives_the_same_bytes_and_the_model_is_left_as_it_was():
    model = stacked().train()
    model.core.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    settings = AscentSettings(n_starts=2, max_steps=8)
    with torch.no_grad():
        first = maximally_exciting_images(model, {"a": [3, 1]}, (1, 9, 9), settings=settings)
    again = maximally_exciting_images(model, {"a": [3, 1]}, (1, 9, 9), settings=settings)
    assert first.images.tobytes() == again.images.tobytes()
    assert first.activities.tobytes() == again.activities.tobytes()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.training
    assert not model.core.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all("forward" not in vars(module) for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    other = maximally_exciting_images(
        model, {"a": [3, 1]}, (1, 9, 9), settings=AscentSettings(n_starts=2, max_steps=8, seed=1)
    )
    assert not np.array_equal(first.images, other.images)
    alone = maximally_exciting_images(model, {"a": [1]}, (1, 9, 9), settings=settings)
    assert alone.images[0] == pytest.approx(first.images[1], abs=1e-4)


def movie_model():
    info = {"a": {"input_dimensions": [1, 1, 12, 9, 9], "output_dimension": 3}}
    return models.movie_core_gaussian_readout(
        None,
        0,
        data_info=info,
        hidden_channels=[3, 3],
        temporal_kernels=[3, 3],
        spatial_kernels=[3, 3],
        bias_start="zero",
    )


def test_clips_drive_neurons_of_movies_at_the_last_frame():
    model = movie_model()
    settings = AscentSettings(n_starts=1, max_steps=60, tolerance=1e-5)
    canvas = Canvas((1, 8, 9, 9))
    found = maximally_exciting_images(model, {"a": [2, 0]}, canvas, settings=settings)
    assert found.images.shape == (2, 1, 8, 9, 9)
    with torch.no_grad():
        responses = model.eval()(torch.from_numpy(found.images), data_key="a")
        noise = torch.randn(50, 1, 8, 9, 9, generator=torch.Generator().manual_seed(0))
        noise = model(canvas.with_norm(noise, canvas.usual_norm), data_key="a")
    assert responses[[0, 1], -1, [2, 0]].numpy() == pytest.approx(found.activities, rel=1e-4)
    assert (found.activities > noise[:, -1, [2, 0]].max(dim=0).values.numpy()).all()
    # Kernels of 3 and 3 frames see the last 5 of 8: nothing is spent on the others.
    energies = np.square(found.images).sum(axis=(1, 3, 4))
    assert energies[:, :3].max() < 0.02 * energies.sum(axis=1).min()


BAD = {
    "unknown session": ({"neurons": {"b": [0]}}, StimulusError, "no readout of session 'b'; it has some of a"),
    "unknown position": (
        {"neurons": {"a": [9]}},
        StimulusError,
        "has 2 neurons in Model; there is none at position 9",
    ),
    "unknown unit": (
        {"neurons": {"a": [4]}, "neuron_ids": {"a": [7, 5]}},
        StimulusError,
        r"the model has no unit 4 of session 'a' \(1 of 1",
    ),
    "ids of some of the neurons": (
        {"neurons": {"a": [5]}, "neuron_ids": {"a": [5]}},
        StimulusError,
        "neuron_ids name 1 neurons of session 'a', but Model has 2. Name all neurons",
    ),
    "half a position": ({"neurons": {"a": [0.5]}}, StimulusError, "not whole numbers.* pass in neuron_ids"),
    "no shape": ({"canvas": 12}, SettingsError, "shape is 12; it must be"),
    "devices": (
        {"models": [Model({"a": FilterReadout(filters(2))}), Model({"a": FilterReadout(filters(2))}).to("meta")]},
        SettingsError,
        "different devices",
    ),
    "nobody": ({"neurons": {"a": []}}, SettingsError, "there are no neurons"),
    "another size": ({"canvas": (1, 9, 9)}, StimulusError, r"cannot be shown stimuli of shape \(1, 9, 9\)"),
    "bad shape": ({"canvas": (9, 9)}, SettingsError, r"shape is \(9, 9\)"),
    "norm beyond bounds": (
        {"canvas": Canvas((1, *SIZE), bounds=(-0.1, 0.1)), "settings": EXACT},
        SettingsError,
        "norm is 3, but images within the bounds .* have at most 1.2",
    ),
    "ids of other models": ({"neuron_ids": [None, None]}, SettingsError, "those of 2 models, but there are 1"),
    "dead word": ({"dead": "kep"}, SettingsError, "Did you mean 'keep'"),
    "no model": ({"models": []}, SettingsError, "at least one"),
    "no batch": ({"batch_size": 0}, SettingsError, "batch_size"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_is_said(name):
    given, error, message = BAD[name]
    call = {"models": Model({"a": FilterReadout(filters(2))}), "neurons": {"a": [0]}, "canvas": (1, *SIZE)} | given
    with pytest.raises(error, match=message):
        maximally_exciting_images(call.pop("models"), call.pop("neurons"), call.pop("canvas"), **call)


def test_dead_neurons_are_named_before_the_ascent_or_kept_empty(monkeypatch):
    planted = filters(3)
    planted[1] = 0
    model = Model({"a": FilterReadout(planted)})
    message = r"unit 1 of session 'a': the response changes with none of the 2 .*dead=\"keep\""
    with monkeypatch.context() as patch:
        patch.setattr(exciting_images, "ascend", pytest.fail)
        patch.setattr(exciting_images, "VALUES_AT_ONCE", 1)  # neurons rise one after the other
        with pytest.raises(StimulusError, match=message):
            maximally_exciting_images(model, {"a": range(3)}, (1, *SIZE), settings=EXACT)
    found = maximally_exciting_images(model, {"a": range(3)}, (1, *SIZE), settings=EXACT, dead="keep")
    assert list(found.endings) == ["converged", "dead", "converged"]
    assert (found.images[1] == 0).all()
    assert found.norms[1] == 0


def test_responses_that_are_not_finite_are_an_error():
    model = Model({"a": FilterReadout(filters(2))})
    model.readout["a"].bias.data[0] = torch.nan
    with pytest.raises(StimulusError, match=r"^unit 0 of session 'a': the response to noise, or its gradient, is NaN"):
        maximally_exciting_images(model, {"a": [0, 1]}, (1, *SIZE), settings=EXACT)


def test_more_than_50_frames_and_other_settings_that_are_not_allowed():
    with pytest.raises(SettingsError, match="clips of 51 frames; at most 50"):
        Canvas((1, 51, 9, 9))
    with pytest.raises(SettingsError, match="bounds"):
        Canvas((1, 9, 9), bounds=(0.5, 1.0))
    with pytest.raises(SettingsError, match=r"1 channel\(s\) of behaviour"):
        Canvas((2, 9, 9), image_channels=1, behavior=(0.0, 1.0))
    with pytest.raises(SettingsError, match="more than the 2 channels"):
        Canvas((2, 9, 9), image_channels=3)
    with pytest.raises(SettingsError, match="highest_frequency"):
        AscentSettings(highest_frequency=0.0)
    with pytest.raises(SettingsError, match="n_starts"):
        AscentSettings(n_starts=0)
