"""The SENSORIUM 2022 baseline: stacked convolutional core, full Gaussian readout, optional shifter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from neuralpredictors.layers.encoders import FiringRateEncoder
from neuralpredictors.layers.shifters import MLPShifter

from december_plugin.errors import MisfitError
from december_plugin.models.parts import (
    CORTEX_GRID,
    bias_starts,
    gaussian_readouts,
    grid_settings,
    position_settings,
    readout_regularization,
    seeded_weights,
    stacked_core,
    stacked_core_settings,
)
from december_plugin.models.sessions import SessionShape, listed, sessions_of
from december_plugin.validation.checks import Preset, check_integer, check_number, checked_settings, with_presets

# Of the published experiments on mouse V1: SENSORIUM 2022's model and, from their script, the last five.
PUBLISHED_V1 = Preset(
    {
        "input_kern": 9,
        "hidden_kern": 7,
        "layers": 4,
        "gamma_input": 6.3831,
        "skip": 0,
        "final_nonlinearity": True,
        "momentum": 0.9,
        "pad_input": False,
        "batch_norm": True,
        "hidden_dilation": 1,
        "input_regularizer": "LaplaceL2norm",
        "use_avg_reg": False,
        "core_bias": True,
        "depth_separable": True,
        "linear": False,
        "stack": -1,
        "gamma_sigma": 0.1,
        "init_mu_range": 0.3,
        "init_sigma": 0.1,
        "gauss_type": "full",
        "grid_mean_predictor": dict(CORTEX_GRID),
        "hidden_channels_shifter": 5,
        "shift_layers": 3,
        "elu_offset": 0.0,
        "hidden_channels": 128,
        "final_batchnorm_scale": False,
        "readout_regularizer": "adaptive_log_norm",
        "gamma_readout": 10.0,
        "bias_start": "zero",
    }
)


@checked_settings
@with_presets(published=PUBLISHED_V1)
def stacked_core_gaussian_readout(
    dataloaders: Mapping[str, Any] | None,
    seed: int,
    *,
    preset: str | None = None,
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
    final_batchnorm_scale: bool = True,
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
    preset
        "published": the settings of the published experiments on mouse V1, as far as they are known (``PUBLISHED_V1``
        of this module). Settings given beside it win. None: the defaults here.
    hidden_channels, layers
        Channels of each layer, and number of layers of the core.
    input_kern, hidden_kern
        Kernel sizes in pixels of the first layer and of the others (one number, or one for each of ``layers - 1``).
    gamma_input, input_regularizer, use_avg_reg, laplace_padding
        Strength of the smoothness penalty of the first layer's kernels, its name in
        ``neuralpredictors.regularizers``, whether it is a mean instead of a sum, and its padding.
    skip, final_nonlinearity, linear, depth_separable, core_bias, batch_norm, momentum, hidden_dilation
        As in ``Stacked2dCore``.
    final_batchnorm_scale
        Whether the last layer's batch normalisation learns a scale, as by default. Without it the features have unit
        variance before the last nonlinearity, and readout weights a fixed unit, in which ``scale_bounds`` of the
        clustering are given.
    pad_input, hidden_padding
        Whether the first layer is padded (not by default: its output is ``input_kern - 1`` pixels smaller), and the
        padding of the others (None: as much as keeps the size).
    stack
        Layers that the readout sees: -1 the last one, None all, a list of indices those.
    gamma_readout, readout_regularizer, gamma_sigma
        Strength and kind of the readout's regularizer: ``"l1"``, or ``"adaptive_log_norm"`` with the width
        ``gamma_sigma`` of its prior (see :mod:`december_plugin.models.layers.regularizers`).
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
    core_settings = stacked_core_settings(
        hidden_channels=hidden_channels,
        input_kern=input_kern,
        hidden_kern=hidden_kern,
        layers=layers,
        gamma_input=gamma_input,
        skip=skip,
        final_nonlinearity=final_nonlinearity,
        bias=core_bias,
        momentum=momentum,
        pad_input=pad_input,
        hidden_padding=hidden_padding,
        batch_norm=batch_norm,
        final_batchnorm_scale=final_batchnorm_scale,
        hidden_dilation=hidden_dilation,
        laplace_padding=laplace_padding,
        input_regularizer=input_regularizer,
        use_avg_reg=use_avg_reg,
        depth_separable=depth_separable,
        linear=linear,
        stack=stack,
    )
    readout_settings = {
        "bias": readout_bias,
        **readout_regularization(gamma_readout, readout_regularizer, gamma_sigma),
        **position_settings(init_mu_range, init_sigma, gauss_type),
        "mean_activity_dict": bias_starts(sessions, bias_start, elu_offset),
        **grid_settings(sessions, grid_mean_predictor),
    }
    pupil_channels = _pupil_channels(sessions, shifter)
    with seeded_weights(seed):
        # The order of construction is SENSORIUM's, so that a seed means the same weights.
        core = stacked_core(sessions, core_settings)
        readout = gaussian_readouts(sessions, core, readout_settings)
        moved = None
        if pupil_channels is not None:
            moved = _shifter(sessions, pupil_channels, hidden_channels_shifter, shift_layers, gamma_shifter)
    return FiringRateEncoder(core=core, readout=readout, shifter=moved, elu_offset=elu_offset)


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


def _pupil_channels(sessions: Mapping[str, SessionShape], shifter: bool | None) -> int | None:
    channels = {data_key: session.pupil_channels for data_key, session in sessions.items()}
    if shifter is False or (shifter is None and all(value is None for value in channels.values())):
        return None
    if None in channels.values() or len(set(channels.values())) > 1:
        raise MisfitError(
            f"A shifter needs pupil positions in every session; the sessions serve {listed(channels)}. Load them with "
            "include_eye_position=True, or pass shifter=False.",
            setting="shifter",
        )
    return next(iter(channels.values()))
