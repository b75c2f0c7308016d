"""The nnfabrik dataset function for the generic movie format: arrays on disk and a YAML header, any lab's recording."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from december_plugin.datasets.common.arguments import absolute, check_finite, check_input_statistics, check_paths
from december_plugin.datasets.common.copies import refuse_copies
from december_plugin.datasets.common.trials import TRAIN, by_tier
from december_plugin.datasets.common.unit_selection import check_neuron_ids, select_neurons
from december_plugin.datasets.movies.clips import Cutting, MovieClips, Served, movie_loader
from december_plugin.datasets.movies.recording import MovieRecording
from december_plugin.errors import MisfitError, RecordingError, SettingsError
from december_plugin.text.stored_text import check_session_names
from december_plugin.validation.checks import check_bool, check_integer, check_number, checked_settings


@checked_settings
def movie_loaders(
    paths: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    batch_size: int,
    seed: int | None = None,
    *,
    chunk_frames: int = 50,
    evaluation_frames: int | None = None,
    lead_frames: int = 0,
    neuron_ids: Mapping[str, Sequence[int]] | None = None,
    normalize: bool = True,
    inputs_mean: float | None = None,
    inputs_std: float | None = None,
    return_data_info: bool = False,
) -> dict[str, dict[str, DataLoader]] | dict[str, dict[str, Any]]:
    """Load recordings in the generic movie format; docs/recordings.md describes it.

    Movies and responses stay on disk and are read clip by clip, so that memory does not grow with their length.

    Parameters
    ----------
    paths
        Folders with a ``recording.yaml``, one for each session.
    batch_size
        Clips in a training batch. Longer stretches of validation and test come in proportionally fewer.
    seed
        nnfabrik passes the run's seed here; it changes nothing. Clips are drawn from torch's global generator.
    chunk_frames
        Frames of a training clip. In every epoch, each movie gives as many clips as fit into it, each drawn at random
        from its own part of the movie.
    evaluation_frames, lead_frames
        Validation and test come as whole movies (None), or in stretches of ``lead_frames + evaluation_frames``
        frames, each ``evaluation_frames`` after the one before: a model that needs ``lead_frames`` frames before the
        first predicted one then predicts every other frame once. A rest that is too short is left out.
    neuron_ids
        Data key to the unit ids to keep, in this order; sessions that are not named are left out. None keeps all.
    normalize
        Subtract the mean of the training movies' values and divide by their standard deviation, session by session.
    inputs_mean, inputs_std
        Use these instead; give both or neither.
    return_data_info
        Return nnfabrik's ``data_info`` instead of loaders, see :meth:`MovieClips.data_info`.

    Returns
    -------
    dict
        Tiers ``train``, ``validation`` and, if the recordings have it, ``test``; each data key to torch
        ``DataLoader``. A batch is a named tuple ``(videos, responses)`` of float32 CPU tensors: (batch, channels,
        frames, height, width) and (batch, frames, neurons). Every repeat of a movie is a separate item;
        ``dataset.trial_info.movie_id`` says which items show the same frames. A loader's ``dataset`` is a
        :class:`MovieClips`.

    Raises
    ------
    RecordingError
        If a recording is missing, damaged or inconsistent, or recordings do not fit together, or two have the same
        responses.
    SettingsError
        If a setting is unknown or has a value that is not allowed.

    See Also
    --------
    static_loaders : Images in the SENSORIUM 2022 layout.
    december_plugin.models.movie_core_gaussian_readout : Builds a model of these loaders.
    december_plugin.simulate.write_movie_recording : Writes a simulated recording in this format.

    Examples
    --------
    >>> from december_plugin.datasets import movie_loaders
    >>> from december_plugin.simulate import write_movie_recording
    >>> sizes = {"n_neurons": 12, "n_train": 2, "n_validation": 1, "n_test": 1, "n_repeats": 3, "n_frames": 60}
    >>> folder = write_movie_recording("retina-8", seed=1, n_test_frames=40, image_shape=(12, 12), **sizes)
    >>> loaders = movie_loaders([folder], batch_size=4, chunk_frames=30)
    >>> batch = next(iter(loaders["train"]["retina-8"]))
    >>> tuple(batch.videos.shape), tuple(batch.responses.shape)
    ((4, 1, 30, 12, 12), (4, 30, 12))
    >>> loaders["test"]["retina-8"].dataset.trial_info.repeat
    array([0, 1, 2])
    """
    folders = absolute(check_paths(paths))
    batch_size = check_integer("batch_size", batch_size, minimum=1)
    cutting = Cutting(
        chunk=check_integer("chunk_frames", chunk_frames, minimum=1),
        evaluation=None
        if evaluation_frames is None
        else check_integer("evaluation_frames", evaluation_frames, minimum=1),
        lead=check_integer("lead_frames", lead_frames, minimum=0),
    )
    if cutting.evaluation is None and cutting.lead:
        raise SettingsError(
            f"lead_frames={lead_frames} needs evaluation_frames; nothing comes before whole movies.",
            setting="lead_frames",
            others=["evaluation_frames"],
        )
    wanted = check_neuron_ids(neuron_ids)
    check_bool("normalize", normalize)
    given = _statistics(inputs_mean, inputs_std, normalize)
    recordings = _open(folders)
    kept = select_neurons({key: recording.unit_ids for key, recording in recordings.items()}, wanted)
    sessions, recorded = {}, []
    for data_key, neurons in kept.items():
        recording = recordings[data_key]
        _check_lengths(recording, cutting)
        statistics = given or (recording.stimulus_statistics() if normalize else None)
        served = Served(recording, neurons, statistics, recording.mean_responses()[neurons])
        recorded.append(recording.recorded(neurons))
        sessions[data_key] = {tier: MovieClips(served, tier, cutting) for tier in recording.header.tiers}
    check_session_names(sessions)
    refuse_copies(recorded)
    if return_data_info:
        return {data_key: tiers[TRAIN].data_info() for data_key, tiers in sessions.items()}
    return by_tier(
        {
            data_key: {tier: movie_loader(dataset, batch_size=batch_size) for tier, dataset in tiers.items()}
            for data_key, tiers in sessions.items()
        }
    )


def _open(folders: Sequence[Path]) -> dict[str, MovieRecording]:
    recordings: dict[str, MovieRecording] = {}
    for folder in folders:
        recording = MovieRecording(folder)
        other = recordings.setdefault(recording.data_key, recording)
        if other is not recording:
            raise RecordingError(
                f"{other.path} and {recording.path} both have the data_key {recording.data_key!r}. It names the "
                "session: give each recording its own."
            )
    first = next(iter(recordings.values()))
    for recording in recordings.values():
        if recording.header.frame_rate != first.header.frame_rate:
            raise RecordingError(
                f"{first.path} has {first.header.frame_rate:g} frames per second and {recording.path} "
                f"{recording.header.frame_rate:g}; a model's temporal kernels need the same frame rate in all sessions."
            )
        if recording.shape[0] != first.shape[0]:
            raise RecordingError(
                f"{first.path} has {first.shape[0]} channel(s) and {recording.path} {recording.shape[0]}; a model "
                "needs the same in all sessions."
            )
    return recordings


def _check_lengths(recording: MovieRecording, cutting: Cutting) -> None:
    for tier in recording.header.tiers:
        needed, setting = cutting.chunk, "chunk_frames"
        if tier != TRAIN:
            needed, setting = cutting.lead + (cutting.evaluation or 1), "lead_frames + evaluation_frames"
        movies = recording.of_tier(tier)
        if tier != TRAIN and sum(movie.n_frames * movie.n_repeats for movie in movies) < 2:
            raise RecordingError(
                f"session {recording.data_key!r} ({recording.path}) has one frame in the tier {tier!r}, and a "
                "correlation needs at least two. Add movies to the tier, or leave the session out."
            )
        for movie in movies:
            if movie.n_frames < needed:
                raise MisfitError(
                    f"{setting} is {needed}, but the movie {movie.name!r} of session {recording.data_key!r} (tier "
                    f"{tier!r}) has {movie.n_frames} frames. Choose fewer.",
                    setting=setting,
                )


def _statistics(mean: Any, std: Any, normalize: bool) -> tuple[float, float] | None:
    check_input_statistics(mean, std)
    if mean is None:
        return None
    if not normalize:
        raise SettingsError(
            "inputs_mean and inputs_std were given together with normalize=False. Leave one of them out.",
            setting="inputs_mean",
            others=["inputs_std", "normalize"],
        )
    return check_finite("inputs_mean", mean), check_number("inputs_std", std, above=0)
