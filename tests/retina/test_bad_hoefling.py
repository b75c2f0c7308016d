"""Bad input for the mouse retina movies: each is answered with what is wrong and what to do."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from december_plugin.datasets import hoefling_2024_loaders, hoefling_2024_types
from december_plugin.errors import DecemberError, RecordingError, SettingsError
from helpers.retina_files import Hoefling

NAME = "session_1_ventral1_20201021"


@pytest.fixture
def copy(hoefling: Hoefling, tmp_path: Path) -> Hoefling:
    """Return a copy of the recording that may be damaged."""
    for file in (hoefling.responses, hoefling.movie):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return Hoefling(tmp_path / hoefling.responses.name, tmp_path / hoefling.movie.name)


def load(recording: Hoefling, **settings: Any) -> dict:
    return hoefling_2024_loaders(recording.responses, recording.movie, **{"sessions": NAME, **settings})


def with_entries(recording: Hoefling, **entries: Any) -> None:
    """Replace entries or attributes of the session; a function is applied to what is there, None removes it."""
    import h5py

    with h5py.File(recording.responses, "r+") as file:
        group = file[NAME]
        for name, new in entries.items():
            store = group if name in group else group.attrs
            value = new(store[name][...]) if callable(new) else new
            del store[name]
            if value is not None:
                store[name] = value


def with_nan(values: np.ndarray) -> np.ndarray:
    values[4, 100] = np.nan
    return values


def constant(values: np.ndarray) -> np.ndarray:
    values[2] = 1.0
    return values


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            {"natural_trigger_times": None},
            f"session '{NAME}' has no entry 'natural_trigger_times'; it has chirp_qi, d_qi",
        ),
        (
            {"natural_inferred_spikes": with_nan},
            f"natural_inferred_spikes of session '{NAME}' has NaN or infinite values for 1 of 6 neurons, first the one "
            f"at position 4. Leave the session out with exclude_sessions=['{NAME}'], or choose another trace_type.",
        ),
        (
            {"natural_inferred_spikes": constant},
            f"the trace of unit 3 of session '{NAME}' is constant while the movie runs, so it cannot be divided "
            "by its standard deviation (1 such unit(s)).",
        ),
        (
            {"group_assignment": lambda values: values[:4]},
            f"group_assignment of session '{NAME}' has shape (4,), but there are 6 roi_ids; it must have one row",
        ),
        (
            {"natural_traces_times": lambda values: values[:, :-1]},
            "; every sample of a trace needs its time.",
        ),
        (
            {"natural_trigger_times": lambda values: values[:, :-5]},
            f"natural_trigger_times of session '{NAME}' has shape (6, 118); 123 triggers are expected: 108 clips for "
            "training and 3 x 5 for the test.",
        ),
        (
            {"natural_trigger_times": lambda values: 1000 * values},
            f"the triggers of session '{NAME}' are 4966.67 apart and the times of its traces increase; triggers 5 s "
            "apart and increasing times in seconds are expected.",
        ),
        (
            {"natural_traces_times": lambda values: values / 60},
            "s: times and triggers must be seconds of one clock, and the traces complete.",
        ),
        (
            {"roi_ids": lambda values: np.minimum(values, 3)},
            f"the roi_ids of session '{NAME}' must be different integers",
        ),
        (
            {"group_confidences": np.ones(6)},
            f"group_confidences of session '{NAME}' has shape (6,); (neurons, groups) is expected of confidences",
        ),
        ({"roi_ids": np.array([b"a"] * 6)}, f"roi_ids of session '{NAME}' is |S1; numbers are expected."),
        ({"eye": "middle"}, f"the attribute 'eye' of session '{NAME}' is 'middle'; it must be 'left' or 'right'."),
        (
            {"scan_sequence_idx": 7},
            f"session '{NAME}' saw the clips in order 7, but ",
        ),
        (
            {"scan_sequence_idx": None},
            f"the attribute 'scan_sequence_idx' of session '{NAME}' is None; it must be the number of a column of the "
            "movie's random_sequences.",
        ),
        (
            {"chirp_qi": np.zeros(6), "d_qi": np.zeros(6)},
            "none of the 6 neurons in 1 session(s) passes the selection: lower chirp_qi (now 0.35), d_qi (0.6) or "
            "classifier_confidence (0), or name other cell_types.",
        ),
    ],
)
def test_a_bad_session_is_refused(copy: Hoefling, entries: dict[str, Any], message: str) -> None:
    with_entries(copy, **entries)
    with pytest.raises(RecordingError, match=re.escape(message)):
        load(copy)


def test_other_sessions_may_be_bad(copy: Hoefling) -> None:
    with_entries(copy, eye="middle")
    assert len(load(copy, sessions=None, exclude_sessions=[NAME])["train"]) == 2


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"random_sequences": None}, "has no entry 'random_sequences'; it has movie_stats, test, train."),
        (
            {"random_sequences": np.zeros((108, 3), dtype=">i4")},
            "is >i4, whose byte order is not this machine's; PyTorch cannot read that. Save it again as int32.",
        ),
        ({"train": "a movie"}, "is str; an array of numbers is expected."),
        ({"train": np.zeros((2, 150, 6, 5))}, "has shape (2, 150, 6, 5); (channels, 16200 frames, height, width) is"),
        (
            {"test": np.zeros((1, 750, 6, 5))},
            "differ in channels or size: train (2, 16200, 6, 5), test (1, 750, 6, 5).",
        ),
        ({"test": np.full((2, 750, 6, 5), np.nan)}, "has NaN or infinite values."),
        (
            {"random_sequences": np.zeros((108, 3), dtype=int)},
            "have shape (108, 3); every column must be an order of the clips 0 to 107.",
        ),
    ],
)
def test_a_bad_movie_is_refused(copy: Hoefling, entries: dict[str, Any], message: str) -> None:
    content = pickle.loads(copy.movie.read_bytes()) | entries
    known = {name: value for name, value in content.items() if value is not None}
    copy.movie.write_bytes(pickle.dumps(known, protocol=5))  # 4 would bring arrays into the order of the machine
    with pytest.raises(RecordingError, match=re.escape(message)):
        load(copy)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda recording: recording.responses.unlink(), "responses.h5 does not exist. See docs/recordings.md"),
        (lambda recording: recording.movie.unlink(), "movie.pkl does not exist. See docs/recordings.md"),
        (lambda recording: cut(recording.responses), "responses.h5 cannot be read as HDF5, or is damaged ("),
        (lambda recording: cut(recording.movie), "movie.pkl is not a complete pickle (UnpicklingError: "),
        (
            lambda recording: recording.movie.write_bytes(pickle.dumps([1])),
            "movie.pkl contains a list; a dictionary of",
        ),
        (lambda recording: recording.responses.write_text("no"), "responses.h5 cannot be read as HDF5"),
    ],
)
def test_a_missing_or_truncated_file_is_named(copy: Hoefling, damage: Callable[[Hoefling], Any], message: str) -> None:
    damage(copy)
    with pytest.raises(RecordingError, match=re.escape(message)):
        load(copy)


def test_a_file_without_sessions_is_refused(copy: Hoefling) -> None:
    import h5py

    h5py.File(copy.responses, "w").close()
    with pytest.raises(RecordingError, match="has no sessions; each is a group at the top of the file"):
        hoefling_2024_types(copy.responses)


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        import os

        return os.system, ("touch /tmp/december-retina-evil",)


def test_a_pickle_that_names_code_is_not_opened(copy: Hoefling) -> None:
    copy.movie.write_bytes(pickle.dumps({"train": Evil()}))
    with pytest.raises(RecordingError, match=r"is a pickle that names posix.system; a recording needs only NumPy"):
        load(copy)
    assert not Path("/tmp/december-retina-evil").exists()


def test_a_trusted_pickle_is_opened_whatever_it_names(copy: Hoefling, monkeypatch: pytest.MonkeyPatch) -> None:
    content = pickle.loads(copy.movie.read_bytes())
    copy.movie.write_bytes(pickle.dumps(content | {"where_from": Path("a")}))
    with pytest.raises(RecordingError, match=r"set DECEMBER_TRUST_PICKLES=1 in the environment\."):
        load(copy)
    monkeypatch.setenv("DECEMBER_TRUST_PICKLES", "1")
    assert NAME in load(copy)["train"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trace_typ": "raw"}, "hoefling_2024_loaders has no setting 'trace_typ'. Did you mean 'trace_type'?"),
        ({"trace_type": "spike"}, "trace_type is 'spike'. Did you mean 'spikes'?"),
        ({"cell_types": [0]}, "cell_types is 0; it must be at least 1."),
        ({"cell_types": [47]}, "cell_types has 47; the groups are 1 to 46 (32 of ganglion cells)."),
        ({"qi_logic": "xor"}, "qi_logic is 'xor'. Did you mean 'or'? Allowed: and, or."),
        ({"validation_clips": []}, "validation_clips is []; some, but not all, of the clips 0 to 107 are expected"),
        ({"validation_clips": [3, 3]}, "validation_clips is [3, 3]; some, but not all"),
        ({"chunk_frames": 14000}, "chunk_frames is 14000, but 93 training clips of 150 frames have only 13950 frames."),
        ({"sessions": 3}, "sessions is 3; a list of session names is expected, or patterns such as"),
        ({"sessions": []}, "sessions is []; a list of session names is expected"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(hoefling: Hoefling, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        load(hoefling, **settings)


def test_bad_settings_of_the_types(hoefling: Hoefling) -> None:
    with pytest.raises(DecemberError, match=r"level is 'groups'\. Did you mean 'group'\?"):
        hoefling_2024_types(hoefling.responses, level="groups")


def test_one_session_under_two_names_is_refused(copy: Hoefling) -> None:
    import h5py

    other = NAME.replace("ventral1", "ventral2")
    with h5py.File(copy.responses, "r+") as file:
        file.copy(file[NAME], other)
    message = f"session '{NAME}' and session '{other}' have the same responses: one recording under two names, whose"
    with pytest.raises(RecordingError, match=re.escape(message)):
        load(copy, sessions=[NAME, other])
