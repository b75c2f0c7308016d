"""The model of Höfling et al. 2024 for retina movies: space-time separable convolutions, Gaussian readout masks."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from december_plugin.errors import MisfitError
from december_plugin.importing.openretina import openretina_module, undisturbed
from december_plugin.models.build import bias_starts, learn_final_scale, seeded_weights
from december_plugin.models.sessions import SessionShape, check_movies, listed, sessions_of
from december_plugin.models.settings import HoeflingCoreSettings, HoeflingReadoutSettings
from december_plugin.validation.checks import check_integer, checked_settings


class HoeflingModel(nn.Module):
    """A core over space and time and one readout for each session.

    Attributes
    ----------
    core
        Videos (batch, channels, frames, height, width) to feature maps, with fewer frames.
    readout
        Data key to readout.
    """

    def __init__(self, core: nn.Module, readout: nn.Module):
        super().__init__()
        self.core = core
        self.readout = readout

    def forward(self, videos: Tensor, *, data_key: str, **others: Any) -> Tensor:
        """Return the responses (batch, frames', neurons) to the last frames' of the videos.

        Parameters
        ----------
        videos
            (batch, channels, frames, height, width).
        data_key
            Whose neurons.
        **others
            Whatever else a batch has; ignored.
        """
        return self.readout(self.core(videos), data_key=data_key)


@checked_settings
def hoefling_core_gaussian_readout(
    dataloaders: Mapping[str, Any] | None,
    seed: int,
    *,
    hidden_channels: Sequence[int] = (16, 16),
    temporal_kernels: Sequence[int] = (21, 11),
    spatial_kernels: Sequence[int] = (11, 5),
    pad_hidden: bool = True,
    final_batchnorm_scale: bool = True,
    gamma_temporal: float = 40.0,
    gamma_input: float = 0.0,
    gamma_hidden: float = 0.0,
    gamma_in_sparse: float = 0.0,
    gamma_readout: float = 1.0,
    gamma_masks: float = 1.0,
    readout_regularizer: str = "l1",
    gamma_sigma: float = 0.1,
    readout_scale: bool = True,
    readout_positive: bool = True,
    gaussian_mean_scale: float = 6.0,
    gaussian_var_scale: float = 4.0,
    bias_start: str = "mean_rate",
    data_info: Mapping[str, Any] | None = None,
) -> HoeflingModel:
    """Build the model of Höfling et al. 2024 for movies; the defaults are openretina's for their low resolution.

    Needs the extra ``[retina]``. The parts are openretina's ``SimpleCoreWrapper`` (each kernel is the product of one in
    space and one in time, made of sines and cosines) and ``GaussianMaskReadout``:
    ``r_i = softplus(s_i sum_c w_ic <m_i, core(video)_c> + b_i)``. ``w_i`` is the readout vector that is clustered.

    Parameters
    ----------
    dataloaders
        What a dataset function of movies returned: tier to data key to loader, or data key to loader; batches are named
        tuples or dicts whose first entries are videos (batch, channels, frames, height, width) and responses (batch,
        frames, neurons). May be None with ``data_info``.
    seed
        Seed of the initial weights. The same seed gives the same bytes; the global random state is left alone.
    hidden_channels
        Channels of each layer.
    temporal_kernels, spatial_kernels
        Kernel sizes of each layer, in frames (at least 3) and in pixels. The first
        ``sum(temporal_kernels) - layers`` frames of a video are not predicted: 30 by default.
    pad_hidden
        Whether the layers after the first keep the size of the map; their ``spatial_kernels`` are then odd and equal.
    final_batchnorm_scale
        Whether the last batch normalisation learns a scale. Without it the features have unit variance before the last
        nonlinearity, and readout weights a fixed unit.
    gamma_temporal, gamma_input, gamma_hidden, gamma_in_sparse
        Strengths of openretina's penalties: high frequencies in time, rough kernels of the first layer, and many input
        channels per channel, in the layers after the first and in all.
    gamma_readout, readout_regularizer, gamma_sigma
        Strength and kind of the readout vectors' penalty: "l1" or "adaptive_log_norm", with the width ``gamma_sigma``
        of its prior (see :mod:`december_plugin.models.layers.regularizers`).
    gamma_masks
        Strength of the penalty of wide masks and of masks far from the middle.
    readout_scale
        Whether each neuron has a gain ``s_i``, which is not part of its readout vector.
    readout_positive
        Whether readout weights are kept from being negative.
    gaussian_mean_scale, gaussian_var_scale
        Factors of the positions and log variances of the masks, which set how quickly they are learned.
    bias_start
        Where biases start: "mean_rate" at the value for which a neuron without drive has its mean response over the
        training tier, "zero" at 0.
    data_info
        nnfabrik's description of the sessions: the model is built without data.

    Returns
    -------
    HoeflingModel
        On the CPU, in training mode, with ``core`` and ``readout`` (data key to readout).

    Raises
    ------
    SettingsError
        If a setting is unknown, has a value that is not allowed, or does not fit the sessions; if openretina is
        missing.

    See Also
    --------
    movie_core_gaussian_readout : A core for movies that needs no extra, with positions instead of masks.
    december_plugin.datasets.hoefling_2024_loaders : Loads the recordings that this model was made for.

    Examples
    --------
    >>> import torch
    >>> from december_plugin.models import hoefling_core_gaussian_readout
    >>> shape = {"input_dimensions": [1, 2, 50, 18, 16], "output_dimension": 5, "mean_responses": None}
    >>> model = hoefling_core_gaussian_readout(None, seed=0, data_info={"session_1_ventral1_20201021": shape})
    >>> movies = torch.zeros(3, 2, 50, 18, 16)
    >>> tuple(model(movies, data_key="session_1_ventral1_20201021").shape)  # clips, frames after the first 30, neurons
    (3, 20, 5)
    """
    given = locals()
    sessions = sessions_of(dataloaders, data_info)
    check_movies(sessions)
    channels, *size = _shared_input(sessions)
    core_settings, readout_settings = HoeflingCoreSettings.of(given), HoeflingReadoutSettings.of(given)
    in_shape = (core_settings.hidden_channels[-1], *_output_size(size, core_settings))
    seed = check_integer("seed", seed, minimum=0)
    openretina_module("modules.core.base_core")  # a clear error if it is missing
    parts = importlib.import_module("december_plugin.models.layers.hoefling_2024")
    with undisturbed(), seeded_weights(seed):
        core = parts.SeparableCore(**_core_arguments(channels, core_settings))
        learn_final_scale(core.features[-1], core_settings.final_batchnorm_scale)
        readout = parts.MultipleMaskReadout(in_shape, **_readout_arguments(sessions, readout_settings))
    return HoeflingModel(core, readout)


def _core_arguments(channels: int, settings: HoeflingCoreSettings) -> dict[str, Any]:
    return {
        "channels": (channels, *settings.hidden_channels),
        "temporal_kernel_sizes": settings.temporal_kernels,
        "spatial_kernel_sizes": settings.spatial_kernels,
        "cut_first_n_frames": 0,
        "input_padding": False,
        "hidden_padding": (0, settings.margin, settings.margin),
        "convolution_type": "custom_separable",
        "gamma_temporal": settings.gamma_temporal,
        "gamma_input": settings.gamma_input,
        "gamma_hidden": settings.gamma_hidden,
        "gamma_in_sparse": settings.gamma_in_sparse,
    }


def _readout_arguments(sessions: Mapping[str, SessionShape], settings: HoeflingReadoutSettings) -> dict[str, Any]:
    return {
        "n_neurons_dict": {data_key: session.n_neurons for data_key, session in sessions.items()},
        "mean_activity_dict": bias_starts(sessions, settings.bias_start, _inverse_softplus),
        "bias": True,
        "feature_weights_l1_reg": settings.gamma_readout,
        "mask_l1_reg": settings.gamma_masks,
        "regularizer_type": settings.readout_regularizer,
        "gamma_sigma": settings.gamma_sigma,
        "scale": settings.readout_scale,
        "positive": settings.readout_positive,
        "gaussian_mean_scale": settings.gaussian_mean_scale,
        "gaussian_var_scale": settings.gaussian_var_scale,
    }


def _shared_input(sessions: Mapping[str, SessionShape]) -> tuple[int, ...]:
    """Return (channels, frames, height, width), of which the sessions may differ only in the number of frames."""
    shapes = {data_key: session.image_shape for data_key, session in sessions.items()}
    if len(set(shapes.values())) > 1:
        raise MisfitError(
            f"the sessions' videos differ in channels or size ({listed(shapes)}), but they share a core. Load them "
            "from movies of one resolution."
        )
    channels, height, width = next(iter(shapes.values()))
    return channels, min(session.frames or 0 for session in sessions.values()), height, width


def _output_size(size: Sequence[int], settings: HoeflingCoreSettings) -> tuple[int, ...]:
    """Return (frames, height, width) of the core's output for videos of this size."""
    lost_frames = sum(kernel - 1 for kernel in settings.temporal_kernels)
    first, *hidden = settings.spatial_kernels
    lost = first - 1 + sum(kernel - 1 - 2 * settings.margin for kernel in hidden)
    frames, height, width = size
    if frames <= lost_frames:
        raise MisfitError(
            f"the videos have {frames} frames, but temporal_kernels={list(settings.temporal_kernels)} need at "
            f"least {lost_frames + 1}: use longer stretches (chunk_frames) or shorter kernels.",
            setting="temporal_kernels",
        )
    if min(height, width) <= lost:
        raise MisfitError(
            f"the videos have {height} x {width} pixels, but spatial_kernels={list(settings.spatial_kernels)} need "
            f"at least {lost + 1} x {lost + 1}.",
            setting="spatial_kernels",
        )
    return frames - lost_frames, height - lost, width - lost


def _inverse_softplus(rate: Tensor) -> Tensor:
    return rate + (-torch.expm1(-rate)).log()
