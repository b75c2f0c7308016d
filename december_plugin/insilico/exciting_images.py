"""Maximally exciting images: for each neuron the image of a given norm that drives it most (Walker et al. 2019).

For an ensemble, the image that drives the mean of the models most. The same holds for clips of movies, at their last
frame.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from december_plugin.embeddings.batches import evaluating
from december_plugin.embeddings.neuron_ids import NeuronIds, whole_numbers
from december_plugin.errors import SettingsError, StimulusError
from december_plugin.insilico.ascent import Ascended, FrequencyFilter, Objective, Start, ascend
from december_plugin.insilico.ascent_settings import DEAD, AscentSettings
from december_plugin.insilico.canvas import Canvas
from december_plugin.insilico.responses import NeuronResponses
from december_plugin.text.array_repr import ArrayRepr
from december_plugin.validation.checks import check_choice, check_integer

AT_ONCE = {"cpu": 64}  # images in a forward pass: more do not stay in a processor's cache
AT_ONCE_ELSEWHERE = 512
VALUES_AT_ONCE = 1 << 25  # of the images that are optimised together: 128 MiB, of which a step has a dozen
RAISE, KEEP = DEAD_NEURONS = ("raise", "keep")
MOST_NAMED = 5


@dataclass(frozen=True, eq=False, repr=False)
class ExcitingImages(ArrayRepr):
    """Images that drive neurons most.

    Attributes
    ----------
    images
        (N, channels, height, width) float32, without channels of behaviour; (N, channels, frames, height, width) of
        models of movies.
    neuron_ids
        The neurons.
    activities
        Responses of the neurons to their images, (N,) float64: the mean over models.
    norms
        L2 norms of the images about grey, (N,) float64: as requested, or smaller where bounds do not allow it.
    endings
        Why the ascent ended, (N,): "converged", "max_steps", or "dead" for a neuron whose response does not change with
        any of the noise images.
    n_steps
        Steps of the ascent, (N,) int64.
    start_activities
        Activities reached from every start, (N, starts) float64: starts that disagree have found different maxima.
    canvas
        The images that were allowed.
    """

    images: npt.NDArray[np.float32]
    neuron_ids: NeuronIds
    activities: npt.NDArray[np.float64]
    norms: npt.NDArray[np.float64]
    endings: npt.NDArray[np.str_]
    n_steps: npt.NDArray[np.int64]
    start_activities: npt.NDArray[np.float64]
    canvas: Canvas

    def __len__(self) -> int:
        return len(self.images)

    def take(self, at: npt.NDArray[Any]) -> ExcitingImages:
        """Return those at these positions, an index or mask of the N neurons."""
        return ExcitingImages(
            images=self.images[at],
            neuron_ids=self.neuron_ids.take(at),
            activities=self.activities[at],
            norms=self.norms[at],
            endings=self.endings[at],
            n_steps=self.n_steps[at],
            start_activities=self.start_activities[at],
            canvas=self.canvas,
        )


class Population:
    """Neurons of one model or of an ensemble, and their responses averaged over the models.

    Parameters
    ----------
    models
        At least one.
    neurons
        The neurons.
    neuron_ids
        Identities of all neurons of every model, in the order of its readouts; None: a neuron's unit id is its
        position within its session.
    canvas
        The stimuli that the models are shown.
    """

    def __init__(
        self, models: Sequence[nn.Module], neurons: NeuronIds, neuron_ids: Sequence[NeuronIds | None], canvas: Canvas
    ) -> None:
        self.models, self.neurons, self.canvas = models, neurons, canvas
        keys, session_of = np.unique(neurons.data_keys.astype(str), return_inverse=True)
        self.device = _device_of(models[0])
        self.sessions = [torch.from_numpy(np.flatnonzero(session_of == k)).to(self.device) for k in range(len(keys))]
        self.session_of = torch.from_numpy(session_of).to(self.device)
        self.within = torch.empty_like(self.session_of)
        for members in self.sessions:
            self.within[members] = torch.arange(len(members), device=self.device)
        self.responses: list[list[NeuronResponses]] = []  # of every session, by every model
        positions = [_positions_of(neurons, ids) for ids in neuron_ids]
        for key, members in zip(keys, self.sessions, strict=True):
            at = members.cpu().numpy()
            of_models = [
                NeuronResponses(model, str(key), torch.from_numpy(of_model[at]).to(self.device), canvas)
                for model, of_model in zip(models, positions, strict=True)
            ]
            for responses, ids in zip(of_models, neuron_ids, strict=True):
                _check_all_are_named(responses, ids)
            self.responses.append(of_models)

    def __call__(self, images: Tensor, which: Tensor) -> Tensor:
        """Return the response of each image's neuron, (batch,), on the autograd graph of the images."""
        found = images.new_zeros(len(images))
        for k, models in enumerate(self.responses):
            rows = torch.nonzero(self.session_of[which] == k)[:, 0]
            if len(rows):
                at = self.within[which[rows]]
                each = [responses(images[rows], at).to(found) for responses in models]
                found = found.index_put((rows,), torch.stack(each).mean(dim=0))
        return found


def maximally_exciting_images(
    models: nn.Module | Sequence[nn.Module],
    neurons: Any,
    canvas: Canvas | Sequence[int],
    *,
    neuron_ids: Any = None,
    settings: AscentSettings | None = None,
    batch_size: int | None = None,
    dead: str = RAISE,
) -> ExcitingImages:
    """Return for each neuron the image, or clip, of a given norm that drives it most.

    Gradient ascent from several noise images, all neurons at once, see :mod:`december_plugin.insilico.ascent`. Models
    run in evaluation mode, on their device, with the behaviour of ``canvas`` and without a shift of the gaze;
    afterwards the mode of each of their modules, their gradients and all random states are restored. The same seed
    gives the same bytes on the CPU.

    Parameters
    ----------
    models
        One, or an ensemble of models of the same neurons, whose mean response is raised.
    neurons
        Which neurons, in any form that :meth:`~december_plugin.embeddings.neuron_ids.NeuronIds.of` takes: e.g. data key
        to unit ids.
    canvas
        The images that are allowed, or the shape of the model's input, (channels, height, width). For movies,
        (channels, frames, height, width), with at most 50 frames; clips drive neurons at the last frame.
    neuron_ids
        Identities of all neurons of the model, in the order of its readouts, as
        :func:`~december_plugin.embeddings.readout_vectors.readout_embeddings` has them; for an ensemble a list with
        those of every model, or one for all. None: a neuron's unit id is its position within its session.
    settings
        Settings of the ascent; None: the defaults.
    batch_size
        Images in one forward pass. None: 64 on the CPU, 512 elsewhere.
    dead
        What to do with neurons whose response does not change with any of the noise images: "raise", or "keep", which
        leaves their images empty.

    Returns
    -------
    ExcitingImages
        In the order of ``neurons``.

    Raises
    ------
    SettingsError
        If a setting is not allowed.
    StimulusError
        If a model has no such neuron, cannot take such images, responds with NaN or infinity, or a neuron is dead.

    See Also
    --------
    mei_confusion : How clusters respond to each other's images.
    match_filters : Compares the images with known filters.
    december_plugin.plots.exciting_images_figure : Draws them.

    References
    ----------
    Walker EY, Sinz FH, Cobos E, Muhammad T, Froudarakis E, Fahey PG, Ecker AS, Reimer J, Pitkow X, Tolias AS (2019).
    Inception loops discover what excites neurons most using deep predictive models. *Nature Neuroscience* 22,
    2060-2065. https://doi.org/10.1038/s41593-019-0517-x

    Examples
    --------
    >>> from december_plugin.insilico import AscentSettings, maximally_exciting_images
    >>> from december_plugin.models import stacked_core_gaussian_readout
    >>> shape = {"input_dimensions": [1, 1, 16, 16], "output_dimension": 5, "mean_responses": None}
    >>> model = stacked_core_gaussian_readout(
    ...     None, seed=0, data_info={"1-1-1": shape}, hidden_channels=4, layers=1, grid_mean_predictor=None
    ... )
    >>> _ = model.readout["1-1-1"].features.data.normal_()  # as a training would; at first all neurons are alike
    >>> settings = AscentSettings(max_steps=5, n_starts=1)
    >>> exciting = maximally_exciting_images(model, {"1-1-1": [0, 3]}, (1, 16, 16), settings=settings, dead="keep")
    >>> exciting.images.shape
    (2, 1, 16, 16)
    """
    canvas, settings = Canvas.of(canvas), settings or AscentSettings()
    check_choice("dead", dead, DEAD_NEURONS)
    wanted = NeuronIds.of(neurons)
    if not len(wanted):
        raise SettingsError("there are no neurons to find images for.")
    if settings.norm is not None and settings.norm > canvas.largest_norm:
        raise SettingsError(
            f"norm is {settings.norm:g}, but images within the bounds {canvas.bounds} have at most "
            f"{canvas.largest_norm:g}.",
            setting="norm",
        )
    with population_of(models, wanted, neuron_ids, canvas) as population:
        size = batch_size_of(batch_size, population.device)
        n_together = max(1, VALUES_AT_ONCE // (settings.n_starts * math.prod(canvas.image_shape)))
        together = torch.arange(len(wanted)).split(n_together)
        _check_starts(population, together, size, settings, dead)  # of all, before a long ascent
        parts = [_ascended(population, rows, size, settings) for rows in together]
    return _best(_joined(parts), wanted, canvas, settings)


@contextmanager
def population_of(
    models: nn.Module | Sequence[nn.Module], neurons: NeuronIds, neuron_ids: Any, canvas: Canvas
) -> Iterator[Population]:
    """Yield neurons of models that are in evaluation mode within the block.

    Parameters
    ----------
    models, neuron_ids
        As for :func:`maximally_exciting_images`.
    neurons, canvas
        See :class:`Population`.
    """
    several = [models] if isinstance(models, nn.Module) else list(models)
    if not several or not all(isinstance(model, nn.Module) for model in several):
        raise SettingsError("models must be a torch.nn.Module, or a list of at least one.", setting="models")
    if len({_device_of(model) for model in several}) > 1:
        raise SettingsError("the models are on different devices; move all of them to one.", setting="models")
    ids = _ids_of_models(neuron_ids, len(several))
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))
        for model in several:
            stack.enter_context(evaluating(model))
        yield Population(several, neurons, ids, canvas)


def batch_size_of(batch_size: int | None, device: torch.device) -> int:
    """Return how many images a forward pass takes."""
    if batch_size is None:
        return AT_ONCE.get(device.type, AT_ONCE_ELSEWHERE)
    return check_integer("batch_size", batch_size, minimum=1)


def in_parts(population: Population, images: Tensor, which: Tensor, size: int) -> Tensor:
    """Return a population's responses (batch,), some images at a time; gradients are found part by part, too."""
    return torch.cat(
        [
            _OfOnePart.apply(population, few, at) if few.requires_grad else population(few, at)
            for few, at in zip(images.split(size), which.split(size), strict=True)
        ]
    )


class _OfOnePart(torch.autograd.Function):
    """Responses whose gradients are computed with them: only the graph of one part is in memory."""

    @staticmethod
    def forward(ctx: Any, population: Population, images: Tensor, which: Tensor) -> Tensor:
        with torch.enable_grad():
            shown = images.detach().requires_grad_()
            responses = population(shown, which)
            (gradients,) = torch.autograd.grad(responses.sum(), shown)
        ctx.save_for_backward(gradients)
        return responses.detach()

    @staticmethod
    def backward(ctx: Any, *above: Tensor) -> tuple[None, Tensor, None]:
        (gradients,) = ctx.saved_tensors
        return None, above[0].reshape(-1, *[1] * (gradients.ndim - 1)) * gradients, None


def _ascended(population: Population, rows: Tensor, size: int, settings: AscentSettings) -> Ascended:
    """Raise the responses of some neurons of a population, (n,) int64, from all their starts."""
    starts = _starts(population.neurons.take(rows.numpy()), population.canvas, settings).to(population.device)
    return ascend(_objective(population, rows, size, settings), starts, population.canvas, settings)


def _objective(population: Population, rows: Tensor, size: int, settings: AscentSettings) -> Objective:
    neurons = rows.repeat_interleave(settings.n_starts).to(population.device)

    def objective(images: Tensor, which: Tensor) -> Tensor:
        return in_parts(population, images, neurons[which], size)

    return objective


def _check_starts(
    population: Population, together: Sequence[Tensor], size: int, settings: AscentSettings, dead: str
) -> None:
    """Refuse neurons whose responses are not finite or, unless they are kept, that are dead at all their starts."""
    found = []
    for rows in together:
        starts = _starts(population.neurons.take(rows.numpy()), population.canvas, settings).to(population.device)
        start = Start.of(_objective(population, rows, size, settings), starts, population.canvas, settings)
        found.append(torch.stack([start.is_finite, start.is_dead]).cpu())
    is_finite, is_dead = torch.cat(found, dim=1).reshape(2, len(population.neurons), settings.n_starts).numpy()
    _check_finite(is_finite, population.neurons)
    all_dead = is_dead.all(axis=1)
    if dead == RAISE and all_dead.any():
        raise StimulusError(
            f"{_named(population.neurons, all_dead)}: the response changes with none of the {settings.n_starts} noise "
            'images, so none can be improved. Leave such neurons out, or pass dead="keep". If responses are 0 to '
            "most images, more starts (n_starts) or another norm may help."
        )


def _joined(parts: Sequence[Ascended]) -> Ascended:
    """Return the images of all parts, on the CPU."""
    return Ascended(
        images=torch.cat([part.images.cpu() for part in parts]),
        activities=torch.cat([part.activities.cpu() for part in parts]),
        endings=np.concatenate([part.endings for part in parts]),
        n_steps=np.concatenate([part.n_steps for part in parts]),
    )


def _device_of(model: nn.Module) -> torch.device:
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def _ids_of_models(neuron_ids: Any, n_models: int) -> list[NeuronIds | None]:
    if isinstance(neuron_ids, list):
        if len(neuron_ids) != n_models:
            raise SettingsError(
                f"neuron_ids are those of {len(neuron_ids)} models, but there are {n_models}; give one for each, or "
                "one for all.",
                setting="neuron_ids",
            )
        return [None if ids is None else NeuronIds.of(ids) for ids in neuron_ids]
    return [None if neuron_ids is None else NeuronIds.of(neuron_ids)] * n_models


def _positions_of(neurons: NeuronIds, ids: NeuronIds | None) -> npt.NDArray[np.int64]:
    """Return the positions of neurons within their sessions in a model."""
    if ids is None:
        positions = whole_numbers(neurons.unit_ids)
        if positions is None:
            raise StimulusError(
                "the unit ids are not whole numbers, so they are not positions within a session; pass in neuron_ids "
                "which neurons the model has."
            )
        return positions
    rows = ids.index.get_indexer(neurons.index)
    if (rows < 0).any():
        missing = neurons.index[rows < 0]
        key, unit = missing[0]
        raise StimulusError(
            f"the model has no unit {unit} of session {key!r} ({len(missing)} of {len(neurons)} neurons are not in "
            "it). Neurons are named by session and unit id."
        )
    position = np.empty(len(ids), dtype=np.int64)
    for key in np.unique(ids.data_keys):
        of_session = np.flatnonzero(ids.data_keys == key)
        position[of_session] = np.arange(len(of_session))
    return position[rows]


def _check_all_are_named(responses: NeuronResponses, ids: NeuronIds | None) -> None:
    """Refuse the identities of a part of a session: positions among these are not those in the readout."""
    if ids is None:
        return
    n_named = int((ids.data_keys.astype(str) == responses.data_key).sum())
    if n_named != responses.n_neurons:
        raise StimulusError(
            f"neuron_ids name {n_named} neurons of session {responses.data_key!r}, but "
            f"{type(responses.model).__name__} has {responses.n_neurons}. Name all neurons of the model there, in the "
            "order of its readouts, and those that are wanted as neurons."
        )


def _starts(neurons: NeuronIds, canvas: Canvas, settings: AscentSettings) -> Tensor:
    """Return noise for each neuron, (neurons * starts, *image_shape), which does not depend on the other neurons."""
    filtered = FrequencyFilter(canvas.size, settings.frequency_power, settings.highest_frequency)
    noise = np.empty((len(neurons), settings.n_starts, *canvas.image_shape), dtype=np.float32)
    for row, (key, unit) in enumerate(zip(neurons.data_keys, neurons.unit_ids, strict=True)):
        rng = np.random.default_rng([settings.seed, zlib.crc32(f"{key}/{unit}".encode())])
        for start in range(settings.n_starts):
            noise[row, start] = rng.normal(size=canvas.image_shape)
    return canvas.grey + filtered(torch.from_numpy(noise).flatten(end_dim=1))


def _best(ascended: Ascended, neurons: NeuronIds, canvas: Canvas, settings: AscentSettings) -> ExcitingImages:
    shape = (len(neurons), settings.n_starts)
    activities = ascended.activities.double().numpy().reshape(shape)
    endings = ascended.endings.reshape(shape)
    best = np.where(endings == DEAD, -np.inf, activities).argmax(axis=1)
    rows = np.arange(len(neurons)) * settings.n_starts + best
    images = ascended.images[torch.from_numpy(rows)].float()
    is_dead = (endings == DEAD).all(axis=1)
    images[torch.from_numpy(is_dead)] = canvas.grey
    return ExcitingImages(
        images=images.numpy(),
        neuron_ids=neurons,
        activities=activities[np.arange(len(neurons)), best],
        norms=torch.linalg.vector_norm((images - canvas.grey).flatten(start_dim=1).double(), dim=1).numpy(),
        endings=ascended.endings[rows],
        n_steps=ascended.n_steps[rows],
        start_activities=activities,
        canvas=canvas,
    )


def _check_finite(is_finite: npt.NDArray[np.bool_], neurons: NeuronIds) -> None:
    if not is_finite.all():
        raise StimulusError(
            f"{_named(neurons, np.logical_not(is_finite.all(axis=1)))}: the response to noise, or its gradient, is NaN "
            "or infinite. Check the model, and whether pixel values are in the units that it was trained on."
        )


def _named(neurons: NeuronIds, mask: npt.NDArray[Any]) -> str:
    names = [f"unit {unit} of session {key!r}" for key, unit in neurons.index[mask][:MOST_NAMED]]
    more = int(mask.sum()) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")
