"""The generic movie format: what is served, what stays on disk, and whether a model learns from it."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from december_plugin.datasets import movie_loaders
from december_plugin.datasets.movies.clips import DrawnClips
from december_plugin.errors import RecordingError, SettingsError
from december_plugin.evaluation.performance import correlation_to_average
from december_plugin.evaluation.predictions import predict_sessions, stimulus_ids_of
from december_plugin.models import movie_core_gaussian_readout
from december_plugin.simulate.movies import read_movie_truth, write_movie_recording
from december_plugin.trainers import baseline_trainer
from helpers.movie_recordings import SMALL, edit_header, load, put, save


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    return write_movie_recording(tmp_path_factory.mktemp("movies") / "retina-7", **SMALL)


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
    before = len(os.listdir("/dev/fd"))
    loaders = load(recording)
    batch = next(iter(loaders["train"]["retina-7"]))
    assert len(os.listdir("/dev/fd")) == before
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
    sizes = {"n_neurons": 16, "n_train": 2, "n_repeats": 6, "n_test_frames": 80, "image_shape": (10, 10)}
    folder = write_movie_recording(tmp_path / "retina", rate=1.0, **sizes)
    loaders = movie_loaders([folder], 2, chunk_frames=40)
    model = movie_core_gaussian_readout(
        loaders, 0, hidden_channels=[8], temporal_kernels=[7], spatial_kernels=[5], gamma_input=0.1, gamma_readout=0.01
    )
    _, _, state = baseline_trainer(model, loaders, 0, max_iter=6)
    model.load_state_dict(state)
    session = predict_sessions(model, loaders["test"])["retina"]
    ids = stimulus_ids_of(loaders["test"]["retina"], session.frames)
    scores = correlation_to_average(session.responses, session.predictions, ids)
    assert len(np.unique(ids)) == 2 * (80 - 6)
    assert scores.mean() > 0.5
