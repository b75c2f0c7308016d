"""Attention readouts, on a stacked core or on features of a network that was trained on a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from neuralpredictors.layers.encoders import FiringRateEncoder

from december_plugin.models.build import build_parts
from december_plugin.models.sessions import sessions_of
from december_plugin.models.settings import AttentionReadoutSettings, StackedCoreSettings, TaskCoreSettings
from december_plugin.validation.checks import checked_settings


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
    ``a_i``, a softmax over the map, is computed from every image. ``w_i`` is the readout vector that is clustered.
    The core's defaults are the published configuration of their V4 model (5 layers, 96 channels, kernels 9 and 5). The
    readout is neuralpredictors' ``AttentionReadout``: a convolution computes one map per neuron, whereas in theirs all
    neurons share keys and values, and each has a query.

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
    attention_kernel, attention_layers
        Kernel size (odd) and number of the convolutions that compute the attention maps.
    init_noise
        Standard deviation of the initial readout vectors.
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
    task_core_attention_readout : The same readout, on a network that was trained on a task.
    stacked_core_gaussian_readout : The same core with a Gaussian readout, the baseline of SENSORIUM 2022.
    december_plugin.datasets.macaque_v4_loaders : Loads spike counts of macaque V4.

    Examples
    --------
    >>> import torch
    >>> from december_plugin.models import stacked_core_attention_readout
    >>> shape = {"input_dimensions": [1, 1, 24, 24], "output_dimension": 5, "mean_responses": None}
    >>> model = stacked_core_attention_readout(None, seed=0, data_info={"M1": shape}, hidden_channels=4, layers=1)
    >>> tuple(model(torch.zeros(2, 1, 24, 24), data_key="M1").shape)
    (2, 5)
    """
    given = locals()
    parts = build_parts(
        sessions_of(dataloaders, data_info),
        seed,
        core=StackedCoreSettings.of(given),
        readout=AttentionReadoutSettings.of(given),
    )
    return FiringRateEncoder(**parts, elu_offset=elu_offset)


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

    Needs torchvision. Images with one channel are repeated as gray images for a network that takes colours. The default
    layer is that of the task-driven V4 model of Willeke et al. 2023, an adversarially trained ResNet-50, whose weights
    torchvision does not have: give them as ``weights_file``.

    Parameters
    ----------
    dataloaders
        What a dataset function returned: tier to data key to loader, or data key to loader. May be None with
        ``data_info``.
    seed
        Seed of the initial weights. The same seed gives the same bytes; the global random state is left alone.
    network
        Name of a model of ``torchvision.models``.
    layer
        Dotted name of the module of the network whose output the readout sees.
    weights
        Name of weights that torchvision downloads on first use, e.g. "DEFAULT", its best, or "IMAGENET1K_V1". None for
        random ones, from the seed.
    weights_file
        A state dict of the network, as ``torch.save`` writes it, read with ``weights_only=True``. Prefixes "module."
        and "model." are removed. It replaces ``weights``, which may not be given as well.
    fine_tune
        Whether the network's weights are trained too. If not, its batch normalisation uses the stored statistics.
    final_batch_norm, final_nonlinearity, momentum
        Whether the features are normalised over the batch, with which momentum, and rectified.
    final_batchnorm_scale
        Whether that normalisation learns a scale.
    gamma_readout, readout_regularizer, gamma_sigma
        Strength and kind of the readout vectors' penalty: ``"l1"``, or ``"adaptive_log_norm"`` with the width
        ``gamma_sigma`` of its prior.
    attention_kernel, attention_layers
        Kernel size (odd) and number of the convolutions that compute the attention maps.
    init_noise
        Standard deviation of the initial readout vectors.
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
        If torchvision is missing, the weights do not fit the network, or a setting is unknown, has a value that is not
        allowed, or does not fit the sessions.

    See Also
    --------
    stacked_core_attention_readout : The same readout, on a core that is trained on the recordings.
    december_plugin.datasets.macaque_v4_loaders : Loads spike counts of macaque V4.

    Examples
    --------
    >>> import torch
    >>> from december_plugin.models import task_core_attention_readout
    >>> shape = {"input_dimensions": [1, 1, 64, 64], "output_dimension": 5, "mean_responses": None}
    >>> model = task_core_attention_readout(
    ...     None, seed=0, data_info={"M1": shape}, network="resnet18", layer="layer1", weights=None
    ... )
    >>> tuple(model.readout["M1"].features.shape)  # readout vectors: neurons, channels of the layer
    (5, 64)
    >>> tuple(model(torch.zeros(2, 1, 64, 64), data_key="M1").shape)  # images, neurons
    (2, 5)
    """
    given = locals()
    parts = build_parts(
        sessions_of(dataloaders, data_info),
        seed,
        core=TaskCoreSettings.of(given),
        readout=AttentionReadoutSettings.of(given),
    )
    return FiringRateEncoder(**parts, elu_offset=elu_offset)
