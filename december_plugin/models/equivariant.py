"""Rotation-equivariant stacked core with a Gaussian readout (Ecker et al. 2018; Ustyuzhaninov et al. 2019)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from neuralpredictors.layers.encoders import FiringRateEncoder
from neuralpredictors.regularizers import LaplaceL2norm
from torch import Tensor, nn

from december_plugin.errors import MisfitError, SettingsError
from december_plugin.models.layers.steerable import SteerableConv2d, SteerableNorm2d
from december_plugin.models.parts import (
    bias_starts,
    gaussian_readouts,
    grid_settings,
    hidden_kernels,
    learn_final_scale,
    position_settings,
    readout_regularization,
    seeded_weights,
)
from december_plugin.models.sessions import SessionShape, check_images, sessions_of, shared_channels
from december_plugin.validation.checks import check_bool, check_integer, check_number, check_odd, checked_settings


class EquivariantCore(nn.Module):
    """Steerable convolutions, each with batch normalisation and an ELU.

    neuralpredictors' ``RotationEquivariant2dCore`` is the same network; in release 0.3.0 it cannot be built on current
    Python, and its regularizer looks for a layer that it does not have.

    Parameters
    ----------
    input_channels
        Channels of the image.
    features, orientations
        Of every layer; the output has ``orientations * features`` channels, orientation-major.
    kernels, paddings
        Of each layer, in pixels.
    gamma_input
        Strength of the penalty of first filters that are rough, neuralpredictors' ``LaplaceL2norm``.
    gamma_hidden
        Strength of the group sparsity of the others: the mean over pairs of channels of their filter's norm.
    upsampling
        See :func:`~december_plugin.models.layers.steerable.hermite_basis`.
    batch_norm, momentum, final_nonlinearity
        As in neuralpredictors' ``Stacked2dCore``.
    """

    def __init__(
        self,
        *,
        input_channels: int,
        features: int,
        orientations: int,
        kernels: Sequence[int],
        paddings: Sequence[int],
        gamma_input: float,
        gamma_hidden: float,
        upsampling: int,
        batch_norm: bool,
        momentum: float,
        final_nonlinearity: bool,
    ):
        super().__init__()
        self.gamma_input, self.gamma_hidden = gamma_input, gamma_hidden
        self.outchannels = orientations * features
        self._laplace = LaplaceL2norm(padding=None)
        self.features = nn.Sequential()
        for layer, (size, padding) in enumerate(zip(kernels, paddings, strict=True)):
            parts: OrderedDict[str, nn.Module] = OrderedDict()
            parts["conv"] = SteerableConv2d(
                features if layer else input_channels,
                features,
                orientations,
                size=size,
                padding=padding,
                upsampling=upsampling,
                first=layer == 0,
            )
            if batch_norm:
                parts["norm"] = SteerableNorm2d(features, orientations, momentum=momentum)
            if final_nonlinearity or layer < len(kernels) - 1:
                parts["nonlin"] = nn.ELU()
            self.features.add_module(f"layer{layer}", nn.Sequential(parts))

    def forward(self, images: Tensor) -> Tensor:
        """Return (batch, orientations * features, height', width') of images (batch, channels, height, width)."""
        return self.features(images)

    def regularizer(self) -> Tensor:
        """Return the penalties of the filters, a scalar."""
        layers: Any = self.features
        first, *others = [layer.conv for layer in layers]
        penalty = self.gamma_input * self._laplace(first.filters())
        if self.gamma_hidden and others:
            norms = [conv.filters().square().sum(dim=(2, 3)).sqrt().mean() for conv in others]
            penalty = penalty + self.gamma_hidden * torch.stack(norms).mean()
        return penalty


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
    grid_mean_predictor: Mapping[str, Any] | None = None,
    readout_bias: bool = True,
    bias_start: str = "mean_rate",
    elu_offset: float = 0.0,
    data_info: Mapping[str, Any] | None = None,
) -> FiringRateEncoder:
    """Build a rotation-equivariant core with a Gaussian readout: neurons are compared whatever they are tuned to.

    The core of Ecker et al. 2018 has each feature at ``orientations`` orientations; the defaults (3 layers, 16 features
    at 8 orientations, kernels of 13, 5 and 5 pixels) are those of Ustyuzhaninov et al. 2019. Readout vectors have
    ``orientations * features`` entries, orientation-major: entry ``o * features + f`` belongs to feature f at
    orientation o, ``o * 360 / orientations`` degrees counterclockwise. Turning the image by 90 degrees counterclockwise
    turns the maps and moves the orientations by ``orientations / 4``.

    Parameters
    ----------
    dataloaders, seed, data_info
        As in :func:`~december_plugin.models.stacked_core_gaussian_readout`.
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
        As in :func:`~december_plugin.models.stacked_core_gaussian_readout`.
    gamma_readout, readout_regularizer, gamma_sigma, init_mu_range, init_sigma, gauss_type, grid_mean_predictor
        The readout's, as in :func:`~december_plugin.models.stacked_core_gaussian_readout`.
    readout_bias, bias_start, elu_offset
        Likewise.

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
    check_images(sessions)
    if check_integer("orientations", orientations, minimum=4) % 4:
        raise SettingsError(
            f"orientations is {orientations}; it must be a multiple of 4, such as 8.", setting="orientations"
        )
    core_settings: dict[str, Any] = {
        "input_channels": shared_channels(sessions),
        "features": check_integer("features", features, minimum=1),
        "orientations": orientations,
        **_kernels(input_kern, hidden_kern, layers, pads=(pad_input, pad_hidden)),
        "gamma_input": check_number("gamma_input", gamma_input, minimum=0),
        "gamma_hidden": check_number("gamma_hidden", gamma_hidden, minimum=0),
        "upsampling": check_integer("upsampling", upsampling, minimum=1),
        "batch_norm": check_bool("batch_norm", batch_norm),
        "momentum": check_number("momentum", momentum, above=0),
        "final_nonlinearity": check_bool("final_nonlinearity", final_nonlinearity),
    }
    for data_key, session in sessions.items():
        _check_size(data_key, session, core_settings)
    readout_settings = {
        "bias": check_bool("readout_bias", readout_bias),
        **readout_regularization(gamma_readout, readout_regularizer, gamma_sigma),
        **position_settings(init_mu_range, init_sigma, gauss_type),
        "mean_activity_dict": bias_starts(sessions, bias_start, elu_offset),
        **grid_settings(sessions, grid_mean_predictor),
    }
    with seeded_weights(seed):
        core = EquivariantCore(**core_settings)
        learn_final_scale(core.features[-1], final_batchnorm_scale)
        readout = gaussian_readouts(sessions, core, readout_settings)
    return FiringRateEncoder(core=core, readout=readout, elu_offset=elu_offset)


def _kernels(input_kern: Any, hidden_kern: Any, layers: Any, *, pads: tuple[Any, Any]) -> dict[str, list[int]]:
    kernels = [check_integer("input_kern", input_kern, minimum=1), *hidden_kernels(hidden_kern, layers)]
    pad_input, pad_hidden = check_bool("pad_input", pads[0]), check_bool("pad_hidden", pads[1])
    if pad_input:
        check_odd("input_kern", input_kern)
    if pad_hidden:
        for kernel in kernels[1:]:
            check_odd("hidden_kern", kernel)
    padded = [pad_input, *[pad_hidden] * (layers - 1)]
    return {
        "kernels": kernels,
        "paddings": [size // 2 if pad else 0 for size, pad in zip(kernels, padded, strict=True)],
    }


def _check_size(data_key: str, session: SessionShape, settings: Mapping[str, Any]) -> None:
    _, height, width = session.image_shape
    kernels = settings["kernels"]
    lost = sum(size - 1 - 2 * padding for size, padding in zip(kernels, settings["paddings"], strict=True))
    if min(height, width) < lost + 1:
        raise MisfitError(
            f"The images of session {data_key!r} have {height} x {width} pixels, but input_kern={kernels[0]} and "
            f"hidden_kern={kernels[1:]} need at least {lost + 1} x {lost + 1}. Use smaller kernels, pad_input=True, or "
            "a larger scale.",
            setting="input_kern",
            others=["hidden_kern", "pad_input"],
        )
