"""Builds cores and readouts from their settings, in any combination.

:func:`build_core` and :func:`build_readout` choose by the class of the settings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import singledispatch
from typing import Any

import numpy as np
import torch
from neuralpredictors.layers.shifters import MLPShifter
from neuralpredictors.utils import get_module_output
from torch import Tensor, nn

from december_plugin.errors import MisfitError, SettingsError
from december_plugin.models.layers.equivariant_core import EquivariantCore
from december_plugin.models.layers.readouts import (
    MultipleAttention2d,
    MultipleFrameGaussian2d,
    MultipleFullFactorized2d,
    MultipleFullGaussian2d,
)
from december_plugin.models.layers.spatiotemporal_core import MovieCore
from december_plugin.models.layers.stacked_core import StackedCore
from december_plugin.models.layers.task_core import TaskCore, load_network
from december_plugin.models.sessions import SessionShape, check_images, check_movies, listed, shared_channels
from december_plugin.models.settings import (
    AttentionReadoutSettings,
    EquivariantCoreSettings,
    FactorizedReadoutSettings,
    FrameReadoutSettings,
    GaussianReadoutSettings,
    ModelSettings,
    MovieCoreSettings,
    PenaltySettings,
    ReadoutSettings,
    ShifterSettings,
    StackedCoreSettings,
    TaskCoreSettings,
)
from december_plugin.validation.byte_order import in_native_order
from december_plugin.validation.checks import check_integer

SMALLEST_START_RATE = 0.01
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def build_parts(
    sessions: Mapping[str, SessionShape],
    seed: int,
    *,
    core: ModelSettings,
    readout: PenaltySettings,
    shifter: ShifterSettings | None = None,
) -> dict[str, nn.Module]:
    """Build the parts of a model; the same seed gives the same bytes.

    Parameters
    ----------
    sessions
        Data key to what is known about the session.
    seed
        Seed of the initial weights; the global random state is left alone.
    core, readout
        Settings, whose classes say which core and which readouts.
    shifter
        Settings of the shifter, if any.

    Returns
    -------
    dict of str to nn.Module
        ``core``, ``readout`` (data key to readout) and, if there is one, ``shifter``: the arguments of an encoder.

    Raises
    ------
    SettingsError
        If the settings do not fit the sessions.
    """
    pupil_channels = _pupil_channels(sessions, shifter.shifter) if shifter else None
    with seeded_weights(seed):
        # The order of construction is SENSORIUM's, so that a seed means the same weights.
        parts = {"core": build_core(core, sessions)}
        parts["readout"] = build_readout(readout, sessions, parts["core"])
        if shifter and pupil_channels is not None:
            parts["shifter"] = MLPShifter(
                data_keys=list(sessions),
                input_channels=pupil_channels,
                hidden_channels_shifter=shifter.hidden_channels_shifter,
                shift_layers=shifter.shift_layers,
                gamma_shifter=shifter.gamma_shifter,
            )
    return parts


@contextmanager
def seeded_weights(seed: int) -> Iterator[None]:
    """Draw initial weights from a seed within the block; the global random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(check_integer("seed", seed, minimum=0))
        yield


@singledispatch
def build_core(settings: ModelSettings, sessions: Mapping[str, SessionShape]) -> nn.Module:
    """Build the core that the sessions share, with the random state as it is.

    Raises
    ------
    SettingsError
        If the sessions have the wrong kind of stimuli, different numbers of channels, or stimuli too small for the
        kernels.
    """
    raise TypeError(f"{type(settings).__name__} are not the settings of a core that can be built.")


@build_core.register(StackedCoreSettings)
def _stacked_core(settings: StackedCoreSettings, sessions: Mapping[str, SessionShape]) -> StackedCore:
    check_images(sessions)
    channels = shared_channels(sessions)
    for data_key, session in sessions.items():
        _check_stacked_size(data_key, session.image_shape[1:], settings)
    arguments = asdict(settings)
    arguments["bias"] = arguments.pop("core_bias")
    final_batchnorm_scale = arguments.pop("final_batchnorm_scale")
    core = StackedCore(input_channels=channels, **arguments)
    learn_final_scale(core.features[-1], final_batchnorm_scale)
    return core


def _check_stacked_size(data_key: str, size: tuple[int, int], settings: StackedCoreSettings) -> None:
    """Follow the size of the images through the layers; padding is computed as ``Stacked2dCore`` does."""
    kernels: Any = settings.hidden_kern
    dilation, padding = settings.hidden_dilation, settings.hidden_padding
    if padding is None:
        padding = ((kernels[0] - 1) * dilation + 1) // 2 if kernels else 0
    first = settings.input_kern - 1 - (settings.input_kern // 2 * 2 if settings.pad_input else 0)
    lost = np.cumsum([first, *((kernel - 1) * dilation - 2 * padding for kernel in kernels)])
    needed = int(max(lost.max() + 1, 1))
    if min(size) < needed:
        raise _too_small(f"The images of session {data_key!r}", size, settings.input_kern, kernels, needed)
    stacked = _stacked_layers(settings.stack, settings.layers)
    skipped = range(settings.layers) if settings.skip > 1 else []
    if len({int(lost[layer]) for layer in (*stacked, *skipped)}) > 1:
        raise SettingsError(
            f"stack={settings.stack} and skip={settings.skip} combine layers whose maps differ in size: "
            f"hidden_kern={kernels} with hidden_padding={padding} does not keep the size. Use one odd kernel size.",
            setting="stack",
            others=["skip", "hidden_kern", "hidden_padding"],
        )


def _too_small(what: str, size: tuple[int, int], input_kern: int, hidden_kern: list[int], needed: int) -> MisfitError:
    return MisfitError(
        f"{what} have {size[0]} x {size[1]} pixels, but input_kern={input_kern} and hidden_kern={hidden_kern} need at "
        f"least {needed} x {needed}. Use smaller kernels, pad_input=True, or a larger scale.",
        setting="input_kern",
        others=["hidden_kern", "pad_input"],
    )


def _stacked_layers(stack: Any, layers: int) -> list[int]:
    if stack is None:
        return list(range(layers))
    return list(range(layers))[stack:] if isinstance(stack, int) else [layer % layers for layer in stack]


@build_core.register(EquivariantCoreSettings)
def _equivariant_core(settings: EquivariantCoreSettings, sessions: Mapping[str, SessionShape]) -> EquivariantCore:
    check_images(sessions)
    channels = shared_channels(sessions)
    kernels, paddings = settings.kernels, settings.paddings
    needed = sum(size - 1 - 2 * padding for size, padding in zip(kernels, paddings, strict=True)) + 1
    for data_key, session in sessions.items():
        if min(session.image_shape[1:]) < needed:
            what = f"The images of session {data_key!r}"
            raise _too_small(what, session.image_shape[1:], kernels[0], kernels[1:], needed)
    core = EquivariantCore(
        input_channels=channels,
        features=settings.features,
        orientations=settings.orientations,
        kernels=kernels,
        paddings=paddings,
        gamma_input=settings.gamma_input,
        gamma_hidden=settings.gamma_hidden,
        upsampling=settings.upsampling,
        batch_norm=settings.batch_norm,
        momentum=settings.momentum,
        final_nonlinearity=settings.final_nonlinearity,
    )
    learn_final_scale(core.features[-1], settings.final_batchnorm_scale)
    return core


@build_core.register(TaskCoreSettings)
def _task_core(settings: TaskCoreSettings, sessions: Mapping[str, SessionShape]) -> TaskCore:
    check_images(sessions)
    core = TaskCore(
        shared_channels(sessions),
        network=load_network(settings.network, settings.weights, settings.weights_file),
        layer=settings.layer,
        fine_tune=settings.fine_tune,
        final_batch_norm=settings.final_batch_norm,
        momentum=settings.momentum,
        final_nonlinearity=settings.final_nonlinearity,
    )
    learn_final_scale(core.norm, settings.final_batchnorm_scale)
    core.check_sizes(sessions)
    return core


@build_core.register(MovieCoreSettings)
def _movie_core(settings: MovieCoreSettings, sessions: Mapping[str, SessionShape]) -> MovieCore:
    check_movies(sessions)
    dilations: Any = settings.spatial_dilations
    core = MovieCore(
        input_channels=shared_channels(sessions, "movies"),
        hidden_channels=settings.hidden_channels,
        temporal_kernels=settings.temporal_kernels,
        spatial_kernels=settings.spatial_kernels,
        spatial_dilations=dilations,
        separable=settings.separable,
        padded=settings.padded,
        gamma_input=settings.gamma_input,
        gamma_temporal=settings.gamma_temporal,
        batch_norm=settings.batch_norm,
        momentum=settings.momentum,
        final_nonlinearity=settings.final_nonlinearity,
    )
    learn_final_scale(core.features[-1], settings.final_batchnorm_scale)
    return core


def learn_final_scale(norm_holder: nn.Module, final_batchnorm_scale: bool) -> None:
    """Fix the scale of the batch norm in a core's last layer at 1, unless it is learned.

    The features then have unit variance over the training batches before the last nonlinearity, and readout weights a
    fixed unit; the batch norm's bias is still learned. neuralpredictors' setting of this name does the same, by a batch
    norm without parameters and a bias after it.

    Parameters
    ----------
    norm_holder
        The last layer.
    final_batchnorm_scale
        The setting.

    Raises
    ------
    SettingsError
        If it is false for a layer without batch normalisation.
    """
    if final_batchnorm_scale:
        return
    norms = [module for module in norm_holder.modules() if isinstance(module, BATCH_NORMS) and module.affine]
    if not norms:
        raise SettingsError(
            "final_batchnorm_scale is False, but the core's last layer has no batch normalisation whose scale could be "
            "left out. Leave it at True, or switch batch normalisation on.",
            setting="final_batchnorm_scale",
        )
    for norm in norms:
        norm.weight.requires_grad_(False)


@singledispatch
def build_readout(settings: PenaltySettings, sessions: Mapping[str, SessionShape], core: nn.Module) -> nn.Module:
    """Build one readout for each session, with the random state as it is.

    Raises
    ------
    SettingsError
        If the settings do not fit the sessions, or the core's output is too small.
    """
    raise TypeError(f"{type(settings).__name__} are not the settings of a readout that can be built.")


@build_readout.register(GaussianReadoutSettings)
def _gaussian_readout(
    settings: GaussianReadoutSettings, sessions: Mapping[str, SessionShape], core: nn.Module
) -> MultipleFullGaussian2d:
    return MultipleFullGaussian2d(
        in_shape_dict=_map_shapes(core, sessions),
        **_shared_arguments(settings, sessions),
        **_position_arguments(settings),
        **_grid_arguments(settings.grid_mean_predictor, sessions),
    )


@build_readout.register(FactorizedReadoutSettings)
def _factorized_readout(
    settings: FactorizedReadoutSettings, sessions: Mapping[str, SessionShape], core: nn.Module
) -> MultipleFullFactorized2d:
    return MultipleFullFactorized2d(
        in_shape_dict=_map_shapes(core, sessions),
        **_shared_arguments(settings, sessions),
        spatial_reg_weight=settings.gamma_masks,
        normalize=settings.normalize_masks,
        constrain_pos=settings.positive_masks,
        init_noise=settings.init_noise,
    )


@build_readout.register(AttentionReadoutSettings)
def _attention_readout(
    settings: AttentionReadoutSettings, sessions: Mapping[str, SessionShape], core: nn.Module
) -> MultipleAttention2d:
    return MultipleAttention2d(
        in_shape_dict=_map_shapes(core, sessions),
        **_shared_arguments(settings, sessions),
        attention_kernel=settings.attention_kernel,
        attention_layers=settings.attention_layers,
        init_noise=settings.init_noise,
    )


@build_readout.register(FrameReadoutSettings)
def _frame_readout(
    settings: FrameReadoutSettings, sessions: Mapping[str, SessionShape], core: MovieCore
) -> MultipleFrameGaussian2d:
    return MultipleFrameGaussian2d(
        in_shape_dict={data_key: _frame_shape(core, data_key, session) for data_key, session in sessions.items()},
        **_shared_arguments(settings, sessions),
        **_position_arguments(settings),
    )


def _map_shapes(core: nn.Module, sessions: Mapping[str, SessionShape]) -> dict[str, tuple[int, ...]]:
    """Return the shape (channels, height, width) of the core's output for the images of every session."""
    return {
        data_key: get_module_output(core, (1, *session.image_shape), use_cuda=False)[1:]
        for data_key, session in sessions.items()
    }


def _frame_shape(core: MovieCore, data_key: str, session: SessionShape) -> tuple[int, int, int]:
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


def _shared_arguments(settings: ReadoutSettings, sessions: Mapping[str, SessionShape]) -> dict[str, Any]:
    def start(rate: Tensor) -> Tensor:
        return torch.where(rate < 1, rate.log(), rate - 1) - settings.elu_offset  # the inverse of ELU(x + offset) + 1

    return {
        "n_neurons_dict": {data_key: session.n_neurons for data_key, session in sessions.items()},
        "bias": settings.readout_bias,
        "feature_reg_weight": settings.gamma_readout,
        "regularizer_type": settings.readout_regularizer,
        "gamma_sigma": settings.gamma_sigma,
        "mean_activity_dict": bias_starts(sessions, settings.bias_start, start),
    }


def _position_arguments(settings: FrameReadoutSettings) -> dict[str, Any]:
    return {
        "init_mu_range": settings.init_mu_range,
        "init_sigma": settings.init_sigma,
        "gauss_type": settings.gauss_type,
        "kernel": settings.readout_kernel,
    }


def _grid_arguments(predictor: Mapping[str, Any] | None, sessions: Mapping[str, SessionShape]) -> dict[str, Any]:
    """Return the settings of a readout whose positions are predicted; empty without a predictor."""
    if predictor is None:
        return {}
    dimensions = predictor.get("input_dimensions", 2)
    grids = {}
    for data_key, session in sessions.items():
        positions = session.coordinates
        if positions is None:
            raise MisfitError(
                f"grid_mean_predictor needs cortical positions, but session {data_key!r} has no "
                "cell_motor_coordinates. Pass grid_mean_predictor=None to learn each position separately.",
                setting="grid_mean_predictor",
            )
        if positions.shape[1] < dimensions:
            raise MisfitError(
                f"grid_mean_predictor's input_dimensions is {dimensions}, but the cortical positions of session "
                f"{data_key!r} have {positions.shape[1]}.",
                setting="grid_mean_predictor",
            )
        grids[data_key] = in_native_order(np.asarray(positions)[:, :dimensions])
    layers = {name: value for name, value in predictor.items() if name not in ("type", "input_dimensions")}
    return {"grid_mean_predictor": layers, "grid_mean_predictor_type": "cortex", "source_grids": grids}


def bias_starts(
    sessions: Mapping[str, SessionShape], bias_start: str, inverse: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """Return the initial biases of every session, (n,).

    Parameters
    ----------
    sessions
        Data key to what is known about the session.
    bias_start
        "mean_rate", for which a neuron without drive has its mean response, or "zero".
    inverse
        Maps rates (n,), positive, to the biases that give them.
    """
    starts = {}
    for data_key, session in sessions.items():
        starts[data_key] = torch.zeros(session.n_neurons)
        # Without mean responses (in a description from elsewhere), weights will be loaded anyway.
        if bias_start == "mean_rate" and session.mean_responses is not None:
            rate = torch.as_tensor(np.asarray(session.mean_responses, dtype=np.float32))
            starts[data_key] = inverse(rate.clamp_min(SMALLEST_START_RATE))
    return starts


def _pupil_channels(sessions: Mapping[str, SessionShape], shifter: bool | None) -> int | None:
    channels = {data_key: session.pupil_channels for data_key, session in sessions.items()}
    if shifter is False or (shifter is None and all(value is None for value in channels.values())):
        return None
    if None in channels.values() or len(set(channels.values())) > 1:
        raise MisfitError(
            f"A shifter needs pupil positions in every session; the sessions serve {listed(channels)}. Load them with "
            "include_eye_position=True, or pass shifter=False.",
            setting="shifter",
        )
    return next(iter(channels.values()))
