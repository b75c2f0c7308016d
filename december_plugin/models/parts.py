"""Parts that several models are made of: stacked core, starts of biases, checks of settings that belong together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from neuralpredictors.layers.cores import Stacked2dCore
from neuralpredictors.layers.readouts import MultiReadoutSharedParametersBase
from neuralpredictors.utils import get_module_output
from torch import Tensor, nn

from december_plugin.errors import MisfitError, SettingsError, did_you_mean
from december_plugin.models.layers.readouts import FullGaussian2d
from december_plugin.models.sessions import SessionShape, check_images, shared_channels
from december_plugin.validation.byte_order import in_native_order
from december_plugin.validation.checks import check_bool, check_choice, check_fraction, check_integer, check_number

CORTEX_GRID: Mapping[str, Any] = MappingProxyType(
    {"type": "cortex", "input_dimensions": 2, "hidden_layers": 1, "hidden_features": 30, "final_tanh": True}
)
INPUT_REGULARIZERS = ("LaplaceL2norm", "LaplaceL2", "LaplaceL1", "GaussianLaplaceL2")
READOUT_REGULARIZERS = ("l1", "adaptive_log_norm")
GAUSS_TYPES = ("full", "uncorrelated", "isotropic")
BIAS_STARTS = ("mean_rate", "zero")
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
SMALLEST_START_RATE = 0.01


class MultipleFullGaussian2d(MultiReadoutSharedParametersBase):
    """One full Gaussian readout for each session, by data key."""

    _base_readout = FullGaussian2d


def stacked_core_settings(
    *,
    hidden_channels: int,
    input_kern: int,
    hidden_kern: int | Sequence[int],
    layers: int,
    gamma_input: float,
    skip: int,
    hidden_dilation: int,
    input_regularizer: str,
    stack: int | Sequence[int] | None,
    **unchecked: Any,
) -> dict[str, Any]:
    """Return the settings of ``Stacked2dCore``, checked; the names are those of the model functions."""
    return {
        "hidden_channels": check_integer("hidden_channels", hidden_channels, minimum=1),
        "input_kern": check_integer("input_kern", input_kern, minimum=1),
        "hidden_kern": hidden_kernels(hidden_kern, layers),
        "layers": layers,
        "gamma_input": check_number("gamma_input", gamma_input, minimum=0),
        "skip": check_integer("skip", skip, minimum=0),
        "hidden_dilation": check_integer("hidden_dilation", hidden_dilation, minimum=1),
        "input_regularizer": check_choice("input_regularizer", input_regularizer, INPUT_REGULARIZERS),
        "stack": check_stack(stack, layers),
        **unchecked,
    }


def stacked_core(sessions: Mapping[str, SessionShape], settings: Mapping[str, Any]) -> Stacked2dCore:
    """Build the core that the sessions share, with the random state as it is.

    Raises
    ------
    SettingsError
        If the sessions have movies or different numbers of channels, or images too small for the kernels.
    """
    check_images(sessions)
    channels = shared_channels(sessions)
    for data_key, session in sessions.items():
        _check_size(data_key, session.image_shape[1:], settings)
    settings = dict(settings)
    final_batchnorm_scale = settings.pop("final_batchnorm_scale")
    core = Stacked2dCore(input_channels=channels, **settings)
    learn_final_scale(core.features[-1], final_batchnorm_scale)
    return core


def _check_size(data_key: str, size: tuple[int, int], settings: Mapping[str, Any]) -> None:
    """Follow the size of the images through the layers; padding is computed as ``Stacked2dCore`` does."""
    kernels, dilation, padding = settings["hidden_kern"], settings["hidden_dilation"], settings["hidden_padding"]
    if kernels and padding is None:
        padding = ((kernels[0] - 1) * dilation + 1) // 2
    first = settings["input_kern"] - 1 - (settings["input_kern"] // 2 * 2 if settings["pad_input"] else 0)
    lost = np.cumsum([first, *((kernel - 1) * dilation - 2 * padding for kernel in kernels)])
    needed = int(max(lost.max() + 1, 1))
    if min(size) < needed:
        raise MisfitError(
            f"The images of session {data_key!r} have {size[0]} x {size[1]} pixels, but input_kern="
            f"{settings['input_kern']} and hidden_kern={kernels} need at least {needed} x {needed}. "
            "Use smaller kernels, pad_input=True, or a larger scale.",
            setting="input_kern",
            others=["hidden_kern", "pad_input"],
        )
    stacked = _stacked_layers(settings["stack"], settings["layers"])
    skipped = range(settings["layers"]) if settings["skip"] > 1 else []
    if len({int(lost[layer]) for layer in (*stacked, *skipped)}) > 1:
        raise SettingsError(
            f"stack={settings['stack']} and skip={settings['skip']} put layers side by side whose maps differ in size: "
            f"hidden_kern={kernels} with hidden_padding={padding} does not keep the size. Use one odd kernel size.",
            setting="stack",
            others=["skip", "hidden_kern", "hidden_padding"],
        )


def _stacked_layers(stack: int | list[int] | None, layers: int) -> list[int]:
    if stack is None:
        return list(range(layers))
    return list(range(layers))[stack:] if isinstance(stack, int) else [layer % layers for layer in stack]


def learn_final_scale(norm_holder: nn.Module, final_batchnorm_scale: Any) -> None:
    """Hold the scale of the batch norm in a core's last layer at 1, unless it is to be learned.

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
        If it is neither true nor false, or false for a layer without batch normalisation.
    """
    if check_bool("final_batchnorm_scale", final_batchnorm_scale):
        return
    norms = [module for module in norm_holder.modules() if isinstance(module, BATCH_NORMS) and module.affine]
    if not norms:
        raise SettingsError(
            "final_batchnorm_scale is False, but the core's last layer has no batch normalisation whose scale could be "
            "left out. Leave it at True, or switch the batch normalisation on.",
            setting="final_batchnorm_scale",
        )
    for norm in norms:
        norm.weight.requires_grad_(False)


def output_shapes(core: nn.Module, sessions: Mapping[str, SessionShape]) -> dict[str, tuple[int, ...]]:
    """Return the shape (channels, height, width) of the core's output for the images of every session."""
    return {
        data_key: get_module_output(core, (1, *session.image_shape), use_cuda=False)[1:]
        for data_key, session in sessions.items()
    }


def readout_regularization(gamma_readout: float, readout_regularizer: str, gamma_sigma: float) -> dict[str, Any]:
    """Return the settings of :class:`~december_plugin.models.layers.regularizers.RegularizedReadout`, checked."""
    return {
        "feature_reg_weight": check_number("gamma_readout", gamma_readout, minimum=0),
        "regularizer_type": check_choice("readout_regularizer", readout_regularizer, READOUT_REGULARIZERS),
        "gamma_sigma": check_number("gamma_sigma", gamma_sigma, above=0),
    }


def position_settings(init_mu_range: float, init_sigma: float, gauss_type: str) -> dict[str, Any]:
    """Return the settings of a Gaussian readout's positions, checked."""
    return {
        "init_mu_range": check_fraction("init_mu_range", init_mu_range),
        "init_sigma": check_number("init_sigma", init_sigma, above=0),
        "gauss_type": check_choice("gauss_type", gauss_type, GAUSS_TYPES),
    }


def grid_settings(sessions: Mapping[str, SessionShape], predictor: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the settings of a readout whose positions are predicted, checked; none without a predictor."""
    if predictor is None:
        return {}
    setting = "grid_mean_predictor"
    for name in predictor:
        if name not in CORTEX_GRID:
            raise SettingsError(
                f"grid_mean_predictor has no setting {name!r}. {did_you_mean(name, CORTEX_GRID)}", setting=setting
            )
    check_choice("grid_mean_predictor's type", predictor.get("type"), ("cortex",), setting=setting)
    dimensions = check_integer("input_dimensions", predictor.get("input_dimensions", 2), minimum=1, setting=setting)
    grids = {}
    for data_key, session in sessions.items():
        positions = session.coordinates
        if positions is None:
            raise MisfitError(
                f"grid_mean_predictor needs cortical positions, but session {data_key!r} has no "
                "cell_motor_coordinates. Pass grid_mean_predictor=None to learn each position by itself.",
                setting=setting,
            )
        if positions.shape[1] < dimensions:
            raise MisfitError(
                f"grid_mean_predictor's input_dimensions is {dimensions}, but the cortical positions of session "
                f"{data_key!r} have {positions.shape[1]}.",
                setting=setting,
            )
        grids[data_key] = in_native_order(np.asarray(positions)[:, :dimensions])
    layers = {name: value for name, value in predictor.items() if name not in ("type", "input_dimensions")}
    return {"grid_mean_predictor": layers, "grid_mean_predictor_type": "cortex", "source_grids": grids}


def gaussian_readouts(
    sessions: Mapping[str, SessionShape], core: nn.Module, settings: Mapping[str, Any]
) -> MultipleFullGaussian2d:
    """Build one full Gaussian readout for each session, with the random state as it is."""
    neurons = {data_key: session.n_neurons for data_key, session in sessions.items()}
    return MultipleFullGaussian2d(in_shape_dict=output_shapes(core, sessions), n_neurons_dict=neurons, **settings)


def bias_starts(sessions: Mapping[str, SessionShape], bias_start: str, elu_offset: float) -> dict[str, Tensor]:
    """Return where the biases of every session start, (n,), for an output of ``ELU(x + elu_offset) + 1``.

    ``bias_start`` is "mean_rate", for which a neuron without drive has its mean response, or "zero".
    """
    check_choice("bias_start", bias_start, BIAS_STARTS)
    starts = {}
    for data_key, session in sessions.items():
        start = torch.zeros(session.n_neurons)
        # Without mean responses (a description from elsewhere) the weights will be loaded anyway.
        if bias_start == "mean_rate" and session.mean_responses is not None:
            rate = torch.as_tensor(np.asarray(session.mean_responses, dtype=np.float32)).clamp_min(SMALLEST_START_RATE)
            start = torch.where(rate < 1, rate.log(), rate - 1) - elu_offset  # the inverse of ELU(x) + 1
        starts[data_key] = start
    return starts


def hidden_kernels(hidden_kern: Any, layers: int) -> list[int]:
    """Return the kernel size of every hidden layer, given one for all or one for each."""
    n_hidden = check_integer("layers", layers, minimum=1) - 1
    kernels = [hidden_kern] * n_hidden if not isinstance(hidden_kern, (list, tuple)) else list(hidden_kern)
    if len(kernels) != n_hidden:
        raise SettingsError(
            f"hidden_kern has {len(kernels)} kernel sizes, but layers={layers} means {n_hidden} hidden layer(s). "
            "Give one size, or one for each of them.",
            setting="hidden_kern",
            others=["layers"],
        )
    return [check_integer("hidden_kern", kernel, minimum=1) for kernel in kernels]


def check_stack(stack: Any, layers: int) -> int | list[int] | None:
    """Return which layers the readout sees, or raise a :class:`SettingsError` if the core has no such layer."""
    indices = list(stack) if isinstance(stack, (list, tuple)) else [stack]
    for index in indices:
        if stack is not None and (isinstance(index, bool) or not -layers <= index < layers):
            raise SettingsError(
                f"stack is {stack!r}, but the core has {layers} layer(s): {-layers} to {layers - 1}.",
                setting="stack",
                others=["layers"],
            )
    return indices if isinstance(stack, (list, tuple)) else stack


@contextmanager
def seeded_weights(seed: int) -> Iterator[None]:
    """Draw initial weights from a seed within the block; the global random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(check_integer("seed", seed, minimum=0))
        yield
