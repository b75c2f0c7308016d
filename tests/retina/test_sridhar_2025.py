"""Marmoset retina movies of Sridhar et al. 2026: what is served, against openretina's own dataset."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from december_plugin.datasets import sridhar_2025_loaders
from december_plugin.embeddings.readout_vectors import unit_ids_of
from december_plugin.training.fingerprint import data_digest
from helpers.retina_files import GEOMETRY, IMAGE, PADDING, WINDOW, response_file


def load(folder: Path, **settings: Any) -> dict:
    given = {"retinas": "01", "chunk_frames": 10, "lead_frames": 5, **GEOMETRY, **settings}
    return sridhar_2025_loaders(folder, 4, **given)


def openretinas(folder: Path, retina: str, excluded: list[int]) -> dict:
    from openretina.data_io.sridhar_2025.dataloaders import frame_movie_loader

    file = (
        "complete_fixations_seed2022_s4.txt" if retina == "02" else "complete_fixations_seed_2022and2023_s4_fixed.txt"
    )
    return frame_movie_loader(
        files={retina: response_file(folder, retina).relative_to(folder)},
        fixation_files={retina: f"fixations/{file}"},
        big_crops={retina: GEOMETRY["crop"]},
        basepath=folder,
        excluded_cells={retina: excluded},
        img_dir_name="stimuli_padded_4",
        num_of_frames=6,  # 5 frames more than are predicted
        num_of_layers=1,
        time_chunk_size=10,
        full_img_w=IMAGE[0],
        full_img_h=IMAGE[1],
        img_w=WINDOW[0],
        img_h=WINDOW[1],
        padding=PADDING,
        get_locations=False,
    )


def test_batches_have_the_shapes_of_movies(sridhar_loaders: dict) -> None:
    assert {tier: sorted(loaders) for tier, loaders in sridhar_loaders.items()} == {
        tier: ["retina_01", "retina_02"] for tier in ("train", "validation", "test")
    }
    for loaders in sridhar_loaders.values():
        batch = next(iter(loaders["retina_01"]))
        assert batch._fields == ("videos", "responses")
        assert batch.videos.shape == (4, 1, 15, 7, 9)
        assert batch.responses.shape == (4, 15, 4)
        assert batch.videos.dtype == batch.responses.dtype == torch.float32
    # 3 trials for training and 1 for validation, each (60 - 5) / 10 stretches; (80 - 5) / 10 of the test.
    lengths = [len(sridhar_loaders[tier]["retina_01"].dataset) for tier in ("train", "validation", "test")]
    assert lengths == [15, 5, 7]
    assert sridhar_loaders["test"]["retina_01"].dataset.frame_rate == 85.0


def test_frames_and_responses_are_openretinas(sridhar: Path, sridhar_loaders: dict) -> None:
    for retina, excluded in (("01", [2]), ("02", [])):
        theirs = openretinas(sridhar, retina, excluded)
        for tier in ("train", "validation", "test"):
            ours, given = sridhar_loaders[tier][f"retina_{retina}"].dataset, theirs[tier][retina].dataset
            order = np.argsort(given.indices) if tier == "train" else range(len(given.indices))
            per_trial = len(given) if tier == "test" else len(given) // len(given.indices)
            rows = [trial * per_trial + part for trial in order for part in range(per_trial)]
            rows = rows[: len(ours)]
            for start, row in zip(ours.starts, rows, strict=True):
                given.last_start_index = given.last_end_index = -1  # its cache mixes trials up
                item = given[row]
                videos, responses = ours[start]
                assert torch.equal(videos, item.inputs)
                assert torch.equal(responses[5:], item.targets)


def test_units_count_the_cells_of_the_file(sridhar_loaders: dict) -> None:
    assert {key: list(ids) for key, ids in unit_ids_of(sridhar_loaders).items()} == {
        "retina_01": [0, 1, 3, 4],
        "retina_02": [0, 1, 2],
    }


def test_the_test_of_retina_01_is_the_mean_of_ten_trials(sridhar: Path, sridhar_loaders: dict) -> None:
    # openretina's rule: the later ones belong to another movie.
    for retina, n_trials, cells in (("01", 10, [0, 1, 3, 4]), ("02", 12, [0, 1, 2])):
        stored = pickle.loads(response_file(sridhar, retina).read_bytes())["test_responses"][cells, :, :n_trials]
        dataset = sridhar_loaders["test"][f"retina_{retina}"].dataset
        np.testing.assert_allclose(dataset.responses[:80].T, stored.mean(axis=2), rtol=1e-6)
        np.testing.assert_array_equal(dataset.responses_by_repeat, stored.transpose(2, 1, 0))


def test_mean_responses_are_those_of_the_training_trials(sridhar: Path, sridhar_loaders: dict) -> None:
    dataset = sridhar_loaders["train"]["retina_02"].dataset
    trials = sorted({(start - 5100) // 60 for start in dataset.starts})
    stored = pickle.loads(response_file(sridhar, "02").read_bytes())["train_responses"][:, :, trials]
    np.testing.assert_allclose(dataset.mean_responses, stored.mean(axis=(1, 2)), rtol=1e-6)


def test_no_frame_is_predicted_twice(sridhar_loaders: dict) -> None:
    for loaders in sridhar_loaders.values():
        dataset = loaders["retina_01"].dataset
        predicted = np.concatenate([np.arange(start + 5, start + 15) for start in dataset.starts])
        assert len(np.unique(predicted)) == len(predicted)


def test_the_split_depends_on_its_own_seed_alone(sridhar: Path) -> None:
    def trained(**settings: Any) -> list[int]:
        return list(load(sridhar, **settings)["train"]["retina_01"].dataset.starts)

    assert trained(seed=1) == trained(seed=2) == trained(split_seed=1000)
    assert len({tuple(trained(split_seed=seed)) for seed in range(8)}) > 1
    assert len(trained(train_fraction=0.5)) == 10


def test_loading_leaves_no_trace(sridhar: Path, capfd: Any) -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    load(sridhar)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert capfd.readouterr() == ("", "")


def test_equal_data_have_equal_digests(sridhar: Path) -> None:
    tiers = ("train", "validation")
    first = data_digest(load(sridhar), tiers)
    assert first == data_digest(load(sridhar), tiers)
    assert first != data_digest(load(sridhar, retinas="02"), tiers)
    assert first != data_digest(load(sridhar, excluded_cells={"01": [0]}), tiers)


def test_data_info_describes_the_sessions(sridhar: Path) -> None:
    info = load(sridhar, return_data_info=True)["retina_01"]
    assert info["input_dimensions"] == [1, 1, 15, 7, 9]
    assert info["output_dimension"] == 5
    assert info["response_unit"] == "spikes per frame"
