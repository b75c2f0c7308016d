"""Rotation-equivariant stacked core, Gaussian or factorized readout (Ecker et al. 2019; Ustyuzhaninov et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from neuralpredictors.layers.encoders import FiringRateEncoder

from december_plugin.models.build import build_parts
from december_plugin.models.sessions import sessions_of
from december_plugin.models.settings import (
    EquivariantCoreSettings,
    FactorizedReadoutSettings,
    GaussianReadoutSettings,
)
from december_plugin.validation.checks import checked_settings


@checked_settings
def equivariant_core_gaussian_readout(
    dataloaders: Mapping[str, Any] | None,
    seed: int,
    *,
    features: int = 16,
    orientations: int = 8,
    input_kern: int = 13,
    hidden_kern: int | Sequence[int] = 5,
    layers: int = 3,
    gamma_input: float = 6.3831,
    gamma_hidden: float = 0.0,
    upsampling: int = 2,
    pad_input: bool = False,
    pad_hidden: bool = True,
    batch_norm: bool = True,
    final_batchnorm_scale: bool = True,
    momentum: float = 0.9,
    final_nonlinearity: bool = True,
    gamma_readout: float = 0.0076,
    readout_regularizer: str = "l1",
    gamma_sigma: float = 0.1,
    init_mu_range: float = 0.3,
    init_sigma: float = 0.1,
    gauss_type: str = "full",
    readout_kernel: str = "auto",
    grid_mean_predictor: Mapping[str, Any] | None = None,
    readout_bias: bool = True,
    bias_start: str = "mean_rate",
    elu_offset: float = 0.0,
    data_info: Mapping[str, Any] | None = None,
) -> FiringRateEncoder:
    """Build a rotation-equivariant core with a Gaussian readout, to compare neurons of any preferred orientation.

    The core of Ecker et al. 2019 has each feature at ``orientations`` orientations; the defaults (3 layers, 16 features
    at 8 orientations, kernels of 13, 5 and 5 pixels) are those of Ustyuzhaninov et al. 2020. Readout vectors have
    ``orientations * features`` entries, orientation-major: entry ``o * features + f`` belongs to feature f at
    orientation o, ``o * 360 / orientations`` degrees counterclockwise. Turning the image by 90 degrees counterclockwise
    turns the maps and moves the orientations by ``orientations / 4``.

    Parameters
    ----------
    dataloaders
        What a dataset function returned: tier to data key to loader, or data key to loader. May be None with
        ``data_info``.
    seed
        Seed of the initial weights. The same seed gives the same bytes; the global random state is left alone.
    features, orientations, layers
        Features and their orientations in each layer (a multiple of 4: only then is the grid of pixels turned onto
        itself), and number of layers.
    input_kern, hidden_kern
        Kernel sizes in pixels of the first layer and of the others (one number, or one for each of ``layers - 1``).
    gamma_input, gamma_hidden
        Strengths of the smoothness penalty of the first filters (``LaplaceL2norm``, over all orientations) and of the
        group sparsity of the others.
    upsampling
        How many points of a filter are averaged for each pixel, along each axis.
    pad_input, pad_hidden
        Whether the first layer and the others keep the size of the map; their kernels are then odd.
    batch_norm, momentum, final_nonlinearity
        Whether each layer is normalised over batch and orientations, its momentum, and whether the last one has an ELU.
    final_batchnorm_scale
        Whether the last batch normalisation learns a scale. Without it the features have unit variance before the last
        nonlinearity, and readout weights a fixed unit.
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
    grid_mean_predictor
        Predict positions from ``cell_motor_coordinates`` by a small network, with its settings as in
        :func:`~december_plugin.models.stacked_core_gaussian_readout`. None learns each position separately.
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
    equivariant_core_factorized_readout : The same core, with a spatial mask for each neuron.
    stacked_core_gaussian_readout : The same readout, on a core without rotations.
    december_plugin.rotation.RotationAlignment : Turns the readout vectors of such a core onto each other.

    Examples
    --------
    >>> import torch
    >>> from december_plugin.models import equivariant_core_gaussian_readout
    >>> shape = {"input_dimensions": [1, 1, 16, 16], "output_dimension": 5, "mean_responses": None}
    >>> model = equivariant_core_gaussian_readout(
    ...     None, seed=0, data_info={"1-1-1": shape}, features=2, orientations=4, input_kern=5, hidden_kern=3, layers=2
    ... )
    >>> tuple(model(torch.zeros(2, 1, 16, 16), data_key="1-1-1").shape)
    (2, 5)
    """
    given = locals()
    parts = build_parts(
        sessions_of(dataloaders, data_info),
        seed,
        core=EquivariantCoreSettings.of(given),
        readout=GaussianReadoutSettings.of(given),
    )
    return FiringRateEncoder(**parts, elu_offset=elu_offset)


@checked_settings
def equivariant_core_factorized_readout(
    dataloaders: Mapping[str, Any] | None,
    seed: int,
    *,
    features: int = 16,
    orientations: int = 8,
    input_kern: int = 13,
    hidden_kern: int | Sequence[int] = 5,
    layers: int = 3,
    gamma_input: float = 6.3831,
    gamma_hidden: float = 0.0,
    upsampling: int = 2,
    pad_input: bool = False,
    pad_hidden: bool = True,
    batch_norm: bool = True,
    final_batchnorm_scale: bool = True,
    momentum: float = 0.9,
    final_nonlinearity: bool = True,
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
    """Build a rotation-equivariant core with a factorized readout, as in Ustyuzhaninov et al. 2020, section 3.

    The core and its settings are those of :func:`equivariant_core_gaussian_readout`, the readout and its settings those
    of :func:`~december_plugin.models.stacked_core_factorized_readout`: each neuron has a spatial mask and a feature
    vector. The feature vector is the readout vector that is aligned and clustered; it has ``orientations * features``
    entries, orientation-major.

    Parameters
    ----------
    dataloaders
        What a dataset function returned: tier to data key to loader, or data key to loader. May be None with
        ``data_info``.
    seed
        Seed of the initial weights. The same seed gives the same bytes; the global random state is left alone.
    features, orientations, layers
        Features and their orientations in each layer (a multiple of 4), and number of layers.
    input_kern, hidden_kern
        Kernel sizes in pixels of the first layer and of the others (one number, or one for each of ``layers - 1``).
    gamma_input, gamma_hidden
        Strengths of the smoothness penalty of the first filters and of the group sparsity of the others.
    upsampling
        How many points of a filter are averaged for each pixel, along each axis.
    pad_input, pad_hidden
        Whether the first layer and the others keep the size of the map; their kernels are then odd.
    batch_norm, momentum, final_nonlinearity
        Whether each layer is normalised over batch and orientations, its momentum, and whether the last one has an ELU.
    final_batchnorm_scale
        Whether the last batch normalisation learns a scale.
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
    equivariant_core_gaussian_readout : The same core, with a Gaussian readout.
    stacked_core_factorized_readout : The same readout, on a core without rotations.
    december_plugin.rotation.RotationAlignment : Turns the readout vectors of such a core onto each other.

    Examples
    --------
    >>> import torch
    >>> from december_plugin.models import equivariant_core_factorized_readout
    >>> shape = {"input_dimensions": [1, 1, 16, 16], "output_dimension": 5, "mean_responses": None}
    >>> model = equivariant_core_factorized_readout(
    ...     None, seed=0, data_info={"1-1-1": shape}, features=2, orientations=4, input_kern=5, hidden_kern=3, layers=2
    ... )
    >>> tuple(model(torch.zeros(2, 1, 16, 16), data_key="1-1-1").shape)
    (2, 5)
    """
    given = locals()
    parts = build_parts(
        sessions_of(dataloaders, data_info),
        seed,
        core=EquivariantCoreSettings.of(given),
        readout=FactorizedReadoutSettings.of(given),
    )
    return FiringRateEncoder(**parts, elu_offset=elu_offset)
