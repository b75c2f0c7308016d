"""The images that may be shown to a model: their shape, grey, allowed pixel values, and accompanying behaviour."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from december_plugin.errors import SettingsError, StimulusError
from december_plugin.validation.checks import check_integer, is_number
from december_plugin.validation.tensors import tensor_of

MOST_FRAMES = 50
BISECTIONS = 60


@dataclass(frozen=True)
class Canvas:
    """The stimuli that a model is shown.

    Parameters
    ----------
    shape
        Shape of one input of the model: (channels, height, width), or (channels, frames, height, width) of a model of
        movies, with at most 50 frames.
    grey
        The value of an empty pixel, from which norms are measured: 0 where images are z-scored.
    bounds
        The smallest and the largest value of a pixel; None: unbounded.
    image_channels
        How many of the channels are images, the first ones; None: all.
    behavior
        Values of the other channels, in the units that the model takes, ideally their means over the recording; None:
        0.

    Raises
    ------
    SettingsError
        If a value is not allowed.

    See Also
    --------
    maximally_exciting_images : Finds images on a canvas.

    Examples
    --------
    >>> from december_plugin.insilico import Canvas
    >>> canvas = Canvas(shape=(1, 36, 64))  # channels, height and width of z-scored images
    >>> tuple(canvas.empty(2).shape)
    (2, 1, 36, 64)
    """

    shape: tuple[int, ...]
    grey: float = 0.0
    bounds: tuple[float, float] | None = None
    image_channels: int | None = None
    behavior: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        shape = _checked_shape(self.shape)
        grey = _checked_grey(self.grey)
        bounds = None if self.bounds is None else _checked_bounds(self.bounds, grey)
        n_images = shape[0] if self.image_channels is None else self.image_channels
        if check_integer("image_channels", n_images, minimum=1) > shape[0]:
            raise SettingsError(
                f"image_channels is {n_images}, more than the {shape[0]} channels of the input.",
                setting="image_channels",
            )
        behavior = (0.0,) * (shape[0] - n_images) if self.behavior is None else tuple(map(float, self.behavior))
        if len(behavior) != shape[0] - n_images or not all(map(math.isfinite, behavior)):
            raise SettingsError(
                f"behavior is {self.behavior!r}, but the input has {shape[0] - n_images} channel(s) of behaviour; give "
                "one finite value for each.",
                setting="behavior",
            )
        values = {"shape": shape, "grey": grey, "bounds": bounds, "image_channels": int(n_images), "behavior": behavior}
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, shape: Canvas | Sequence[int]) -> Canvas:
        """Return a canvas unchanged, or an empty one of a shape."""
        return shape if isinstance(shape, cls) else cls(shape)  # type: ignore[arg-type]

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of what may change: (image channels, height, width), or with frames."""
        assert self.image_channels is not None
        return (self.image_channels, *self.shape[1:])

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.shape[-2], self.shape[-1]

    @property
    def n_frames(self) -> int | None:
        """Number of frames; None for images."""
        return self.shape[1] if len(self.shape) == 4 else None

    @property
    def usual_norm(self) -> float:
        """Half the norm of an image whose pixels have unit variance, as z-scored images have: 24 of 36 x 64.

        Never more than half of the largest norm: stronger images are black and white, whatever the neuron.
        """
        return 0.5 * min(math.sqrt(math.prod(self.image_shape)), self.largest_norm)

    @property
    def largest_norm(self) -> float:
        """The norm of the strongest image within the bounds; infinite without bounds."""
        if self.bounds is None:
            return math.inf
        return max(abs(value - self.grey) for value in self.bounds) * math.sqrt(math.prod(self.image_shape))

    def checked_images(self, images: Any) -> Tensor:
        """Return images of this canvas as a tensor ``(n, *image_shape)``.

        Raises
        ------
        StimulusError
            If they have another shape, or values that are not finite.
        """
        images = tensor_of(images)
        if images.ndim != 1 + len(self.shape) or tuple(images.shape[1:]) != self.image_shape:
            raise StimulusError(
                f"the images are {tuple(images.shape)}; (images, {', '.join(map(str, self.image_shape))}) is expected. "
                "Give images of the size that the model was trained on."
            )
        if not torch.isfinite(images).all():
            raise StimulusError("the images hold NaN or infinite values.")
        return images

    def empty(self, n: int) -> Tensor:
        """Return ``n`` empty images ``(n, *image_shape)`` float32."""
        return torch.full((n, *self.image_shape), self.grey)

    def with_behavior(self, images: Tensor) -> Tensor:
        """Return images ``(n, *image_shape)`` as the model's inputs ``(n, *shape)``: with the channels of behaviour."""
        assert self.behavior is not None
        if not self.behavior:
            return images
        values = images.new_tensor(self.behavior).reshape(-1, *[1] * (images.ndim - 2))
        return torch.cat([images, values.expand(len(images), -1, *images.shape[2:])], dim=1)

    def with_norm(self, images: Tensor, norm: float) -> Tensor:
        """Scale images ``(n, *image_shape)`` about grey until they have a norm.

        Where bounds cut pixels off, the others grow as far as possible. A uniformly grey image stays grey.
        """
        deviations = (images - self.grey).flatten(start_dim=1)
        lengths = torch.linalg.vector_norm(deviations, dim=1, keepdim=True)
        factors = norm / torch.where(lengths > 0, lengths, 1)
        if self.bounds is None:
            return (self.grey + deviations * factors).reshape(images.shape)
        low, high = (bound - self.grey for bound in self.bounds)
        cut = (deviations * factors).clamp(low, high)
        if (torch.linalg.vector_norm(cut, dim=1) < norm * (1 - 1e-6)).any():
            factors = _factors_within(deviations, factors, norm, (low, high))
            cut = (deviations * factors).clamp(low, high)
        return (self.grey + cut).clamp(*self.bounds).reshape(images.shape)


def _factors_within(deviations: Tensor, factors: Tensor, norm: float, bounds: tuple[float, float]) -> Tensor:
    """Return the factors (n, 1) by which deviations (n, pixels) have a norm within the bounds."""
    low, high = factors.log(), factors.log() + math.log(1e6)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        too_short = torch.linalg.vector_norm((deviations * middle.exp()).clamp(*bounds), dim=1, keepdim=True) < norm
        low, high = torch.where(too_short, middle, low), torch.where(too_short, high, middle)
    return low.exp()


def _checked_shape(shape: Any) -> tuple[int, ...]:
    several = isinstance(shape, Iterable) and not isinstance(shape, str)
    sizes = tuple(check_integer("shape", size, minimum=1) for size in shape) if several else ()
    if len(sizes) not in (3, 4) or min(sizes[-2:]) < 2:
        raise SettingsError(
            f"shape is {shape!r}; it must be that of a model's input, (channels, height, width), or (channels, "
            "frames, height, width) of movies, of at least 2 x 2 pixels.",
            setting="shape",
        )
    if len(sizes) == 4 and sizes[1] > MOST_FRAMES:
        raise SettingsError(
            f"shape is {sizes}, clips of {sizes[1]} frames; at most {MOST_FRAMES} are allowed. As many as the model "
            "needs for one prediction are enough.",
            setting="shape",
        )
    return sizes


def _checked_grey(grey: Any) -> float:
    if not is_number(grey) or not math.isfinite(grey):
        raise SettingsError(
            f"grey is {grey!r}; it must be a finite number, the value of an empty pixel.", setting="grey"
        )
    return float(grey)


def _checked_bounds(bounds: Any, grey: float) -> tuple[float, float]:
    try:
        low, high = map(float, bounds)
    except (TypeError, ValueError):
        low, high = math.nan, math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high and low <= grey <= high):
        raise SettingsError(
            f"bounds are {bounds!r}; they must be two finite numbers, the smallest and the largest value of a pixel, "
            f"with grey={grey:g} between them.",
            setting="bounds",
        )
    return low, high
