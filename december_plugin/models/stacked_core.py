"""The SENSORIUM 2022 baseline: stacked convolutional core, full Gaussian readout, optional shifter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from neuralpredictors.layers.cores import Stacked2dCore
from neuralpredictors.layers.encoders import FiringRateEncoder
from neuralpredictors.layers.readouts import MultiReadoutSharedParametersBase
from neuralpredictors.layers.shifters import MLPShifter
from neuralpredictors.utils import get_module_output
from torch import Tensor

from december_plugin.errors import SettingsError, did_you_mean
from december_plugin.models.sessions import SessionShape, sessions_of
from december_plugin.readouts import FullGaussian2d
from december_plugin.settings import check_choice, check_integer, check_number, checked_settings

CORTEX_GRID: Mapping[str, Any] = MappingProxyType(
    {"type": "cortex", "input_dimensions": 2, "hidden_layers": 1, "hidden_features": 30, "final_tanh": True}
)
INPUT_REGULARIZERS = ("LaplaceL2norm", "LaplaceL2", "LaplaceL1", "GaussianLaplaceL2")
READOUT_REGULARIZERS = ("l1", "adaptive_log_norm")
GAUSS_TYPES = ("full", "uncorrelated", "isotropic")
BIAS_STARTS = ("mean_rate", "zero")
SMALLEST_START_RATE = 0.01


class MultipleFullGaussian2d(MultiReadoutSharedParametersBase):
    """One full Gaussian readout for each session, by data key."""

    _base_readout = FullGaussian2d


@checked_settings
def stacked_core_gaussian_readout(
    dataloaders: Mapping[str, Any] | None,
    seed: int,
    *,
    hidden_channels: int = 64,
    input_kern: int = 9,
    hidden_kern: int | Sequence[int] = 7,
    layers: int = 4,
    gamma_input: float = 6.3831,
    skip: int = 0,
    final_nonlinearity: bool = True,
    momentum: float = 0.9,
    pad_input: bool = False,
    hidden_padding: int | None = None,
    batch_norm: bool = True,
    hidden_dilation: int = 1,
    laplace_padding: int | None = None,
    input_regularizer: str = "LaplaceL2norm",
    use_avg_reg: bool = False,
    core_bias: bool = True,
    depth_separable: bool = True,
    linear: bool = False,
    stack: int | Sequence[int] | None = -1,
    gamma_readout: float = 0.0076,
    readout_regularizer: str = "l1",
    gamma_sigma: float = 0.1,
    init_mu_range: float = 0.3,
    init_sigma: float = 0.1,
    readout_bias: bool = True,
    bias_start: str = "mean_rate",
    gauss_type: str = "full",
    grid_mean_predictor: Mapping[str, Any] | None = CORTEX_GRID,
    shifter: bool | None = None,
    hidden_channels_shifter: int = 5,
    shift_layers: int = 3,
    gamma_shifter: float = 0.0,
    elu_offset: float = 0.0,
    data_info: Mapping[str, Any] | None = None,
) -> FiringRateEncoder:
    """Build the baseline of the SENSORIUM 2022 competition (Willeke et al. 2022); the defaults are its settings.

    ``rate_i = ELU(<w_i, core(image) at neuron i's position> + b_i + elu_offset) + 1``, made of neuralpredictors'
    parts: ``Stacked2dCore``, ``FullGaussian2d`` for each session, ``MLPShifter``, ``FiringRateEncoder``. With
    ``bias_start="zero"`` the initial weights are those of SENSORIUM's ``stacked_core_full_gauss_readout`` for the same
    seed and settings.

    Parameters
    ----------
    dataloaders
        What a dataset function returned: tier to data key to loader, or data key to loader; also loaders of other
        packages whose batches are named tuples or dicts, images and responses first. May be None with ``data_info``.
    seed
        Seed of the initial weights. The same seed gives the same bytes; the global random state is left alone.
    hidden_channels, layers
        Channels of each layer, and number of layers of the core.
    input_kern, hidden_kern
        Kernel sizes in pixels of the first layer and of the others (one number, or one for each of ``layers - 1``).
    gamma_input, input_regularizer, use_avg_reg, laplace_padding
        Strength of the smoothness penalty of the first layer's kernels, its name in
        ``neuralpredictors.regularizers``, whether it is a mean instead of a sum, and its padding.
    skip, final_nonlinearity, linear, depth_separable, core_bias, batch_norm, momentum, hidden_dilation
        As in ``Stacked2dCore``.
    pad_input, hidden_padding
        Whether the first layer is padded (not by default: its output is ``input_kern - 1`` pixels smaller), and the
        padding of the others (None: as much as keeps the size).
    stack
        Layers that the readout sees: -1 the last one, None all, a list of indices those.
    gamma_readout, readout_regularizer, gamma_sigma
        Strength and kind of the readout's regularizer: ``"l1"``, or ``"adaptive_log_norm"`` with the width
        ``gamma_sigma`` of its prior (see :mod:`december_plugin.regularizers`).
    init_mu_range, init_sigma, gauss_type
        Start range of the positions (in (0, 1]; 1 is the edge of the map), start width of the position's Gaussian, and
        its covariance: full, uncorrelated or isotropic.
    readout_bias, bias_start
        Whether each neuron has a bias, and where it starts: ``"mean_rate"`` at the value for which a neuron without
        drive has its mean response over the training tier, ``"zero"`` at 0 as in SENSORIUM's code.
    grid_mean_predictor
        Predict positions from ``cell_motor_coordinates`` by a small network: ``{"type": "cortex", "input_dimensions":
        2, "hidden_layers": 1, "hidden_features": 30, "final_tanh": True}`` by default. None learns each position
        by itself.
    shifter
        Move the positions with the pupil. None: if the loaders serve pupil positions.
    hidden_channels_shifter, shift_layers, gamma_shifter
        The shifter's size, and strength of its regularizer.
    elu_offset
        Added before the output nonlinearity.
    data_info
        nnfabrik's description of the sessions, as ``static_loaders(..., return_data_info=True)`` returns it: the model
        is built without data.

    Returns
    -------
    neuralpredictors.layers.encoders.FiringRateEncoder
        On the CPU, in training mode, with ``core``, ``readout`` (data key to readout), ``shifter``.

    Raises
    ------
    SettingsError
        If a setting is unknown, has a value that is not allowed, or does not fit the sessions.
    """
    sessions = sessions_of(dataloaders, data_info)
    core_settings = {
        "hidden_channels": check_integer("hidden_channels", hidden_channels, minimum=1),
        "input_kern": check_integer("input_kern", input_kern, minimum=1),
        "hidden_kern": _hidden_kernels(hidden_kern, layers),
        "layers": layers,
        "gamma_input": check_number("gamma_input", gamma_input, minimum=0),
        "skip": check_integer("skip", skip, minimum=0),
        "final_nonlinearity": final_nonlinearity,
        "bias": core_bias,
        "momentum": momentum,
        "pad_input": pad_input,
        "hidden_padding": hidden_padding,
        "batch_norm": batch_norm,
        "hidden_dilation": check_integer("hidden_dilation", hidden_dilation, minimum=1),
        "laplace_padding": laplace_padding,
        "input_regularizer": check_choice("input_regularizer", input_regularizer, INPUT_REGULARIZERS),
        "use_avg_reg": use_avg_reg,
        "depth_separable": depth_separable,
        "linear": linear,
        "stack": _stack(stack, layers),
    }
    readout_settings = {
        "bias": readout_bias,
        "feature_reg_weight": check_number("gamma_readout", gamma_readout, minimum=0),
        "regularizer_type": check_choice("readout_regularizer", readout_regularizer, READOUT_REGULARIZERS),
        "gamma_sigma": check_number("gamma_sigma", gamma_sigma, above=0),
        "init_mu_range": _fraction("init_mu_range", init_mu_range),
        "init_sigma": check_number("init_sigma", init_sigma, above=0),
        "gauss_type": check_choice("gauss_type", gauss_type, GAUSS_TYPES),
        "mean_activity_dict": _bias_starts(sessions, check_choice("bias_start", bias_start, BIAS_STARTS), elu_offset),
        **_grid_settings(sessions, grid_mean_predictor),
    }
    pupil_channels = _pupil_channels(sessions, shifter)
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(check_integer("seed", seed, minimum=0))
        # The order of construction is SENSORIUM's, so that a seed means the same weights.
        core = _core(sessions, core_settings)
        readout = _readout(sessions, core, readout_settings)
        moved = None
        if pupil_channels is not None:
            moved = _shifter(sessions, pupil_channels, hidden_channels_shifter, shift_layers, gamma_shifter)
    return FiringRateEncoder(core=core, readout=readout, shifter=moved, elu_offset=elu_offset)


def _core(sessions: Mapping[str, SessionShape], settings: Mapping[str, Any]) -> Stacked2dCore:
    channels = {data_key: session.image_shape[0] for data_key, session in sessions.items()}
    if len(set(channels.values())) > 1:
        raise SettingsError(
            f"The sessions' images have different numbers of channels ({_listed(channels)}), but they share a core. "
            "Load them with the same behaviour and channel settings."
        )
    for data_key, session in sessions.items():
        _check_size(data_key, session.image_shape[1:], settings)
    return Stacked2dCore(input_channels=next(iter(channels.values())), **settings)


def _check_size(data_key: str, size: tuple[int, int], settings: Mapping[str, Any]) -> None:
    """Follow the size of the images through the layers; padding is computed as ``Stacked2dCore`` does."""
    kernels, dilation, padding = settings["hidden_kern"], settings["hidden_dilation"], settings["hidden_padding"]
    if kernels and padding is None:
        padding = ((kernels[0] - 1) * dilation + 1) // 2
    first = settings["input_kern"] - 1 - (settings["input_kern"] // 2 * 2 if settings["pad_input"] else 0)
    lost = np.cumsum([first, *((kernel - 1) * dilation - 2 * padding for kernel in kernels)])
    needed = int(max(lost.max() + 1, 1))
    if min(size) < needed:
        raise SettingsError(
            f"The images of session {data_key!r} have {size[0]} x {size[1]} pixels, but input_kern="
            f"{settings['input_kern']} and hidden_kern={kernels} need at least {needed} x {needed}. "
            "Use smaller kernels, pad_input=True, or a larger scale."
        )
    stacked = _stacked_layers(settings["stack"], settings["layers"])
    skipped = range(settings["layers"]) if settings["skip"] > 1 else []
    if len({int(lost[layer]) for layer in (*stacked, *skipped)}) > 1:
        raise SettingsError(
            f"stack={settings['stack']} and skip={settings['skip']} put layers side by side whose maps differ in size: "
            f"hidden_kern={kernels} with hidden_padding={padding} does not keep the size. Use one odd kernel size."
        )


def _stacked_layers(stack: int | list[int] | None, layers: int) -> list[int]:
    if stack is None:
        return list(range(layers))
    return list(range(layers))[stack:] if isinstance(stack, int) else [layer % layers for layer in stack]


def _readout(
    sessions: Mapping[str, SessionShape], core: Stacked2dCore, settings: Mapping[str, Any]
) -> MultipleFullGaussian2d:
    shapes = {
        data_key: get_module_output(core, (1, *session.image_shape), use_cuda=False)[1:]
        for data_key, session in sessions.items()
    }
    neurons = {data_key: session.n_neurons for data_key, session in sessions.items()}
    return MultipleFullGaussian2d(in_shape_dict=shapes, n_neurons_dict=neurons, **settings)


def _shifter(
    sessions: Mapping[str, SessionShape], channels: int, hidden_channels: int, layers: int, gamma: float
) -> MLPShifter:
    return MLPShifter(
        data_keys=list(sessions),
        input_channels=channels,
        hidden_channels_shifter=check_integer("hidden_channels_shifter", hidden_channels, minimum=1),
        shift_layers=check_integer("shift_layers", layers, minimum=1),
        gamma_shifter=check_number("gamma_shifter", gamma, minimum=0),
    )


def _bias_starts(sessions: Mapping[str, SessionShape], bias_start: str, elu_offset: float) -> dict[str, Tensor]:
    starts = {}
    for data_key, session in sessions.items():
        start = torch.zeros(session.n_neurons)
        # Without mean responses (a description from elsewhere) the weights will be loaded anyway.
        if bias_start == "mean_rate" and session.mean_responses is not None:
            rate = torch.as_tensor(np.asarray(session.mean_responses, dtype=np.float32)).clamp_min(SMALLEST_START_RATE)
            start = torch.where(rate < 1, rate.log(), rate - 1) - elu_offset  # the inverse of ELU(x) + 1
        starts[data_key] = start
    return starts


def _grid_settings(sessions: Mapping[str, SessionShape], predictor: Mapping[str, Any] | None) -> dict[str, Any]:
    if predictor is None:
        return {}
    for name in predictor:
        if name not in CORTEX_GRID:
            raise SettingsError(f"grid_mean_predictor has no setting {name!r}. {did_you_mean(name, CORTEX_GRID)}")
    check_choice("grid_mean_predictor's type", predictor.get("type"), ("cortex",))
    dimensions = check_integer("input_dimensions", predictor.get("input_dimensions", 2), minimum=1)
    grids = {}
    for data_key, session in sessions.items():
        positions = session.coordinates
        if positions is None:
            raise SettingsError(
                f"grid_mean_predictor needs cortical positions, but session {data_key!r} has no "
                "cell_motor_coordinates. Pass grid_mean_predictor=None to learn each position by itself."
            )
        if positions.shape[1] < dimensions:
            raise SettingsError(
                f"grid_mean_predictor's input_dimensions is {dimensions}, but the cortical positions of session "
                f"{data_key!r} have {positions.shape[1]}."
            )
        grids[data_key] = np.asarray(positions)[:, :dimensions]
    layers = {name: value for name, value in predictor.items() if name not in ("type", "input_dimensions")}
    return {"grid_mean_predictor": layers, "grid_mean_predictor_type": "cortex", "source_grids": grids}


def _pupil_channels(sessions: Mapping[str, SessionShape], shifter: bool | None) -> int | None:
    channels = {data_key: session.pupil_channels for data_key, session in sessions.items()}
    if shifter is False or (shifter is None and all(value is None for value in channels.values())):
        return None
    if None in channels.values() or len(set(channels.values())) > 1:
        raise SettingsError(
            f"A shifter needs pupil positions in every session; the sessions serve {_listed(channels)}. Load them with "
            "include_eye_position=True, or pass shifter=False."
        )
    return next(iter(channels.values()))


def _hidden_kernels(hidden_kern: Any, layers: int) -> list[int]:
    n_hidden = check_integer("layers", layers, minimum=1) - 1
    kernels = [hidden_kern] * n_hidden if not isinstance(hidden_kern, (list, tuple)) else list(hidden_kern)
    if len(kernels) != n_hidden:
        raise SettingsError(
            f"hidden_kern has {len(kernels)} kernel sizes, but layers={layers} means {n_hidden} hidden layer(s). "
            "Give one size, or one for each of them."
        )
    return [check_integer("hidden_kern", kernel, minimum=1) for kernel in kernels]


def _stack(stack: Any, layers: int) -> int | list[int] | None:
    indices = list(stack) if isinstance(stack, (list, tuple)) else [stack]
    for index in indices:
        if stack is not None and (isinstance(index, bool) or not -layers <= index < layers):
            raise SettingsError(f"stack is {stack!r}, but the core has {layers} layer(s): {-layers} to {layers - 1}.")
    return indices if isinstance(stack, (list, tuple)) else stack


def _fraction(name: str, value: Any) -> float:
    number = check_number(name, value, above=0)
    if number > 1:
        raise SettingsError(f"{name} is {value!r}; it must be a number above 0 and at most 1.")
    return number


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{data_key}: {value}" for data_key, value in values.items())
