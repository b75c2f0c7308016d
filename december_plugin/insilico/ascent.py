"""Gradient ascent of many images at once, each on its own objective, on the sphere of images with one norm.

For image ``x`` with deviation ``u`` from grey, ``||u|| = norm``, and gradient ``g`` of its objective ``a``::

    t = g - <g, u> u / ||u||^2         what changes the image without changing its norm
    d = t-part of F^-1 (|f|^-power 1[|f| <= highest] F t)
    x' = grey + norm (u + step norm d / ||d||) / ||.||

The filter is positive, so ``<g, d> > 0`` unless ``t`` is zero within the pass band: images end where the gradient is
along the image, as at the maximum on the sphere of images of the pass band, and the power only decides which
frequencies come first. (Filtering ``g`` and not ``t`` would end at filtered images.) Pixels at a bound of the canvas
that would leave it are left out of ``u``, ``g`` and ``d``. A step that raises the activity is taken and the next is
longer; one that does not is undone and halved, for each image separately.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from december_plugin.insilico.ascent_settings import CONVERGED, DEAD, LONGEST_STEP, MAX_STEPS, AscentSettings
from december_plugin.insilico.canvas import Canvas

LONGER, SHORTER = 1.5, 0.5
SHORTEST_STEP = 1e-4  # of the norm

# From (images (n, *image_shape), which of the objectives (n,)) to their values (n,), differentiable.
Objective = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Ascended:
    """Images after their ascent.

    Attributes
    ----------
    images
        (n, *image_shape).
    activities
        Values of the objectives, (n,).
    endings
        One of :data:`ENDINGS` for each image, (n,); "dead": no gradient at its start, where it has stayed.
    n_steps
        Evaluations after the first, (n,) int64.
    """

    images: Tensor
    activities: Tensor
    endings: np.ndarray
    n_steps: np.ndarray


@dataclass(frozen=True)
class Start:
    """Images before their ascent.

    Attributes
    ----------
    images
        (n, *image_shape), of the requested norm.
    activities, gradients
        Values and gradients of the objectives, (n,) and (n, *image_shape).
    is_finite
        Whether both are finite, (n,) bool.
    is_dead
        Whether the activity does not change with any pixel, (n,) bool.
    """

    images: Tensor
    activities: Tensor
    gradients: Tensor
    is_finite: Tensor
    is_dead: Tensor

    @classmethod
    def of(cls, objective: Objective, starts: Tensor, canvas: Canvas, settings: AscentSettings) -> Start:
        """Evaluate the objectives once; parameters as those of :func:`ascend`."""
        images = canvas.with_norm(starts, norm_of(canvas, settings))
        activities, gradients = _evaluated(objective, images, torch.arange(len(starts), device=images.device))
        slopes = gradients.flatten(start_dim=1)
        is_finite = torch.isfinite(activities) & torch.isfinite(slopes).all(dim=1)
        return cls(images, activities, gradients, is_finite, is_finite & (slopes == 0).all(dim=1))


def norm_of(canvas: Canvas, settings: AscentSettings) -> float:
    """Return the norm of the images about grey."""
    return canvas.usual_norm if settings.norm is None else settings.norm


class FrequencyFilter:
    """Multiplies the spectrum of images: ``1 / f^power`` up to a highest frequency, nothing above.

    Parameters
    ----------
    size
        Height and width in pixels.
    power
        Power of the frequency; the mean counts as the lowest frequency above it.
    highest
        The highest frequency, in cycles per pixel.
    """

    def __init__(self, size: tuple[int, int], power: float, highest: float) -> None:
        height, width = size
        frequency = torch.hypot(
            torch.fft.fftfreq(height, dtype=torch.float64)[:, None],
            torch.fft.rfftfreq(width, dtype=torch.float64)[None, :],
        )
        lowest = 1 / max(size)
        weights = (frequency.clamp_min(lowest) / lowest) ** -power
        self.weights = torch.where(frequency <= highest, weights, 0.0)
        self.is_identity = bool((self.weights == 1).all())

    def __call__(self, images: Tensor) -> Tensor:
        """Filter images (..., height, width); their edges are joined."""
        if self.is_identity:
            return images
        spectrum = torch.fft.rfft2(images) * self.weights.to(images)
        return torch.fft.irfft2(spectrum, s=images.shape[-2:])


def ascend(objective: Objective, starts: Tensor, canvas: Canvas, settings: AscentSettings) -> Ascended:
    """Raise each image's objective until it no longer rises, or for the largest number of steps.

    Parameters
    ----------
    objective
        From images (m, *image_shape) and which of the ``n`` objectives each is for (m,) to activities (m,); of the
        activities of one call, each depends on its own image alone.
    starts
        (n, *image_shape), of any norm but 0.
    canvas, settings
        The images that are allowed.
    """
    n = len(starts)
    norm = norm_of(canvas, settings)
    filtered = FrequencyFilter(canvas.size, settings.frequency_power, settings.highest_frequency)
    start = Start.of(objective, starts, canvas, settings)
    images, activities, gradients = start.images, start.activities, start.gradients
    steps = torch.full((n,), settings.step, dtype=images.dtype, device=images.device)
    started = activities.clone()
    history = activities[:, None].expand(-1, settings.patience).clone()
    n_steps, endings = np.zeros(n, dtype=np.int64), np.full(n, MAX_STEPS, dtype="<U9")
    endings[start.is_dead.cpu().numpy()] = DEAD
    active = torch.nonzero(start.is_finite & ~start.is_dead)[:, 0]
    for step in range(settings.max_steps):
        if not len(active):
            break
        tried = _moved(images[active], gradients[active], steps[active], canvas, norm, filtered)
        found, slopes = _evaluated(objective, tried, active)
        better = (found > activities[active]) & torch.isfinite(slopes.flatten(start_dim=1)).all(dim=1)
        taken = active[better]
        images[taken], activities[taken], gradients[taken] = tried[better], found[better], slopes[better]
        steps[active] *= torch.where(better, LONGER, SHORTER)
        steps.clamp_(max=LONGEST_STEP)
        n_steps[active.cpu().numpy()] += 1
        before = history[active, step % settings.patience]
        history[active, step % settings.patience] = activities[active]
        rise = activities[active] - before
        flat = (rise <= settings.tolerance * (activities[active] - started[active])) & (step + 1 >= settings.patience)
        flat |= steps[active] < SHORTEST_STEP
        endings[active[flat].cpu().numpy()] = CONVERGED
        active = active[~flat]
    return Ascended(images, activities, endings, n_steps)


def _evaluated(objective: Objective, images: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        shown = images.detach().requires_grad_()
        activities = objective(shown, which)
        (gradients,) = torch.autograd.grad(activities.sum(), shown)
    return activities.detach(), gradients


def _moved(
    images: Tensor, gradients: Tensor, steps: Tensor, canvas: Canvas, norm: float, filtered: FrequencyFilter
) -> Tensor:
    """Return the images a step further along their gradients, on the sphere again."""
    deviations = (images - canvas.grey).flatten(start_dim=1)
    slopes = gradients.flatten(start_dim=1)
    largest = slopes.abs().amax(dim=1, keepdim=True)  # squares of tiny gradients would be 0
    slopes = slopes / torch.where(largest > 0, largest, 1)
    free = _free_pixels(images.flatten(start_dim=1), deviations, slopes, canvas)
    if free is not None:
        deviations, slopes = deviations * free, slopes * free
    directions = filtered(_across(slopes, deviations).reshape(images.shape)).flatten(start_dim=1)
    directions = _across(directions if free is None else directions * free, deviations)
    sizes = torch.linalg.vector_norm(directions, dim=1, keepdim=True)
    directions = directions / torch.where(sizes > 0, sizes, 1)
    return canvas.with_norm(images + (steps[:, None] * norm * directions).reshape(images.shape), norm)


def _free_pixels(pixels: Tensor, deviations: Tensor, slopes: Tensor, canvas: Canvas) -> Tensor | None:
    """Return which pixels may change: those within the bounds, and those at a bound that move away from it."""
    if canvas.bounds is None:
        return None
    low, high = canvas.bounds
    within = (pixels > low) & (pixels < high)
    others = deviations * within
    lengths = others.square().sum(dim=1, keepdim=True)
    wanted = slopes - (slopes * others).sum(dim=1, keepdim=True) / torch.where(lengths > 0, lengths, 1) * deviations
    return within | ((pixels <= low) & (wanted > 0)) | ((pixels >= high) & (wanted < 0))


def _across(vectors: Tensor, deviations: Tensor) -> Tensor:
    """Return the part of vectors (n, pixels) that is orthogonal to the deviations from grey."""
    lengths = deviations.square().sum(dim=1, keepdim=True)
    along = (vectors * deviations).sum(dim=1, keepdim=True) / torch.where(lengths > 0, lengths, 1)
    return vectors - along * deviations
