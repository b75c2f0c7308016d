"""Attention readouts, on a stacked core or on the features of a network that was trained on a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from neuralpredictors.layers.encoders import FiringRateEncoder
from neuralpredictors.layers.readouts import MultiReadoutSharedParametersBase
from torch import nn

from december_plugin.models.layers.readouts import AttentionReadout
from december_plugin.models.layers.task_core import TaskCore, load_network
from december_plugin.models.parts import (
    bias_starts,
    learn_final_scale,
    output_shapes,
    readout_regularization,
    seeded_weights,
    stacked_core,
    stacked_core_settings,
)
from december_plugin.models.sessions import SessionShape, check_images, sessions_of, shared_channels
from december_plugin.validation.checks import check_bool, check_integer, check_number, check_odd, checked_settings


class MultipleAttention2d(MultiReadoutSharedParametersBase):
    """One attention readout for each session, by data key."""

    _base_readout = AttentionReadout


@checked_settings
def stacked_core_attention_readout(
    dataloaders: Mapping[str, Any] | None,
    seed: int,
    *,
    hidden_channels: int = 96,
    input_kern: int = 9,
    hidden_kern: int | Sequence[int] = 5,
    layers: int = 5,
    gamma_input: float = 10.0,
    skip: int = 0,
    final_nonlinearity: bool = True,
    momentum: float = 0.1,
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
    gamma_readout: float = 1.0,
    readout_regularizer: str = "l1",
    gamma_sigma: float = 0.1,
    attention_kernel: int = 1,
    attention_layers: int = 1,
    init_noise: float = 1e-3,
    readout_bias: bool = True,
    bias_start: str = "mean_rate",
    elu_offset: float = 0.0,
    data_info: Mapping[str, Any] | None = None,
) -> FiringRateEncoder:
    """Build a data-driven stacked core with an attention readout, for macaque V4 (Pierzchlewicz et al. 2023).

    ``rate_i = ELU(<w_i, sum_xy a_ixy core(image)_xy> + b_i + elu_offset) + 1``: the position from which neuron i reads,
    ``a_i``, a softmax over the map, is computed anew from every image. ``w_i`` is the readout vector that is clustered.
    The core's defaults are the published configuration of their V4 model (5 layers, 96 channels, kernels 9 and 5). The
    readout is neuralpredictors' ``AttentionReadout``: one map per neuron out of a convolution, where theirs has keys
    and values that all neurons share and a query per neuron.

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
    attention_kernel, attention_layers
        Kernel size (odd) and number of the convolutions that compute the attention maps.
    init_noise
        Standard deviation of the initial feature vectors.
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
        **_attention_settings(attention_kernel, attention_layers, init_noise),
        "mean_activity_dict": bias_starts(sessions, bias_start, elu_offset),
    }
    with seeded_weights(seed):
        core = stacked_core(sessions, core_settings)
        readout = _readouts(sessions, core, readout_settings)
    return FiringRateEncoder(core=core, readout=readout, elu_offset=elu_offset)


@checked_settings
def task_core_attention_readout(
    dataloaders: Mapping[str, Any] | None,
    seed: int,
    *,
    network: str = "resnet50",
    layer: str = "layer3.0",
    weights: str | None = "DEFAULT",
    weights_file: str | None = None,
    fine_tune: bool = False,
    final_batch_norm: bool = True,
    final_batchnorm_scale: bool = True,
    final_nonlinearity: bool = True,
    momentum: float = 0.1,
    gamma_readout: float = 1.0,
    readout_regularizer: str = "l1",
    gamma_sigma: float = 0.1,
    attention_kernel: int = 1,
    attention_layers: int = 1,
    init_noise: float = 1e-3,
    readout_bias: bool = True,
    bias_start: str = "mean_rate",
    elu_offset: float = 0.0,
    data_info: Mapping[str, Any] | None = None,
) -> FiringRateEncoder:
    """Build an attention readout on features of a network that was trained on a task, for macaque V4.

    Needs torchvision. Images with one channel are shown to a network of colour images as gray ones. The default layer
    is that of the task-driven V4 model of Willeke et al. 2023, an adversarially trained ResNet-50, whose weights
    torchvision does not have: give them as ``weights_file``.

    Parameters
    ----------
    dataloaders, seed, data_info
        As in :func:`~december_plugin.models.stacked_core_gaussian_readout`.
    network
        Name of a model of ``torchvision.models``.
    layer
        Dotted name of the module of the network whose output the readout sees.
    weights
        Name of weights that torchvision downloads on first use, e.g. "DEFAULT", its best, or "IMAGENET1K_V1". None for
        random ones, from the seed.
    weights_file
        A state dict of the network, as ``torch.save`` writes it, read with ``weights_only=True``. Prefixes "module."
        and "model." are removed. It takes the place of ``weights``, of which none may be named then.
    fine_tune
        Whether the network's weights are trained too. If not, its batch normalisation uses the stored statistics.
    final_batch_norm, final_nonlinearity, momentum
        Whether the features are normalised over the batch, with which momentum, and rectified.
    final_batchnorm_scale
        Whether that normalisation learns a scale.
    gamma_readout, readout_regularizer, gamma_sigma, attention_kernel, attention_layers, init_noise
        As in :func:`~december_plugin.models.stacked_core_attention_readout`.
    readout_bias, bias_start, elu_offset
        As in :func:`~december_plugin.models.stacked_core_gaussian_readout`.

    Returns
    -------
    neuralpredictors.layers.encoders.FiringRateEncoder
        On the CPU, in training mode, with ``core`` and ``readout`` (data key to readout).

    Raises
    ------
    SettingsError
        If torchvision is missing, the weights do not fit the network, or a setting is unknown, has a value that is not
        allowed, or does not fit the sessions.
    """
    sessions = sessions_of(dataloaders, data_info)
    check_images(sessions)
    channels = shared_channels(sessions)
    core_settings: dict[str, Any] = {
        "layer": layer,
        "fine_tune": check_bool("fine_tune", fine_tune),
        "final_batch_norm": check_bool("final_batch_norm", final_batch_norm),
        "final_nonlinearity": check_bool("final_nonlinearity", final_nonlinearity),
        "momentum": check_number("momentum", momentum, above=0),
    }
    readout_settings = {
        "bias": readout_bias,
        **readout_regularization(gamma_readout, readout_regularizer, gamma_sigma),
        **_attention_settings(attention_kernel, attention_layers, init_noise),
        "mean_activity_dict": bias_starts(sessions, bias_start, elu_offset),
    }
    with seeded_weights(seed):
        core = TaskCore(channels, network=load_network(network, weights, weights_file), **core_settings)
        learn_final_scale(core.norm, final_batchnorm_scale)
        core.check_sizes(sessions)
        readout = _readouts(sessions, core, readout_settings)
    return FiringRateEncoder(core=core, readout=readout, elu_offset=elu_offset)


def _attention_settings(kernel: Any, layers: Any, init_noise: Any) -> dict[str, Any]:
    return {
        "attention_kernel": check_odd("attention_kernel", kernel),
        "attention_layers": check_integer("attention_layers", layers, minimum=1),
        "init_noise": check_number("init_noise", init_noise, above=0),
    }


def _readouts(
    sessions: Mapping[str, SessionShape], core: nn.Module, settings: Mapping[str, Any]
) -> MultipleAttention2d:
    neurons = {data_key: session.n_neurons for data_key, session in sessions.items()}
    return MultipleAttention2d(in_shape_dict=output_shapes(core, sessions), n_neurons_dict=neurons, **settings)
