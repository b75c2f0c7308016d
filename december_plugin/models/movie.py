"""Convolutions over space and time with a Gaussian readout in every frame: the CNN of the marmoset retina."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from december_plugin.models.build import build_parts
from december_plugin.models.sessions import sessions_of
from december_plugin.models.settings import FrameReadoutSettings, MovieCoreSettings
from december_plugin.validation.checks import checked_settings


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
    readout_kernel: str = "auto",
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
        Whether the last batch normalisation learns a scale. Without it the features have unit variance before the last
        nonlinearity, and readout weights a fixed unit.
    final_nonlinearity
        Whether the last layer has an ELU, as the others have.
    gamma_readout, readout_regularizer, gamma_sigma
        Strength and kind of the readout vectors' penalty: "l1" or "adaptive_log_norm", with the width ``gamma_sigma``
        of its prior (see :mod:`december_plugin.models.layers.regularizers`).
    init_mu_range, init_sigma, gauss_type
        Start range of the positions (in (0, 1]; 1 is the edge of the map), start width of the position's Gaussian, and
        its covariance: full, uncorrelated or isotropic.
    readout_kernel
        How maps are read at the positions, with the same results to rounding: ``"grid_sample"`` as in neuralpredictors;
        ``"fused"`` without a tensor of all samples (:mod:`december_plugin.models.layers.point_reading`); ``"auto"`` is
        ``"fused"`` on CUDA, and on the CPU if it is faster.
    readout_bias, bias_start
        Whether each neuron has a bias, and where it starts: ``"mean_rate"`` at the value for which a neuron without
        drive has its mean response over the training tier, ``"zero"`` at 0.
    elu_offset
        Added before the output nonlinearity.
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

    See Also
    --------
    hoefling_core_gaussian_readout : The model of Höfling et al. 2024, with Gaussian masks.
    december_plugin.datasets.movie_loaders : Loads movies in the generic format.
    december_plugin.datasets.sridhar_2025_loaders : Loads recordings of marmoset retina.

    Examples
    --------
    >>> import torch
    >>> from december_plugin.models import movie_core_gaussian_readout
    >>> shape = {"input_dimensions": [1, 1, 20, 16, 16], "output_dimension": 5, "mean_responses": None}
    >>> model = movie_core_gaussian_readout(
    ...     None, seed=0, data_info={"1-1-1": shape}, hidden_channels=[4], temporal_kernels=[5], spatial_kernels=[7]
    ... )
    >>> tuple(model(torch.zeros(2, 1, 20, 16, 16), data_key="1-1-1").shape)  # clips, frames, neurons
    (2, 16, 5)
    """
    given = locals()
    parts = build_parts(
        sessions_of(dataloaders, data_info),
        seed,
        core=MovieCoreSettings.of(given),
        readout=FrameReadoutSettings.of(given),
    )
    return MovieEncoder(**parts, elu_offset=elu_offset)
