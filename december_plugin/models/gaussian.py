"""The SENSORIUM 2022 baseline: stacked convolutional core, full Gaussian readout, optional shifter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from neuralpredictors.layers.encoders import FiringRateEncoder

from december_plugin.models.build import build_parts
from december_plugin.models.sessions import sessions_of
from december_plugin.models.settings import CORTEX_GRID, GaussianReadoutSettings, ShifterSettings, StackedCoreSettings
from december_plugin.validation.checks import Preset, checked_settings, with_presets

# Published experiments on mouse V1: SENSORIUM 2022's model and, from their script, the last five.
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
    readout_kernel: str = "auto",
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
        of this module). Settings that are given as well take precedence. None: the defaults here.
    hidden_channels, layers
        Channels of each layer, and number of layers of the core.
    input_kern, hidden_kern
        Kernel sizes in pixels of the first layer and of the others (one number, or one for each of ``layers - 1``).
    gamma_input, input_regularizer, use_avg_reg, laplace_padding
        Strength of the smoothness penalty of the first layer's kernels, its name in
        ``neuralpredictors.regularizers``, whether it is a mean instead of a sum, and its padding.
    skip
        Of how many preceding layers each hidden layer sees the outputs; 0 and 1: of the one before.
    hidden_dilation, depth_separable
        Dilation of the hidden layers' kernels, and whether those layers are separable in channels and space.
    batch_norm, momentum
        Whether each layer has batch normalisation, and its momentum.
    final_batchnorm_scale
        Whether the last layer's batch normalisation learns a scale, as by default. Without it the features have unit
        variance before the last nonlinearity, and readout weights a fixed unit, in which ``scale_bounds`` of the
        clustering are given.
    final_nonlinearity, linear, core_bias
        Whether the last layer has an ELU, whether all nonlinearities are left out, and whether layers without batch
        normalisation have a bias.
    pad_input, hidden_padding
        Whether the first layer is padded (not by default: its output is ``input_kern - 1`` pixels smaller), and the
        padding of the others (None: as much as keeps the size).
    stack
        Layers that the readout sees: all from this index on (-1: the last one), all (None), or a list of indices.
    gamma_readout, readout_regularizer, gamma_sigma
        Strength and kind of the readout's regularizer: ``"l1"``, or ``"adaptive_log_norm"`` with the width
        ``gamma_sigma`` of its prior (see :mod:`december_plugin.models.layers.regularizers`).
    init_mu_range, init_sigma, gauss_type
        Start range of the positions (in (0, 1]; 1 is the edge of the map), start width of the position's Gaussian, and
        its covariance: full, uncorrelated or isotropic.
    readout_kernel
        How maps are read at the positions, with the same results to rounding: ``"grid_sample"`` as in neuralpredictors;
        ``"fused"`` without a tensor of all samples (:mod:`december_plugin.models.layers.point_reading`); ``"auto"`` is
        ``"fused"`` on CUDA, and on the CPU if it is faster.
    readout_bias, bias_start
        Whether each neuron has a bias, and where it starts: ``"mean_rate"`` at the value for which a neuron without
        drive has its mean response over the training tier, ``"zero"`` at 0 as in SENSORIUM's code.
    grid_mean_predictor
        Predict positions from ``cell_motor_coordinates`` by a small network: ``{"type": "cortex", "input_dimensions":
        2, "hidden_layers": 1, "hidden_features": 30, "final_tanh": True}`` by default. None learns each position
        separately.
    shifter
        Whether the positions move with the pupil. None: if the loaders serve pupil positions.
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

    See Also
    --------
    stacked_core_factorized_readout : The same core, with a spatial mask for each neuron.
    stacked_core_attention_readout : The same core, with positions computed from every image.
    equivariant_core_gaussian_readout : The same readout, on a rotation-equivariant core.
    december_plugin.datasets.static_loaders : Loads recordings in the SENSORIUM 2022 layout.

    Examples
    --------
    >>> import torch
    >>> from december_plugin.models import stacked_core_gaussian_readout
    >>> shape = {"input_dimensions": [1, 1, 16, 16], "output_dimension": 5, "mean_responses": None}
    >>> model = stacked_core_gaussian_readout(
    ...     None, seed=0, data_info={"1-1-1": shape}, hidden_channels=4, layers=1, grid_mean_predictor=None
    ... )
    >>> tuple(model(torch.zeros(2, 1, 16, 16), data_key="1-1-1").shape)  # images, neurons
    (2, 5)
    """
    given = locals()
    parts = build_parts(
        sessions_of(dataloaders, data_info),
        seed,
        core=StackedCoreSettings.of(given),
        readout=GaussianReadoutSettings.of(given),
        shifter=ShifterSettings.of(given),
    )
    return FiringRateEncoder(**parts, elu_offset=elu_offset)
