"""The generic movie format: what is served, what stays on disk, and every way in which a recording can be wrong."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from december_plugin.datasets import movie_loaders
from december_plugin.datasets.movie_clips import DrawnClips
from december_plugin.errors import RecordingError, SettingsError
from december_plugin.models import movie_core_gaussian_readout
from december_plugin.performance import correlation_to_average
from december_plugin.predictions import predict_sessions, stimulus_ids_of
from december_plugin.simulate.movies import read_movie_truth, write_movie_recording
from december_plugin.trainers import baseline_trainer

SMALL = {
    "n_neurons": 6,
    "n_train": 2,
    "n_validation": 1,
    "n_test": 2,
    "n_repeats": 3,
    "n_frames": 50,
    "n_test_frames": 26,
    "image_shape": (8, 9),
}


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    return write_movie_recording(tmp_path_factory.mktemp("movies") / "retina-7", **SMALL)


def load(folder: Path, batch_size: int = 4, **settings):
    return movie_loaders([str(folder)], batch_size, **{"chunk_frames": 15, **settings})


def stimulus(folder: Path, name: str) -> np.ndarray:
    return np.load(folder / f"stimuli/{name}.npy").astype(float)


# --- what is served -----------------------------------------------------------------------------------------------


def test_whole_movies_are_served_as_the_files_have_them(recording):
    loaders = load(recording, inputs_mean=128.0, inputs_std=40.0)
    assert {tier: list(sessions) for tier, sessions in loaders.items()} == {
        tier: ["retina-7"] for tier in ("train", "validation", "test")
    }
    loader = loaders["test"]["retina-7"]
    videos = torch.cat([batch.videos for batch in loader])
    responses = torch.cat([batch.responses for batch in loader])
    assert videos.shape == (6, 1, 26, 8, 9)
    assert responses.shape == (6, 26, 6)
    assert videos.dtype == responses.dtype == torch.float32
    for item in range(6):
        movie, repeat = f"test-{item // 3}", item % 3
        np.testing.assert_allclose(videos[item, 0], (stimulus(recording, movie) - 128) / 40, rtol=1e-6)
        assert np.array_equal(responses[item], np.load(recording / f"responses/{movie}.npy")[repeat])
    info = loader.dataset.trial_info
    assert info.movie_id.tolist() == [0, 0, 0, 1, 1, 1]
    assert info.movie.tolist() == ["test-0"] * 3 + ["test-1"] * 3
    assert info.repeat.tolist() == [0, 1, 2] * 2
    assert np.array_equal(loader.dataset.neurons.unit_ids, np.load(recording / "unit_ids.npy"))


def test_stretches_overlap_by_the_lead(recording):
    loader = load(recording, evaluation_frames=8, lead_frames=5)["test"]["retina-7"]
    info = loader.dataset.trial_info
    assert info.start_frame.tolist() == [0, 8] * 6  # 5 + 8 frames each; 16 + 13 would be too long for 26
    assert info.n_frames.tolist() == [13] * 12
    assert info.movie_id.tolist() == [0, 1] * 3 + [2, 3] * 3
    second = loader.dataset[1]
    assert np.array_equal(second.responses, np.load(recording / "responses/test-0.npy")[0, 8:21])


def test_items_of_different_lengths_come_one_by_one(recording, tmp_path):
    folder = Path(shutil.copytree(recording, tmp_path / "retina"))
    np.save(folder / "stimuli/test-1.npy", np.load(folder / "stimuli/test-1.npy")[:20])
    np.save(folder / "responses/test-1.npy", np.load(folder / "responses/test-1.npy")[:, :20])
    batches = [batch.videos.shape for batch in load(folder)["test"]["retina-7"]]
    assert batches == [(1, 1, 26, 8, 9)] * 3 + [(1, 1, 20, 8, 9)] * 3


def test_training_clips_are_drawn_reproducibly_and_belong_to_one_movie(recording):
    loader = load(recording, normalize=False)["train"]["retina-7"]
    movies = [stimulus(recording, f"train-{number}") for number in range(2)]
    epochs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        batches = list(loader)
        assert [batch.videos.shape for batch in batches] == [(4, 1, 15, 8, 9), (2, 1, 15, 8, 9)]
        epochs.append(torch.cat([batch.videos for batch in batches]))
    assert torch.equal(epochs[0], epochs[1])
    assert not torch.equal(epochs[0], epochs[2])
    first = [(number, t) for number in range(2) for t in range(36)]
    for clip in epochs[2]:
        assert sum(np.array_equal(clip[0], movies[number][t : t + 15]) for number, t in first) == 1


def test_an_epoch_covers_every_movie_evenly():
    clips = DrawnClips([100, 37], 10)
    assert len(clips) == 13
    torch.manual_seed(0)
    seen = np.zeros(91)
    for _ in range(400):
        drawn = sorted(clips)
        assert [take for take, _ in drawn] == [0] * 10 + [1] * 3
        # The first frames 0 to 90 of the first movie in ten equal parts.
        assert all(9.1 * part - 1 < start < 9.1 * (part + 1) for part, (_, start) in enumerate(drawn[:10]))
        assert all(0 <= start <= 27 for _, start in drawn[10:])
        for _, start in drawn[:10]:
            seen[start] += 1
    assert seen.min() > 0.5 * seen.mean()
    assert seen.max() < 1.6 * seen.mean()


def test_the_statistics_are_those_of_the_training_movies(recording):
    info = load(recording, return_data_info=True)["retina-7"]
    trained = np.concatenate([stimulus(recording, f"train-{number}") for number in range(2)])
    spikes = np.concatenate([np.load(recording / f"responses/train-{number}.npy") for number in range(2)])
    assert info["img_mean"] == pytest.approx(trained.mean(), rel=1e-9)
    assert info["img_std"] == pytest.approx(trained.std(), rel=1e-9)
    np.testing.assert_allclose(info["mean_responses"], spikes.mean(axis=0), rtol=1e-6)
    assert info["input_dimensions"] == [1, 1, 15, 8, 9]
    assert info["output_dimension"] == 6
    assert (info["frame_rate"], info["response_unit"]) == (30.0, "spikes per frame")
    plain = load(recording, normalize=False, return_data_info=True)["retina-7"]
    assert (plain["img_mean"], plain["img_std"]) == (None, None)


def test_movies_stay_on_disk_and_no_file_stays_open(recording):
    before = len(list(Path("/proc/self/fd").iterdir()))
    loaders = load(recording)
    batch = next(iter(loaders["train"]["retina-7"]))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert batch.videos.is_contiguous()
    for movie, _ in loaders["test"]["retina-7"].dataset.takes:
        for array in (movie.stimulus(), movie.responses()):
            assert isinstance(array, np.memmap)
            assert not array.flags.writeable


def test_neurons_are_chosen_by_unit_id(recording):
    unit_ids = np.load(recording / "unit_ids.npy").tolist()
    dataset = load(recording, neuron_ids={"retina-7": [unit_ids[4], unit_ids[1]]})["validation"]["retina-7"].dataset
    assert dataset.unit_ids.tolist() == [unit_ids[4], unit_ids[1]]
    assert np.array_equal(dataset[0].responses, np.load(recording / "responses/validation-0.npy")[:, [4, 1]])
    info = load(recording, neuron_ids={"retina-7": unit_ids[:1]}, return_data_info=True)["retina-7"]
    assert info["mean_responses"].shape == (1,)


def test_channels_repeated_training_movies_and_unit_ids_in_the_header(recording, tmp_path):
    folder = Path(shutil.copytree(recording, tmp_path / "retina"))
    for file in (folder / "stimuli").iterdir():
        movie = np.load(file)
        np.save(file, np.stack([movie, 255 - movie], axis=1))
    spikes = np.load(folder / "responses/train-0.npy")
    np.save(folder / "responses/train-0.npy", np.stack([spikes, spikes + 1]))
    edit_header(lambda header: header["movies"]["train-0"].update(repeats=2))(folder)
    edit_header(lambda header: header.update(unit_ids=[3, 9, 1, 4, 8, 7]))(folder)
    loaders = load(folder)
    assert loaders["train"]["retina-7"].dataset.unit_ids.tolist() == [3, 9, 1, 4, 8, 7]
    assert len(loaders["train"]["retina-7"].dataset) == 3 * 3  # three takes of 50 frames
    assert next(iter(loaders["train"]["retina-7"])).videos.shape == (4, 2, 15, 8, 9)


def test_the_fingerprint_is_that_of_what_is_served(recording, tmp_path):
    folder = Path(shutil.copytree(recording, tmp_path / "elsewhere"))

    def fingerprint(path, **settings):
        return load(path, **{"seed": 1, **settings})["train"]["retina-7"].dataset.fingerprint()

    before = fingerprint(recording)
    assert fingerprint(folder, seed=5) == before
    assert fingerprint(recording, chunk_frames=16) != before
    assert fingerprint(recording, normalize=False) != before
    save("responses/train-1.npy", put((3, 2), 77))(folder)
    assert fingerprint(folder) != before


# --- the simulation -----------------------------------------------------------------------------------------------


def test_the_truth_predicts_the_responses(tmp_path):
    folder = write_movie_recording(tmp_path / "retina", n_test=1, n_repeats=400, n_frames=100, n_test_frames=60)
    truth = read_movie_truth(folder)
    contrast = (np.load(folder / "stimuli/test-0.npy").astype(float) - 128) / 40
    rates = np.load(folder / "responses/test-0.npy").mean(axis=0)
    for neuron in range(0, 40, 7):
        filtered = np.einsum("tyx,yx->t", contrast, truth.spatial_filters[neuron])
        drive = np.zeros(60)
        for t in range(60):
            for lag in range(min(t + 1, 12)):
                drive[t] += truth.temporal_kernels[neuron, lag] * filtered[t - lag]
        assert np.corrcoef(np.logaddexp(0, 2 * drive / drive.std()), rates[:, neuron])[0, 1] > 0.97
    assert np.bincount(truth.types).tolist() == [12, 10, 10, 8]
    assert truth.type_parameters[:, 0].tolist() == [1, -1, 1, -1]


def test_same_arguments_write_the_same_and_seeds_share_types(tmp_path):
    first = write_movie_recording(tmp_path / "a", seed=1, **SMALL)
    second = write_movie_recording(tmp_path / "b", seed=2, **SMALL)
    again = write_movie_recording(tmp_path / "c", seed=1, **SMALL)
    for file in ("stimuli/train-0.npy", "responses/test-1.npy", "unit_ids.npy"):
        assert (first / file).read_bytes() == (again / file).read_bytes()
        assert (first / file).read_bytes() != (second / file).read_bytes()
    assert np.array_equal(read_movie_truth(first).type_parameters, read_movie_truth(second).type_parameters)
    with pytest.raises(RecordingError, match=re.escape(f"{first} exists already. Choose another folder, or pass")):
        write_movie_recording(first, **SMALL)
    with pytest.raises(SettingsError, match=re.escape("the folder's name 'a.b' becomes the session's name")):
        write_movie_recording(tmp_path / "a.b", **SMALL)
    with pytest.raises(RecordingError, match=re.escape("truth is missing:")):
        read_movie_truth(tmp_path)


def test_a_model_learns_to_predict_the_neurons(tmp_path):
    folder = write_movie_recording(tmp_path / "retina", n_neurons=24, n_train=4, image_shape=(12, 12), rate=1.0)
    loaders = movie_loaders([folder], 8, chunk_frames=40)
    model = movie_core_gaussian_readout(
        loaders, 0, hidden_channels=[8], temporal_kernels=[7], spatial_kernels=[5], gamma_input=0.1, gamma_readout=0.01
    )
    _, _, state = baseline_trainer(model, loaders, 0, max_iter=10)
    model.load_state_dict(state)
    session = predict_sessions(model, loaders["test"])["retina"]
    ids = stimulus_ids_of(loaders["test"]["retina"], session.frames)
    scores = correlation_to_average(session.responses, session.predictions, ids)
    assert len(np.unique(ids)) == 2 * (150 - 6)
    assert scores.mean() > 0.4


# --- bad input ----------------------------------------------------------------------------------------------------


def edit_header(change):
    def damage(folder):
        file = folder / "recording.yaml"
        header = yaml.safe_load(file.read_text())
        change(header)
        file.write_text(yaml.safe_dump(header, sort_keys=False))

    return damage


def header(**entries):
    return edit_header(lambda content: content.update(entries))


def save(entry, change):
    def damage(folder):
        np.save(folder / entry, change(np.load(folder / entry)), allow_pickle=True)

    return damage


def put(index, value, dtype=None):
    def change(array):
        array = array.astype(dtype or array.dtype)
        array[index] = value
        return array

    return change


def cut(entry, count):
    def damage(folder):
        (folder / entry).write_bytes((folder / entry).read_bytes()[:-count])

    return damage


def pop(*path):
    def change(content):
        for key in path[:-1]:
            content = content[key]
        content.pop(path[-1])

    return edit_header(change)


YAML = "FOLDER/recording.yaml: "
CASES = {
    "no folder": (shutil.rmtree, "The recording FOLDER does not exist or is no folder. Check the path."),
    "no header": (
        lambda folder: (folder / "recording.yaml").unlink(),
        "FOLDER/recording.yaml is missing: a recording in the movie format is a folder with this header.",
    ),
    "no YAML": (
        lambda folder: (folder / "recording.yaml").write_text("tiers: [a, b"),
        YAML + "this is no valid YAML (while parsing a flow sequence",
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
        "FOLDER/stimuli/train-1.npy is truncated: it announces 3600 bytes of data and holds 3500.",
    ),
    "truncated responses": (
        cut("responses/train-1.npy", 1),
        "FOLDER/responses/train-1.npy is truncated: it announces 600 bytes of data and holds 599.",
    ),
    "empty file": (
        lambda folder: (folder / "responses/train-1.npy").write_bytes(b""),
        "FOLDER/responses/train-1.npy is no .npy file: it is empty. Copy the recording again.",
    ),
    "pickled objects": (
        save("responses/train-1.npy", lambda values: values.astype(object)),
        "FOLDER/responses/train-1.npy holds pickled Python objects, which are never loaded",
    ),
    "text": (
        save("responses/train-1.npy", lambda values: values.astype(str)),
        "FOLDER/responses/train-1.npy holds values of dtype <U5; numbers are expected.",
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
        "FOLDER/stimuli/train-1.npy holds NaN or infinite values, first in frame 7. Remove these movies or neurons",
    ),
    "infinite responses": (
        save("responses/test-1.npy", put((2, 5, 1), np.inf, np.float64)),
        "FOLDER/responses/test-1.npy holds NaN or infinite values, first in frame 5.",
    ),
    "negative counts": (
        save("responses/train-0.npy", put((3, 3), -2, np.float32)),
        "FOLDER/responses/train-0.npy holds the value -2, but the header says that responses (spikes per frame) are at "
        "least 0. Correct the file or its unit and range in the header.",
    ),
    "movie out of range": (
        save("stimuli/validation-0.npy", put((3, 3, 3), 256, np.int16)),
        "FOLDER/stimuli/validation-0.npy holds the value 256, but the header says that stimulus (grey level) are from "
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
    monkeypatch.setattr("december_plugin.datasets.movie_recording.BLOCK", 3 * 72)  # three frames of 8 x 9
    folder = Path(shutil.copytree(recording, tmp_path / "retina"))
    info, whole = (load(path, return_data_info=True)["retina-7"] for path in (folder, recording))
    assert info["img_std"] == pytest.approx(whole["img_std"], rel=1e-12)
    save("stimuli/train-1.npy", put((49, 7, 8), np.nan, np.float32))(folder)
    with pytest.raises(RecordingError, match=re.escape("first in frame 49.")):
        load(folder)


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
        "lead_frames=3 needs evaluation_frames; whole movies have no frames before.",
    ),
    "no frames": ({"chunk_frames": 0}, "chunk_frames is 0; it must be at least 1."),
    "one statistic": ({"inputs_std": 1.0}, "inputs_std was given without inputs_mean. Give both, or none."),
    "statistics of nothing": (
        {"inputs_mean": 1.0, "inputs_std": 1.0, "normalize": False},
        "inputs_mean and inputs_std were given together with normalize=False. Leave one of them out.",
    ),
    "unknown session": (
        {"neuron_ids": {"retina_7": [1]}},
        "neuron_ids names the session 'retina_7', which is not there. Did you mean 'retina-7'?",
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
