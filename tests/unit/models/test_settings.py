"""The model functions' flat signatures against the settings that cores, readouts and shifters share."""

import dataclasses
import inspect
import typing
from collections.abc import Mapping
from types import MappingProxyType

import pytest

from december_plugin import models
from december_plugin.errors import SettingsError
from december_plugin.models.build import build_core, build_readout
from december_plugin.models.settings import (
    AttentionReadoutSettings,
    EquivariantCoreSettings,
    FactorizedReadoutSettings,
    FrameReadoutSettings,
    GaussianReadoutSettings,
    HoeflingCoreSettings,
    HoeflingReadoutSettings,
    ModelSettings,
    MovieCoreSettings,
    ShifterSettings,
    StackedCoreSettings,
    TaskCoreSettings,
)

# Model function: the classes of its settings, and its own defaults (those of another publication).
SETTINGS = {
    models.stacked_core_gaussian_readout: ((StackedCoreSettings, GaussianReadoutSettings, ShifterSettings), {}),
    models.stacked_core_factorized_readout: ((StackedCoreSettings, FactorizedReadoutSettings), {}),
    models.stacked_core_attention_readout: (
        (StackedCoreSettings, AttentionReadoutSettings),
        {
            "hidden_channels": 96,
            "hidden_kern": 5,
            "layers": 5,
            "gamma_input": 10.0,
            "momentum": 0.1,
            "gamma_readout": 1.0,
        },
    ),
    models.task_core_attention_readout: ((TaskCoreSettings, AttentionReadoutSettings), {"gamma_readout": 1.0}),
    models.equivariant_core_factorized_readout: ((EquivariantCoreSettings, FactorizedReadoutSettings), {}),
    models.equivariant_core_gaussian_readout: (
        (EquivariantCoreSettings, GaussianReadoutSettings),
        {"grid_mean_predictor": None},
    ),
    models.movie_core_gaussian_readout: (
        (MovieCoreSettings, FrameReadoutSettings),
        {"gamma_readout": 0.023, "init_sigma": 0.25, "gauss_type": "isotropic"},
    ),
    models.hoefling_core_gaussian_readout: ((HoeflingCoreSettings, HoeflingReadoutSettings), {}),
}
OTHERS = {"dataloaders", "seed", "data_info", "preset"}
CLASSES = sorted({kind for kinds, _ in SETTINGS.values() for kind in kinds}, key=lambda kind: kind.__name__)


def defaults(kind):
    """Return a class's defaults as they are written."""
    return {
        each.name: each.default if each.default is not dataclasses.MISSING else each.default_factory()
        for each in dataclasses.fields(kind)
    }


def test_every_model_function_is_compared():
    assert {function.__name__ for function in SETTINGS} == set(models.__all__)


@pytest.mark.parametrize("function", SETTINGS, ids=lambda function: function.__name__)
class TestSignatures:
    def test_names(self, function):
        kinds, _ = SETTINGS[function]
        expected = [name for kind in kinds for name in defaults(kind)]
        assert len(expected) == len(set(expected))  # no setting belongs to two classes
        assert set(inspect.signature(function).parameters) - OTHERS == set(expected)

    def test_annotations(self, function):
        found = typing.get_type_hints(function)
        for kind in SETTINGS[function][0]:
            for name, annotation in typing.get_type_hints(kind).items():
                assert found[name] == annotation, name

    def test_defaults(self, function):
        kinds, own = SETTINGS[function]
        shared = {name: value for kind in kinds for name, value in defaults(kind).items()}
        assert all(shared[name] != value for name, value in own.items())
        found = {
            name: parameter.default
            for name, parameter in inspect.signature(function).parameters.items()
            if name not in OTHERS
        }
        assert found == {**shared, **own}

    def test_docstrings_describe_every_setting(self, function):
        names = (
            line.strip() for line in function.__doc__.splitlines() if line.startswith("    ") and line[4:5].strip()
        )
        described = [name for line in names for name in line.split(", ")]
        assert all(described.count(name) == 1 for name in inspect.signature(function).parameters)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
class TestClasses:
    def test_defaults_are_allowed_and_checked_once(self, kind):
        settings = kind()
        assert dataclasses.replace(settings) == settings

    def test_they_stay_as_they_are(self, kind):
        settings = kind()
        with pytest.raises(dataclasses.FrozenInstanceError):
            settings.gamma_input = 1

    def test_attributes_are_described(self, kind):
        described = "".join(base.__doc__ for base in kind.__mro__ if issubclass(base, ModelSettings))
        assert all(name in described for name in defaults(kind))


def test_checked_values_replace_what_was_given():
    settings = StackedCoreSettings(layers=3, hidden_kern=5, gamma_input=1, stack=(0, -1))
    assert settings.hidden_kern == [5, 5]
    assert settings.stack == [0, -1]
    assert isinstance(settings.gamma_input, float)
    assert MovieCoreSettings().spatial_dilations == (1, 1, 1)
    assert isinstance(GaussianReadoutSettings().grid_mean_predictor, Mapping)


def test_settings_are_taken_out_of_all_arguments():
    arguments = {**defaults(ShifterSettings), "shift_layers": 2, "seed": 1, "dataloaders": None}
    assert ShifterSettings.of(MappingProxyType(arguments)) == ShifterSettings(shift_layers=2)


@pytest.mark.parametrize(
    ("kind", "settings", "message", "name"),
    [
        (StackedCoreSettings, {"batch_norm": "yes"}, "batch_norm is 'yes'; it must be true or false.", "batch_norm"),
        (StackedCoreSettings, {"momentum": 0}, "momentum is 0; it must be a number above 0.", "momentum"),
        (StackedCoreSettings, {"hidden_padding": -1}, "hidden_padding is -1; it must be at least 0.", "hidden_padding"),
        (
            FactorizedReadoutSettings,
            {"readout_bias": 1},
            "readout_bias is 1; it must be true or false.",
            "readout_bias",
        ),
        (ShifterSettings, {"shifter": 1}, "shifter is 1; it must be true or false.", "shifter"),
        (ShifterSettings, {"shift_layers": 0}, "shift_layers is 0; it must be at least 1.", "shift_layers"),
        (
            MovieCoreSettings,
            {"temporal_kernels": [3]},
            "temporal_kernels is [3]; a list with one number for each layer is expected, as many as hidden_channels "
            "has ((8, 16, 32)).",
            "temporal_kernels",
        ),
        (
            HoeflingCoreSettings,
            {"hidden_channels": 16},
            "hidden_channels is 16; a list with one number for each layer is expected.",
            "hidden_channels",
        ),
        (
            HoeflingCoreSettings,
            {"temporal_kernels": [21, 2]},
            "temporal_kernels is 2; it must be at least 3.",
            "temporal_kernels",
        ),
    ],
)
def test_values_that_are_not_allowed(kind, settings, message, name):
    with pytest.raises(SettingsError) as raised:
        kind(**settings)
    assert str(raised.value) == message
    assert raised.value.setting == name


def test_settings_of_neither_core_nor_readout():
    with pytest.raises(TypeError, match="ShifterSettings are not the settings of a core that can be built"):
        build_core(ShifterSettings(), {})
    with pytest.raises(TypeError, match="StackedCoreSettings are not the settings of a readout that can be built"):
        build_readout(StackedCoreSettings(), {}, None)
