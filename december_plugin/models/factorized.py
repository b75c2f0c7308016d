"""Stacked convolutional core with the factorized readout of Klindt et al. 2017."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from neuralpredictors.layers.encoders import FiringRateEncoder
from neuralpredictors.layers.readouts import MultiReadoutSharedParametersBase

from december_plugin.models.layers.readouts import FullFactorized2d
from december_plugin.models.parts import (
    bias_starts,
    output_shapes,
    readout_regularization,
    seeded_weights,
    stacked_core,
    stacked_core_settings,
)
from december_plugin.models.sessions import sessions_of
from december_plugin.validation.checks import check_bool, check_number, checked_settings


class MultipleFullFactorized2d(MultiReadoutSharedParametersBase):
    """One factorized readout for each session, by data key."""

    _base_readout = FullFactorized2d


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
    dataloaders, seed, data_info
        As in :func:`~december_plugin.models.stacked_core_gaussian_readout`.
    hidden_channels, input_kern, hidden_kern, layers, gamma_input, skip, final_nonlinearity, momentum, pad_input
        The core's; likewise.
    hidden_padding, batch_norm, final_batchnorm_scale, hidden_dilation, laplace_padding, input_regularizer, use_avg_reg
        The core's; likewise.
    core_bias, depth_separable, linear, stack
        The core's; likewise.
    gamma_readout, readout_regularizer, gamma_sigma
        Strength and kind of the feature vectors' penalty: ``"l1"``, or ``"adaptive_log_norm"`` with the width
        ``gamma_sigma`` of its prior.
    gamma_masks
        Strength of the L1 penalty of the masks.
    normalize_masks, positive_masks
        Whether masks have norm 1, and whether they, and the feature vectors with them, are kept from being negative.
    init_noise
        Standard deviation of the initial masks and feature vectors.
    readout_bias, bias_start, elu_offset
        As in :func:`~december_plugin.models.stacked_core_gaussian_readout`.

    Returns
    -------
    neuralpredictors.layers.encoders.FiringRateEncoder
        On the CPU, in training mode, with ``core`` and ``readout`` (data key to readout).

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
        "spatial_reg_weight": check_number("gamma_masks", gamma_masks, minimum=0),
        "normalize": check_bool("normalize_masks", normalize_masks),
        "constrain_pos": check_bool("positive_masks", positive_masks),
        "init_noise": check_number("init_noise", init_noise, above=0),
        "mean_activity_dict": bias_starts(sessions, bias_start, elu_offset),
    }
    with seeded_weights(seed):
        core = stacked_core(sessions, core_settings)
        neurons = {data_key: session.n_neurons for data_key, session in sessions.items()}
        readout = MultipleFullFactorized2d(
            in_shape_dict=output_shapes(core, sessions), n_neurons_dict=neurons, **readout_settings
        )
    return FiringRateEncoder(core=core, readout=readout, elu_offset=elu_offset)
