"""How strongly neurons respond to each other's maximally exciting images, at any orientation and position.

``C_ij = max over angles and places of a_j(y_i turned and moved) / a_j(y_j)``, with ``y_i`` the image of neuron ``i``
and ``a_j`` the activity of neuron ``j`` (Ustyuzhaninov et al. 2020, section 5.2 and Figure 7).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from december_plugin.embeddings.neuron_ids import NeuronIds
from december_plugin.errors import SettingsError, StimulusError
from december_plugin.insilico.ascent_settings import DEAD
from december_plugin.insilico.exciting_images import (
    ExcitingImages,
    Population,
    batch_size_of,
    in_parts,
    population_of,
)
from december_plugin.insilico.exciting_images_settings import LEAST_CORRELATION
from december_plugin.insilico.moved_responses import MovedResponses, places_about_the_middle, places_on_the_canvas
from december_plugin.insilico.turning import moved, share_outside_the_circle, shifts_to_the_middle, turned
from december_plugin.text.array_repr import ArrayRepr
from december_plugin.validation.checks import check_fraction, check_integer, check_number

N_ANGLES = 36
MOST_OUTSIDE = 0.25
VALUES_AT_ONCE = 1 << 24  # of maps and of responses: 64 MiB each
GRID = 12  # places along the shorter side, for models that are shown every moved image


@dataclass(frozen=True, eq=False, repr=False)
class MeiConfusion(ArrayRepr):
    """How strongly neurons respond to each other's maximally exciting images.

    Attributes
    ----------
    values
        (M, M) float64: row ``i``, column ``j`` is the activity of neuron ``j`` for the image of neuron ``i``, turned
        and moved to where it drives ``j`` best, divided by that for its own image.
    angles
        Angle by which the image was turned, (M, M) float64, degrees counterclockwise.
    shifts
        Shift of the image from its own place, before it was turned about its middle, (M, M, 2) int64 pixels down and to
        the right.
    neuron_ids
        The neurons.
    at
        Their positions among the images, (M,) int64.
    """

    values: npt.NDArray[np.float64]
    angles: npt.NDArray[np.float64]
    shifts: npt.NDArray[np.int64]
    neuron_ids: NeuronIds
    at: npt.NDArray[np.int64]


def mei_confusion(
    models: nn.Module | Sequence[nn.Module],
    exciting: ExcitingImages,
    *,
    neuron_ids: Any = None,
    test_correlations: npt.ArrayLike | None = None,
    least_correlation: float = LEAST_CORRELATION,
    n_angles: int = N_ANGLES,
    most_shift: int | None = None,
    most_outside: float = MOST_OUTSIDE,
    batch_size: int | None = None,
) -> MeiConfusion:
    """Return how strongly neurons respond to each other's maximally exciting images.

    Every image is centred, turned, and moved by whole pixels onto each neuron's receptive field and places around it.
    If these responses cannot be read from the core's map of the image (attention, several scales, strides, readouts of
    other packages), images are shown at the places of a grid over the whole canvas, and around the best of them at
    every pixel, which takes much longer. Memory is bounded: some images and angles are processed at a time.

    Parameters
    ----------
    models, neuron_ids, batch_size
        As for :func:`~december_plugin.insilico.exciting_images.maximally_exciting_images`, which returned the images.
    exciting
        Images of N neurons; models of movies are not supported.
    test_correlations
        Test correlations of the neurons, (N,): those below ``least_correlation``, or without one (NaN), are left out.
        None: all are kept.
    least_correlation
        Smallest test correlation; 0.7, as in the paper, by default.
    n_angles
        Number of angles over the whole circle.
    most_shift
        Largest distance of an image from the middle of the neuron's field, in pixels; None: a quarter of the shorter
        side. The grid over the whole canvas ignores it.
    most_outside
        Largest share of an image (of its squared deviations from grey) that may be outside the largest circle about its
        middle if images are not square: it would be cut off when the image is turned.

    Raises
    ------
    SettingsError
        If a setting is not allowed.
    StimulusError
        If no neuron is predicted well enough, a neuron is dead, or an image is too large to be turned.

    See Also
    --------
    maximally_exciting_images : The images that are shown.
    december_plugin.evaluation.covariance_confusion : The confusion of clusters without images.
    december_plugin.plots.mei_confusion_figure : Draws it.

    References
    ----------
    Ustyuzhaninov I, Cadena SA, Froudarakis E, Fahey PG, Walker EY, Cobos E, Reimer J, Sinz FH, Tolias AS, Bethge M,
    Ecker AS (2020). Rotation-invariant clustering of neuronal responses in primary visual cortex. *ICLR*.
    https://iclr.cc/virtual/2020/poster/1570

    Examples
    --------
    >>> import torch
    >>> from december_plugin.insilico import AscentSettings, maximally_exciting_images, mei_confusion
    >>> from december_plugin.models import stacked_core_gaussian_readout
    >>> shape = {"input_dimensions": [1, 1, 16, 16], "output_dimension": 5, "mean_responses": None}
    >>> model = stacked_core_gaussian_readout(
    ...     None, seed=0, data_info={"1-1-1": shape}, hidden_channels=4, layers=1, grid_mean_predictor=None
    ... )
    >>> _ = torch.manual_seed(0)
    >>> _ = model.readout["1-1-1"].features.data.normal_()  # as a training would; at first all neurons are alike
    >>> settings = AscentSettings(max_steps=5, n_starts=1)
    >>> exciting = maximally_exciting_images(model, {"1-1-1": [0, 3]}, (1, 16, 16), settings=settings)
    >>> found = mei_confusion(model, exciting, n_angles=4)
    >>> found.values.round(1).tolist()  # of the response to a neuron's own image
    [[1.0, 0.2], [0.5, 1.0]]
    """
    canvas = exciting.canvas
    check_integer("n_angles", n_angles, minimum=1)
    check_fraction("most_outside", most_outside)
    check_number("least_correlation", least_correlation, minimum=-1)
    if canvas.n_frames is not None:
        raise StimulusError("clips of movies cannot be turned; MEI confusion is defined for images only.")
    at = _well_predicted(exciting, test_correlations, least_correlation)
    kept = exciting.take(at)
    _check_alive(kept)
    radius = min(canvas.size) // 4 if most_shift is None else check_integer("most_shift", most_shift, minimum=0)
    images = canvas.checked_images(kept.images)
    to_the_middle = shifts_to_the_middle(images, grey=canvas.grey)
    images = moved(images, to_the_middle, grey=canvas.grey)
    if canvas.size[0] != canvas.size[1]:
        _check_fits(images, canvas.grey, most_outside, kept.neuron_ids)
    angles = 360 * np.arange(n_angles) / n_angles
    with population_of(models, kept.neuron_ids, neuron_ids, canvas) as population, torch.no_grad():
        size = batch_size_of(batch_size, population.device)
        shown = _Shown(population, radius, size)
        best, which, shifts = shown.best(images.to(population.device), angles)
    values = best.double().cpu().numpy() / kept.activities
    return MeiConfusion(
        values=values,
        angles=angles[which.cpu().numpy()],
        shifts=shifts.cpu().numpy() + to_the_middle.numpy()[:, None],
        neuron_ids=kept.neuron_ids,
        at=at,
    )


def fits_when_turned(exciting: ExcitingImages, *, most_outside: float = MOST_OUTSIDE) -> npt.NDArray[np.bool_]:
    """Return which images (N,) can be turned: all square ones, and others that are small enough.

    Parameters
    ----------
    exciting
        The images; models of movies are not supported.
    most_outside
        As for :func:`mei_confusion`, which refuses the others.
    """
    canvas = exciting.canvas
    if canvas.size[0] == canvas.size[1]:
        return np.ones(len(exciting), dtype=bool)
    images = canvas.checked_images(exciting.images)
    images = moved(images, shifts_to_the_middle(images, grey=canvas.grey), grey=canvas.grey)
    return np.asarray((share_outside_the_circle(images, grey=canvas.grey) <= most_outside).numpy())


class _Shown:
    """Images about the middle that are shown, turned and moved, to all neurons of a population."""

    def __init__(self, population: Population, radius: int, size: int) -> None:
        self.population, self.size, self.step = population, size, 1
        self.readers: list[list[MovedResponses]] | None = None
        all_responses = [responses for models in population.responses for responses in models]
        if all(MovedResponses.can_read(responses) for responses in all_responses):
            self.places = places_about_the_middle(radius).to(population.device)
            self.readers = []
            for models in population.responses:
                first = MovedResponses(models[0], self.places)
                others = [MovedResponses(each, self.places, first.fields) for each in models[1:]]
                self.readers.append([first, *others])
            n_values = max(
                len(reader.fields) * max(len(self.places), reader.size[0] * reader.size[1])
                for readers in self.readers
                for reader in readers
            )
            self.size = max(1, min(size, VALUES_AT_ONCE // n_values))
        else:
            self.step = max(1, min(population.canvas.size) // GRID)
            self.places = places_on_the_canvas(population.canvas, self.step).to(population.device)

    def best(self, images: Tensor, angles: npt.NDArray[np.float64]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the best responses (M, M), at which of the angles (M, M), and with which shifts (M, M, 2)."""
        n = len(images)
        best = images.new_full((n, n), -torch.inf)
        which = torch.zeros(n, n, dtype=torch.long, device=images.device)
        shifts = torch.zeros(n, n, 2, dtype=torch.long, device=images.device)
        for k, angle in enumerate(angles):
            turned_images = turned(images, float(angle), grey=self.population.canvas.grey)
            for rows in torch.arange(n, device=images.device).split(self.size):
                values, moves = self._responses(turned_images[rows])
                better = values > best[rows]
                best[rows] = torch.where(better, values, best[rows])
                which[rows] = torch.where(better, k, which[rows])
                shifts[rows] = torch.where(better[..., None], moves, shifts[rows])
        if self.step > 1:
            for row, image in enumerate(images):
                self._move_between_places(image, angles[which[row].cpu().numpy()], best[row], shifts[row])
        return best, which, shifts

    def _move_between_places(
        self, image: Tensor, angles: npt.NDArray[np.float64], best: Tensor, shifts: Tensor
    ) -> None:
        """Move an image by single pixels about each neuron's best place of the grid; best and shifts are changed."""
        grey, neurons = self.population.canvas.grey, torch.arange(len(angles), device=image.device)
        shown = torch.stack([turned(image, float(angle), grey=grey) for angle in angles])
        near = torch.arange(1 - self.step, self.step, device=image.device)
        start = shifts.clone()
        for offset in torch.cartesian_prod(near, near):
            found = in_parts(self.population, moved(shown, start + offset, grey=grey), neurons, self.size)
            better = found > best
            best[better], shifts[better] = found[better].to(best), (start + offset)[better]

    def _responses(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return each neuron's best response (batch, M), and by how much the image was moved for it (batch, M, 2)."""
        if self.readers is None:
            return self._of_shown_places(images)
        values = images.new_empty(len(images), len(self.population.session_of))
        moves = torch.empty(*values.shape, 2, dtype=torch.long, device=images.device)
        for readers, members in zip(self.readers, self.population.sessions, strict=True):
            found = torch.stack([reader(images).to(images) for reader in readers]).mean(dim=0)
            values[:, members], place = found.max(dim=2)
            moves[:, members] = readers[0].fields - self.places[place]
        return values, moves

    def _of_shown_places(self, images: Tensor) -> tuple[Tensor, Tensor]:
        n, n_places = len(images), len(self.places)
        canvas = self.population.canvas
        found = images.new_empty(n, n_places, len(self.population.session_of))
        for row, image in enumerate(images):
            for rows in torch.arange(n_places, device=images.device).split(self.size):
                shown = moved(image.expand(len(rows), *image.shape), self.places[rows], grey=canvas.grey)
                for models, members in zip(self.population.responses, self.population.sessions, strict=True):
                    each = [responses.everyone(shown).to(found) for responses in models]
                    found[row, rows[:, None], members] = torch.stack(each).mean(dim=0)
        values, place = found.max(dim=1)
        return values, self.places[place]


def _well_predicted(
    exciting: ExcitingImages, test_correlations: npt.ArrayLike | None, least: float
) -> npt.NDArray[np.int64]:
    if test_correlations is None:
        return np.arange(len(exciting), dtype=np.int64)
    correlations = np.asarray(test_correlations, dtype=np.float64)
    if correlations.shape != (len(exciting),):
        raise SettingsError(
            f"test_correlations have shape {correlations.shape}; one for each of the {len(exciting)} images is "
            "expected.",
            setting="test_correlations",
        )
    kept = np.flatnonzero(correlations >= least).astype(np.int64)
    if not len(kept):
        known = correlations[np.isfinite(correlations)]
        best = f"the best has {known.max():.2f}" if len(known) else "none has one"
        raise StimulusError(f"no neuron has a test correlation of at least {least:g}; {best}. Lower least_correlation.")
    return kept


def _check_alive(exciting: ExcitingImages) -> None:
    bad = (exciting.endings == DEAD) | ~(exciting.activities > 0)
    if bad.any():
        key, unit = exciting.neuron_ids.index[bad][0]
        raise StimulusError(
            f"unit {unit} of session {key!r} does not respond to its own image ({int(bad.sum())} neurons do not), so "
            "other responses cannot be compared with it. Leave such neurons out."
        )


def _check_fits(images: Tensor, grey: float, most: float, neurons: NeuronIds) -> None:
    outside = share_outside_the_circle(images, grey=grey)
    if (outside > most).any():
        worst = int(outside.argmax())
        key, unit = neurons.index[worst]
        raise StimulusError(
            f"the image of unit {unit} of session {key!r} has {outside[worst]:.0%} outside the largest circle about "
            f"its middle, more than most_outside={most:g}: images of {images.shape[-2]} x {images.shape[-1]} pixels "
            "are not square, and that would be cut off when they are turned. Use square images, or larger ones."
        )
