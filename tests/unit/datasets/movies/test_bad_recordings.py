"""Every way in which a recording of movies can be wrong gives one clear error: what, where, what to do."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from december_plugin.datasets import movie_loaders
from december_plugin.errors import RecordingError, SettingsError
from december_plugin.simulate.movies import write_movie_recording
from december_plugin.text.yaml_plain_loader import PlainLoader
from helpers.movie_recordings import SMALL, cut, edit_header, header, load, pop, put, save


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    return write_movie_recording(tmp_path_factory.mktemp("movies") / "retina-7", **SMALL)


def replace(folder: Path, old: str, new: str) -> None:
    file = folder / "recording.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def append(folder: Path, line: str) -> None:
    replace(folder, "version: 1", f"version: 1\n{line}")


YAML = "FOLDER/recording.yaml: "
CASES = {
    "no folder": (shutil.rmtree, "The recording FOLDER does not exist or is not a folder. Check the path."),
    "no header": (
        lambda folder: (folder / "recording.yaml").unlink(),
        "FOLDER/recording.yaml is missing: a recording in the movie format is a folder with this header.",
    ),
    "no YAML": (
        lambda folder: (folder / "recording.yaml").write_text("tiers: [a, b"),
        "FOLDER/recording.yaml:1:13: the header FOLDER/recording.yaml is not valid YAML: expected ',' or ']', but got "
        "'<stream end>' (while parsing a flow sequence that begins in line 1).",
    ),
    "no text": (
        lambda folder: (folder / "recording.yaml").write_bytes(b"data_key: M\xfcller\n"),
        "FOLDER/recording.yaml:1:12: the header FOLDER/recording.yaml cannot be read: the character here (0xfc) is not "
        "UTF-8. Save the file as UTF-8, which every editor can",
    ),
    "a key that is there twice": (
        lambda folder: append(folder, "data_key: retina-8"),
        "the key 'data_key' occurs twice, in lines 3 and ",
    ),
    "a name that is a word of YAML": (
        lambda folder: replace(folder, "data_key: retina-7", "data_key: true"),
        YAML + "data_key is True; a name without dots, such as 'retina-7', is expected. A name that is also a word of "
        "YAML (true, null) needs quotes.",
    ),
    "a movie whose name is a number": (
        lambda folder: replace(folder, "  train-0:\n", "  1:\n"),
        "the key 1 is a number; keys are text. Put it in quotes if it is a name.",
    ),
    "a version that is true": (
        lambda folder: replace(folder, "version: 1", "version: true"),
        YAML + "version is True; this december_plugin reads version 1.",
    ),
    "a frame rate like a time of day": (
        lambda folder: replace(folder, "frame_rate: 30.0", "frame_rate: 1:30"),
        YAML + "frame_rate is '1:30'; frames per second, a number above 0, is expected.",
    ),
    "unit ids with leading zeros": (
        lambda folder: replace(folder, "unit_ids: unit_ids.npy", "unit_ids: [1, 007, 3, 4, 5, 6]"),
        YAML + "unit_ids is [1, '007', 3, 4, 5, 6]; a .npy file or a list of whole numbers is expected.",
    ),
    "channels last": (
        save("stimuli/train-1.npy", lambda movie: movie[..., None]),
        "FOLDER/stimuli/train-1.npy has shape (50, 8, 9, 1), which looks like (frames, height, width, channels); "
        "(frames, channels, height, width) is expected. Move the channels, e.g. with numpy.moveaxis(movie, -1, 1).",
    ),
    "responses of another movie": (
        edit_header(lambda content: content["movies"]["train-1"].update(responses="responses/train-0.npy")),
        YAML + "the movies 'train-0' and 'train-1' both name the responses train-0.npy. Each movie has its own "
        "responses: correct one of them.",
    ),
    "a data key of blanks": (
        header(data_key="  "),
        YAML + "data_key is '  '; a name without dots, such as 'retina-7',",
    ),
    "one test frame": (
        lambda folder: (
            edit_header(lambda content: (content["tiers"].update(test=["test-0"]), content["movies"].pop("test-1")))(
                folder
            ),
            save("stimuli/test-0.npy", lambda movie: movie[:1])(folder),
            save("responses/test-0.npy", lambda responses: responses[:1, :1])(folder),
            edit_header(lambda content: content["movies"]["test-0"].update(repeats=1))(folder),
        ),
        "session 'retina-7' (FOLDER) has one frame in the tier 'test', and a correlation needs at least two. Add "
        "movies to the tier, or leave the session out.",
    ),
    "a list": (
        lambda folder: (folder / "recording.yaml").write_text("- a\n"),
        YAML + "the header is ['a']; names with values are expected.",
    ),
    "unknown key": (
        header(framerate=30),
        YAML + "the header has the unknown key 'framerate'. Did you mean 'frame_rate'? Allowed: data_key, format,",
    ),
    "missing keys": (
        lambda folder: (pop("frame_rate")(folder), pop("tiers")(folder)),
        YAML + "the header lacks frame_rate, tiers. docs/recordings.md describes the header.",
    ),
    "another format": (header(format="movies"), YAML + "format is 'movies'; 'december-movies' is expected."),
    "another version": (header(version=2), YAML + "version is 2; this december_plugin reads version 1."),
    "frame rate 0": (
        header(frame_rate=0),
        YAML + "frame_rate is 0; frames per second, a number above 0, is expected.",
    ),
    "a data key with a dot": (
        header(data_key="a.b"),
        YAML + "data_key is 'a.b'; a name without dots, such as 'retina-7', is expected.",
    ),
    "no unit": (
        header(responses={"minimum": 0}),
        YAML + "responses lacks unit. docs/recordings.md describes the header.",
    ),
    "a range upside down": (
        header(stimulus={"unit": "grey level", "minimum": 255, "maximum": 0}),
        YAML + "stimulus.minimum is 255 and stimulus.maximum 0; the maximum must be larger.",
    ),
    "a limit that is no number": (
        header(stimulus={"unit": "grey level", "minimum": "zero"}),
        YAML + "stimulus.minimum is 'zero'; a number is expected.",
    ),
    "unknown key of a movie": (
        edit_header(lambda content: content["movies"]["train-0"].update(response="x.npy")),
        YAML + "movie 'train-0' has the unknown key 'response'. Did you mean 'responses'?",
    ),
    "a movie without responses": (pop("movies", "train-0", "responses"), YAML + "movie 'train-0' lacks responses."),
    "no array": (
        edit_header(lambda content: content["movies"]["train-0"].update(stimulus="movie.mp4")),
        YAML + "stimulus of movie 'train-0' is 'movie.mp4'; a .npy file is expected.",
    ),
    "no repeats": (
        edit_header(lambda content: content["movies"]["test-0"].update(repeats=0)),
        YAML + "repeats of movie 'test-0' is 0; a whole number of at least 1 is expected.",
    ),
    "empty tier": (
        edit_header(lambda content: content["tiers"].update(validation=[])),
        YAML + "the tier 'validation' is []; at least one movie is needed: a list of names.",
    ),
    "no validation": (pop("tiers", "validation"), YAML + "tiers lacks validation."),
    "unknown tier": (
        edit_header(lambda content: content["tiers"].update(testing=["test-0"])),
        YAML + "tiers has the unknown key 'testing'. Did you mean 'test'? Allowed: test, train, validation.",
    ),
    "unknown movie": (
        edit_header(lambda content: content["tiers"].update(train=["train-0", "train_1"])),
        YAML + "the tier 'train' names the movie 'train_1'. Did you mean 'train-1'?",
    ),
    "a movie in two tiers": (
        edit_header(lambda content: content["tiers"]["test"].append("train-0")),
        YAML + "the movie 'train-0' is in the tiers 'train' and 'test'. Name each movie once.",
    ),
    "a movie in no tier": (
        edit_header(lambda content: content["tiers"].update(train=["train-0"])),
        YAML + "no tier names the movie(s) 'train-1'. Add them to one, or remove them.",
    ),
    "duplicate unit ids": (
        save("unit_ids.npy", lambda ids: np.r_[ids[:5], ids[0]]),
        "FOLDER/unit_ids.npy: 1 unit id(s) are named more than once, e.g.",
    ),
    "duplicate unit ids in the header": (
        header(unit_ids=[1, 2, 3, 4, 5, 5]),
        "FOLDER/recording.yaml: 1 unit id(s) are named more than once, e.g. 5. A unit id identifies a neuron",
    ),
    "unit ids that are names": (
        header(unit_ids=["a", "b"]),
        YAML + "unit_ids is ['a', 'b']; a .npy file or a list of whole numbers is expected.",
    ),
    "fractional unit ids": (
        save("unit_ids.npy", lambda ids: ids + 0.5),
        "FOLDER/unit_ids.npy: unit_ids have shape (6,) and dtype float64; one whole number for each neuron is expected",
    ),
    "missing file": (
        lambda folder: (folder / "stimuli/train-1.npy").unlink(),
        "FOLDER/stimuli/train-1.npy is missing. Copy the recording again, or export it with this file.",
    ),
    "truncated movie": (
        cut("stimuli/train-1.npy", 100),
        "FOLDER/stimuli/train-1.npy is truncated: it announces 3600 bytes of data and has 3500.",
    ),
    "truncated responses": (
        cut("responses/train-1.npy", 1),
        "FOLDER/responses/train-1.npy is truncated: it announces 600 bytes of data and has 599.",
    ),
    "empty file": (
        lambda folder: (folder / "responses/train-1.npy").write_bytes(b""),
        "FOLDER/responses/train-1.npy is not an .npy file: it is empty. Copy the recording again.",
    ),
    "pickled objects": (
        save("responses/train-1.npy", lambda values: values.astype(object)),
        "FOLDER/responses/train-1.npy contains pickled Python objects, which are never loaded",
    ),
    "text": (
        save("responses/train-1.npy", lambda values: values.astype(str)),
        "FOLDER/responses/train-1.npy has values of dtype <U5; numbers are expected.",
    ),
    "a movie of two axes": (
        save("stimuli/train-0.npy", lambda movie: movie[:, 0]),
        "FOLDER/stimuli/train-0.npy has shape (50, 9); (frames, height, width) or (frames, channels, height, width) is",
    ),
    "other frames": (
        save("stimuli/train-1.npy", lambda movie: movie[:, 1:]),
        "FOLDER/stimuli/train-1.npy has frames of (channels, height, width) (1, 7, 9), but those of the movie "
        "'train-0' have (1, 8, 9). All movies of a recording need the same.",
    ),
    "fewer frames of responses": (
        save("responses/train-0.npy", lambda values: values[1:]),
        "FOLDER/responses/train-0.npy has shape (49, 6); (frames, neurons) of the movie 'train-0' is (50, 6): "
        "train-0.npy has 50 frames and unit_ids names 6 neurons.",
    ),
    "repeats that the header does not name": (
        pop("movies", "test-0", "repeats"),
        "For responses by repeat, add repeats: 3 to the movie in the header.",
    ),
    "NaN in the movie": (
        save("stimuli/train-1.npy", put((7, 2, 2), np.nan, np.float32)),
        "FOLDER/stimuli/train-1.npy has NaN or infinite values, first in frame 7. Remove these movies or neurons",
    ),
    "infinite responses": (
        save("responses/test-1.npy", put((2, 5, 1), np.inf, np.float64)),
        "FOLDER/responses/test-1.npy has NaN or infinite values, first in frame 5.",
    ),
    "negative counts": (
        save("responses/train-0.npy", put((3, 3), -2, np.float32)),
        "FOLDER/responses/train-0.npy has the value -2, but the header says that responses (spikes per frame) are at "
        "least 0. Correct the file or its unit and range in the header.",
    ),
    "movie out of range": (
        save("stimuli/validation-0.npy", put((3, 3, 3), 256, np.int16)),
        "FOLDER/stimuli/validation-0.npy has the value 256, but the header says that stimulus (grey level) are from "
        "0 to 255.",
    ),
    "a movie that does not change": (
        lambda folder: [save(f"stimuli/train-{number}.npy", lambda movie: movie * 0 + 9)(folder) for number in (0, 1)],
        "FOLDER: all values of the training movies are 9, so the stimulus cannot be normalised.",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_recordings(name, recording, tmp_path):
    damage, message = CASES[name]
    folder = Path(shutil.copytree(recording, tmp_path / "retina"))
    damage(folder)
    with pytest.raises(RecordingError, match=re.escape(message.replace("FOLDER", str(folder)))):
        load(folder)


def test_values_are_checked_block_by_block(recording, tmp_path, monkeypatch):
    monkeypatch.setattr("december_plugin.datasets.movies.recording.BLOCK", 3 * 72)  # three frames of 8 x 9
    folder = Path(shutil.copytree(recording, tmp_path / "retina"))
    info, whole = (load(path, return_data_info=True)["retina-7"] for path in (folder, recording))
    assert info["img_std"] == pytest.approx(whole["img_std"], rel=1e-12)
    save("stimuli/train-1.npy", put((49, 7, 8), np.nan, np.float32))(folder)
    with pytest.raises(RecordingError, match=re.escape("first in frame 49.")):
        load(folder)


NAMES = ["2021_03_05", "0012", "12:30:45", "2021-03-05", "no", "1e3", "0x1F", "+7", "007", "7", "-0", "1_000"]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_the_text_in_the_header(recording, tmp_path, name):
    folder = Path(shutil.copytree(recording, tmp_path / "retina"))
    replace(folder, "data_key: retina-7", f"data_key: {name}")
    if name != "7":  # a key that is a number even so needs quotes
        file = folder / "recording.yaml"
        file.write_text(file.read_text().replace("train-1:", f"{name}:").replace("- train-1\n", f"- {name}\n"))
    loaders = load(folder)
    assert list(loaders["train"]) == [name]
    movies = loaders["train"][name].dataset.trial_info.movie.tolist()
    assert movies[-1] == ("train-1" if name == "7" else name)


@pytest.mark.parametrize(
    "name", [*NAMES, "true", "null", "~x", "1.5", ".5", "1.5e3", "nan", "<<", "Mus musculus", "x: y"]
)
def test_what_pyyaml_writes_is_read_as_it_was(name):
    content = {name: [name, 7, -3, 0.5, 1e30, 1e-7, float("inf"), True, False, None, {"a": name}]}
    text = yaml.safe_dump(content)
    assert yaml.load(text, Loader=PlainLoader) == content


def test_sessions_that_do_not_fit_together(recording, tmp_path):
    other = Path(shutil.copytree(recording, tmp_path / "other"))
    with pytest.raises(RecordingError, match=re.escape("both have the data_key 'retina-7'. It names the session")):
        movie_loaders([recording, other], 4)
    header(data_key="retina-8", frame_rate=60)(other)
    with pytest.raises(
        RecordingError, match=re.escape(f"{recording} has 30 frames per second and {other} 60; a model's temporal")
    ):
        movie_loaders([recording, other], 4)
    header(frame_rate=30)(other)
    for file in (other / "stimuli").iterdir():
        np.save(file, np.load(file)[:, None].repeat(2, axis=1))
    with pytest.raises(RecordingError, match=re.escape(f"{recording} has 1 channel(s) and {other} 2; a model needs")):
        movie_loaders([recording, other], 4)


SETTINGS = {
    "clips too long": (
        {"chunk_frames": 51},
        "chunk_frames is 51, but the movie 'train-0' of session 'retina-7' (tier 'train') has 50 frames. Choose fewer.",
    ),
    "stretches too long": (
        {"evaluation_frames": 20, "lead_frames": 7},
        "lead_frames + evaluation_frames is 27, but the movie 'validation-0' of session 'retina-7' (tier 'validation')",
    ),
    "a lead of whole movies": (
        {"lead_frames": 3},
        "lead_frames=3 needs evaluation_frames; nothing comes before whole movies.",
    ),
    "no frames": ({"chunk_frames": 0}, "chunk_frames is 0; it must be at least 1."),
    "one statistic": ({"inputs_std": 1.0}, "inputs_std was given without inputs_mean. Give both or neither."),
    "statistics of nothing": (
        {"inputs_mean": 1.0, "inputs_std": 1.0, "normalize": False},
        "inputs_mean and inputs_std were given together with normalize=False. Leave one of them out.",
    ),
    "unknown session": (
        {"neuron_ids": {"retina_7": [1]}},
        "neuron_ids names the session 'retina_7', which does not exist. Did you mean 'retina-7'?",
    ),
    "no unit ids": ({"neuron_ids": [1, 2]}, "neuron_ids is [1, 2]; session names with a list of unit ids each are"),
    "misspelled": ({"chunk_frame": 3}, "movie_loaders has no setting 'chunk_frame'. Did you mean 'chunk_frames'?"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_wrong_settings(name, recording):
    settings, message = SETTINGS[name]
    with pytest.raises(SettingsError, match=re.escape(message)):
        load(recording, **settings)


def test_no_paths():
    with pytest.raises(SettingsError, match=re.escape("paths is []; a list of folders, one for each session, is")):
        movie_loaders([], 4)
