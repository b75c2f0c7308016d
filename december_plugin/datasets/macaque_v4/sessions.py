"""Sessions of spike counts to images, in the two layouts of macaque V4 recordings.

Session pickles, as nnvision's loaders read them: one dictionary for each session, images as ``<id>.npy`` elsewhere.
The public dataset of Cadena et al. 2024: ``<folder>/{train,test}/<session>/{responses.csv,meta_data.json}`` and
``<folder>/images/<id>.png``. docs/recordings.md has the tables.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from december_plugin.datasets.common.copies import Recorded
from december_plugin.datasets.common.files import entries_of, is_left_by_system, read_json
from december_plugin.datasets.common.pickles import array_of, read_plain_pickle
from december_plugin.embeddings.neuron_ids import repeated_ids, whole_numbers
from december_plugin.errors import RecordingError, did_you_mean

PICKLE_TIERS = {"train": "training", "test": "testing"}  # tier of a session's trials, and its name in the pickles
NEURON_ENTRIES = ("electrode_nums", "relative_micron_depth")  # of a pickle, one value for each neuron
PICKLE_SUFFIXES = (".pickle", ".pkl")
IMAGE_ID = re.compile(r"[0-9]{1,18}", re.ASCII)
SEE_LAYOUT = "See docs/recordings.md for how the recordings are laid out."


@dataclass(frozen=True, eq=False)
class SpikeSession:
    """One session: the images that were shown, and the spikes that followed.

    Attributes
    ----------
    path
        File or folder that it was read from.
    data_key
        The session's id as text: with the unit id, a neuron's identity.
    subject
        The animal's id as text.
    unit_ids
        (n,) int64, unique within the session.
    image_ids
        "train" and "test" to the image of each trial, (trials,) int64.
    counts
        "train" and "test" to spikes of every trial in every bin, (trials, n, bins) float32.
    per_neuron
        What else is known about each neuron, each (n,).
    """

    path: Path
    data_key: str
    subject: str
    unit_ids: np.ndarray
    image_ids: Mapping[str, np.ndarray]
    counts: Mapping[str, np.ndarray]
    per_neuron: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def n_bins(self) -> int:
        """Number of time bins of a response."""
        return self.counts["train"].shape[2]

    def recorded(self, neurons: np.ndarray) -> Recorded:
        """Return the spikes of these neurons (positions), trial by trial."""

        def responses() -> Iterator[np.ndarray]:
            return (trial[neurons] for tier in PICKLE_TIERS for trial in self.counts[tier])

        return Recorded(f"session {self.data_key!r} ({self.path})", responses)


def read_sessions(paths: Sequence[Path], *, counts: bool) -> list[SpikeSession]:
    """Read all sessions of these paths.

    Parameters
    ----------
    paths
        Session pickles, folders of session pickles, or folders in the layout of the public dataset.
    counts
        Whether responses must be whole numbers.

    Raises
    ------
    RecordingError
        If a path is missing, damaged or inconsistent, or two sessions have the same id.
    """
    sessions: dict[str, SpikeSession] = {}
    for path in paths:
        for session in _sessions_at(path):
            _check_session(session, counts=counts)
            other = sessions.setdefault(session.data_key, session)
            if other is not session:
                raise RecordingError(
                    f"{other.path} and {session.path} are both session {session.data_key!r}. A session's id and a unit "
                    "id name a neuron: leave one of the two out."
                )
    return list(sessions.values())


def images_folder_of(paths: Sequence[Path]) -> Path | None:
    """Return the ``images`` folder of the public dataset if the paths are one folder of it, else None."""
    if len(paths) == 1 and is_public_layout(paths[0]):
        return paths[0] / "images"
    return None


def is_public_layout(path: Path) -> bool:
    """Return whether a folder has the layout of the public dataset."""
    return (path / "train").is_dir() and (path / "test").is_dir()


def _sessions_at(path: Path) -> list[SpikeSession]:
    if not path.exists():
        raise RecordingError(f"The recording {path} does not exist. Check the path and that its disk is mounted.")
    if path.is_file() and is_left_by_system(path.name):
        raise RecordingError(f"{path} was left by an operating system and is not a session. Remove it from the paths.")
    if path.is_file():
        return [_read_pickle(path)]
    if is_public_layout(path):
        names = [entry.name for entry in entries_of(path / "train") if entry.is_dir()]
        if not names:
            raise RecordingError(f"{path / 'train'} has no sessions (folders). {SEE_LAYOUT}")
        return [_read_csv_session(path, name) for name in names]
    pickles = [entry for entry in entries_of(path) if entry.suffix in PICKLE_SUFFIXES]
    if not pickles:
        raise RecordingError(
            f"{path} has neither session pickles (*.pickle, *.pkl) nor the folders train and test of the public "
            f"dataset. {SEE_LAYOUT}"
        )
    return [_read_pickle(file) for file in pickles]


# --- session pickles ----------------------------------------------------------------------------------------------


def _read_pickle(path: Path) -> SpikeSession:
    content = read_plain_pickle(path)
    image_ids, counts = {}, {}
    for tier, name in PICKLE_TIERS.items():
        responses = np.asarray(array_of(content, f"{name}_responses", path), dtype=np.float32)
        if responses.ndim == 2:  # a session of one neuron, exported without its axis
            responses = responses[None]
        if responses.ndim != 3:
            raise RecordingError(
                f"{name}_responses of {path} have shape {responses.shape}; (neurons, bins, trials) is expected."
            )
        counts[tier] = responses.transpose(2, 0, 1)
        image_ids[tier] = _whole(array_of(content, f"{name}_image_ids", path), f"{name}_image_ids", path)
    n_neurons = counts["train"].shape[1]
    unit_ids = np.arange(n_neurons, dtype=np.int64)
    if "unit_ids" in content:
        unit_ids = _whole(array_of(content, "unit_ids", path), "unit_ids", path)
    per_neuron = {}
    for name in NEURON_ENTRIES:
        if name in content:
            values = np.asarray(array_of(content, name, path)).ravel()
            if len(values) != n_neurons:
                raise RecordingError(
                    f"{name} of {path} has {len(values)} values; one for each of the {n_neurons} neurons is expected."
                )
            per_neuron[name] = values
    return SpikeSession(
        path=path,
        data_key=_name(content, "session_id", path),
        subject=_name(content, "subject_id", path),
        unit_ids=unit_ids,
        image_ids=image_ids,
        counts=counts,
        per_neuron=per_neuron,
    )


def _whole(values: Any, name: str, path: Path) -> np.ndarray:
    whole = whole_numbers(np.asarray(values))
    if whole is None:
        raise RecordingError(f"{name} of {path} are not whole numbers.")
    return whole.ravel()


def _name(content: Mapping[str, Any], entry: str, path: Path) -> str:
    value = content.get(entry)
    if isinstance(value, (np.ndarray, np.generic)) and np.size(value) == 1:
        value = np.asarray(value).item()
    name = str(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else ""
    if not name or "." in name:  # a dot cannot be part of the name of a torch module
        found = ", ".join(sorted(map(str, content))) or "nothing"
        what = f"is {value!r}" if entry in content else f"is missing; it has {found}"
        raise RecordingError(f"{entry} of {path} {what}. A number or a name without dots is expected.")
    return name


# --- the public dataset ------------------------------------------------------------------------------------------


def _read_csv_session(root: Path, name: str) -> SpikeSession:
    image_ids, counts = {}, {}
    for tier in PICKLE_TIERS:
        file = root / tier / name / "responses.csv"
        image_ids[tier], counts[tier] = _read_responses_csv(file)
    meta_file = root / "train" / name / "meta_data.json"
    try:
        meta = read_json(meta_file)
    except FileNotFoundError:
        raise RecordingError(f"{meta_file} is missing. {SEE_LAYOUT}") from None
    except (OSError, ValueError) as error:
        raise RecordingError(f"{meta_file} is not a JSON file ({error}). Get it again.") from error
    if not isinstance(meta, dict):
        raise RecordingError(f"{meta_file} contains a {type(meta).__name__}; a JSON object is expected. {SEE_LAYOUT}")
    unit_ids: Any = meta.get("unit_ids")
    if unit_ids is None:
        unit_ids = np.arange(counts["train"].shape[1])
    return SpikeSession(
        path=root / "train" / name,
        data_key=_name(meta, "session_id", meta_file),
        subject=_name(meta, "subject_id", meta_file),
        unit_ids=_whole(unit_ids, "unit_ids", meta_file),
        image_ids=image_ids,
        counts=counts,
    )


def _read_responses_csv(file: Path) -> tuple[np.ndarray, np.ndarray]:
    image_ids: list[int] = []
    responses: list[np.ndarray] = []
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            rows = csv.DictReader(lines)
            for needed in ("image_id", "responses"):
                if needed not in (rows.fieldnames or ()):
                    hint = did_you_mean(needed, rows.fieldnames or ["none"])
                    raise RecordingError(f"{file} has no column {needed!r}. {hint} {SEE_LAYOUT}")
            for row in rows:
                if row.get(None):
                    raise ValueError(f"a field more than there are columns: {row[None][0][:40]!r}")
                image_ids.append(_image_id(row["image_id"]))
                responses.append(_response(row["responses"]))
                if responses[-1].ndim != 2 or responses[-1].shape != responses[0].shape:
                    raise ValueError(f"shape {responses[-1].shape} instead of (neurons, bins)")
    except FileNotFoundError:
        raise RecordingError(
            f"{file} is missing. Every session needs it under train and under test. {SEE_LAYOUT}"
        ) from None
    except (TypeError, ValueError) as error:
        if isinstance(error, RecordingError):
            raise
        raise RecordingError(
            f"{file} cannot be read after {len(responses)} trial(s) ({error}). Every line needs image_id, a whole "
            "number, and responses, a list of bins for each neuron. Get the file again."
        ) from error
    if not responses:
        return np.empty(0, dtype=np.int64), np.empty((0, 0, 0), dtype=np.float32)
    return np.array(image_ids, dtype=np.int64), np.stack(responses)


def _image_id(text: str | None) -> int:
    # The file of an image has its id in six digits, so leading zeros are allowed here.
    plain = (text or "").strip()
    if not IMAGE_ID.fullmatch(plain):
        raise ValueError(f"the image_id {plain[:40]!r}")
    return int(plain)


def _response(text: str) -> np.ndarray:
    values = np.array(json.loads(text))
    if values.dtype.kind not in "iuf":
        raise ValueError(f"responses of which some are not numbers: {text[:40]!r}")
    return values.astype(np.float32)


# --- checks -------------------------------------------------------------------------------------------------------


def _check_session(session: SpikeSession, *, counts: bool) -> None:
    where = f"session {session.data_key!r} ({session.path})"
    for tier, responses in session.counts.items():
        n_trials = len(session.image_ids[tier])
        if not n_trials or not len(responses):
            raise RecordingError(f"{where} has no {PICKLE_TIERS[tier]} trials. Leave this session out.")
        if len(responses) != n_trials:
            raise RecordingError(
                f"{where} has {len(responses)} {PICKLE_TIERS[tier]} responses to {n_trials} image ids; both need one "
                "entry for each trial."
            )
        _check_values(responses, f"{PICKLE_TIERS[tier]} responses of {where}", counts=counts)
    train, test = session.counts["train"].shape[1:], session.counts["test"].shape[1:]
    if train != test:
        raise RecordingError(
            f"{where} has (neurons, bins) {train} in training and {test} in testing; they must be the same."
        )
    if len(session.unit_ids) != train[0]:
        raise RecordingError(
            f"{where} names {len(session.unit_ids)} unit ids and has responses of {train[0]} neurons; both need one "
            "entry for each neuron."
        )
    repeated = repeated_ids(session.unit_ids)
    if len(repeated):
        raise RecordingError(
            f"{where} names {len(repeated)} unit id(s) more than once, e.g. {repeated[0]}. A unit id "
            "identifies a neuron within its session: make them unique."
        )


def _check_values(responses: np.ndarray, what: str, *, counts: bool) -> None:
    if not np.isfinite(responses).all():
        trials = ~np.isfinite(responses).all(axis=(1, 2))
        raise RecordingError(
            f"{what} have NaN or infinite values in {int(trials.sum())} trial(s), first in trial "
            f"{int(np.argmax(trials))}. Remove these trials or neurons from the recording."
        )
    if responses.min(initial=0) < 0:
        raise RecordingError(
            f"{what} go down to {responses.min():g}; spike counts cannot be negative. Export the counts themselves, "
            "not z-scores or differences from a baseline."
        )
    if counts and not (responses == np.floor(responses)).all():
        fraction = responses[responses != np.floor(responses)][0]
        raise RecordingError(
            f"{what} are not whole numbers (e.g. {fraction:g}), so they are not spike counts. Export counts, or pass "
            "spike_counts=False if they are rates."
        )
