"""Recordings of many sessions: the same bytes as one by one, whatever the number of processes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from december_plugin.errors import RecordingError, SettingsError
from december_plugin.simulate import draw_recording, read_truth, scale, write_recording, write_recordings
from december_plugin.simulate.sensorium import RecordingTruth

SMALL = {"n_neurons": 12, "n_train": 6, "n_validation": 2, "n_test": 2, "n_repeats": 2, "image_shape": (8, 9)}


def content(folder: Path) -> dict[str, str]:
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


class InThisProcess:
    """Stands for a pool of processes, whose start would cost seconds; says how many it was asked for."""

    sizes: ClassVar[list[int]] = []

    def __init__(self, size, mp_context):
        self.sizes.append(size)
        assert mp_context.get_start_method() == "spawn"

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def submit(self, function, *arguments, **settings):
        value = function(*arguments, **settings)
        return type("Future", (), {"result": lambda self: value})()


def test_sessions_are_those_written_one_by_one(tmp_path, monkeypatch):
    monkeypatch.setattr(scale, "ProcessPoolExecutor", InThisProcess)
    written = write_recordings(tmp_path / "many", n_sessions=3, processes=2, behavior=True, **SMALL)
    assert [folder.name for folder in written] == [f"static{i}-1-1-GrayImageNet-simulated" for i in (1, 2, 3)]
    assert InThisProcess.sizes == [2]
    for folder in written:
        assert content(folder) == content(write_recording(tmp_path / folder.name, behavior=True, **SMALL))
    one, two, _ = (read_truth(folder) for folder in written)
    assert np.array_equal(one.type_tuning, two.type_tuning)
    assert not np.array_equal(one.tuning, two.tuning)


def test_seeds_are_counted(tmp_path):
    written = write_recordings(tmp_path / "many", n_sessions=2, processes=1, seed=5, **SMALL)
    for folder, seed in zip(written, (5, 6), strict=True):
        assert content(folder) == content(write_recording(tmp_path / folder.name, seed=seed, **SMALL))


def test_a_recording_in_memory_is_the_one_on_disk(tmp_path):
    folder = write_recording(tmp_path / "a", seed=3, behavior=True, **SMALL)
    drawn = draw_recording(seed=3, behavior=True, **SMALL)
    for item in ("images", "responses", "behavior", "pupil_center"):
        values = getattr(drawn, item)
        for trial in range(12):
            stored = np.load(folder / "data" / item / f"{trial}.npy")
            assert stored.dtype == values.dtype
            assert np.array_equal(stored, values[trial])
    assert np.array_equal(drawn.tiers, np.load(folder / "meta/trials/tiers.npy"))
    assert np.array_equal(drawn.image_ids, np.load(folder / "meta/trials/frame_image_id.npy"))
    assert np.array_equal(drawn.coordinates, np.load(folder / "meta/neurons/cell_motor_coordinates.npy"))
    truth = read_truth(folder)
    for name in RecordingTruth.__dataclass_fields__:
        assert np.array_equal(getattr(drawn.truth, name), getattr(truth, name))
    still = draw_recording(seed=3, **SMALL)
    assert still.behavior is None
    assert still.pupil_center is None


def test_errors(tmp_path):
    for settings, message in (
        ({"n_sessions": 0}, "n_sessions is 0; it must be at least 1."),
        ({"processes": 0}, "processes is 0; it must be at least 1."),
        ({"seed": -1}, "seed is -1; it must be at least 0."),
        ({"n_neurons": 1, "processes": 1}, "n_neurons is 1; it must be at least 2."),
    ):
        with pytest.raises(SettingsError) as error:
            write_recordings(tmp_path, **settings)
        assert str(error.value) == message
    with pytest.raises(SettingsError, match=r"^seed is -1; it must be at least 0\.$"):
        draw_recording(seed=-1)
    write_recordings(tmp_path, n_sessions=1, **SMALL)
    with pytest.raises(RecordingError, match="exists already"):
        write_recordings(tmp_path, n_sessions=1, **SMALL)
