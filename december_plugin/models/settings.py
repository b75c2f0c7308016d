"""Settings of cores, readouts and shifters: names, defaults and allowed values of all model functions, once.

The model functions have flat signatures, because nnfabrik stores their configurations by keyword; a test compares them
with these classes. A model whose published defaults differ has those in its signature.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

from december_plugin.errors import SettingsError, did_you_mean
from december_plugin.validation.checks import (
    check_bool,
    check_choice,
    check_fraction,
    check_integer,
    check_number,
    check_odd,
)

CORTEX_GRID: Mapping[str, Any] = MappingProxyType(
    {"type": "cortex", "input_dimensions": 2, "hidden_layers": 1, "hidden_features": 30, "final_tanh": True}
)
INPUT_REGULARIZERS = ("LaplaceL2norm", "LaplaceL2", "LaplaceL1", "GaussianLaplaceL2")
READOUT_REGULARIZERS = ("l1", "adaptive_log_norm")
GAUSS_TYPES = ("full", "uncorrelated", "isotropic")
READOUT_KERNELS = ("auto", "fused", "grid_sample")
BIAS_STARTS = ("mean_rate", "zero")
SINES = 3  # openretina's temporal kernels have a third as many sines and cosines as frames

S = TypeVar("S", bound="ModelSettings")


def check_orientations(name: str, value: Any) -> int:
    """Return a multiple of 4, or raise a :class:`SettingsError`: only those turn the grid of pixels onto itself."""
    if check_integer(name, value, minimum=4) % 4:
        raise SettingsError(f"{name} is {value}; it must be a multiple of 4, such as 8.", setting=name)
    return int(value)


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


def layer_sizes(lists: Mapping[str, Any], *, minimum: Mapping[str, int] | None = None) -> dict[str, tuple[int, ...]]:
    """Return checked sizes of every layer: lists of integers, all as long as the first.

    Parameters
    ----------
    lists
        Setting to its value; the first says how many layers there are.
    minimum
        Setting to the smallest size that is allowed; 1 for all others.

    Raises
    ------
    SettingsError
        If a value is not a list, or has another length or other items.
    """
    first, channels = next(iter(lists.items()))
    if not isinstance(channels, (list, tuple)) or not channels:
        raise SettingsError(
            f"{first} is {channels!r}; a list with one number for each layer is expected.", setting=first
        )
    checked = {}
    for name, values in lists.items():
        if not isinstance(values, (list, tuple)) or len(values) != len(channels):
            raise SettingsError(
                f"{name} is {values!r}; a list with one number for each layer is expected, as many as {first} has "
                f"({channels!r}).",
                setting=name,
                others=[first],
            )
        checked[name] = tuple(check_integer(name, value, minimum=(minimum or {}).get(name, 1)) for value in values)
    return checked


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


def check_grid_predictor(name: str, value: Any) -> Mapping[str, Any] | None:
    """Return the settings of the network that predicts positions, if any, or raise a :class:`SettingsError`."""
    if value is None:
        return None
    for each in value:
        if each not in CORTEX_GRID:
            raise SettingsError(f"{name} has no setting {each!r}. {did_you_mean(each, CORTEX_GRID)}", setting=name)
    check_choice(f"{name}'s type", value.get("type"), ("cortex",), setting=name)
    check_integer("input_dimensions", value.get("input_dimensions", 2), minimum=1, setting=name)
    return value


def optional(check: Callable[..., Any], **bounds: Any) -> Callable[[str, Any], Any]:
    """Return a check that lets None pass."""
    return lambda name, value: None if value is None else check(name, value, **bounds)


def setting(default: Any, check: Callable[..., Any] | None = None, **bounds: Any) -> Any:
    """Return a field of :class:`ModelSettings`: its default, and the check of its value.

    Parameters
    ----------
    default
        The default; if it is a mapping, all instances share it.
    check, **bounds
        Called as ``check(name, value, **bounds)``, which returns the checked value. None if the value is checked
        together with another one, or by what is built from it.
    """
    metadata = {"check": partial(check, **bounds) if check else None}
    if isinstance(default, Mapping):
        return field(default_factory=lambda: default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Settings that are checked, field by field, when an instance is created.

    Raises
    ------
    SettingsError
        If a value is not allowed.
    """

    def __post_init__(self) -> None:
        for each in fields(self):
            if check := each.metadata["check"]:
                self._store(**{each.name: check(each.name, getattr(self, each.name))})

    def _store(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls: type[S], arguments: Mapping[str, Any]) -> S:
        """Take the settings of this class out of all arguments of a model function, by name."""
        return cls(**{each.name: arguments[each.name] for each in fields(cls)})


@dataclass(frozen=True, kw_only=True)
class StackedCoreSettings(ModelSettings):
    """Settings of neuralpredictors' ``Stacked2dCore``; the defaults are those of SENSORIUM 2022 (Willeke et al. 2022).

    Attributes
    ----------
    hidden_channels, layers
        Channels of each layer, and number of layers.
    input_kern, hidden_kern
        Kernel sizes in pixels of the first layer and of the others: one number, or one for each of ``layers - 1``. An
        instance has a list of them.
    gamma_input, input_regularizer, use_avg_reg, laplace_padding
        Strength of the smoothness penalty of the first layer's kernels, its name in
        ``neuralpredictors.regularizers``, whether it is a mean instead of a sum, and its padding.
    skip
        Of how many preceding layers each hidden layer sees the outputs; 0 and 1: of the one before.
    hidden_dilation, depth_separable
        Dilation of the hidden layers' kernels, and whether those layers are separable in channels and space.
    linear, core_bias
        Whether all nonlinearities are left out, and whether layers without batch normalisation have a bias.
    batch_norm, momentum, final_batchnorm_scale
        Whether each layer has batch normalisation, its momentum, and whether the last one learns a scale.
    final_nonlinearity
        Whether the last layer has an ELU, as the others have.
    pad_input, hidden_padding
        Whether the first layer is padded, and the padding of the others (None: as much as keeps the size).
    stack
        Layers that the readout sees: all from this index on (-1: the last one), all (None), or a list of indices.
    """

    hidden_channels: int = setting(64, check_integer, minimum=1)
    input_kern: int = setting(9, check_integer, minimum=1)
    hidden_kern: int | Sequence[int] = setting(7)
    layers: int = setting(4, check_integer, minimum=1)
    gamma_input: float = setting(6.3831, check_number, minimum=0)
    skip: int = setting(0, check_integer, minimum=0)
    final_nonlinearity: bool = setting(True, check_bool)
    momentum: float = setting(0.9, check_number, above=0)
    pad_input: bool = setting(False, check_bool)
    hidden_padding: int | None = setting(None, optional(check_integer, minimum=0))
    batch_norm: bool = setting(True, check_bool)
    final_batchnorm_scale: bool = setting(True, check_bool)
    hidden_dilation: int = setting(1, check_integer, minimum=1)
    laplace_padding: int | None = setting(None, optional(check_integer, minimum=0))
    input_regularizer: str = setting("LaplaceL2norm", check_choice, allowed=INPUT_REGULARIZERS)
    use_avg_reg: bool = setting(False, check_bool)
    core_bias: bool = setting(True, check_bool)
    depth_separable: bool = setting(True, check_bool)
    linear: bool = setting(False, check_bool)
    stack: int | Sequence[int] | None = setting(-1)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._store(
            hidden_kern=hidden_kernels(self.hidden_kern, self.layers), stack=check_stack(self.stack, self.layers)
        )


@dataclass(frozen=True, kw_only=True)
class EquivariantCoreSettings(ModelSettings):
    """Settings of the rotation-equivariant core; the defaults are those of Ustyuzhaninov et al. 2020.

    Attributes
    ----------
    features, orientations, layers
        Features and their orientations in each layer (a multiple of 4), and number of layers.
    input_kern, hidden_kern
        Kernel sizes in pixels of the first layer and of the others: one number, or one for each of ``layers - 1``. An
        instance has a list of them.
    gamma_input, gamma_hidden
        Strengths of the smoothness penalty of the first filters and of the group sparsity of the others.
    upsampling
        How many points of a filter are averaged for each pixel, along each axis.
    pad_input, pad_hidden
        Whether the first layer and the others keep the size of the map; their kernels are then odd.
    batch_norm, momentum, final_batchnorm_scale
        Whether each layer has batch normalisation, its momentum, and whether the last one learns a scale.
    final_nonlinearity
        Whether the last layer has an ELU, as the others have.
    """

    features: int = setting(16, check_integer, minimum=1)
    orientations: int = setting(8, check_orientations)
    input_kern: int = setting(13, check_integer, minimum=1)
    hidden_kern: int | Sequence[int] = setting(5)
    layers: int = setting(3, check_integer, minimum=1)
    gamma_input: float = setting(6.3831, check_number, minimum=0)
    gamma_hidden: float = setting(0.0, check_number, minimum=0)
    upsampling: int = setting(2, check_integer, minimum=1)
    pad_input: bool = setting(False, check_bool)
    pad_hidden: bool = setting(True, check_bool)
    batch_norm: bool = setting(True, check_bool)
    final_batchnorm_scale: bool = setting(True, check_bool)
    momentum: float = setting(0.9, check_number, above=0)
    final_nonlinearity: bool = setting(True, check_bool)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._store(hidden_kern=hidden_kernels(self.hidden_kern, self.layers))
        if self.pad_input:
            check_odd("input_kern", self.input_kern)
        if self.pad_hidden:
            for kernel in self.kernels[1:]:
                check_odd("hidden_kern", kernel)

    @property
    def kernels(self) -> list[int]:
        """Kernel size of every layer in pixels."""
        hidden: Any = self.hidden_kern
        return [self.input_kern, *hidden]

    @property
    def paddings(self) -> list[int]:
        """Padding of every layer in pixels."""
        padded = [self.pad_input, *[self.pad_hidden] * (self.layers - 1)]
        return [size // 2 if pad else 0 for size, pad in zip(self.kernels, padded, strict=True)]


@dataclass(frozen=True, kw_only=True)
class TaskCoreSettings(ModelSettings):
    """Settings of a core from a network that was trained on a task, by default a layer of a ResNet-50.

    Attributes
    ----------
    network, layer
        Name of a model of ``torchvision.models``, and of the module in it whose output the readout sees.
    weights, weights_file
        Name of weights that torchvision downloads, or a file with a state dict. None: random weights.
    fine_tune
        Whether the network's weights are trained, too.
    final_batch_norm, momentum, final_batchnorm_scale
        Whether the features are normalised over the batch, with which momentum, and whether a scale is learned.
    final_nonlinearity
        Whether the features are rectified.
    """

    network: str = setting("resnet50")
    layer: str = setting("layer3.0")
    weights: str | None = setting("DEFAULT")
    weights_file: str | None = setting(None)
    fine_tune: bool = setting(False, check_bool)
    final_batch_norm: bool = setting(True, check_bool)
    final_batchnorm_scale: bool = setting(True, check_bool)
    final_nonlinearity: bool = setting(True, check_bool)
    momentum: float = setting(0.1, check_number, above=0)


@dataclass(frozen=True, kw_only=True)
class MovieCoreSettings(ModelSettings):
    """Settings of the core over space and time; the defaults are those of Vystrčilová et al. 2024.

    Attributes
    ----------
    hidden_channels, temporal_kernels, spatial_kernels
        Of each layer: channels, and kernel sizes in frames and in pixels.
    spatial_dilations
        Dilation of each layer's spatial kernel; None for 1. An instance has one for each layer.
    separable
        Whether each layer is a convolution over space and then one over time; False for full space-time kernels.
    pad_input, pad_hidden
        Whether the first layer and the others keep the size of the map; their ``spatial_kernels`` are then odd.
    gamma_input, gamma_temporal
        Strengths of the penalties of first kernels that are rough in space and in time.
    batch_norm, momentum, final_batchnorm_scale
        Whether each layer has batch normalisation, its momentum, and whether the last one learns a scale.
    final_nonlinearity
        Whether the last layer has an ELU, as the others have.
    """

    hidden_channels: Sequence[int] = setting((8, 16, 32))
    temporal_kernels: Sequence[int] = setting((27, 5, 5))
    spatial_kernels: Sequence[int] = setting((21, 5, 5))
    spatial_dilations: Sequence[int] | None = setting(None)
    separable: bool = setting(True, check_bool)
    pad_input: bool = setting(False, check_bool)
    pad_hidden: bool = setting(False, check_bool)
    gamma_input: float = setting(48.0, check_number, minimum=0)
    gamma_temporal: float = setting(0.074, check_number, minimum=0)
    batch_norm: bool = setting(True, check_bool)
    final_batchnorm_scale: bool = setting(True, check_bool)
    momentum: float = setting(0.01, check_number, above=0)
    final_nonlinearity: bool = setting(True, check_bool)

    def __post_init__(self) -> None:
        lists = {
            "hidden_channels": self.hidden_channels,
            "temporal_kernels": self.temporal_kernels,
            "spatial_kernels": self.spatial_kernels,
            "spatial_dilations": self.spatial_dilations,
        }
        if self.spatial_dilations is None and isinstance(self.hidden_channels, Sequence):
            lists["spatial_dilations"] = [1] * len(self.hidden_channels)
        self._store(**layer_sizes(lists))
        super().__post_init__()
        if any(pad and kernel % 2 == 0 for pad, kernel in zip(self.padded, self.spatial_kernels, strict=True)):
            raise SettingsError(
                f"spatial_kernels is {list(self.spatial_kernels)}; a layer that keeps the size of the map (pad_input, "
                "pad_hidden) needs an odd one.",
                setting="spatial_kernels",
                others=["pad_input", "pad_hidden"],
            )

    @property
    def padded(self) -> tuple[bool, ...]:
        """Whether each layer keeps the size of the map."""
        return tuple(self.pad_hidden if layer else self.pad_input for layer in range(len(self.spatial_kernels)))


@dataclass(frozen=True, kw_only=True)
class HoeflingCoreSettings(ModelSettings):
    """Settings of openretina's separable core; the defaults are openretina's for its low resolution.

    Attributes
    ----------
    hidden_channels, temporal_kernels, spatial_kernels
        Of each layer: channels, and kernel sizes in frames (at least 3) and in pixels.
    pad_hidden
        Whether the layers after the first keep the size of the map; their ``spatial_kernels`` are then odd and equal.
    final_batchnorm_scale
        Whether the last batch normalisation learns a scale.
    gamma_temporal, gamma_input, gamma_hidden, gamma_in_sparse
        Strengths of openretina's penalties: high frequencies in time, rough kernels of the first layer, and many input
        channels per channel, in the layers after the first and in all.
    """

    hidden_channels: Sequence[int] = setting((16, 16))
    temporal_kernels: Sequence[int] = setting((21, 11))
    spatial_kernels: Sequence[int] = setting((11, 5))
    pad_hidden: bool = setting(True, check_bool)
    final_batchnorm_scale: bool = setting(True, check_bool)
    gamma_temporal: float = setting(40.0, check_number, minimum=0)
    gamma_input: float = setting(0.0, check_number, minimum=0)
    gamma_hidden: float = setting(0.0, check_number, minimum=0)
    gamma_in_sparse: float = setting(0.0, check_number, minimum=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        lists = {
            "hidden_channels": self.hidden_channels,
            "temporal_kernels": self.temporal_kernels,
            "spatial_kernels": self.spatial_kernels,
        }
        self._store(**layer_sizes(lists, minimum={"temporal_kernels": SINES}))
        hidden = set(self.spatial_kernels[1:])
        if self.pad_hidden and (len(hidden) > 1 or any(kernel % 2 == 0 for kernel in hidden)):
            raise SettingsError(
                f"spatial_kernels is {list(self.spatial_kernels)}; with pad_hidden=True those after the first must "
                "be odd and equal. Use pad_hidden=False for others.",
                setting="spatial_kernels",
                others=["pad_hidden"],
            )

    @property
    def margin(self) -> int:
        """Padding of the layers after the first, in pixels."""
        return self.spatial_kernels[1] // 2 if self.pad_hidden and len(self.spatial_kernels) > 1 else 0


@dataclass(frozen=True, kw_only=True)
class PenaltySettings(ModelSettings):
    """Penalty of the readout vectors, the same in every model.

    Attributes
    ----------
    gamma_readout
        Its strength.
    readout_regularizer
        Its kind: "l1" or "adaptive_log_norm" (see :mod:`december_plugin.models.layers.regularizers`).
    gamma_sigma
        Width of the adaptive one's prior.
    """

    gamma_readout: float = setting(0.0076, check_number, minimum=0)
    readout_regularizer: str = setting("l1", check_choice, allowed=READOUT_REGULARIZERS)
    gamma_sigma: float = setting(0.1, check_number, above=0)


@dataclass(frozen=True, kw_only=True)
class ReadoutSettings(PenaltySettings):
    """Shared settings of readouts that predict rates ``ELU(x + elu_offset) + 1``.

    Attributes
    ----------
    readout_bias, bias_start
        Whether each neuron has a bias, and where it starts: "mean_rate" at the value for which a neuron without drive
        has its mean response over the training tier, "zero" at 0.
    elu_offset
        Added before the output nonlinearity.
    """

    readout_bias: bool = setting(True, check_bool)
    bias_start: str = setting("mean_rate", check_choice, allowed=BIAS_STARTS)
    elu_offset: float = setting(0.0)


@dataclass(frozen=True, kw_only=True)
class FrameReadoutSettings(ReadoutSettings):
    """Gaussian readout: each neuron reads at one position; in movies, in every frame.

    Attributes
    ----------
    init_mu_range, init_sigma, gauss_type
        Start range of the positions (in (0, 1]; 1 is the edge of the map), start width of the position's Gaussian, and
        its covariance: full, uncorrelated or isotropic.
    readout_kernel
        How maps are read at the positions, with the same results to rounding: "grid_sample" as in neuralpredictors;
        "fused" without a tensor of all samples; "auto" is "fused" on CUDA, and on the CPU if it is faster.
    """

    init_mu_range: float = setting(0.3, check_fraction)
    init_sigma: float = setting(0.1, check_number, above=0)
    gauss_type: str = setting("full", check_choice, allowed=GAUSS_TYPES)
    readout_kernel: str = setting("auto", check_choice, allowed=READOUT_KERNELS)


@dataclass(frozen=True, kw_only=True)
class GaussianReadoutSettings(FrameReadoutSettings):
    """Gaussian readout of images, whose positions may be predicted from the neurons' cortical positions.

    Attributes
    ----------
    grid_mean_predictor
        Settings of the small network that predicts them. None learns each position separately.
    """

    grid_mean_predictor: Mapping[str, Any] | None = setting(CORTEX_GRID, check_grid_predictor)


@dataclass(frozen=True, kw_only=True)
class FactorizedReadoutSettings(ReadoutSettings):
    """Factorized readout (Klindt et al. 2017): a spatial mask and a readout vector for each neuron.

    Attributes
    ----------
    gamma_masks
        Strength of the L1 penalty of the masks.
    normalize_masks, positive_masks
        Whether masks have norm 1, and whether they, and the readout vectors with them, are kept from being negative.
    init_noise
        Standard deviation of the initial masks and readout vectors.
    """

    gamma_masks: float = setting(0.0076, check_number, minimum=0)
    normalize_masks: bool = setting(True, check_bool)
    positive_masks: bool = setting(False, check_bool)
    init_noise: float = setting(1e-3, check_number, above=0)


@dataclass(frozen=True, kw_only=True)
class AttentionReadoutSettings(ReadoutSettings):
    """Attention readout: the position is a softmax over the map, computed from every image.

    Attributes
    ----------
    attention_kernel, attention_layers
        Kernel size (odd) and number of the convolutions that compute the attention maps.
    init_noise
        Standard deviation of the initial readout vectors.
    """

    attention_kernel: int = setting(1, check_odd)
    attention_layers: int = setting(1, check_integer, minimum=1)
    init_noise: float = setting(1e-3, check_number, above=0)


@dataclass(frozen=True, kw_only=True)
class HoeflingReadoutSettings(PenaltySettings):
    """openretina's readout with a Gaussian mask for each neuron.

    Attributes
    ----------
    gamma_masks
        Strength of the penalty of wide masks and of masks far from the middle.
    readout_scale, readout_positive
        Whether each neuron has a gain, and whether readout weights are kept from being negative.
    gaussian_mean_scale, gaussian_var_scale
        Factors of the positions and log variances of the masks, which set how quickly they are learned.
    bias_start
        Where biases start, as in :class:`ReadoutSettings`.
    """

    gamma_readout: float = setting(1.0, check_number, minimum=0)
    gamma_masks: float = setting(1.0, check_number, minimum=0)
    readout_scale: bool = setting(True, check_bool)
    readout_positive: bool = setting(True, check_bool)
    gaussian_mean_scale: float = setting(6.0, check_number, above=0)
    gaussian_var_scale: float = setting(4.0, check_number, above=0)
    bias_start: str = setting("mean_rate", check_choice, allowed=BIAS_STARTS)


@dataclass(frozen=True, kw_only=True)
class ShifterSettings(ModelSettings):
    """Settings of the network that moves the positions with the pupil.

    Attributes
    ----------
    shifter
        Whether there is one. None: if the loaders serve pupil positions.
    hidden_channels_shifter, shift_layers, gamma_shifter
        Its size, and the strength of its regularizer.
    """

    shifter: bool | None = setting(None, optional(check_bool))
    hidden_channels_shifter: int = setting(5, check_integer, minimum=1)
    shift_layers: int = setting(3, check_integer, minimum=1)
    gamma_shifter: float = setting(0.0, check_number, minimum=0)
