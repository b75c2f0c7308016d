"""How well a model predicts responses: scores per neuron, from :mod:`december_plugin.evaluation.predictions`.

All scores are computed in float64, neuron by neuron, over the trials (first axis) of one session. A neuron whose
response or prediction is constant has no correlation; it counts as 0, as in SENSORIUM's scores, and
:func:`constant_neurons` finds it. A session in which no neuron's response varies was not measured, and has no scores at
all: :func:`why_untested` finds it. NaN in responses or predictions gives NaN, so that a diverged model is not mistaken
for a bad one. For movies, every predicted frame of every clip is a trial, and a frame of a movie is an image: see
:func:`stimulus_ids_of`.

Responses to one image differ between trials, so that no model of the image reaches a correlation of 1.
:func:`noise_ceilings` says what is attainable; :func:`normalized_correlation` and :func:`feve` are relative to it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from december_plugin.errors import SettingsError
from december_plugin.evaluation.predictions import image_ids_of, predict_tier, stimulus_ids_of

__all__ = [
    "MIN_EXPLAINABLE",
    "UNTESTED",
    "NoiseCeilings",
    "constant_neurons",
    "correlation_to_average",
    "explainable_variance",
    "feve",
    "has_repeats",
    "image_ids_of",
    "noise_ceilings",
    "normalized_correlation",
    "predict_tier",
    "single_trial_correlation",
    "stimulus_ids_of",
    "why_untested",
]

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

BLOCK = 2048  # neurons at a time, which bounds the memory that float64 copies take
RELATIVE_RANGE = 1e-12  # what rounding alone leaves of a constant after averaging
MIN_EXPLAINABLE = 0.15  # fraction of explainable variance (Cadena et al. 2019)
MIN_REPEATED = 2  # images with repeats
# Why a session has no scores: code, as it is stored, to a sentence about the session.
UNTESTED = {
    "constant": "all its responses are constant, so they were withheld or not measured",
    "not finite": "some of its responses are NaN or infinite",
    "one trial": "it has one trial, and a correlation needs two",
    "no trials": "it has no trials",
}


class NoiseCeilings(NamedTuple):
    """The correlations that a neuron's true mean responses to the images would reach.

    Attributes
    ----------
    single_trial
        With single trials, (n,) float64, 0 to 1.
    to_average
        With the averages over repeats, (n,) float64, 0 to 1.
    """

    single_trial: FloatArray
    to_average: FloatArray


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


def why_untested(responses: npt.ArrayLike) -> str:
    """Return why responses of a session cannot be compared with predictions: a key of :data:`UNTESTED`.

    Single neurons that are constant do not make a session untested: they count as 0.

    Parameters
    ----------
    responses
        Shape (trials, n).

    Returns
    -------
    str
        "" if they can be compared.
    """
    measured = np.asarray(responses)
    if len(measured) < 2:
        return "one trial" if len(measured) else "no trials"
    if not np.isfinite(measured).all():
        return "not finite"
    return "constant" if constant_neurons(measured, measured).all() else ""


def has_repeats(image_ids: npt.ArrayLike) -> bool:
    """Return whether at least two images were shown more than once, as everything about repeats needs."""
    _, counts = np.unique(np.asarray(image_ids), return_counts=True)
    return int((counts > 1).sum()) >= MIN_REPEATED


def explainable_variance(responses: npt.ArrayLike, image_ids: npt.ArrayLike) -> FloatArray:
    """Return the fraction of every neuron's variance that the image can explain at most.

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
    min_explainable: float = MIN_EXPLAINABLE,
) -> FloatArray:
    """Return every neuron's fraction of explainable variance explained.

    ``1 - (mean (r - prediction)^2 - sigma_noise^2) / (Var[r] - sigma_noise^2)`` over all trials of images with repeats,
    with ``Var[r]`` and ``sigma_noise^2`` as in :func:`explainable_variance` (Cadena et al. 2019, "Deep convolutional
    models improve predictions of macaque V1 responses to natural images"; used in the same way by Franke et al. 2022).

    Parameters
    ----------
    responses, predictions
        Shape (trials, n), in the same unit.
    image_ids
        Image of every trial, (trials,); at least two images with repeats.
    min_explainable
        Smallest fraction of explainable variance of a neuron that is scored; 0.15 as in Cadena et al. Without such a
        bound, the score may divide by almost nothing.

    Returns
    -------
    ndarray
        (n,) float64, at most 1 up to noise, below 0 where the mean response would predict better; NaN for a neuron
        below ``min_explainable``, such as one whose response is constant; 0 for a constant prediction.

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
        explained[_constant(p)] = 0.0
        explained[(fraction < min_explainable) | (total <= noise) | _constant(r)] = np.nan
        return explained

    return _by_block(score, responses, predictions)


def noise_ceilings(responses: npt.ArrayLike, image_ids: npt.ArrayLike) -> NoiseCeilings:
    """Return the correlations that the true mean response to each image would reach, estimated from the repeats.

    With single trials ``sqrt(max(V, 0))``, where ``V`` is the :func:`explainable_variance`. With the averages over
    repeats ``sqrt(max(S, 0) / Var[y])``, where ``Var[y]`` is the variance over images of the averages (divisor n - 1)
    and ``S = Var[y] - mean s_i^2 / n_i`` what the images alone contribute: ``s_i^2`` is the variance over the ``n_i``
    repeats of image ``i`` (divisor n_i - 1). For equally many repeats these are the signal power and ``CC_max`` of
    Schoppe et al. 2016, "Measuring the performance of neural models" (Frontiers in Computational Neuroscience 10:10),
    after Sahani and Linden 2003, but for the mean of every repeat, which is not taken out: repeats have no order here.
    Images that were shown once are left out.

    A ceiling is an estimate: scores exceed it by chance, and single neurons with few repeats are uncertain. It bounds
    models of the image alone; one that knows the behaviour may predict some of what counts as noise here.

    Parameters
    ----------
    responses
        Shape (trials, n).
    image_ids
        Image of every trial, (trials,); at least two images with repeats.

    Returns
    -------
    NoiseCeilings
        0 where nothing is explainable, for a constant response among others.

    Raises
    ------
    SettingsError
        If the shapes do not fit together, or fewer than two images have repeats.
    """
    responses, _ = _trials(responses, responses)
    responses, _, images = _repeated(responses, responses, image_ids)

    def both(r: FloatArray, _: FloatArray) -> FloatArray:
        return np.stack([np.sqrt(np.maximum(_explainable(r, images)[0], 0.0)), _ceiling_of_average(r, images)], axis=1)

    single_trial, to_average = _by_block(both, responses, responses).T
    return NoiseCeilings(single_trial, to_average)


def normalized_correlation(
    responses: npt.ArrayLike,
    predictions: npt.ArrayLike,
    image_ids: npt.ArrayLike,
    *,
    min_explainable: float = MIN_EXPLAINABLE,
) -> FloatArray:
    """Return every neuron's correlation to the average, divided by its noise ceiling.

    ``CC_norm = CC_abs / CC_max`` (Schoppe et al. 2016, see :func:`noise_ceilings`), both over the images with repeats:
    1 is as good as the true mean response to every image.

    Parameters
    ----------
    responses, predictions
        Shape (trials, n), in any common unit.
    image_ids
        Image of every trial, (trials,); at least two images with repeats.
    min_explainable
        Smallest :func:`explainable_variance` of a neuron that is scored, as for :func:`feve`: the score of a neuron
        that hardly responds to images may divide by almost nothing.

    Returns
    -------
    ndarray
        (n,) float64, about -1 to 1, above 1 by chance; NaN for a neuron below ``min_explainable``; 0 for a constant
        prediction.

    Raises
    ------
    SettingsError
        If the shapes do not fit together, or fewer than two images have repeats.
    """
    responses, predictions = _trials(responses, predictions)
    responses, predictions, images = _repeated(responses, predictions, image_ids)

    def score(r: FloatArray, p: FloatArray) -> FloatArray:
        ceiling = _ceiling_of_average(r, images)
        with np.errstate(divide="ignore", invalid="ignore"):
            normalized = _correlation(images.average(r), images.average(p)) / ceiling
        normalized[(_explainable(r, images)[0] < min_explainable) | (ceiling <= 0)] = np.nan
        return normalized

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
        Image of every trial, (trials,), to check after averaging repeats, as :func:`correlation_to_average` does; None:
        over trials.

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
    if repeated.sum() < MIN_REPEATED:
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
    noise = _noise_by_image(responses, images).mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        fraction = (total - noise) / total
    fraction[_constant(responses)] = 0.0
    return fraction, total, noise


def _noise_by_image(responses: FloatArray, images: _Images) -> FloatArray:
    """Return the variance over the repeats of every image, (images, n)."""
    residuals = responses - np.repeat(images.average(responses), images.counts, axis=0)
    squares = np.add.reduceat(residuals**2, images.starts, axis=0)
    return squares / (images.counts - 1)[:, None]


def _ceiling_of_average(responses: FloatArray, images: _Images) -> FloatArray:
    averages = images.average(responses)
    variance = averages.var(axis=0, ddof=1)
    signal = variance - (_noise_by_image(responses, images) / images.counts[:, None]).mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ceiling = np.sqrt(np.maximum(signal, 0.0) / variance)
    ceiling[_constant(averages)] = 0.0
    return ceiling
