"""The nnfabrik dataset function for the mouse retina movies of Höfling et al. 2024 (eLife 13:e86860), by openretina."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from december_plugin.datasets.common.chunks import (
    ChunkedMovie,
    MovieInMemory,
    RetinaNeurons,
    chunk_loader,
    mean_over_frames,
)
from december_plugin.datasets.common.copies import Recorded, refuse_copies
from december_plugin.datasets.common.data_cache import kept_or_loaded
from december_plugin.datasets.common.trials import TRAIN, by_tier
from december_plugin.datasets.hoefling_2024.files import (
    CLIP_FRAMES,
    N_CLIPS,
    TRACES,
    check_movie,
    choose_sessions,
    open_responses,
    read_session,
    read_types,
    session_names,
)
from december_plugin.errors import RecordingError, SettingsError
from december_plugin.importing.openretina import openretina_module, undisturbed
from december_plugin.text.stored_text import check_session_names
from december_plugin.validation.checks import check_choice, check_integer, check_number, checked_settings

logger = logging.getLogger(__name__)
FRAME_RATE = 30.0  # Hz
# The split of the published models (openretina's configuration for this dataset).
VALIDATION_CLIPS = (0, 4, 10, 11, 18, 30, 45, 62, 67, 77, 79, 80, 81, 83, 95)
LEVELS = ("group", "class")
UNIT = "traces divided by their standard deviation"
TIERS = (TRAIN, "validation", "test")


@checked_settings
def hoefling_2024_loaders(
    responses_path: str | os.PathLike[str],
    movie_path: str | os.PathLike[str],
    batch_size: int = 64,
    seed: int | None = None,
    *,
    sessions: Sequence[str] | str | None = None,
    exclude_sessions: Sequence[str] | str | None = None,
    trace_type: str = "spikes",
    cell_types: Sequence[int] | None = None,
    chirp_qi: float = 0.35,
    d_qi: float = 0.6,
    qi_logic: str = "or",
    classifier_confidence: float = 0.0,
    chunk_frames: int = 50,
    validation_clips: Sequence[int] = VALIDATION_CLIPS,
    return_data_info: bool = False,
) -> dict[str, dict[str, DataLoader]] | dict[str, dict[str, Any]]:
    """Load responses of mouse retina to natural movies: two-photon calcium imaging, 30 Hz, green and UV channel.

    Needs the extra ``[retina]``: openretina selects the neurons, brings the traces to the movie's frames, and puts the
    clips into the order in which each session saw them. The paper trains one model per retina: choose its sessions with
    ``sessions``. The layout of the files is in docs/recordings.md.

    Parameters
    ----------
    responses_path
        The HDF5 file with the responses, e.g. ``rgc_natstim_2024-08-14.h5``; only the chosen sessions are read.
    movie_path
        The pickle with the movies, in either of the published resolutions.
    batch_size
        Stretches in a training batch; validation and test clips are longer, and come in proportionally fewer.
    seed
        nnfabrik passes the run's seed here. Loading draws no random numbers; the stretches of an epoch are drawn from
        torch's global generator.
    sessions, exclude_sessions
        Names of sessions (``session_<experiment>_<field>_<date>``) or patterns such as ``"session_1_*_20201021"``, to
        load or to leave out; None loads all, or leaves out none.
    trace_type
        Source of the responses: "spikes" (inferred), "raw", "preprocessed", "detrended".
    cell_types
        Keep neurons of these groups (1 to 46, Baden et al. 2016); None keeps all, as the paper does.
    chirp_qi, d_qi, qi_logic
        Keep neurons whose quality index for the chirp or ("or"; or both, "and") for the moving bar is at least this.
    classifier_confidence
        Keep neurons whose group was assigned with at least this confidence; 0 keeps all.
    chunk_frames
        Frames of a training stretch. Every epoch cuts the movie at other, random places; stretches may span two clips.
    validation_clips
        The clips (0 to 107) held out for validation.
    return_data_info
        Return nnfabrik's ``data_info`` instead of loaders, see :meth:`ChunkedMovie.data_info`.

    Returns
    -------
    dict
        Tiers ``train``, ``validation`` and ``test``, each data key (the session's name) to torch ``DataLoader``. A
        batch is a named tuple ``(videos, responses)`` of float32 CPU tensors: (batch, 2, frames, height, width) and
        (batch, frames, neurons). A loader's ``dataset`` is a :class:`ChunkedMovie`; its ``neurons.unit_ids`` are the
        ``roi_ids``. The test responses are means over three repeats (``dataset.responses_by_repeat`` has them).

    Raises
    ------
    RecordingError
        If a file is missing, damaged or inconsistent, no neuron passes the selection, or two sessions have the same
        responses.
    SettingsError
        If a setting is unknown or has a value that is not allowed, or openretina is missing.

    See Also
    --------
    hoefling_2024_types : The cell types of these neurons.
    movie_loaders : Movies of any recording, without openretina.
    december_plugin.models.hoefling_core_gaussian_readout : Builds the model of the same paper.

    Examples
    --------
    >>> from december_plugin.datasets import hoefling_2024_loaders
    >>> loaders = hoefling_2024_loaders("rgc-natstim/responses.h5", "rgc-natstim/movie.pkl", batch_size=16)
    >>> {session: loader.dataset.n_neurons for session, loader in loaders["train"].items()}
    {'session_1_dorsal1_20200626': 3, 'session_1_ventral1_20201021': 6}
    >>> batch = next(iter(loaders["train"]["session_1_ventral1_20201021"]))
    >>> tuple(batch.videos.shape), tuple(batch.responses.shape)  # the published videos have 18 x 16 pixels
    ((16, 2, 50, 6, 5), (16, 50, 6))
    """
    batch_size = check_integer("batch_size", batch_size, minimum=1)
    chunk = check_integer("chunk_frames", chunk_frames, minimum=1)
    selection = {
        "filter_cell_types": cell_types is not None,
        "cell_types_list": None if cell_types is None else [_group(number) for number in cell_types],
        "chirp_qi": check_number("chirp_qi", chirp_qi, minimum=0),
        "d_qi": check_number("d_qi", d_qi, minimum=0),
        "qi_logic": check_choice("qi_logic", qi_logic, ("and", "or")),
        "filter_counts": False,
        "classifier_confidence": check_number("classifier_confidence", classifier_confidence, minimum=0),
    }
    trace_type = check_choice("trace_type", trace_type, TRACES)
    clips = _clips(validation_clips, chunk)

    def load() -> dict[str, dict[str, ChunkedMovie]]:
        read = functools.partial(read_session, trace_type=trace_type)
        raw = _read(Path(responses_path), sessions, exclude_sessions, read)
        check_movie(Path(movie_path), {name: entries["scan_sequence_idx"] for name, entries in raw.items()})
        return _datasets(_select(raw, selection), Path(movie_path), clips, chunk, trace_type)

    places = [Path(responses_path), Path(movie_path)]
    asked = (sessions, exclude_sessions, trace_type, selection, clips, chunk)
    datasets = kept_or_loaded("hoefling_2024_loaders", places, asked, load)
    if return_data_info:
        return {data_key: tiers[TRAIN].data_info() for data_key, tiers in datasets.items()}
    return by_tier(
        {
            data_key: {
                tier: chunk_loader(dataset, tier, batch_size=max(1, batch_size * chunk // max(chunk, dataset.chunk)))
                for tier, dataset in tiers.items()
            }
            for data_key, tiers in datasets.items()
        }
    )


def hoefling_2024_types(
    responses_path: str | os.PathLike[str],
    *,
    sessions: Sequence[str] | str | None = None,
    exclude_sessions: Sequence[str] | str | None = None,
    min_confidence: float = 0.25,
    level: str = "group",
) -> dict[str, tuple[np.ndarray, list[str | None]]]:
    """Return the cell types of a recording of Höfling et al. 2024, for ``KnownTypes().add_entry``.

    The groups are those of Baden et al. 2016, assigned by the authors' classifier; they are not ground truth.

    Parameters
    ----------
    responses_path, sessions, exclude_sessions
        As in :func:`hoefling_2024_loaders`.
    min_confidence
        Groups assigned with less confidence count as unknown (None).
    level
        "group" for the 46 groups, such as "8 OFF alpha trans", or "class" for OFF, ON-OFF, Fast On, Slow ON, uncertain
        ganglion cells, and amacrine cells.

    Returns
    -------
    dict
        Data key to ``(unit_ids, labels)``, (n,) int64 and n strings or None: all neurons of the chosen sessions.

    Raises
    ------
    RecordingError, SettingsError
        As :func:`hoefling_2024_loaders`.

    See Also
    --------
    hoefling_2024_loaders : Loads the responses of these neurons.
    december_plugin.evaluation.confusion_matrix : Counts the neurons of each cluster and known type.

    Examples
    --------
    >>> from december_plugin.datasets import hoefling_2024_types
    >>> types = hoefling_2024_types("rgc-natstim/responses.h5", sessions=["*_dorsal1_*"])
    >>> unit_ids, labels = types["session_1_dorsal1_20200626"]
    >>> list(zip(unit_ids.tolist(), labels))
    [(1, '1 OFF local, OS'), (2, '8 OFF alpha trans'), (3, '1 OFF local, OS')]
    """
    level = check_choice("level", level, LEVELS)
    threshold = check_number("min_confidence", min_confidence, minimum=0)
    constants = openretina_module("data_io.hoefling_2024.constants")
    groups = constants.RGC_GROUP_NAMES_DICT
    names = {number: f"{number} {name}" for number, name in groups.items()}
    if level == "class":
        names = constants.RGC_GROUP_GROUP_ID_TO_CLASS_NAME
    types = {}
    for data_key, session in _read(Path(responses_path), sessions, exclude_sessions, read_types).items():
        unit_ids, numbers, confidences = session
        labels = [
            names.get(int(number)) if confidence >= threshold else None
            for number, confidence in zip(numbers, confidences.max(axis=1), strict=True)
        ]
        types[data_key] = (unit_ids.astype(np.int64), labels)
    return types


def _group(number: Any) -> int:
    if check_integer("cell_types", number, minimum=1) > 46:
        raise SettingsError(
            f"cell_types has {number}; the groups are 1 to 46 (32 of ganglion cells).", setting="cell_types"
        )
    return int(number)


def _clips(validation_clips: Any, chunk: int) -> list[int]:
    clips = [check_integer("validation_clips", clip, minimum=0) for clip in validation_clips]
    if not clips or len(set(clips)) < len(clips) or max(clips) >= N_CLIPS or len(clips) == N_CLIPS:
        raise SettingsError(
            f"validation_clips is {list(validation_clips)}; some, but not all, of the clips 0 to {N_CLIPS - 1} are "
            "expected, each once.",
            setting="validation_clips",
        )
    if chunk > (N_CLIPS - len(clips)) * CLIP_FRAMES:
        raise SettingsError(
            f"chunk_frames is {chunk}, but {N_CLIPS - len(clips)} training clips of {CLIP_FRAMES} frames have only "
            f"{(N_CLIPS - len(clips)) * CLIP_FRAMES} frames.",
            setting="chunk_frames",
            others=["validation_clips"],
        )
    return clips


def _read(path: Path, sessions: Any, excluded: Any, read: Callable[[Any], Any]) -> dict[str, Any]:
    """Return what ``read`` makes of the group of each chosen session."""
    openretina_module("data_io.hoefling_2024.responses")  # a clear error first, even if only h5py is missing
    with open_responses(path) as file:
        names = choose_sessions(session_names(file, path), sessions, excluded, path)
        return {name: read(file[name]) for name in names}


def _select(raw: Mapping[str, dict[str, Any]], selection: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    with undisturbed():
        chosen = openretina_module("data_io.hoefling_2024.responses").filter_responses(dict(raw), **selection)
    if not chosen:
        n_neurons = sum(len(entries["roi_ids"]) for entries in raw.values())
        raise RecordingError(
            f"none of the {n_neurons} neurons in {len(raw)} session(s) passes the selection: lower chirp_qi (now "
            f"{selection['chirp_qi']:g}), d_qi ({selection['d_qi']:g}) or classifier_confidence "
            f"({selection['classifier_confidence']:g}), or name other cell_types."
        )
    for session in raw.keys() - chosen.keys():
        logger.warning("session %r is left out: none of its neurons passes the selection", session)
    return chosen


def _datasets(
    chosen: dict[str, dict[str, Any]], movie_path: Path, clips: list[int], chunk: int, trace_type: str
) -> dict[str, dict[str, ChunkedMovie]]:
    reading = openretina_module("data_io.hoefling_2024.responses")
    stimuli = openretina_module("data_io.hoefling_2024.stimuli")
    loading = openretina_module("data_io.hoefling_2024.dataloaders")
    with undisturbed():
        responses = reading.make_final_responses(chosen, response_type="natural", trace_type=trace_type)
        _check_responses(responses, chosen)
        check_session_names(responses)
        refuse_copies(
            Recorded(f"session {name!r}", functools.partial(iter, split.train)) for name, split in responses.items()
        )
        movies = _used_orders(stimuli.movies_from_pickle(movie_path), responses)
        loaders = loading.natmov_dataloaders_v2(responses, movies, clips, train_chunk_size=chunk)
    shared: dict[int, MovieInMemory] = {}
    return {
        data_key: _tiers(data_key, {tier: loaders[tier][data_key] for tier in TIERS}, chosen[data_key], shared, chunk)
        for data_key in responses
    }


def _check_responses(responses: Mapping[str, Any], chosen: Mapping[str, dict[str, Any]]) -> None:
    for session, split in responses.items():
        bad = ~(np.isfinite(split.train).all(axis=1) & np.isfinite(split.test_response).all(axis=1))
        if bad.any():
            unit = int(chosen[session]["roi_ids"][np.flatnonzero(bad)[0]])
            raise RecordingError(
                f"the trace of unit {unit} of session {session!r} is constant while the movie runs, so it cannot "
                f"be divided by its standard deviation ({bad.sum()} such unit(s)). Leave the session out with "
                f"exclude_sessions=[{session!r}], or choose another trace_type."
            )


def _used_orders(movies: Any, responses: Mapping[str, Any]) -> Any:
    """Keep the orders of clips that the sessions saw: openretina arranges the movie in every order it gets."""
    used = sorted({split.session_kwargs["scan_sequence_idx"] for split in responses.values()})
    for split in responses.values():
        split.session_kwargs["scan_sequence_idx"] = used.index(split.session_kwargs["scan_sequence_idx"])
    orders = movies.random_sequences[:, used]
    # openretina's gen_start_indices takes a single column for the order of the file.
    orders = np.repeat(orders, 2, axis=1) if len(used) == 1 else orders
    return replace(movies, test=None, random_sequences=orders)


def _tiers(
    data_key: str, loaders: Mapping[str, Any], entries: Mapping[str, Any], shared: dict[int, MovieInMemory], chunk: int
) -> dict[str, ChunkedMovie]:
    neurons = RetinaNeurons(
        unit_ids=entries["roi_ids"].astype(np.int64),
        cell_types=entries["group_assignment"].astype(np.int64),
        type_confidences=entries["group_confidences"].max(axis=1).astype(np.float64),
    )
    mean = mean_over_frames(loaders[TRAIN].dataset.responses)
    datasets = {}
    for tier, loader in loaders.items():
        given = loader.dataset
        movie = shared.setdefault(id(given.movies), MovieInMemory(torch.as_tensor(given.movies)))
        by_repeat = given.test_responses_by_trial
        datasets[tier] = ChunkedMovie(
            data_key=data_key,
            movie=movie,
            responses=given.responses,
            chunk=given.chunk_size,
            starts=np.asarray(loader.sampler.indices, dtype=np.int64),
            frame_rate=FRAME_RATE,
            neurons=neurons,
            response_unit=UNIT,
            mean_responses=mean,
            jitter=chunk if tier == TRAIN else 1,
            responses_by_repeat=None if by_repeat is None else by_repeat.permute(1, 2, 0).float(),
        )
    return datasets
