"""Stacked convolutional core with the factorized readout of Klindt et al. 2017."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from neuralpredictors.layers.encoders import FiringRateEncoder

from december_plugin.models.build import build_parts
from december_plugin.models.sessions import sessions_of
from december_plugin.models.settings import FactorizedReadoutSettings, StackedCoreSettings
from december_plugin.validation.checks import checked_settings


@checked_settings
def stacked_core_factorized_readout(
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
    gamma_masks: float = 0.0076,
    normalize_masks: bool = True,
    positive_masks: bool = False,
    init_noise: float = 1e-3,
    readout_bias: bool = True,
    bias_start: str = "mean_rate",
    elu_offset: float = 0.0,
    data_info: Mapping[str, Any] | None = None,
) -> FiringRateEncoder:
    """Build a stacked core with a factorized readout (Klindt et al. 2017, "Neural system identification").

    ``rate_i = ELU(sum_xy m_ixy <w_i, core(image)_xy> + b_i + elu_offset) + 1``: each neuron has a spatial mask ``m_i``
    and a feature vector ``w_i``, which is the readout vector that is clustered. The core's settings and their defaults
    are those of :func:`~december_plugin.models.stacked_core_gaussian_readout`.

    Parameters
    ----------
    dataloaders
        What a dataset function returned: tier to data key to loader, or data key to loader. May be None with
        ``data_info``.
    seed
        Seed of the initial weights. The same seed gives the same bytes; the global random state is left alone.
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
    batch_norm, momentum, final_batchnorm_scale
        Whether each layer has batch normalisation, its momentum, and whether the last one learns a scale. Without it
        the features have unit variance before the last nonlinearity, and readout weights a fixed unit.
    final_nonlinearity, linear, core_bias
        Whether the last layer has an ELU, whether all nonlinearities are left out, and whether layers without batch
        normalisation have a bias.
    pad_input, hidden_padding
        Whether the first layer is padded (not by default: its output is ``input_kern - 1`` pixels smaller), and the
        padding of the others (None: as much as keeps the size).
    stack
        Layers that the readout sees: all from this index on (-1: the last one), all (None), or a list of indices.
    gamma_readout, readout_regularizer, gamma_sigma
        Strength and kind of the readout vectors' penalty: ``"l1"``, or ``"adaptive_log_norm"`` with the width
        ``gamma_sigma`` of its prior.
    gamma_masks
        Strength of the L1 penalty of the masks.
    normalize_masks, positive_masks
        Whether masks have norm 1, and whether they, and the readout vectors with them, are kept from being negative.
    init_noise
        Standard deviation of the initial masks and readout vectors.
    readout_bias, bias_start
        Whether each neuron has a bias, and where it starts: ``"mean_rate"`` at the value for which a neuron without
        drive has its mean response over the training tier, ``"zero"`` at 0.
    elu_offset
        Added before the output nonlinearity.
    data_info
        nnfabrik's description of the sessions: the model is built without data.

    Returns
    -------
    neuralpredictors.layers.encoders.FiringRateEncoder
        On the CPU, in training mode, with ``core`` and ``readout`` (data key to readout).

    Raises
    ------
    SettingsError
        If a setting is unknown, has a value that is not allowed, or does not fit the sessions.

    See Also
    --------
    stacked_core_gaussian_readout : The same core with a Gaussian readout, the baseline of SENSORIUM 2022.
    equivariant_core_factorized_readout : The same readout, on a rotation-equivariant core.

    Examples
    --------
    >>> import torch
    >>> from december_plugin.models import stacked_core_factorized_readout
    >>> shape = {"input_dimensions": [1, 1, 16, 16], "output_dimension": 5, "mean_responses": None}
    >>> model = stacked_core_factorized_readout(None, seed=0, data_info={"1-1-1": shape}, hidden_channels=4, layers=1)
    >>> tuple(model(torch.zeros(2, 1, 16, 16), data_key="1-1-1").shape)
    (2, 5)
    """
    given = locals()
    parts = build_parts(
        sessions_of(dataloaders, data_info),
        seed,
        core=StackedCoreSettings.of(given),
        readout=FactorizedReadoutSettings.of(given),
    )
    return FiringRateEncoder(**parts, elu_offset=elu_offset)
