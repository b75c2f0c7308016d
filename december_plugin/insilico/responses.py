"""Responses of a model's neurons to stimuli, each of which is meant for one neuron.

A forward pass predicts every neuron for every stimulus. Here the readout of a session computes one neuron for each
stimulus, or another function of the core's output, to which the model then applies everything that it applies to
responses after the readout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from december_plugin.embeddings.batches import evaluating, forward_replaced
from december_plugin.embeddings.probes import noise_images
from december_plugin.embeddings.readout_vectors import readout_vectors
from december_plugin.embeddings.received_features import Reading, like_parameters
from december_plugin.errors import DecemberError, EmbeddingError, StimulusError
from december_plugin.insilico.canvas import Canvas
from december_plugin.insilico.windows import Windows

N_CHECKED = 4  # stimuli and neurons on which the shorter way is compared with the model's own forward pass
TOLERANCE = 1e-3  # of the largest response: another class of readout is off by much more
PUPIL = 2  # coordinates, if the shifter does not say
# Raised by modules that cannot take their input.
UNFIT = (RuntimeError, ValueError, TypeError, IndexError, AssertionError)

# From the core's output to what is returned instead of responses, (batch, n), or (batch, frames, n) of movies.
Answer = Callable[[Tensor], Tensor]


class NeuronResponses:
    """Responses of some neurons of a session.

    The model must be in evaluation mode while they are computed
    (:func:`~december_plugin.embeddings.batches.evaluating`). Shifters shift by nothing.

    Parameters
    ----------
    model
        Called as ``model(inputs, data_key=...)``; has ``readout``, data key to the session's readout.
    data_key
        Key of the session.
    neurons
        Positions of the neurons within the session, (n,) int64.
    canvas
        The stimuli that the model is shown.

    Attributes
    ----------
    n_neurons
        Number of neurons of the session in the model.
    reading
        Where the neurons read; None if only the model's own forward pass knows.
    vectors, biases
        Their readout vectors (n, D), and biases (n,), with ``reading``.
    windows
        The windows of the images that the neurons see; None if they see the whole image.

    Raises
    ------
    StimulusError
        If the model has no such session, neuron or stimuli.
    """

    def __init__(self, model: nn.Module, data_key: str, neurons: Tensor, canvas: Canvas) -> None:
        self.model, self.data_key, self.neurons, self.canvas = model, data_key, neurons, canvas
        self.readout = _readout_of(model, data_key)
        self.reading: Reading | None = None
        self.windows: Windows | None = None
        self.vectors = self.biases = torch.empty(0)
        self.n_neurons = self._check_canvas().shape[-1]
        if not len(neurons):
            return
        if int(neurons.max()) >= self.n_neurons or int(neurons.min()) < 0:
            raise StimulusError(
                f"session {data_key!r} has {self.n_neurons} neurons in {type(model).__name__}; there is none at "
                f"position {int(neurons.max() if neurons.max() >= self.n_neurons else neurons.min())}. Without "
                "neuron_ids, a neuron's unit id is its position."
            )
        self._find_reading()
        self._find_windows()

    def __call__(self, images: Tensor, at: Tensor) -> Tensor:
        """Return the response of each image's neuron; for clips, at the last frame that is predicted.

        Parameters
        ----------
        images
            (batch, *image_shape) of the canvas.
        at
            Which of ``neurons``, (batch,) int64.

        Returns
        -------
        Tensor
            (batch,), on the autograd graph of the images.
        """
        if self.windows is not None:
            return self._of_windows(self.windows, images, at)
        if self.reading is not None:
            return self.answered(images, lambda output: self._own_drives(output, at))[:, 0]
        hook = self.readout.register_forward_pre_hook(_in_order)
        try:
            everyone = self._forward(images)
        finally:
            hook.remove()
        return everyone.gather(1, self.neurons[at][:, None])[:, 0]

    def everyone(self, images: Tensor) -> Tensor:
        """Return the responses of all ``neurons`` to each image, (batch, n); for clips, at the last frame."""
        return self._forward(images)[..., self.neurons]

    def answered(self, images: Tensor, answer: Answer) -> Tensor:
        """Return the model's output for an answer that replaces its readout's, (batch, n); for clips, the last."""
        with _answering(self.readout, answer):
            return self._forward(images)

    def drives(self, features: Tensor, at: Tensor) -> Tensor:
        """Return the drives (batch,) that features (batch, D) give to one neuron each."""
        return (features * self.vectors[at]).sum(dim=1) + self.biases[at]

    def _own_drives(self, output: Tensor, at: Tensor) -> Tensor:
        assert self.reading is not None
        n_frames = output.shape[2] if output.ndim == 5 else 1
        drives = self.drives(self.reading.features(output, at), at.repeat_interleave(n_frames))
        return drives.reshape(len(output), n_frames, 1) if output.ndim == 5 else drives[:, None]

    def _of_windows(self, windows: Windows, images: Tensor, at: Tensor) -> Tensor:
        first, weights = self.first[at], self.weights[at]

        def own(output: Tensor) -> Tensor:
            features = (output * weights[:, None].to(output)).flatten(start_dim=2).sum(dim=2)
            return self.drives(features, at)[:, None]

        with windows.shown(first):
            return self.answered(windows.cut(images, first), own)[:, 0]

    def _forward(self, images: Tensor) -> Tensor:
        parameter = next(self.model.parameters(), None)
        inputs = self.canvas.with_behavior(images)
        if parameter is not None:
            inputs = inputs.to(parameter.device, parameter.dtype)
        with _unshifted(self.model, self.data_key, len(inputs)) as extras:
            responses = self.model(inputs, data_key=self.data_key, **extras)
        return responses[:, -1] if responses.ndim == 3 else responses

    def _check_canvas(self) -> Tensor:
        """Return the responses of all neurons of the session to an empty image."""
        try:
            with torch.no_grad():
                responses = self._forward(self.canvas.empty(1))
        except DecemberError:
            raise
        except UNFIT as error:
            raise StimulusError(
                f"{type(self.model).__name__} cannot be shown stimuli of shape {self.canvas.shape} in session "
                f"{self.data_key!r}: {str(error).splitlines()[0] if str(error) else type(error).__name__}. Give the "
                "shape of its inputs (channels of behaviour included), of movies with as many frames as its kernels "
                "need."
            ) from error
        return responses

    def _find_reading(self) -> None:
        """Take the shorter way if it gives the same responses as the model's forward pass."""
        bias = getattr(self.readout, "bias", None)
        with torch.no_grad():
            try:
                self.reading = Reading.of(self.readout, self.neurons)
                self.vectors = readout_vectors(self.readout)[self.neurons].detach()
            except EmbeddingError:
                self.reading = None
                return
            self.biases = (
                bias.detach()[self.neurons] if isinstance(bias, Tensor) else self.vectors.new_zeros(len(self.neurons))
            )
            if not self._is_right():
                self.reading = None

    def _find_windows(self) -> None:
        """Show neurons that read at points only what they see, if that gives the same responses."""
        core, reading = getattr(self.model, "core", None), self.reading
        if self.canvas.n_frames is not None or not isinstance(core, nn.Module):
            return
        if reading is None or reading.positions is None or not reading.align_corners:
            return
        inputs = self.canvas.with_behavior(self.canvas.empty(1)).to(reading.positions)
        windows = Windows.of(core, inputs)
        if windows is None or len(reading.scales(core(inputs).detach())) > 1:
            return
        last = torch.tensor(windows.map_size, device=self.neurons.device) - 1
        self.first, self.weights = windows.corners((reading.positions.flip(1) + 1) / 2 * last)
        self.windows = windows
        if not self._is_right():
            self.windows = None

    def _is_right(self) -> bool:
        """Return whether some neurons' responses to noise equal those of the model's own forward pass."""
        with torch.no_grad():
            at = torch.linspace(0, len(self.neurons) - 1, N_CHECKED, device=self.neurons.device).long()
            images = noise_on(self.canvas, N_CHECKED)
            expected = self.everyone(images)[torch.arange(N_CHECKED), at]
            try:
                found = self(images.to(self.neurons.device), at)
            except UNFIT:  # maps of another shape, or values from which responses cannot be computed
                return False
        return torch.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE * float(expected.abs().max()))


def noise_on(canvas: Canvas, n: int) -> Tensor:
    """Return ``n`` images of noise (n, *image_shape) of the usual norm, always the same."""
    shape = (n, *canvas.image_shape)
    count = int(np.prod(shape[:-2]))
    noise = noise_images(count, canvas.size, np.random.default_rng(0)).reshape(shape)
    return canvas.with_norm(torch.from_numpy(canvas.grey + noise).float(), canvas.usual_norm)


def frames_seen(model: nn.Module, data_key: str, shape: tuple[int, ...], grey: float, spread: float) -> int:
    """Return the number of frames of a clip on which a model's last prediction depends, including the last frame.

    Parameters
    ----------
    model, data_key
        As for :class:`NeuronResponses`; the mode of each of the model's modules is restored afterwards.
    shape
        (channels, frames, height, width) of a clip that is longer than should be needed.
    grey, spread
        Mean and standard deviation of its noise.

    Returns
    -------
    int
        At most the number of frames of the clip.

    Raises
    ------
    StimulusError
        If the model cannot take such clips, or its responses do not change with any of the frames.
    """
    noise = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0)) * spread + grey
    clip = like_parameters(model, noise).requires_grad_()
    with evaluating(model), torch.enable_grad(), _unshifted(model, data_key, 1) as extras:
        try:
            last = model(clip, data_key=data_key, **extras)[:, -1]
        except UNFIT as error:
            raise StimulusError(
                f"{type(model).__name__} cannot be shown clips of shape {shape} in session {data_key!r}: {error}"
            ) from error
        (slopes,) = torch.autograd.grad(last.sum(), clip)
    seen = torch.nonzero(slopes.abs().sum(dim=(0, 1, 3, 4)))
    if not len(seen):
        raise StimulusError(
            f"the responses of {type(model).__name__} in session {data_key!r} do not change with any frame of noise."
        )
    return int(shape[1] - seen[0])


def _readout_of(model: nn.Module, data_key: str) -> nn.Module:
    readouts = getattr(model, "readout", None)
    keys: Sequence[str] = list(readouts) if isinstance(readouts, nn.ModuleDict) else []
    if data_key not in keys:
        raise StimulusError(
            f"{type(model).__name__} has no readout of session {data_key!r}; "
            + (f"it has some of {', '.join(keys)}." if keys else "its readouts must be an nn.ModuleDict by data key.")
        )
    return readouts[data_key]  # type: ignore[index]


@contextmanager
def _answering(readout: nn.Module, answer: Answer) -> Iterator[None]:
    """Let a readout answer with something else within the block."""

    def forward(output: Tensor, *_: Any, **__: Any) -> Tensor:
        return answer(_InOrder.apply(output))

    with forward_replaced(readout, forward):
        yield


class _InOrder(torch.autograd.Function):
    """The input; its gradient is contiguous in memory.

    Gradients of a single image may claim to be contiguous with strides that are not, as einsum's do; torch 2.13's batch
    normalisation in evaluation mode relies on these strides, and its gradients are then wrong on the CPU.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor) -> Tensor:
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *above: Tensor) -> Tensor:
        return above[0].clone(memory_format=torch.contiguous_format)


def _in_order(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    """Before a readout's forward pass: make the gradient of the core's output contiguous in memory."""
    return tuple(_InOrder.apply(each) if isinstance(each, Tensor) else each for each in given)


@contextmanager
def _unshifted(model: nn.Module, data_key: str, n: int) -> Iterator[dict[str, Tensor]]:
    """Let a session's shifter not shift within the block, and yield the input that it needs."""
    shifters = getattr(model, "shifter", None)
    if not isinstance(shifters, nn.Module) or (isinstance(shifters, nn.ModuleDict) and not len(shifters)):
        yield {}
        return
    first = next((layer for layer in shifters.modules() if isinstance(layer, nn.Linear)), None)
    pupil = next(model.parameters()).new_zeros(n, PUPIL if first is None else first.in_features)
    if isinstance(shifters, nn.ModuleDict) and data_key not in shifters:
        shifters[data_key] = _NoShift()
        try:
            yield {"pupil_center": pupil}
        finally:
            del shifters[data_key]
        return
    shifter = shifters[data_key] if isinstance(shifters, nn.ModuleDict) else shifters
    hook = shifter.register_forward_hook(lambda module, given, shift: torch.zeros_like(shift))
    try:
        yield {"pupil_center": pupil}
    finally:
        hook.remove()


class _NoShift(nn.Module):
    """The shifter of a session without one in a model that has shifters."""

    def forward(self, pupil: Tensor, *_: Any, **__: Any) -> Tensor:
        return pupil.new_zeros(len(pupil), PUPIL)
