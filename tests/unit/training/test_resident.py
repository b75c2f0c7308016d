"""Data that stay on the device: the same batches, the arithmetic of memory, and why some data cannot."""

from __future__ import annotations

import logging
import re

import numpy as np
import pytest
import torch
from neuralpredictors.training import LongCycler
from torch.utils.data import DataLoader, SubsetRandomSampler

from december_plugin.datasets import static_loaders
from december_plugin.datasets.common.chunks import ChunkedMovie, Movie, MovieInMemory, chunk_loader, stack_stretches
from december_plugin.datasets.common.columns import Column
from december_plugin.datasets.common.trials import by_tier, stack_trials
from december_plugin.errors import SettingsError
from december_plugin.simulate import write_recording
from december_plugin.training import resident
from december_plugin.training.resident import (
    Shelf,
    data_budget,
    encode,
    free_memory,
    resident_loaders,
    value_table,
    why_not_resident,
)
from helpers.interrupted import Interrupted, Recorder, train
from helpers.resident import Session, session_loaders
from helpers.trainings import make_loaders

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("own_pretrainings")


def epochs(loaders, n=2):
    """Return the batches of some epochs of all sessions in turn, with other random numbers drawn in between."""
    torch.manual_seed(5)
    drawn = []
    for _ in range(n):
        for data_key, batch in LongCycler(loaders):
            drawn.append((data_key, batch._fields, [value.clone() for value in batch], torch.rand(())))
    return drawn


def same(first, second):
    for one, other in zip(first, second, strict=True):
        assert one[:2] == other[:2]
        assert all(torch.equal(a, b) for a, b in zip(one[2], other[2], strict=True))
        assert one[3] == other[3]


@pytest.mark.parametrize("tier", ["train", "validation"])
@pytest.mark.parametrize("own_generators", [False, True])
@pytest.mark.parametrize("setting", [True, "inputs"])
def test_the_batches_are_those_of_the_loaders_and_so_are_all_random_numbers(tier, own_generators, setting):
    expected = epochs(session_loaders(own_generators=own_generators)[tier])
    held = resident_loaders(session_loaders(own_generators=own_generators), CPU, setting)
    assert held["train"]["one"].columns["responses"].streamed is (setting == "inputs")
    assert [len(loader) for loader in held[tier].values()] == [4, 3] if tier == "train" else [2, 2]
    same(epochs(held[tier]), expected)


def test_recordings_with_behaviour_are_served_field_by_field(tmp_path):
    folder = write_recording(
        tmp_path / "static1-1-1-x", n_neurons=6, n_train=14, n_validation=4, n_test=0, image_shape=(9, 9), behavior=True
    )
    settings = {"include_behavior": True, "include_eye_position": True}
    held = resident_loaders(static_loaders([folder], 5, **settings), CPU, True)
    same(epochs(held["train"]), epochs(static_loaders([folder], 5, **settings)["train"]))
    assert next(iter(next(iter(held["train"].values()))))._fields == ("images", "responses", "behavior", "pupil_center")


def movie_loaders(*, jitter):
    """Return loaders of a movie of grey levels, two channels and 60 frames, which two sessions share."""
    shown = MovieInMemory(torch.randint(9, (2, 60, 3, 4), generator=torch.Generator().manual_seed(0)).float())
    common = {"movie": shown, "chunk": 12, "jitter": jitter, "frame_rate": 30.0, "response_unit": "spikes"}
    sessions = {}
    for n, data_key in ((5, "one"), (3, "two")):
        responses = torch.rand(60, n, generator=torch.Generator().manual_seed(n))
        own = {"data_key": data_key, "responses": responses, "neurons": None, "mean_responses": None, **common}
        tiers = {"train": np.arange(0, 42, 10), "validation": np.array([44, 48])}
        sessions[data_key] = {
            tier: chunk_loader(ChunkedMovie(starts=starts, **own), tier, batch_size=2) for tier, starts in tiers.items()
        }
    return by_tier(sessions)


@pytest.mark.parametrize("tier", ["train", "validation"])
def test_stretches_of_movies_that_are_in_memory_are_served_alike(tier):
    expected = epochs(movie_loaders(jitter=7)[tier])
    same(epochs(resident_loaders(movie_loaders(jitter=7), CPU, "inputs")[tier]), expected)
    held = resident_loaders(movie_loaders(jitter=7), CPU, True)[tier]
    same(epochs(held), expected)
    batch = next(iter(held["one"]))
    assert [value.is_contiguous() for value in batch] == [True, True]
    assert held["one"].columns["videos"].values is held["two"].columns["videos"].values


def test_compact_stretches_are_served_alike():
    loader = movie_loaders(jitter=1)["train"]["one"]
    shelf, _ = shelf_of(loader.dataset.columns(), budget=None)
    assert str(shelf) == "0.00 GB, videos as uint8 (lossless), responses as float32"
    starts = torch.tensor([3, 40, 0])
    videos, responses = (column.take(starts) for column in shelf.hold(loader.dataset.columns()).values())
    expected = stack_stretches([loader.dataset[start] for start in starts.tolist()])
    assert torch.equal(videos, expected.videos)
    assert torch.equal(responses, expected.responses)


@pytest.mark.parametrize("settings", [{"max_iter": 3}, {"max_iter": 4, "pretrain_epochs": 2, "n_clusters": 3}])
def test_a_training_on_resident_data_ends_with_the_same_bytes(settings):
    expected = train(loaders=session_loaders, resident_data=False, share_pretraining=False, **settings)
    assert train(loaders=session_loaders, resident_data=True, share_pretraining=False, **settings) == expected


def test_data_may_become_resident_between_interruption_and_resumption():
    expected = train(loaders=session_loaders, max_iter=3)
    recorder = Recorder(stop=1)
    with pytest.raises(Interrupted):
        train(recorder, loaders=session_loaders, max_iter=3, resident_data=False)
    assert train(Recorder(recorder.states[1]), loaders=session_loaders, max_iter=3, resident_data=True) == expected


# --- one byte for each value -----------------------------------------------------------------------------------------


def test_at_most_256_values_are_kept_bit_for_bit(monkeypatch):
    monkeypatch.setattr(resident, "CHUNK", 50)
    levels = (torch.arange(256, dtype=torch.float32) - 110.3) / 57.9
    levels[:3] = torch.tensor([float("nan"), -0.0, 0.0])
    values = levels[torch.randint(256, (40, 1, 5, 6), generator=torch.Generator().manual_seed(0))]
    table = value_table(values, CPU)
    codes = encode(values, table)
    assert (codes.dtype, codes.shape) == (torch.uint8, values.shape)
    assert torch.equal(table[codes.long()].view(torch.int32), values.view(torch.int32))


def test_more_values_are_kept_as_they_are():
    assert value_table(torch.arange(257.0)[:, None], CPU) is None
    assert len(value_table(torch.arange(256.0)[:, None], CPU)) == 256
    assert value_table(torch.arange(3), CPU) is None


def shelf_of(*datasets, budget):
    shelf = Shelf(CPU, compact=True)
    for columns in datasets:
        shelf.announce(columns)
    return shelf, shelf.choose(budget)


GREY = (torch.arange(100 * 64) % 200).float().reshape(100, 1, 8, 8)
SMOOTH = torch.linspace(-3, 3, 100 * 64).reshape(100, 1, 8, 8)
COUNTED, MEASURED = torch.ones(100, 7), torch.linspace(0, 1, 700).reshape(100, 7)
ROWS = torch.arange(300) // 3


def test_the_memory_that_data_take():
    assert shelf_of({"images": Column(SMOOTH), "responses": Column(MEASURED)}, budget=None)[0].n_bytes == 25600 + 2800
    assert shelf_of({"images": Column(GREY), "responses": Column(MEASURED)}, budget=None)[0].n_bytes == 6400 + 2800
    assert shelf_of({"images": Column(GREY), "responses": Column(COUNTED)}, budget=None)[0].n_bytes == 6400 + 700
    shared = {"images": Column(GREY, ROWS), "responses": Column(MEASURED)}, {"images": Column(GREY, ROWS)}
    assert shelf_of(*shared, budget=None)[0].n_bytes == 6400 + 300 * 8 + 2800


@pytest.mark.parametrize(
    ("budget", "listed", "n_bytes"),
    [
        (28400, "images as float32, responses as float32", 28400),
        (28399, "images as float32, responses as float32 from the host", 25600),
        (25599, "images as float16 (relative errors up to 0.05 %), responses as float32 from the host", 12800),
    ],
)
def test_what_loses_nothing_comes_before_what_does(budget, listed, n_bytes):
    shelf, reason = shelf_of({"images": Column(SMOOTH), "responses": Column(MEASURED)}, budget=budget)
    assert (reason, str(shelf), shelf.n_bytes) == (None, f"0.00 GB, {listed}", n_bytes)


def test_images_may_be_halved():
    columns = {"images": Column(SMOOTH), "responses": Column(MEASURED)}
    shelf, _ = shelf_of(columns, budget=12800)
    held = shelf.hold(columns)
    trials = torch.tensor([3, 3, 99])
    assert held["images"].take(trials).dtype == torch.float32
    torch.testing.assert_close(held["images"].take(trials), SMOOTH[trials], rtol=5e-4, atol=1e-6)
    assert torch.equal(held["responses"].take(trials), MEASURED[trials])


def test_data_that_do_not_fit_say_how_much_they_need():
    _, reason = shelf_of({"images": Column(SMOOTH.repeat(1000, 1, 1, 1))}, budget=12_799_999)
    assert reason == "they take 0.01 GB at least, of the 0.01 GB that they may"


def test_compact_columns_serve_what_the_dataset_does():
    session = Session(5, seed=0)
    session.images = session.images.round()
    shelf, _ = shelf_of(session.columns(), budget=None)
    held, trials = shelf.hold(session.columns()), torch.tensor([0, 7, 7, 59])
    assert str(shelf) == "0.00 GB, images as uint8 (lossless), responses as uint8 (lossless)"
    for column, expected in zip(held.values(), session.batch(trials), strict=True):
        assert torch.equal(column.take(trials), expected)


def test_the_model_has_at_least_as_much_memory_as_the_data_and_a_reserve():
    gigabyte = 2**30
    assert data_budget(24 * gigabyte) == 12 * gigabyte
    assert data_budget(3 * gigabyte) == 1 * gigabyte
    assert data_budget(1 * gigabyte) == 0


@pytest.mark.parametrize(("share", "left"), [(1.0, 75), (0.5, 30), (0.1, 0)])
def test_of_a_shared_gpu_a_process_has_its_share(monkeypatch, share, left):
    answers = {"mem_get_info": (60, 100), "memory_reserved": 25, "memory_allocated": 10 if share == 1 else 20}
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, answer=answer: answer)
    number_only = {None: share, 1: share}  # torch.device("cuda") is an error there
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", number_only.__getitem__, raising=False)
    assert free_memory(torch.device("cuda")) == free_memory(torch.device("cuda:1")) == left


# --- data that cannot ------------------------------------------------------------------------------------------------


class Own(DataLoader):
    pass


class OnDisk(Movie):
    n_frames = 60

    def stretch(self, start, stop):
        raise NotImplementedError

    def update_digest(self, digest):
        raise NotImplementedError


def on_disk():
    loader = movie_loaders(jitter=1)["train"]["one"]
    loader.dataset.movie = OnDisk()
    return loader


SESSION = Session(4, seed=0)
STACKED = {"batch_size": 4, "sampler": SubsetRandomSampler(range(8)), "collate_fn": stack_trials}
CANNOT = {
    "its loader is a Own, not torch's DataLoader": lambda: Own(SESSION, **STACKED),
    "its loader is a list, not torch's DataLoader": lambda: [1, 2],
    "its dataset, a Recording, makes new batches in every epoch": lambda: make_loaders()["train"]["one"],
    "its stimuli are not in memory": on_disk,
    "its loader has 2 worker(s)": lambda: DataLoader(SESSION, num_workers=2, **STACKED),
    "its loader makes batches in its own way (batch_sampler, collate_fn)": lambda: DataLoader(SESSION, batch_size=4),
}


@pytest.mark.parametrize("reason", CANNOT)
def test_why_data_cannot_be_resident(reason):
    assert why_not_resident(CANNOT[reason]()) == reason


def test_data_that_cannot_be_resident_are_an_error_where_that_is_asked_for():
    message = (
        "resident_data is true, but the data cannot stay on cpu (session 'one': its dataset, a Recording, makes "
        "new batches in every epoch). Use 'auto', which leaves them where they are in that case."
    )
    with pytest.raises(SettingsError, match=f"^{re.escape(message)}$"):
        resident_loaders(make_loaders(), CPU, True)


def test_otherwise_they_stay_where_they_are_and_the_log_says_why(caplog):
    assert resident_loaders(make_loaders(), torch.device("cuda"), "auto") is None
    assert caplog.record_tuples == [
        (
            "december_plugin.training.resident",
            logging.WARNING,
            "the data do not stay on cuda, every batch is copied there (session 'one': its dataset, a Recording, makes "
            "new batches in every epoch)",
        )
    ]


@pytest.mark.parametrize("setting", ["auto", False])
def test_on_the_cpu_loaders_are_left_as_they_are_and_nothing_is_said(setting, caplog):
    assert resident_loaders(session_loaders(), CPU, setting) is None
    assert caplog.records == []


@pytest.mark.parametrize(
    ("name", "allowed"),
    [("resident_data", "true, false, 'auto' or 'inputs'"), ("cuda_graphs", "true, false or 'auto'")],
)
def test_wrong_settings(name, allowed):
    with pytest.raises(SettingsError, match=rf"^{name} is 'yes'; it must be {allowed}\.$"):
        train(loaders=session_loaders, **{name: "yes"})
