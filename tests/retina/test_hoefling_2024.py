"""Mouse retina movies of Höfling et al. 2024: what is served, and to whom the responses belong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from december_plugin.datasets import hoefling_2024_loaders, hoefling_2024_types
from december_plugin.embeddings.readout_vectors import unit_ids_of
from december_plugin.errors import SettingsError
from december_plugin.training.fingerprint import data_digest
from helpers.retina_files import Hoefling, drive_of

FIRST, SECOND, THIRD = "session_1_ventral1_20201021", "session_2_ventral1_20201021", "session_1_dorsal1_20200626"


def load(recording: Hoefling, **settings: Any) -> dict:
    return hoefling_2024_loaders(recording.responses, recording.movie, 16, **settings)


def test_batches_have_the_shapes_of_movies(hoefling_loaders: dict) -> None:
    assert {tier: sorted(loaders) for tier, loaders in hoefling_loaders.items()} == {
        tier: [THIRD, FIRST, SECOND] for tier in ("train", "validation", "test")
    }
    sizes = {"train": (16, 50), "validation": (5, 150), "test": (1, 750)}
    for tier, (batch_size, frames) in sizes.items():
        batch = next(iter(hoefling_loaders[tier][FIRST]))
        assert batch._fields == ("videos", "responses")
        assert batch.videos.shape == (batch_size, 2, frames, 6, 5)
        assert batch.responses.shape == (batch_size, frames, 6)
        assert batch.videos.dtype == batch.responses.dtype == torch.float32
    # 93 clips of 150 frames in stretches of 50, 15 clips for validation, one test movie.
    assert [len(hoefling_loaders[tier][FIRST].dataset) for tier in sizes] == [279, 15, 1]
    assert hoefling_loaders["train"][FIRST].dataset.frame_rate == 30.0


@pytest.mark.parametrize("tier", ["train", "validation", "test"])
@pytest.mark.parametrize("session", [FIRST, SECOND, THIRD])
def test_responses_belong_to_their_frames_and_neurons(
    hoefling: Hoefling, hoefling_loaders: dict, session: str, tier: str
) -> None:
    # The neurons follow a known pixel of what the left or right eye saw in the session's order of clips. An order, an
    # eye or a neuron mistaken for another one would leave a correlation near 0. It is below 1 because imaging is slower
    # than the movie, and because what was seen before a clip is not known here.
    dataset = hoefling_loaders[tier][session].dataset
    video = dataset.movie.stretch(0, dataset.movie.n_frames).numpy()
    for neuron, pixel in enumerate(hoefling.pixels[session]):
        rate = np.log1p(np.exp(3 * drive_of(video, pixel)))
        assert np.corrcoef(rate, dataset.responses[:, neuron].numpy())[0, 1] > 0.7


def test_a_stretch_is_cut_from_movie_and_responses_alike(hoefling_loaders: dict) -> None:
    loader = hoefling_loaders["validation"][SECOND]
    batches = list(loader)
    videos = torch.cat([batch.videos for batch in batches])
    responses = torch.cat([batch.responses for batch in batches])
    assert torch.equal(videos.transpose(0, 1).flatten(1, 2), loader.dataset.movie.frames)
    assert torch.equal(responses.flatten(0, 1), loader.dataset.responses)


def test_test_responses_are_means_over_repeats(hoefling_loaders: dict) -> None:
    dataset = hoefling_loaders["test"][FIRST].dataset
    assert dataset.responses_by_repeat.shape == (3, 750, 6)
    torch.testing.assert_close(dataset.responses_by_repeat.mean(dim=0), dataset.responses)
    assert hoefling_loaders["train"][FIRST].dataset.responses_by_repeat is None


def test_units_are_the_roi_ids_that_pass_the_selection(hoefling: Hoefling, hoefling_loaders: dict) -> None:
    assert {key: list(ids) for key, ids in unit_ids_of(hoefling_loaders).items()} == {
        FIRST: [1, 2, 3, 4, 5, 6],
        SECOND: [1, 2, 3, 4],
        THIRD: [1, 2, 3],
    }
    chosen = load(hoefling, cell_types=[8], sessions=[FIRST])["train"][FIRST].dataset
    assert list(chosen.neurons.unit_ids) == [2, 4, 6]
    assert list(chosen.neurons.cell_types) == [8, 8, 8]
    everyone = hoefling_loaders["train"][FIRST].dataset
    assert torch.equal(chosen.responses, everyone.responses[:, [1, 3, 5]])
    assert torch.equal(torch.from_numpy(chosen.mean_responses), torch.from_numpy(everyone.mean_responses[[1, 3, 5]]))


def test_sessions_of_one_retina_are_chosen_by_a_pattern(hoefling: Hoefling) -> None:
    assert sorted(load(hoefling, sessions="session_1_*_20201021")["train"]) == [FIRST]
    assert sorted(load(hoefling, sessions=["*_20201021", THIRD], exclude_sessions=[SECOND])["train"]) == [THIRD, FIRST]
    # A session alone is the same as among others: the orders of clips that nobody saw change nothing.
    alone, among = (load(hoefling, sessions=names)["train"][SECOND].dataset for names in (SECOND, None))
    assert torch.equal(alone.movie.frames, among.movie.frames)
    assert alone.fingerprint() == among.fingerprint()


def test_an_unknown_session_is_named_with_a_suggestion(hoefling: Hoefling) -> None:
    with pytest.raises(
        SettingsError, match=r"sessions: no session of .*responses.h5 is 'session_1_ventral_20201021'. D"
    ):
        load(hoefling, sessions=["session_1_ventral_20201021"])
    with pytest.raises(SettingsError, match=r"exclude_sessions='\*' leaves no session of .*responses.h5\."):
        load(hoefling, exclude_sessions="*")


def test_training_stretches_are_drawn_anew_from_torchs_generator(hoefling_loaders: dict) -> None:
    loader = hoefling_loaders["train"][FIRST]
    epochs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        epochs.append([list(loader.sampler), list(loader.sampler)])
    assert epochs[0] == epochs[1]
    assert epochs[0] != epochs[2]
    assert epochs[0][0] != epochs[0][1]
    for epoch in epochs[0]:
        assert len(epoch) == 279
        assert 0 <= min(epoch) <= max(epoch) <= 93 * 150 - 50
    plan = torch.arange(0, 93 * 150, 50)
    moves = torch.cat([torch.tensor(sorted(epoch)) - plan for epoch in epochs[0]])
    assert moves.abs().max() < 50
    assert len(moves.unique()) > 25


def test_loading_leaves_no_trace(hoefling: Hoefling, capfd: pytest.CaptureFixture) -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    load(hoefling, sessions=FIRST, seed=3)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert capfd.readouterr() == ("", "")


def test_equal_data_have_equal_digests(hoefling: Hoefling, hoefling_loaders: dict) -> None:
    tiers = ("train", "validation")
    assert data_digest(hoefling_loaders, tiers) == data_digest(load(hoefling), tiers)
    assert data_digest(hoefling_loaders, tiers) != data_digest(load(hoefling, trace_type="raw"), tiers)


def test_data_info_describes_the_sessions(hoefling: Hoefling, hoefling_loaders: dict) -> None:
    info = load(hoefling, return_data_info=True)
    assert sorted(info) == [THIRD, FIRST, SECOND]
    assert info[FIRST]["input_dimensions"] == [1, 2, 50, 6, 5]
    assert info[FIRST]["output_dimension"] == 6
    assert info[FIRST]["frame_rate"] == 30.0
    responses = hoefling_loaders["train"][FIRST].dataset.responses.numpy()
    np.testing.assert_allclose(info[FIRST]["mean_responses"], responses.mean(axis=0), rtol=1e-5)


def test_newer_exports_store_start_and_step_of_the_times(hoefling: Hoefling, tmp_path: Any) -> None:
    import h5py

    path = tmp_path / "newer.h5"
    path.write_bytes(hoefling.responses.read_bytes())
    with h5py.File(path, "r+") as file:
        for group in file.values():
            times = group["natural_traces_times"][...]
            group["natural_traces_t0"], group["natural_traces_dt"] = times[:, 0], times[:, 1] - times[:, 0]
            group["natural_spikes"] = group["natural_inferred_spikes"][...]
            del group["natural_traces_times"], group["natural_inferred_spikes"]
    newer = hoefling_2024_loaders(path, hoefling.movie, sessions=FIRST)["train"][FIRST].dataset
    older = load(hoefling, sessions=FIRST)["train"][FIRST].dataset
    torch.testing.assert_close(newer.responses, older.responses, rtol=1e-4, atol=1e-4)


def test_known_types_are_the_groups_of_the_file(hoefling: Hoefling) -> None:
    types = hoefling_2024_types(hoefling.responses, sessions=SECOND)
    assert types.keys() == {SECOND}
    units, labels = types[SECOND]
    assert list(units) == [1, 2, 3, 4]
    assert labels == ["1 OFF local, OS", "8 OFF alpha trans"] * 2
    assert hoefling_2024_types(hoefling.responses, sessions=SECOND, level="class")[SECOND][1] == ["OFF"] * 4
    assert hoefling_2024_types(hoefling.responses, sessions=SECOND, min_confidence=0.95)[SECOND][1] == [None] * 4
