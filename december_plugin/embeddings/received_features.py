"""What readouts receive from the core: ``phi_i(x)``, of which a neuron's drive is ``<w_i, phi_i(x)>``.

Where a neuron reads depends on the class of its readout: at a point (Gaussian, point-pooled and pyramid readouts), or
over a mask (factorized and deterministic Gaussian readouts, openretina's) that may change with the image (attention).
Everything that knows about this is in this module, just as :mod:`~december_plugin.embeddings.readout_vectors` knows
about readout vectors.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from december_plugin.embeddings.readout_vectors import readout_vectors
from december_plugin.embeddings.stimuli import FEWEST_AT_ONCE, VALUES_AT_ONCE
from december_plugin.errors import EmbeddingError
from december_plugin.validation.tensors import tensor_of

CUSTOM = (
    "A readout class can define `embedding_features(core_output)`, which returns what its vectors are multiplied with, "
    "(samples, neurons, features), or (samples, frames, neurons, features) of movies; with a shifter it is called as "
    "`embedding_features(core_output, shift=shift)`."
)
# What readouts have whose responses are not linear: those of other packages, and openretina's.
NONLINEAR = ("embedding_features", "get_mask", "mask_weights")
TOLERANCE = 1e-2  # of the responses' spread: other positions or weights are off by much more


class _ReceivedError(Exception):
    """Ends the forward pass of a model at its readout."""


def core_output_and_shift(
    model: nn.Module, data_key: str, inputs: Tensor, extras: Mapping[str, Any]
) -> tuple[Tensor, Tensor | None]:
    """Return what the forward pass of a model hands to a session's readout.

    Parameters
    ----------
    model
        Called as ``model(inputs, data_key=..., **extras)``, has ``readout``, data key to readout.
    data_key
        Key of the session.
    inputs, extras
        As :func:`december_plugin.embeddings.batches.split_batch` returns them, on any device and of any precision.

    Returns
    -------
    core_output, shift
        (batch, channels, height, width), or (batch, channels, frames, height, width) of movies; what the model's
        shifter says, (batch, 2), None without one.

    Raises
    ------
    EmbeddingError
        If the model does not call the session's readout.
    """
    readout: nn.Module = model.readout[data_key]  # type: ignore[index, assignment]
    extras = {name: like_parameters(model, value) for name, value in extras.items()}
    received: list[tuple[Tensor, Tensor | None]] = []

    def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = inspect.signature(module.forward).bind(*args, **kwargs).arguments | kwargs
        received.append((next(iter(given.values())), given.get("shift")))
        raise _ReceivedError

    hook = readout.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        model(like_parameters(model, inputs), data_key=data_key, **extras)
    except _ReceivedError:
        pass
    finally:
        hook.remove()
    if not received:
        raise EmbeddingError(
            f"{type(model).__name__} does not call its readout of session {data_key!r} in the forward pass, so what "
            "the readout receives from the core cannot be found."
        )
    return received[0]


def core_outputs(model: nn.Module, stimuli: Tensor | npt.NDArray[Any]) -> Iterator[Tensor]:
    """Yield the core's output for stimuli that are shown without any session, a few at a time.

    Parameters
    ----------
    model
        Has ``core``.
    stimuli
        (stimuli, channels, height, width), or (clips, channels, frames, height, width) of movies.

    Raises
    ------
    EmbeddingError
        If the model has no core, or the core cannot take such stimuli.
    """
    core = getattr(model, "core", None)
    if not isinstance(core, nn.Module):
        raise EmbeddingError(
            f"{type(model).__name__} has no core that stimuli could be shown to without a session; give the loaders "
            "of its sessions."
        )
    stimuli = tensor_of(stimuli)
    if not len(stimuli):
        raise EmbeddingError("there are no stimuli to show to the model.")
    for few in stimuli.split(max(FEWEST_AT_ONCE, VALUES_AT_ONCE // max(1, stimuli[0].numel()))):
        try:
            yield core(like_parameters(model, few))
        except RuntimeError as error:
            raise EmbeddingError(
                f"the core of {type(model).__name__} cannot take stimuli of shape {tuple(stimuli.shape[1:])}: "
                f"{str(error).splitlines()[0]}"
            ) from error


def like_parameters(model: nn.Module, value: Any) -> Any:
    """Return a tensor where the model is, floating-point numbers of its precision."""
    parameter = next(model.parameters(), None)
    if parameter is None or not isinstance(value, Tensor):
        return value
    return value.to(parameter.device, parameter.dtype if value.is_floating_point() else value.dtype)


def received_features(
    readout: nn.Module, core_output: Tensor, *, shift: Tensor | None = None, neurons: Tensor | None = None
) -> Tensor:
    """Return what neurons receive from the core, ``phi_i(x)``, as in the forward pass in evaluation mode.

    Parameters
    ----------
    readout
        A session's readout. Known are neuralpredictors' classes, ours and openretina's, and any with a method
        ``embedding_features(core_output)``.
    core_output
        (batch, channels, height, width), or (batch, channels, frames, height, width) of movies.
    shift
        Shift of the positions, (batch, 2), or (batch, frames, 2).
    neurons
        Which neurons, (n,) int64; None for all.

    Returns
    -------
    Tensor
        (samples, n, D), a sample for every image, or for every frame of every clip.

    Raises
    ------
    EmbeddingError
        If the class is unknown, the core's output has another shape, or ``embedding_features`` returns something else.
    """
    if hasattr(readout, "embedding_features"):
        return _of_another_package(readout, core_output, shift, neurons)
    source = getattr(readout, "_source", None)
    if isinstance(source, nn.Module):
        return received_features(source, core_output, shift=shift, neurons=neurons)
    maps, shift = _as_images(readout, core_output, shift, advice=CUSTOM)
    if hasattr(readout, "attention"):
        return _under_attention(readout.attention, maps, neurons)  # type: ignore[arg-type]
    masks = _masks(readout, shift)
    if masks is not None:
        masks = masks if neurons is None else masks[neurons]
        return torch.einsum("bchw,nhw->bnc", maps, masks)
    positions = _positions(readout)
    positions = (positions if neurons is None else positions[:, neurons]).expand(len(maps), -1, -1, -1)
    if shift is not None:
        positions = positions + shift[:, None, None]
    return _sampled(_scales(readout, maps), positions, align_corners=getattr(readout, "align_corners", True))


@dataclass(frozen=True)
class Reading:
    """Where neurons of a readout read, found once, for many stimuli of which each is shown to its own neuron.

    Attributes
    ----------
    readout
        Readout of a session; its weights must not change.
    neurons
        Which of its neurons, (n,) int64.
    positions
        Where they read, (n, 2), x and y from -1 to 1; None unless they read at points.
    masks
        Over what they sum, (n, height, width); None unless they have masks.
    attention
        Weights and biases of their attention's last layer; None unless they have one.
    """

    readout: nn.Module
    neurons: Tensor
    positions: Tensor | None = None
    masks: Tensor | None = None
    attention: tuple[Tensor, Tensor | None] | None = None

    @classmethod
    def of(cls, readout: nn.Module, neurons: Tensor) -> Reading:
        """Find where neurons of a readout read, without a shift.

        Raises
        ------
        EmbeddingError
            If the class is unknown, or defines its own features (``embedding_features``).
        """
        source = getattr(readout, "_source", None)
        if isinstance(source, nn.Module):
            return cls.of(source, neurons)
        if hasattr(readout, "embedding_features"):
            raise EmbeddingError(f"{type(readout).__name__} defines its own features, so where it reads is unknown.")
        with torch.no_grad():
            if hasattr(readout, "attention"):
                last: Any = readout.attention[-1]  # type: ignore[index]
                bias = None if last.bias is None else last.bias[neurons]
                return cls(readout, neurons, attention=(last.weight[neurons], bias))
            masks = _masks(readout, None)
            if masks is not None:
                return cls(readout, neurons, masks=masks[neurons])
            return cls(readout, neurons, positions=_positions(readout)[0, neurons, 0])

    @property
    def align_corners(self) -> bool:
        """Whether -1 and 1 are the middles of the outermost pixels."""
        return bool(getattr(self.readout, "align_corners", True))

    def scales(self, core_output: Tensor) -> list[Tensor]:
        """Return the maps (samples, channels, height, width) at all scales that are read; frames are samples."""
        return _scales(self.readout, _as_images(self.readout, core_output, None, advice=CUSTOM)[0])

    def features(self, core_output: Tensor, at: Tensor) -> Tensor:
        """Return what one neuron receives from each stimulus.

        Parameters
        ----------
        core_output
            As for :func:`received_features`.
        at
            Which of ``neurons``, (batch,) int64.

        Returns
        -------
        Tensor
            (samples, D), a sample for every image, or for every frame of every clip.
        """
        maps, _ = _as_images(self.readout, core_output, None, advice=CUSTOM)
        at = at.repeat_interleave(len(maps) // len(at))
        if self.attention is not None:
            weights, bias = self.attention
            layers: Any = self.readout.attention
            return _own_attention(layers, maps, weights[at], None if bias is None else bias[at])
        if self.masks is not None:
            return (maps.flatten(start_dim=2) @ self.masks[at].flatten(start_dim=1)[:, :, None])[:, :, 0]
        assert self.positions is not None
        grid = self.positions[at][:, None, None]
        return _sampled(_scales(self.readout, maps), grid, align_corners=self.align_corners)[:, 0]


def features_at(readout: nn.Module, core_output: Tensor, positions: Tensor) -> Tensor:
    """Return what a neuron would receive that read the core's output at a point.

    Parameters
    ----------
    readout
        Says at which scales maps are read, and whether -1 and 1 are the middles of the outermost pixels.
    core_output
        As for :func:`received_features`.
    positions
        x and y from -1 to 1, (places, 2).

    Returns
    -------
    Tensor
        (samples, places, D).

    Raises
    ------
    EmbeddingError
        If the readout is of another package and defines its own features, or the core's output has another shape.
    """
    if hasattr(readout, "embedding_features"):
        raise EmbeddingError(
            f"{type(readout).__name__} defines its own features, which are not known at other positions than its "
            "neurons'; fingerprints need them. Functional embeddings do not."
        )
    source = getattr(readout, "_source", None)
    if isinstance(source, nn.Module):
        return features_at(source, core_output, positions)
    maps, _ = _as_images(readout, core_output, None, advice="Fingerprints need maps.")
    grid = positions.to(maps)[None, :, None].expand(len(maps), -1, -1, -1)
    return _sampled(_scales(readout, maps), grid, align_corners=getattr(readout, "align_corners", True))


def check_drives(readout: nn.Module, core_output: Tensor, *, shift: Tensor | None, name: str) -> int:
    """Check on a few stimuli that a readout's responses are made of its vectors and what is received.

    Parameters
    ----------
    readout, core_output, shift
        As for :func:`received_features`.
    name
        Name of the session.

    Returns
    -------
    int
        The number of features, D.

    Raises
    ------
    EmbeddingError
        As for :func:`received_features`; if the numbers of neurons or features differ; or if the linear responses of a
        known class differ, because it has its own forward pass.
    """
    vectors = readout_vectors(readout).detach()
    try:
        features = received_features(readout, core_output, shift=shift)
    except EmbeddingError as error:
        raise EmbeddingError(f"session {name!r}: {error}") from error
    if features.shape[1:] != vectors.shape:
        raise EmbeddingError(
            f"session {name!r}: {type(readout).__name__} receives (samples, neurons, features) "
            f"{tuple(features.shape)} from the core, but its readout vectors are {tuple(vectors.shape)}."
        )
    if any(hasattr(readout, name) for name in NONLINEAR):
        return vectors.shape[1]
    responses = readout(core_output, **({} if shift is None else {"shift": shift})).reshape(len(features), -1)
    drives = torch.einsum("snd,nd->sn", features, vectors)
    constant = responses - drives  # the bias
    spread = responses.std(dim=0, correction=0) + 1e-3 * responses.abs().amax(dim=0)
    if ((constant - constant[:1]).abs() > TOLERANCE * spread + 1e-6).any():
        raise EmbeddingError(
            f"session {name!r}: the responses of {type(readout).__name__} are not the products of its readout vectors "
            f"with what its parent class would receive from the core. {CUSTOM}"
        )
    return vectors.shape[1]


def _of_another_package(
    readout: nn.Module, core_output: Tensor, shift: Tensor | None, neurons: Tensor | None
) -> Tensor:
    given = {} if shift is None else {"shift": shift}
    features = readout.embedding_features(core_output, **given)  # type: ignore[operator]
    if not isinstance(features, Tensor) or features.ndim not in (3, 4):
        found = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise EmbeddingError(
            f"{type(readout).__name__}.embedding_features(core_output) returned {found}; it must return a tensor "
            "(samples, neurons, features), or (samples, frames, neurons, features)."
        )
    features = features.flatten(end_dim=-3)
    return features if neurons is None else features[:, neurons]


def _as_images(
    readout: nn.Module, core_output: Tensor, shift: Tensor | None, *, advice: str
) -> tuple[Tensor, Tensor | None]:
    """Return every frame as a separate image, (samples, channels, height, width), and its shift (samples, 2)."""
    if core_output.ndim == 4:
        return core_output, shift
    if core_output.ndim != 5:
        raise EmbeddingError(
            f"what {type(readout).__name__} receives from the core cannot be found: the core's output has the shape "
            f"{tuple(core_output.shape)}; it must be (batch, channels, height, width), or (batch, channels, frames, "
            f"height, width) of movies. {advice}"
        )
    batch, _, frames = core_output.shape[:3]
    if shift is not None:
        shift = (shift if shift.ndim == 3 else shift[:, None].expand(-1, frames, -1)).reshape(batch * frames, 2)
    return core_output.transpose(1, 2).flatten(end_dim=1), shift


def _positions(readout: nn.Module) -> Tensor:
    """Return where neurons read, (1, n, 1, 2)."""
    if hasattr(readout, "sample_grid"):
        positions: Any = readout.sample_grid(batch_size=1, sample=False)  # type: ignore[operator]
    else:
        positions = getattr(readout, "grid", None)
        if isinstance(positions, nn.Parameter):  # of point-pooled and pyramid readouts, which clamp it so
            positions = positions.clamp(min=-1, max=1)
    if not isinstance(positions, Tensor) or positions.ndim != 4 or positions.shape[2:] != (1, 2):
        raise EmbeddingError(
            f"what {type(readout).__name__} receives from the core cannot be found: where its neurons read is not "
            f"known. {CUSTOM}"
        )
    return positions


def _scales(readout: nn.Module, maps: Tensor) -> list[Tensor]:
    """Return the maps at all scales that a readout reads."""
    if hasattr(readout, "gauss_pyramid"):
        return list(readout.gauss_pyramid(maps))  # type: ignore[operator]
    scales = [maps]
    for _ in range(getattr(readout, "_pool_steps", 0)):
        scales.append(readout.avg(scales[-1]))  # type: ignore[operator]
    return scales


def _sampled(scales: list[Tensor], positions: Tensor, *, align_corners: bool) -> Tensor:
    samples = [functional.grid_sample(maps, positions, align_corners=align_corners)[..., 0] for maps in scales]
    return torch.cat(samples, dim=1).mT


def _masks(readout: nn.Module, shift: Tensor | None) -> Tensor | None:
    """Return the masks over which neurons sum, (n, height, width); None if they read at points."""
    given = {} if shift is None else {"shift": shift}
    if hasattr(readout, "normalized_spatial"):
        masks: Any = readout.normalized_spatial  # factorized
    elif hasattr(readout, "get_mask"):
        masks = readout.get_mask()  # type: ignore[operator]  # openretina's Gaussian
    elif hasattr(readout, "mask_weights"):
        masks = readout.mask_weights.T.unflatten(1, readout.mask_size)  # type: ignore[operator]  # openretina's factorized
    elif hasattr(readout, "log_var") and hasattr(readout, "mask"):
        masks = readout.mask(**given)  # type: ignore[operator]  # deterministic Gaussian
    else:
        return None
    return masks


def _under_attention(attention: nn.Sequential, maps: Tensor, neurons: Tensor | None) -> Tensor:
    """Return the mean of the maps (samples, channels, height, width), weighted by each neuron's attention."""
    last: Any = attention[-1]
    hidden = attention[:-1](maps)
    chosen = slice(None) if neurons is None else neurons
    attended = functional.conv2d(
        hidden,
        last.weight[chosen],
        None if last.bias is None else last.bias[chosen],
        stride=last.stride,
        padding=tuple(int(size) for size in last.padding),  # neuralpredictors gives booleans
        dilation=last.dilation,
    )
    weights = functional.softmax(attended.flatten(start_dim=2), dim=-1)
    return torch.einsum("bnp,bcp->bnc", weights, maps.flatten(start_dim=2))


def _own_attention(attention: nn.Sequential, maps: Tensor, weights: Tensor, bias: Tensor | None) -> Tensor:
    """Return the mean (samples, channels) of maps, weighted by the attention of one neuron for each sample."""
    last: Any = attention[-1]
    hidden = attention[:-1](maps)
    attended = functional.conv2d(
        hidden.flatten(end_dim=1)[None],
        weights.to(hidden),
        None if bias is None else bias.to(hidden),
        stride=last.stride,
        padding=tuple(int(size) for size in last.padding),
        dilation=last.dilation,
        groups=len(hidden),
    )[0]
    weights = functional.softmax(attended.flatten(start_dim=1), dim=-1)
    return (maps.flatten(start_dim=2) @ weights[:, :, None])[:, :, 0]
