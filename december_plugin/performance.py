"""How well a model predicts responses: scores per neuron, and the predictions of a tier.

All scores are computed in float64, neuron by neuron, over the trials (first axis) of one session. A neuron whose
response or prediction is constant has no correlation; it counts as 0, and :func:`constant_neurons` finds it. NaN in
responses or predictions gives NaN, so that a diverged model is not mistaken for a bad one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from december_plugin.errors import RecordingError, SettingsError

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

INPUT_FIELDS = ("images", "inputs", "videos")
RESPONSE_FIELDS = ("responses", "targets")
IMAGE_ID_FIELDS = ("frame_image_id", "colorframeprojector_image_id")
ORDERED_SAMPLERS = ("SequentialSampler", "SubsetSequentialSampler", "RepeatsBatchSampler")
BLOCK = 2048  # neurons at a time, which bounds the memory that float64 copies take
RELATIVE_RANGE = 1e-12  # what rounding alone leaves of a constant after averaging


class _Images(NamedTuple):
    """Trials grouped by image: ``order`` sorts them, image ``g`` has ``counts[g]`` of them from ``starts[g]``."""

    order: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]

    def average(self, values: FloatArray) -> FloatArray:
        return np.add.reduceat(values[self.order], self.starts, axis=0) / self.counts[:, None]


def single_trial_correlation(responses: npt.ArrayLike, predictions: npt.ArrayLike) -> FloatArray:
    """Return every neuron's Pearson correlation between response and prediction over the trials.

    Parameters
    ----------
    responses, predictions
        Shape (trials, n), at least two trials, in any common unit.

    Returns
    -------
    ndarray
        (n,) float64, -1 to 1; 0 for a neuron whose response or prediction is constant.

    Raises
    ------
    SettingsError
        If the shapes differ, or there are fewer than two trials.
    """
    responses, predictions = _trials(responses, predictions)
    return _by_block(_correlation, responses, predictions)


def correlation_to_average(
    responses: npt.ArrayLike, predictions: npt.ArrayLike, image_ids: npt.ArrayLike
) -> FloatArray:
    """Return every neuron's Pearson correlation over images, after averaging the repeats of each image.

    Predictions are averaged too: they differ between repeats where a model uses behaviour. Every image counts once,
    however often it was shown.

    Parameters
    ----------
    responses, predictions
        Shape (trials, n).
    image_ids
        Image of every trial, (trials,); at least two different ones. See :func:`image_ids_of`.

    Returns
    -------
    ndarray
        (n,) float64, -1 to 1; 0 for a neuron whose average response or prediction is constant.

    Raises
    ------
    SettingsError
        If the shapes do not fit together, or there is a single image.
    """
    responses, predictions = _trials(responses, predictions)
    images = _group(image_ids, len(responses))
    return _by_block(lambda r, p: _correlation(images.average(r), images.average(p)), responses, predictions)


def explainable_variance(responses: npt.ArrayLike, image_ids: npt.ArrayLike) -> FloatArray:
    """Return the fraction of every neuron's variance that the image explains at best.

    ``(Var[r] - sigma_noise^2) / Var[r]``, with the variance over all trials ``Var[r]`` and the noise
    ``sigma_noise^2``, the mean over images of the variance over the image's repeats (both with divisor n - 1). Images
    that were shown once are left out.

    Parameters
    ----------
    responses
        Shape (trials, n).
    image_ids
        Image of every trial, (trials,); at least two images with repeats.

    Returns
    -------
    ndarray
        (n,) float64, at most 1; below 0 by chance where nothing is explainable; 0 for a constant response.

    Raises
    ------
    SettingsError
        If the shapes do not fit together, or fewer than two images have repeats.
    """
    responses, _ = _trials(responses, responses)
    responses, _, images = _repeated(responses, responses, image_ids)
    return _by_block(lambda r, _: _explainable(r, images)[0], responses, responses)


def feve(
    responses: npt.ArrayLike,
    predictions: npt.ArrayLike,
    image_ids: npt.ArrayLike,
    *,
    min_explainable: float = 0.15,
) -> FloatArray:
    """Return every neuron's fraction of explainable variance explained.

    ``1 - (mean (r - prediction)^2 - sigma_noise^2) / (Var[r] - sigma_noise^2)`` over all trials of images with repeats,
    with ``Var[r]`` and ``sigma_noise^2`` as in :func:`explainable_variance` (Cadena et al. 2019, "Deep convolutional
    models improve predictions of macaque V1 responses to natural images"; used alike by Franke et al. 2022).

    Parameters
    ----------
    responses, predictions
        Shape (trials, n), in the same unit.
    image_ids
        Image of every trial, (trials,); at least two images with repeats.
    min_explainable
        Smallest fraction of explainable variance of a neuron that is scored; 0.15 as in Cadena et al. Without such a
        bound, the score divides by what may be next to nothing.

    Returns
    -------
    ndarray
        (n,) float64, at most 1 up to noise, below 0 where the mean response would predict better; NaN for a neuron
        below ``min_explainable``; 0 for one whose response or prediction is constant.

    Raises
    ------
    SettingsError
        If the shapes do not fit together, or fewer than two images have repeats.
    """
    responses, predictions = _trials(responses, predictions)
    responses, predictions, images = _repeated(responses, predictions, image_ids)

    def score(r: FloatArray, p: FloatArray) -> FloatArray:
        fraction, total, noise = _explainable(r, images)
        with np.errstate(divide="ignore", invalid="ignore"):
            explained = 1.0 - (((r - p) ** 2).mean(axis=0) - noise) / (total - noise)
        explained[(fraction < min_explainable) | (total <= noise)] = np.nan
        explained[_constant(r) | _constant(p)] = 0.0
        return explained

    return _by_block(score, responses, predictions)


def constant_neurons(
    responses: npt.ArrayLike, predictions: npt.ArrayLike, image_ids: npt.ArrayLike | None = None
) -> BoolArray:
    """Return which neurons have a constant response or a constant prediction.

    Parameters
    ----------
    responses, predictions
        Shape (trials, n).
    image_ids
        Image of every trial, (trials,), to ask after averaging repeats, as :func:`correlation_to_average` does; None
        asks over trials.

    Returns
    -------
    ndarray
        (n,) bool.
    """
    responses, predictions = _trials(responses, predictions)
    if image_ids is None:
        return _by_block(lambda r, p: _constant(r) | _constant(p), responses, predictions)
    images = _group(image_ids, len(responses))
    return _by_block(lambda r, p: _constant(images.average(r)) | _constant(images.average(p)), responses, predictions)


def predict_tier(
    model: nn.Module, loaders: Mapping[str, Any], *, device: str | torch.device = "cpu"
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return responses and predictions of all sessions of a tier.

    The model predicts in evaluation mode and without gradients; afterwards the mode of every one of its modules and its
    device are as before.

    Parameters
    ----------
    model
        Called as ``model(images, data_key=..., **extras)``, with whatever else a batch has by name (behaviour, pupil
        centre), as the SENSORIUM trainers do.
    loaders
        Data key to loader, e.g. ``dataloaders["test"]``. Batches are named tuples or dicts with images and responses,
        or tuples that begin with them.
    device
        Where to compute.

    Returns
    -------
    dict of str to (ndarray, ndarray)
        Data key to responses and predictions, each (trials, n), in the order of the loader.

    Raises
    ------
    RecordingError
        If a session has no trials in the tier.
    SettingsError
        If the model predicts another number of neurons than the session has.
    """
    with _evaluating(model, torch.device(device)), torch.no_grad():
        return {data_key: _predict_session(model, data_key, loader, device) for data_key, loader in loaders.items()}


def image_ids_of(loader: Any) -> np.ndarray | None:
    """Return which image every trial of a loader shows, in the loader's order.

    Parameters
    ----------
    loader
        A torch ``DataLoader`` whose ``dataset.trial_info`` has ``frame_image_id`` for all trials of the recording, as
        in the SENSORIUM 2022 layout.

    Returns
    -------
    ndarray or None
        (trials,); None if the recording does not say.

    Raises
    ------
    SettingsError
        If the loader shuffles, so that its order is not known.
    """
    trial_info = getattr(loader.dataset, "trial_info", None)
    found = (getattr(trial_info, name, None) for name in IMAGE_ID_FIELDS)
    image_ids = next((np.asarray(ids) for ids in found if ids is not None), None)
    if image_ids is None:
        return None
    batches: Any = getattr(loader, "batch_sampler", None)
    for sampler in (batches, getattr(batches, "sampler", None)):
        if type(sampler).__name__ in ORDERED_SAMPLERS:
            return image_ids[np.concatenate([np.asarray(batch, dtype=np.int64) for batch in batches])]
    drawn_with = type(getattr(batches, "sampler", batches)).__name__
    raise SettingsError(
        f"the loader draws its trials with a {drawn_with}, so their order is not known; use a tier without shuffling."
    )


def _trials(responses: npt.ArrayLike, predictions: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    measured, predicted = np.asarray(responses), np.asarray(predictions)
    if measured.ndim != 2 or measured.shape != predicted.shape:
        raise SettingsError(
            f"responses have shape {measured.shape} and predictions {predicted.shape}; both must be (trials, neurons)."
        )
    if len(measured) < 2:
        raise SettingsError(f"a correlation needs at least two trials; there is {len(measured)}.")
    return measured, predicted


def _group(image_ids: npt.ArrayLike, n_trials: int) -> _Images:
    ids = np.asarray(image_ids)
    if ids.shape != (n_trials,):
        raise SettingsError(f"image_ids has shape {ids.shape}, but there are {n_trials} trials; give one id per trial.")
    _, groups, counts = np.unique(ids, return_inverse=True, return_counts=True)
    if len(counts) < 2:
        raise SettingsError("all trials show the same image; a correlation over images needs at least two.")
    return _Images(np.argsort(groups, kind="stable"), np.cumsum(counts) - counts, counts)


def _repeated(
    responses: np.ndarray, predictions: np.ndarray, image_ids: npt.ArrayLike
) -> tuple[np.ndarray, np.ndarray, _Images]:
    """Return the trials of images with repeats only, grouped by image."""
    images = _group(image_ids, len(responses))
    repeated = images.counts >= 2
    if repeated.sum() < 2:
        raise SettingsError(
            f"explainable variance needs at least two images with repeats; {int(repeated.sum())} of "
            f"{len(images.counts)} images were shown more than once."
        )
    trials = images.order[np.repeat(repeated, images.counts)]
    counts = images.counts[repeated]
    return (
        responses[trials],
        predictions[trials],
        _Images(np.arange(len(trials)), np.cumsum(counts) - counts, counts),
    )


def _by_block(score: Any, responses: np.ndarray, predictions: np.ndarray) -> Any:
    starts = range(0, responses.shape[1], BLOCK) or (0,)
    return np.concatenate(
        [
            score(*(values[:, start : start + BLOCK].astype(np.float64) for values in (responses, predictions)))
            for start in starts
        ]
    )


def _constant(values: FloatArray) -> BoolArray:
    return np.ptp(values, axis=0) <= RELATIVE_RANGE * np.abs(values).max(axis=0)


def _correlation(x: FloatArray, y: FloatArray) -> FloatArray:
    constant = _constant(x) | _constant(y)
    x, y = _standardized(x), _standardized(y)
    correlation = np.clip(np.einsum("tn,tn->n", x, y), -1.0, 1.0)
    correlation[constant] = 0.0
    return correlation


def _standardized(values: FloatArray) -> FloatArray:
    """Centre every column and divide it by its norm."""
    values = values - values.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        values /= np.abs(values).max(axis=0)  # else the squares of tiny responses could vanish
        return values / np.sqrt(np.einsum("tn,tn->n", values, values))


def _explainable(responses: FloatArray, images: _Images) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the fraction of explainable variance, the total and the noise variance, each (n,)."""
    total = responses.var(axis=0, ddof=1)
    residuals = responses - np.repeat(images.average(responses), images.counts, axis=0)
    squares = np.add.reduceat(residuals**2, images.starts, axis=0)
    noise = (squares / (images.counts - 1)[:, None]).mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        fraction = (total - noise) / total
    fraction[_constant(responses)] = 0.0
    return fraction, total, noise


@contextmanager
def _evaluating(model: nn.Module, device: torch.device) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    parameter = next(model.parameters(), None)
    before = None if parameter is None or parameter.device == device else parameter.device
    try:
        model.eval()
        model.to(device)
        yield
    finally:
        if before is not None:
            model.to(before)
        for module, training in modes:
            module.training = training


def _predict_session(
    model: nn.Module, data_key: str, loader: Any, device: str | torch.device
) -> tuple[np.ndarray, np.ndarray]:
    responses, predictions = [], []
    for batch in loader:
        inputs, measured, extras = _fields(batch)
        moved = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in extras.items()}
        predicted = model(inputs.to(device), data_key=data_key, **moved).cpu()
        if predicted.shape != measured.shape:
            raise SettingsError(
                f"session {data_key!r} has responses of shape {tuple(measured.shape)} in a batch, but the model "
                f"predicts {tuple(predicted.shape)}; build the model from the same dataset entry."
            )
        responses.append(measured.cpu())
        predictions.append(predicted)
    if not responses:
        raise RecordingError(
            f"session {data_key!r} has no trials in this tier; leave the session out, or use another tier."
        )
    return torch.cat(responses).numpy(), torch.cat(predictions).numpy()


def _fields(batch: Any) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Return images, responses and everything else that has a name."""
    if hasattr(batch, "_asdict"):
        named = batch._asdict()
    elif isinstance(batch, Mapping):
        named = dict(batch)
    else:
        inputs, responses, *_ = batch
        return inputs, responses, {}
    names = list(named)
    inputs = next((name for name in INPUT_FIELDS if name in named), names[0])
    responses = next((name for name in RESPONSE_FIELDS if name in named), names[1])
    extras = {name: value for name, value in named.items() if name not in (inputs, responses)}
    return named[inputs], named[responses], extras
