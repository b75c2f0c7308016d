"""Reads and checks the HDF5 file and the movie of Höfling et al. 2024, from which openretina computes responses.

Only the requested sessions and entries are read: the published file has gigabytes, and openretina makes several copies
of what it gets.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from december_plugin.datasets.common.pickles import array_of, read_plain_pickle
from december_plugin.embeddings.neuron_ids import whole_numbers
from december_plugin.errors import MisfitError, RecordingError, SettingsError, did_you_mean
from december_plugin.validation.byte_order import in_native_order

N_CLIPS, CLIP_FRAMES, TEST_CLIPS, TEST_REPEATS = 108, 150, 5, 3
N_TRIGGERS = N_CLIPS + TEST_CLIPS * TEST_REPEATS
CLIP_SECONDS = 5.0  # between two triggers; measured 4.97
# Entries with the traces by trace_type; the second names are those of newer exports.
TRACES = {
    "spikes": (("natural_inferred_spikes", "natural_spikes"),),
    "raw": (("natural_raw_traces",),),
    "preprocessed": (("natural_preprocessed_traces",),),
    "detrended": (("natural_raw_traces",), ("natural_smoothed_traces",)),
}
TIMES = "natural_traces_times"
STARTS_AND_STEPS = ("natural_traces_t0", "natural_traces_dt")  # of newer exports, instead of TIMES
TRIGGERS = "natural_trigger_times"
TYPES = ("roi_ids", "group_assignment", "group_confidences")
PER_NEURON = (*TYPES, "chirp_qi", "d_qi")
EYES = ("left", "right")


def choose_sessions(names: Sequence[str], wanted: Any, excluded: Any, path: Path) -> list[str]:
    """Return the sessions of a file that match the patterns, in the order of the file.

    Raises
    ------
    SettingsError
        If a pattern matches no session, or nothing is left.
    """
    patterns, without = _patterns("sessions", wanted), _patterns("exclude_sessions", excluded)
    for setting, given in (("sessions", patterns), ("exclude_sessions", without)):
        for pattern in given or ():
            if not any(fnmatchcase(name, pattern) for name in names):
                raise MisfitError(
                    f"{setting}: no session of {path} matches {pattern!r}. {did_you_mean(pattern, names)}",
                    setting=setting,
                )
    chosen = [name for name in names if patterns is None or any(fnmatchcase(name, p) for p in patterns)]
    chosen = [name for name in chosen if not any(fnmatchcase(name, p) for p in without or ())]
    if not chosen:
        raise MisfitError(
            f"exclude_sessions={excluded!r} leaves no session of {path}.",
            setting="exclude_sessions",
            others=["sessions"],
        )
    return chosen


def _patterns(setting: str, given: Any) -> list[str] | None:
    if given is None:
        return None
    patterns = [given] if isinstance(given, str) else given
    if not isinstance(patterns, (list, tuple)) or not patterns or not all(isinstance(p, str) for p in patterns):
        raise SettingsError(
            f"{setting} is {given!r}; a list of session names is expected, or patterns such as 'session_1_*_20201021'.",
            setting=setting,
        )
    return list(patterns)


@contextlib.contextmanager
def open_responses(path: Path) -> Iterator[Any]:
    """Open the HDF5 file; damage found while reading inside the block is explained, too."""
    import h5py  # a requirement of openretina, not ours

    if not path.is_file():
        raise RecordingError(f"{path} does not exist. See docs/recordings.md for where to get it.")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (RecordingError, SettingsError):
        raise
    except (OSError, RuntimeError) as error:  # h5py's for a file that ends early
        raise RecordingError(f"{path} cannot be read as HDF5, or is damaged ({error}). Get the file again.") from error


def session_names(file: Any, path: Path) -> list[str]:
    """Return the names of the sessions, which are the groups at the top."""
    names = [name for name, item in file.items() if hasattr(item, "items")]
    if not names:
        raise RecordingError(f"{path} has no sessions; each is a group at the top of the file.")
    return names


def read_session(group: Any, trace_type: str) -> dict[str, Any]:
    """Return the entries of one session that openretina needs, checked.

    Parameters
    ----------
    group
        The session's HDF5 group.
    trace_type
        "spikes", "raw", "preprocessed" or "detrended".

    Raises
    ------
    RecordingError
        If an entry is missing, differs in length from the others, or has impossible values.
    """
    session = group.name.strip("/")
    entries = _read_per_neuron(group, PER_NEURON)
    traces = [next((name for name in names if name in group), names[0]) for names in TRACES[trace_type]]
    timing = [TIMES] if TIMES in group or STARTS_AND_STEPS[0] not in group else list(STARTS_AND_STEPS)
    entries |= _read_per_neuron(group, ("roi_ids", *traces, *timing, TRIGGERS))
    entries["roi_mask"] = _read(group, session, "roi_mask")
    for name in (*traces, *timing, TRIGGERS):
        _check_finite(entries[name], name, session, other_traces=name in traces)
    for name in traces:
        if timing == [TIMES] and entries[name].shape != entries[TIMES].shape:
            raise RecordingError(
                f"{name} of session {session!r} has shape {entries[name].shape}, but {TIMES} {entries[TIMES].shape}; "
                "every sample of a trace needs its time."
            )
    _check_times(entries, timing, entries[traces[0]].shape[1], session)
    return {**entries, "eye": _eye(group, session), "scan_sequence_idx": _sequence(group, session)}


def read_types(group: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return roi_ids (n,), groups (n,) and confidences (n, groups) of one session; errors as :func:`read_session`."""
    entries = _read_per_neuron(group, TYPES)
    return entries["roi_ids"], entries["group_assignment"], entries["group_confidences"]


def _read_per_neuron(group: Any, names: Sequence[str]) -> dict[str, Any]:
    """Return entries with a row or number for each neuron; the first must be the roi_ids."""
    session = group.name.strip("/")
    entries = {name: _read(group, session, name) for name in names}
    ids = entries["roi_ids"]
    if ids.ndim != 1 or len(np.unique(ids)) < len(ids) or whole_numbers(ids) is None:
        raise RecordingError(
            f"the roi_ids of session {session!r} must be different integers: with the session, they identify the "
            "neuron."
        )
    for name, values in entries.items():
        if values.ndim == 0 or len(values) != len(ids):
            raise RecordingError(
                f"{name} of session {session!r} has shape {values.shape}, but there are {len(ids)} roi_ids; it must "
                "have one row for each of them."
            )
        if name in PER_NEURON and values.ndim != 1 + (name == "group_confidences"):
            raise RecordingError(
                f"{name} of session {session!r} has shape {values.shape}; (neurons, groups) is expected of "
                "confidences, and (neurons,) of the others."
            )
    return entries


def _read(group: Any, session: str, name: str) -> Any:
    if name not in group:
        raise RecordingError(
            f"session {session!r} has no entry {name!r}; it has {', '.join(sorted(group)) or 'nothing'}. Is the file "
            "the published one of the natural movies (rgc_natstim)?"
        )
    values = in_native_order(np.asarray(group[name][...]))
    if values.dtype.kind not in "iufb":
        raise RecordingError(f"{name} of session {session!r} is {values.dtype}; numbers are expected.")
    return values


def _check_finite(values: Any, name: str, session: str, *, other_traces: bool) -> None:
    bad = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if bad.any():
        raise RecordingError(
            f"{name} of session {session!r} has NaN or infinite values for {bad.sum()} of {len(bad)} neurons, first "
            f"the one at position {int(np.flatnonzero(bad)[0])}. Leave the session out with "
            f"exclude_sessions=[{session!r}]{', or choose another trace_type' if other_traces else ''}."
        )


def _check_times(entries: dict[str, Any], timing: list[str], n_samples: int, session: str) -> None:
    triggers = entries[TRIGGERS]
    if triggers.ndim != 2 or triggers.shape[1] != N_TRIGGERS:
        raise RecordingError(
            f"{TRIGGERS} of session {session!r} has shape {triggers.shape}; {N_TRIGGERS} triggers are expected: "
            f"{N_CLIPS} clips for training and {TEST_REPEATS} x {TEST_CLIPS} for the test."
        )
    if timing == [TIMES]:
        times = entries[TIMES]
        first, last, increasing = times[:, 0].max(), times[:, -1].min(), bool((np.diff(times, axis=1) > 0).all())
    else:
        starts, steps = (entries[name].reshape(len(triggers), -1)[:, 0] for name in timing)
        first, last, increasing = starts.max(), (starts + steps * (n_samples - 1)).min(), bool((steps > 0).all())
    begins, ends = float(triggers[0].min()), float(triggers[0].max()) + CLIP_SECONDS
    spacing = float(np.median(np.diff(triggers[0])))
    if not increasing or not 0.8 * CLIP_SECONDS < spacing < 1.2 * CLIP_SECONDS:
        raise RecordingError(
            f"the triggers of session {session!r} are {spacing:g} apart and the times of its traces "
            f"{'increase' if increasing else 'do not increase'}; triggers {CLIP_SECONDS:g} s apart and increasing "
            "times in seconds are expected."
        )
    if begins < first - CLIP_SECONDS or ends > last + CLIP_SECONDS:
        raise RecordingError(
            f"the traces of session {session!r} last from {first:g} to {last:g} s, but the movie was shown from "
            f"{begins:g} to {ends:g} s: times and triggers must be seconds of one clock, and the traces complete."
        )


def _eye(group: Any, session: str) -> str:
    eye = group.attrs.get("eye")
    eye = eye.decode() if isinstance(eye, bytes) else eye
    if not isinstance(eye, str) or eye not in EYES:
        raise RecordingError(f"the attribute 'eye' of session {session!r} is {eye!r}; it must be 'left' or 'right'.")
    return str(eye)


def _sequence(group: Any, session: str) -> int:
    index = group.attrs.get("scan_sequence_idx")
    if index is None or np.ndim(index) != 0 or int(index) != index or index < 0:
        raise RecordingError(
            f"the attribute 'scan_sequence_idx' of session {session!r} is {index!r}; it must be the number of a column "
            "of the movie's random_sequences."
        )
    return int(index)


def check_movie(path: Path, sequences: dict[str, int]) -> None:
    """Check the movie's pickle: frames for training and test, and the order in which each session saw the clips.

    Parameters
    ----------
    path
        The pickle.
    sequences
        Session to ``scan_sequence_idx``.

    Raises
    ------
    RecordingError
        If something is missing or does not fit.
    """
    content = read_plain_pickle(path)
    train, test, orders = (array_of(content, name, path) for name in ("train", "test", "random_sequences"))
    for name in ("train", "test", "random_sequences"):
        dtype = content[name].dtype
        if not dtype.isnative:  # openretina reads the file itself
            raise RecordingError(
                f"the entry {name!r} of {path} is {dtype.str}, whose byte order is not this machine's; "
                f"PyTorch cannot read that. Save it again as {dtype.newbyteorder('=').name}."
            )
    for name, movie, n_frames in (
        ("train", train, N_CLIPS * CLIP_FRAMES),
        ("test", test, TEST_CLIPS * CLIP_FRAMES),
    ):
        if movie.ndim != 4 or movie.shape[1] != n_frames:
            raise RecordingError(
                f"the {name} movie of {path} has shape {movie.shape}; (channels, {n_frames} frames, height, width) is "
                "expected."
            )
        if not np.isfinite(movie).all():
            raise RecordingError(f"the {name} movie of {path} has NaN or infinite values.")
    if (train.shape[0], *train.shape[2:]) != (test.shape[0], *test.shape[2:]):
        raise RecordingError(
            f"the movies of {path} differ in channels or size: train {train.shape}, test {test.shape}."
        )
    if orders.ndim != 2 or len(orders) != N_CLIPS or (np.sort(orders, axis=0) != np.arange(N_CLIPS)[:, None]).any():
        raise RecordingError(
            f"the random_sequences of {path} have shape {orders.shape}; every column must be an order of the clips 0 "
            f"to {N_CLIPS - 1}."
        )
    for session, index in sequences.items():
        if index >= orders.shape[1]:
            raise RecordingError(
                f"session {session!r} saw the clips in order {index}, but {path} has the orders 0 to "
                f"{orders.shape[1] - 1}: do movie and responses belong together?"
            )
