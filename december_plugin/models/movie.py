"""Convolutions over space and time with a Gaussian readout in every frame: the CNN of the marmoset retina."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from neuralpredictors.layers.readouts import MultiReadoutSharedParametersBase
from torch import Tensor, nn
from torch.nn import functional

from december_plugin.errors import MisfitError, SettingsError
from december_plugin.models.layers.readouts import FullGaussian2d
from december_plugin.models.layers.spatiotemporal_core import MovieCore
from december_plugin.models.parts import (
    bias_starts,
    learn_final_scale,
    position_settings,
    readout_regularization,
    seeded_weights,
)
from december_plugin.models.sessions import SessionShape, check_movies, sessions_of, shared_channels
from december_plugin.validation.checks import check_bool, check_integer, check_number, checked_settings


class FrameGaussian2d(FullGaussian2d):
    """Gaussian readout that reads every frame of the core's output with the same weights.

    In training each clip draws one position, which all of its frames share.
    """

    def forward(self, x: Tensor, *, sample: bool | None = None, shift: Tensor | None = None, **others: Any) -> Tensor:
        """Return the responses (batch, frames, n) to the core's output (batch, channels, frames, height, width)."""
        batch, channels, frames, height, width = x.shape
        if (channels, height, width) != tuple(self.in_shape):
            raise ValueError(f"the core's output is {(channels, height, width)}; {tuple(self.in_shape)} is expected.")
        grid = self.sample_grid(batch_size=batch, sample=sample)
        if shift is not None:
            grid = grid + shift[:, None, None, :]
        flat = x.reshape(batch, channels * frames, height, width)
        maps = functional.grid_sample(flat, grid, align_corners=self.align_corners)
        maps = maps.reshape(batch, channels, frames, self.outdims)
        responses = (maps * self.features.reshape(1, channels, 1, self.outdims)).sum(dim=1)
        return responses if self.bias is None else responses + self.bias


class MultipleFrameGaussian2d(MultiReadoutSharedParametersBase):
    """One Gaussian readout of frames for each session, by data key."""

    _base_readout = FrameGaussian2d


class MovieEncoder(nn.Module):
    """A core over space and time and one readout for each session; responses are ``ELU(x + elu_offset) + 1``.

    Attributes
    ----------
    core
        Videos (batch, channels, frames, height, width) to feature maps, with fewer frames.
    readout
        Data key to readout.
    """

    def __init__(self, core: nn.Module, readout: nn.Module, *, elu_offset: float):
        super().__init__()
        self.core = core
        self.readout = readout
        self.offset = elu_offset

    def forward(self, videos: Tensor, *, data_key: str | None = None, **others: Any) -> Tensor:
        """Return the responses (batch, frames', neurons) to the last ``frames'`` frames of the videos.

        Parameters
        ----------
        videos
            (batch, channels, frames, height, width).
        data_key
            Whose neurons; may be None in a model of one session.
        **others
            Whatever else a batch has; ignored.
        """
        return functional.elu(self.readout(self.core(videos), data_key=data_key) + self.offset) + 1

    def regularizer(self, data_key: str | None = None) -> Tensor:
        """Return the penalties of the core and of a session's readout."""
        return self.core.regularizer() + self.readout.regularizer(data_key=data_key)  # type: ignore[operator]


@checked_settings
def movie_core_gaussian_readout(
    dataloaders: Mapping[str, Any] | None,
    seed: int,
    *,
    hidden_channels: Sequence[int] = (8, 16, 32),
    temporal_kernels: Sequence[int] = (27, 5, 5),
    spatial_kernels: Sequence[int] = (21, 5, 5),
    spatial_dilations: Sequence[int] | None = None,
    separable: bool = True,
    pad_input: bool = False,
    pad_hidden: bool = False,
    gamma_input: float = 48.0,
    gamma_temporal: float = 0.074,
    batch_norm: bool = True,
    final_batchnorm_scale: bool = True,
    momentum: float = 0.01,
    final_nonlinearity: bool = True,
    gamma_readout: float = 0.023,
    readout_regularizer: str = "l1",
    gamma_sigma: float = 0.1,
    init_mu_range: float = 0.3,
    init_sigma: float = 0.25,
    gauss_type: str = "isotropic",
    readout_bias: bool = True,
    bias_start: str = "mean_rate",
    elu_offset: float = 0.0,
    data_info: Mapping[str, Any] | None = None,
) -> MovieEncoder:
    """Build a convolutional network over space and time for movies, after Vystrčilová et al. 2024 (marmoset retina).

    ``rate_it = ELU(<w_i, core(movie)_t at neuron i's position> + b_i + elu_offset) + 1``. The default is their CNN of
    three layers with kernels that are separable in space and time. Frames are not padded: a clip of T frames gives
    ``T - sum over layers (temporal kernel - 1)`` predictions, of its last frames.

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
        Kernel sizes of each layer, in frames and in pixels.
    spatial_dilations
        Dilation of each layer's spatial kernel; None for 1.
    separable
        Whether each layer is a convolution over space and then one over time; False for full space-time kernels.
    pad_input, pad_hidden
        Whether the first layer and the others keep the size of the map; their ``spatial_kernels`` are then odd.
    gamma_input, gamma_temporal
        Strengths of the penalties of first kernels that are rough in space (``LaplaceL2norm``) and in time.
    batch_norm, momentum
        Whether there is batch normalisation after each layer, and its momentum.
    final_batchnorm_scale
        As in :func:`~december_plugin.models.stacked_core_gaussian_readout`.
    final_nonlinearity
        Whether the last layer has an ELU, as the others have.
    gamma_readout, readout_regularizer, gamma_sigma
        Strength and kind of the readout vectors' penalty: "l1" or "adaptive_log_norm", with the width ``gamma_sigma``
        of its prior (see :mod:`december_plugin.models.layers.regularizers`).
    init_mu_range, init_sigma, gauss_type
        Start range of the positions (in (0, 1]; 1 is the edge of the map), start width of the position's Gaussian, and
        its covariance: full, uncorrelated or isotropic.
    readout_bias, bias_start, elu_offset
        As in :func:`~december_plugin.models.stacked_core_gaussian_readout`.
    data_info
        nnfabrik's description of the sessions: the model is built without data.

    Returns
    -------
    MovieEncoder
        On the CPU, in training mode, with ``core`` and ``readout`` (data key to readout).

    Raises
    ------
    SettingsError
        If a setting is unknown, has a value that is not allowed, or does not fit the sessions.
    """
    sessions = sessions_of(dataloaders, data_info)
    check_movies(sessions)
    core_settings: dict[str, Any] = {
        "input_channels": shared_channels(sessions, "movies"),
        **_layers(hidden_channels, temporal_kernels, spatial_kernels, spatial_dilations),
        "separable": check_bool("separable", separable),
        "padded": _padded(spatial_kernels, pad_input, pad_hidden),
        "gamma_input": check_number("gamma_input", gamma_input, minimum=0),
        "gamma_temporal": check_number("gamma_temporal", gamma_temporal, minimum=0),
        "batch_norm": check_bool("batch_norm", batch_norm),
        "momentum": check_number("momentum", momentum, above=0),
        "final_nonlinearity": check_bool("final_nonlinearity", final_nonlinearity),
    }
    readout_settings = {
        "bias": check_bool("readout_bias", readout_bias),
        **readout_regularization(gamma_readout, readout_regularizer, gamma_sigma),
        **position_settings(init_mu_range, init_sigma, gauss_type),
        "mean_activity_dict": bias_starts(sessions, bias_start, elu_offset),
    }
    with seeded_weights(seed):
        core = MovieCore(**core_settings)
        learn_final_scale(core.features[-1], final_batchnorm_scale)
        shapes = {data_key: _output_shape(core, data_key, session) for data_key, session in sessions.items()}
        neurons = {data_key: session.n_neurons for data_key, session in sessions.items()}
        readout = MultipleFrameGaussian2d(in_shape_dict=shapes, n_neurons_dict=neurons, **readout_settings)
    return MovieEncoder(core, readout, elu_offset=elu_offset)


def _layers(channels: Any, temporal: Any, spatial: Any, dilations: Any) -> dict[str, tuple[int, ...]]:
    if not isinstance(channels, (list, tuple)) or not channels:
        raise SettingsError(
            f"hidden_channels is {channels!r}; a list with one number for each layer is expected.",
            setting="hidden_channels",
        )
    dilations = [1] * len(channels) if dilations is None else dilations
    checked = {}
    for name, values in {
        "hidden_channels": channels,
        "temporal_kernels": temporal,
        "spatial_kernels": spatial,
        "spatial_dilations": dilations,
    }.items():
        if not isinstance(values, (list, tuple)) or len(values) != len(channels):
            raise SettingsError(
                f"{name} is {values!r}; a list with one number for each layer is expected, as many as hidden_channels "
                f"has ({channels!r}).",
                setting=name,
                others=["hidden_channels"],
            )
        checked[name] = tuple(check_integer(name, value, minimum=1) for value in values)
    return checked


def _padded(kernels: Sequence[int], pad_input: Any, pad_hidden: Any) -> tuple[bool, ...]:
    check_bool("pad_input", pad_input)
    check_bool("pad_hidden", pad_hidden)
    padded = tuple(pad_hidden if layer else pad_input for layer in range(len(kernels)))
    if any(pad and kernel % 2 == 0 for pad, kernel in zip(padded, kernels, strict=True)):
        raise SettingsError(
            f"spatial_kernels is {list(kernels)}; a layer that keeps the size of the map (pad_input, pad_hidden) needs "
            "an odd one.",
            setting="spatial_kernels",
            others=["pad_input", "pad_hidden"],
        )
    return padded


def _output_shape(core: MovieCore, data_key: str, session: SessionShape) -> tuple[int, int, int]:
    """Return (channels, height, width) of the core's output, or an error if a movie is too small or too short."""
    _, height, width = session.image_shape
    lost, lost_frames = core.lost_pixels, core.lost_frames
    if min(height, width) < lost + 1:
        raise MisfitError(
            f"The movies of session {data_key!r} have {height} x {width} pixels, but "
            f"spatial_kernels={list(core.spatial_kernels)} need at least {lost + 1} x {lost + 1}. Use smaller kernels, "
            "pad_input=True, or a larger scale.",
            setting="spatial_kernels",
            others=["pad_input"],
        )
    if session.frames is not None and session.frames < lost_frames + 1:
        raise MisfitError(
            f"The clips of session {data_key!r} have {session.frames} frames, but "
            f"temporal_kernels={list(core.temporal_kernels)} need at least {lost_frames + 1}: use longer clips "
            "(chunk_frames) or shorter kernels.",
            setting="temporal_kernels",
        )
    return core.hidden_channels[-1], height - lost, width - lost
