"""A model's predictions on a tier, and the stimulus of every row of them.

Images have one row for each trial. Movies have one row for each predicted frame: a model with temporal kernels predicts
the last frames of a clip, and those are compared with the last frames of the responses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from december_plugin.embeddings.batches import evaluating, field_names, inputs_and_responses, split_batch
from december_plugin.errors import RecordingError, SettingsError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

MOVIE_ID_FIELD = "movie_id"
ORDERED_SAMPLERS = ("SequentialSampler", "SubsetSequentialSampler", "RepeatsBatchSampler")


class TierPredictions(NamedTuple):
    """Responses and predictions of one session on a tier.

    Attributes
    ----------
    responses, predictions
        (rows, n): a row for each trial or, for movies, for each predicted frame of each clip, clip after clip.
    frames
        Number of predicted frames of each clip, (clips,) int64; None for images.
    """

    responses: np.ndarray
    predictions: np.ndarray
    frames: npt.NDArray[np.int64] | None

    @property
    def n_trials(self) -> int:
        """Number of trials: images shown, or clips."""
        return len(self.responses if self.frames is None else self.frames)


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
        centre), as the SENSORIUM trainers do. A model of movies returns (batch, frames', n) with ``frames'`` at most
        the frames of the responses.
    loaders
        Data key to loader, e.g. ``dataloaders["test"]``. Batches are named tuples or dicts with images and responses,
        or tuples that begin with them.
    device
        Device on which to compute.

    Returns
    -------
    dict of str to (ndarray, ndarray)
        Data key to responses and predictions, each (trials, n), in the order of the loader; for movies, (frames, n),
        all predicted frames of the first clip, then those of the second.

    Raises
    ------
    RecordingError
        If a session has no trials in the tier.
    SettingsError
        If the model predicts another number of neurons than the session has, or more frames.
    """
    return {
        data_key: (session.responses, session.predictions)
        for data_key, session in predict_sessions(model, loaders, device=device).items()
    }


def predict_sessions(
    model: nn.Module, loaders: Mapping[str, Any], *, device: str | torch.device = "cpu"
) -> dict[str, TierPredictions]:
    """Return what :func:`predict_tier` does, with the number of predicted frames of every clip."""
    return {
        data_key: TierPredictions(
            responses.cpu().numpy(),
            predictions.cpu().numpy(),
            np.array(frames, dtype=np.int64) if frames else None,
        )
        for data_key, responses, predictions, frames in predict_on_device(model, loaders, device=device)
    }


def predict_on_device(
    model: nn.Module, loaders: Mapping[str, Any], *, device: str | torch.device = "cpu"
) -> Iterator[tuple[str, Tensor, Tensor, list[int]]]:
    """Yield for each session what :func:`predict_sessions` returns, on its device: nothing waits for it.

    Yields
    ------
    data_key, responses, predictions, frames
        Responses (rows, n), where the loader's batches are; predictions (rows, n), on ``device``; the number of
        predicted frames of each clip, none for images.
    """
    import torch

    with evaluating(model, torch.device(device)), torch.no_grad():
        for data_key, loader in loaders.items():
            yield data_key, *_predict_session(model, data_key, loader, device)


def last_frames(responses: Tensor, predictions: Tensor) -> Tensor:
    """Return the responses to which predictions correspond.

    Parameters
    ----------
    responses
        (batch, n), or (batch, frames, n) of movies.
    predictions
        (batch, n), or (batch, frames', n) for the last ``frames'`` of the frames.

    Returns
    -------
    Tensor
        A view of ``responses`` in the shape of ``predictions``, or ``responses`` themselves if no view fits.
    """
    if responses.ndim == predictions.ndim == 3 and 0 < predictions.shape[1] < responses.shape[1]:
        return responses[:, -predictions.shape[1] :]
    return responses


def image_ids_of(loader: Any) -> np.ndarray | None:
    """Return which image every trial of a loader shows, in the loader's order.

    Parameters
    ----------
    loader
        A torch ``DataLoader`` whose ``dataset.trial_info`` has the image of every trial of the recording, as in the
        SENSORIUM 2022 layout: see :func:`december_plugin.datasets.sensorium.layout.trial_image_ids`, which reads and
        checks it.

    Returns
    -------
    ndarray or None
        (trials,); None if the recording does not say.

    Raises
    ------
    SettingsError
        If the loader shuffles, so that its order is not known.
    RecordingError
        If the recording has another number of image ids than of trials, or some that are not ids.
    """
    image_ids = _image_ids_of_dataset(loader.dataset, "the recording")
    return None if image_ids is None else image_ids[_order(loader)]


def check_image_ids(dataloaders: Mapping[str, Any]) -> None:
    """Read the image ids of every session now, rather than after the model has been trained.

    Parameters
    ----------
    dataloaders
        Tier to data key to loader.

    Raises
    ------
    RecordingError
        See :func:`image_ids_of`.
    """
    for loaders in dataloaders.values():
        if isinstance(loaders, Mapping):
            for data_key, loader in loaders.items():
                _image_ids_of_dataset(getattr(loader, "dataset", None), f"session {data_key!r}")


def _image_ids_of_dataset(dataset: Any, where: str) -> np.ndarray | None:
    from december_plugin.datasets.sensorium.layout import trial_image_ids

    trial_info = getattr(dataset, "trial_info", None)
    return None if trial_info is None else trial_image_ids(trial_info, len(dataset), where=where)


def stimulus_ids_of(loader: Any, frames: npt.NDArray[np.int64] | None = None) -> np.ndarray | None:
    """Return the stimulus of every row of a tier's predictions; rows with equal ids are repeats.

    Parameters
    ----------
    loader
        See :func:`image_ids_of`; for movies, ``dataset.trial_info.movie_id`` (clips,) names the movie of each clip.
    frames
        :attr:`TierPredictions.frames`; None for images.

    Returns
    -------
    ndarray or None
        (rows,): the image of every trial; or an id of every frame of every movie, (movie, frame) counted from 0. None
        if the recording does not say.

    Raises
    ------
    SettingsError
        If the loader shuffles, if its clips are not those of ``frames``, or if clips of one movie differ in length.
    """
    if frames is None:
        return image_ids_of(loader)
    movie_ids = getattr(getattr(loader.dataset, "trial_info", None), MOVIE_ID_FIELD, None)
    if movie_ids is None:
        return None
    movies = np.asarray(movie_ids)[_order(loader)]
    if len(movies) != len(frames):
        raise SettingsError(f"the loader has {len(movies)} clips, but {len(frames)} were predicted.")
    _, movies = np.unique(movies, return_inverse=True)
    lengths = np.zeros(movies.max(initial=-1) + 1, dtype=np.int64)
    lengths[movies] = frames
    if (lengths[movies] != frames).any():
        raise SettingsError("clips of one movie_id differ in length; clips of one movie must show the same frames.")
    starts = np.cumsum(lengths) - lengths
    return np.concatenate([np.arange(starts[movie], starts[movie] + lengths[movie]) for movie in movies])


def repeated_clips(session: TierPredictions, loader: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Return the single repeats behind a tier whose responses are means over repeats.

    Parameters
    ----------
    session
        The predictions on the tier.
    loader
        Its loader. ``dataset.responses_by_repeat`` (repeats, frames of the tier, n), as the datasets of retina movies
        have it, holds the responses before averaging; ``dataset.starts`` (clips,) and ``dataset.chunk`` are the clips.

    Returns
    -------
    (responses, predictions, stimulus_ids) or None
        Each with (repeats * frames) rows, repeat after repeat; None if nothing was averaged.
    """
    by_repeat = getattr(loader.dataset, "responses_by_repeat", None)
    if by_repeat is None or session.frames is None:
        return None
    by_repeat = np.asarray(by_repeat)
    stops = np.asarray(loader.dataset.starts) + loader.dataset.chunk
    if len(stops) != len(session.frames) or stops.max() > by_repeat.shape[1]:
        return None
    frames = np.concatenate([np.arange(s - n, s) for s, n in zip(stops, session.frames, strict=True)])
    responses = by_repeat[:, frames]
    n_repeats = len(responses)
    return (
        responses.reshape(-1, responses.shape[2]),
        np.tile(session.predictions, (n_repeats, 1)),
        np.tile(np.arange(len(frames)), n_repeats),
    )


def _order(loader: Any) -> npt.NDArray[np.int64]:
    """Return the positions in the dataset of the loader's items, in the loader's order."""
    batches: Any = getattr(loader, "batch_sampler", None)
    for sampler in (batches, getattr(batches, "sampler", None)):
        if type(sampler).__name__ in ORDERED_SAMPLERS:
            return np.concatenate([np.asarray(batch, dtype=np.int64) for batch in batches])
    drawn_with = type(getattr(batches, "sampler", batches)).__name__
    raise SettingsError(
        f"the loader draws its trials with a {drawn_with}, so their order is not known; use a tier without shuffling."
    )


def _predict_session(
    model: nn.Module, data_key: str, loader: Any, device: str | torch.device
) -> tuple[Tensor, Tensor, list[int]]:
    import torch

    responses, predictions = [], []
    frames: list[int] = []
    for batch in loader:
        inputs, measured, extras = split_batch(batch)
        moved = {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in extras.items()}
        predicted = model(inputs.to(device), data_key=data_key, **moved)
        compared = last_frames(measured, predicted)
        if predicted.shape != compared.shape:
            raise SettingsError(
                f"session {data_key!r} has responses of shape {tuple(measured.shape)} in a batch, but the model "
                f"predicts {tuple(predicted.shape)}; build the model from the same dataset entry."
            )
        if predicted.ndim == 3:
            frames.extend([predicted.shape[1]] * len(predicted))
            compared, predicted = compared.flatten(0, 1), predicted.flatten(0, 1)
        responses.append(compared)
        predictions.append(predicted)
    if not responses:
        raise RecordingError(
            f"session {data_key!r} has no trials in this tier; leave the session out, or use another tier."
        )
    return torch.cat(responses), torch.cat(predictions), frames


def n_served_neurons(loader: Any) -> int:
    """Return how many neurons a loader serves, from one of its batches; random states do not change."""
    import torch

    with torch.random.fork_rng(devices=[]):
        return int(split_batch(next(iter(loader)))[1].shape[-1])


def with_neurons(batch: Any, order: npt.NDArray[np.int64]) -> Any:
    """Return a batch, or a trial, with the responses (..., n) of these neurons in this order.

    Parameters
    ----------
    batch
        A named tuple, dict, tuple or list, as :func:`predict_tier` takes it; it is not changed.
    order
        Positions of the neurons, (m,).
    """
    names = field_names(batch)
    if not names:
        inputs, responses, *others = batch
        return type(batch)((inputs, _neurons(responses, order), *others))
    _, name = inputs_and_responses(names)
    if isinstance(batch, Mapping):
        return {**batch, name: _neurons(batch[name], order)}
    return batch._replace(**{name: _neurons(getattr(batch, name), order)})


def _neurons(responses: Any, order: npt.NDArray[np.int64]) -> Any:
    import torch

    at = torch.as_tensor(order, device=responses.device) if isinstance(responses, torch.Tensor) else order
    return responses[..., at]
