"""Recordings that stay in memory: what is kept, until when, and that nobody can tell a job's result from the others."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from december_plugin.datasets import static_loaders
from december_plugin.datasets.common import data_cache
from december_plugin.datasets.common.data_cache import DataCache, current_cache, kept_between_jobs
from december_plugin.errors import RecordingError
from december_plugin.simulate import write_recording


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what was written a moment ago count as old."""
    monkeypatch.setattr(data_cache, "SETTLED_SECONDS", -1e9)


class Files:
    """A file for each key, and tensors of 800 bytes that are made of them."""

    def __init__(self, folder: Path, cache: DataCache):
        self.folder, self.cache = folder, cache
        self.read: list[str] = []

    def get(self, key: str) -> torch.Tensor:
        path = self.folder / key
        if not path.exists():
            path.write_bytes(b"0" * 800)

        def load() -> dict[str, list[torch.Tensor]]:
            self.read.append(key)
            return {"sessions": [torch.full((200,), 1.5)]}

        return self.cache.get(key, [path], load)["sessions"][0]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path, DataCache(2000))


def test_the_least_recently_used_goes_first(files: Files) -> None:
    for key in ("a", "b", "a", "c", "a", "b"):
        files.get(key)
    assert files.read == ["a", "b", "c", "b"]
    assert files.cache.n_bytes == 1600


def test_room_is_made_before_anything_else_is_read(files: Files) -> None:
    files.get("a")
    (files.folder / "big").write_bytes(b"0" * 1500)
    there: list[int] = []
    files.cache.get("big", [files.folder / "big"], lambda: there.append(files.cache.n_bytes))
    assert there == [0]


def test_nothing_is_kept_that_does_not_fit(files: Files) -> None:
    for _ in range(2):
        files.cache.get("big", [files.folder], lambda: files.read.append("big") or torch.zeros(1000))
    assert files.read == ["big", "big"]
    assert files.cache.n_bytes == 0


def test_all_goes_when_the_machine_is_short_of_memory(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    files.get("a")
    monkeypatch.setattr(data_cache, "free_memory", lambda: 1000)
    files.get("b")
    assert files.cache.n_bytes == 800
    files.get("a")
    assert files.read == ["a", "b", "a"]


@pytest.mark.parametrize("change", ["content", "time kept", "other file", "gone and back"])
def test_files_that_changed_are_read_again(files: Files, change: str) -> None:
    files.get("a")
    path = files.folder / "a"
    before = path.stat()
    if change == "content":
        path.write_bytes(b"1" * 800)
        os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns + 1))
    elif change == "time kept":  # as by rsync -t or cp -p
        path.write_bytes(b"1" * 800)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif change == "other file":
        shutil.copy2(path, files.folder / "copy")
        (files.folder / "copy").replace(path)
    else:
        path.unlink()
    files.get("a")
    assert files.read == ["a", "a"]


def test_files_that_may_change_at_the_same_time_are_not_kept(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_cache, "SETTLED_SECONDS", 2.0)
    files.get("a")
    assert files.cache.n_bytes == 0


def test_data_that_somebody_wrote_into_are_read_again(files: Files) -> None:
    files.get("a")[3:5].mul_(2)
    assert files.get("a")[3] == 1.5
    assert files.read == ["a", "a"]


def test_outside_of_a_worker_nothing_is_kept(tmp_path: Path) -> None:
    assert current_cache().limit == 0
    cache = DataCache(10)
    with kept_between_jobs(cache):
        assert current_cache() is cache
    assert current_cache().limit == 0


def test_free_memory_is_known_here() -> None:
    free = data_cache.free_memory()
    assert free is not None
    assert 0 < data_cache.default_limit() < free


def test_workers_that_begin_together_leave_half_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_cache, "free_memory", lambda: 3200)
    assert [data_cache.default_limit(number) for number in (1, 4, 5, 16)] == [400, 400, 320, 100]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("recordings")
    sizes = {"n_neurons": 8, "n_train": 20, "n_validation": 5, "n_test": 3, "n_repeats": 2}
    return [str(write_recording(folder / f"static{i}-1-1-simulated", seed=i, **sizes)) for i in (1, 2)]


def batches(loaders: dict) -> dict[str, list[bytes]]:
    """Return everything that loaders serve in two epochs, from a random state of its own."""
    torch.manual_seed(7)
    return {
        f"{tier} {key}": [item.numpy().tobytes() for _ in range(2) for batch in loader for item in batch]
        for tier, sessions in loaders.items()
        for key, loader in sessions.items()
    }


def test_a_job_gets_the_same_batches_from_memory_whatever_was_done_before(folders: list[str]) -> None:
    expected = batches(static_loaders(folders, 4, seed=2))
    with kept_between_jobs(DataCache(10**8)):
        first = static_loaders(folders, 6, seed=1)
        batches(first)
        torch.rand(3)
        second = static_loaders(folders, 4, seed=2)
        for loader, before in zip(second["train"].values(), first["train"].values(), strict=True):
            assert loader.dataset is before.dataset
            assert loader.sampler is not before.sampler
        assert batches(second) == expected


def test_other_settings_are_other_data(folders: list[str]) -> None:
    with kept_between_jobs(DataCache(10**8)):
        static_loaders(folders, 4)
        fewer = static_loaders(folders, 4, neuron_n=3, neuron_base_seed=1)
        assert {loader.dataset.n_neurons for loader in fewer["train"].values()} == {3}
        assert {loader.dataset.n_neurons for loader in static_loaders(folders, 4)["train"].values()} == {8}


def test_a_recording_that_changes_between_two_jobs_is_noticed(folders: list[str], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders[0], tmp_path / "static1-1-1-simulated"))
    with kept_between_jobs(DataCache(10**8)):
        static_loaders([folder], 4)
        file = folder / "data" / "responses" / "3.npy"
        np.save(file, np.full(8, np.nan))
        with pytest.raises(RecordingError, match="NaN or infinite"):
            static_loaders([folder], 4)
