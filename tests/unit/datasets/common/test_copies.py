"""One recording under two names is refused by every dataset function, with and without reading the stimuli."""

from __future__ import annotations

import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from december_plugin.datasets import macaque_v4_loaders, movie_loaders, static_loaders
from december_plugin.datasets.common.copies import Recorded, refuse_copies
from december_plugin.errors import RecordingError
from december_plugin.simulate.macaque_v4 import write_macaque_v4_recording
from december_plugin.simulate.movies import write_movie_recording
from helpers.movie_recordings import SMALL as MOVIES
from helpers.movie_recordings import header

SESSIONS = {"n_sessions": 1, "n_neurons": 3, "n_images": 30, "n_shown": 30, "n_test": 2, "image_shape": (8, 8)}


def said(one, other) -> str:
    return re.escape(
        f"{one} and {other} have the same responses: one recording under two names, whose neurons would count twice. "
        "Leave one of them out; if they are simulated, write one again with another seed."
    )


@pytest.mark.parametrize("info", [False, True])
def test_images(recording_folders, tmp_path, info):
    first = recording_folders[0]
    copy = Path(shutil.copytree(first, tmp_path / "another-mouse"))
    with pytest.raises(RecordingError, match=said(first, copy)):
        static_loaders([*recording_folders, copy], 8, return_data_info=info)
    # Halves of one population are no copies, nor is a recording in which one response differs.
    units = np.load(first / "meta/neurons/unit_ids.npy").tolist()
    halves = static_loaders([first, copy], 8, neuron_ids=[units[:10], units[10:]], return_data_info=info)
    assert len(halves if info else halves["train"]) == 2
    last = copy / "data/responses/63.npy"
    np.save(last, np.load(last) + np.eye(1, 20, 19)[0])
    static_loaders([first, copy], 8, return_data_info=info)


@pytest.mark.parametrize("info", [False, True])
def test_movies(tmp_path, info):
    first = write_movie_recording(tmp_path / "retina-7", **MOVIES)
    copy = Path(shutil.copytree(first, tmp_path / "retina-8"))
    header(data_key="retina-8")(copy)
    with pytest.raises(RecordingError, match=said(first, copy)):
        movie_loaders([first, copy], 4, chunk_frames=15, return_data_info=info)
    last = copy / "responses/test-1.npy"
    responses = np.load(last)
    responses[-1, -1, -1] += 1
    np.save(last, responses)
    movie_loaders([first, copy], 4, chunk_frames=15, return_data_info=info)


def test_sessions_of_spikes(tmp_path):
    folder = write_macaque_v4_recording(tmp_path / "v4", **SESSIONS)
    (first,) = (folder / "sessions").iterdir()
    content = pickle.loads(first.read_bytes())
    copy = first.with_name("copy.pickle")
    copy.write_bytes(pickle.dumps({**content, "session_id": 5}))
    sessions = [f"session '{content['session_id']}' ({first})", f"session '5' ({copy})"]
    with pytest.raises(RecordingError, match=said(*sessions)):
        macaque_v4_loaders([first, copy], 8, images_path=folder / "images")
    content["testing_responses"][0, 0, -1] += 1
    copy.write_bytes(pickle.dumps({**content, "session_id": 5}))
    macaque_v4_loaders([first, copy], 8, images_path=folder / "images")


def test_sessions_of_which_nothing_was_measured_are_no_copies():
    refuse_copies(Recorded(name, lambda: iter(np.zeros((3, 2)))) for name in "ab")
    refuse_copies(Recorded(name, lambda: iter(())) for name in "ab")


def test_no_more_is_read_than_has_to_be():
    read = []

    def recorded(name, values):
        def responses():
            for value in values:
                read.append(name)
                yield np.array([value])

        return Recorded(name, responses)

    refuse_copies([recorded("a", [1, 2, 3, 4]), recorded("b", [2, 2, 3, 4]), recorded("c", [1, 5, 3, 4])])
    assert read == ["a", "b", "c", "a", "c", "a", "c"]
