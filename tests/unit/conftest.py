"""Fixtures for unit tests: two small simulated sessions, their loaders and a model, and what keeps tests apart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib
import pytest
from torch import nn

from december_plugin.clustering import distances
from december_plugin.datasets import static_loaders
from december_plugin.models import stacked_core_gaussian_readout
from december_plugin.simulate import write_recording


@pytest.fixture(scope="session")
def recording_folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two sessions of 20 and 24 neurons on disk, with behaviour and pupil positions; never write into them."""
    root = tmp_path_factory.mktemp("recordings")
    sizes = {"n_train": 40, "n_validation": 12, "n_test": 3, "n_repeats": 4, "image_shape": (12, 14)}
    return [
        write_recording(root / "first", n_neurons=20, seed=1, behavior=True, feature_size=5, **sizes),
        write_recording(root / "second.v2", n_neurons=24, seed=2, behavior=True, feature_size=5, **sizes),
    ]


@pytest.fixture(scope="session")
def small_loaders(recording_folders: list[Path]) -> dict:
    """Loaders of ``recording_folders`` (keys ``first`` and ``second_v2``), images and responses, batches of 16."""
    return static_loaders(recording_folders, 16)


@pytest.fixture
def small_model(small_loaders: dict) -> nn.Module:
    """Build an untrained model of ``small_loaders`` (2 layers, 4 channels, seed 0), new for each test."""
    return stacked_core_gaussian_readout(small_loaders, 0, hidden_channels=4, layers=2, input_kern=5, hidden_kern=3)


@pytest.fixture
def own_pretrainings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the shared pretrainings of a test to itself."""
    monkeypatch.setenv("DECEMBER_PRETRAINING", str(tmp_path / "pretraining"))


@pytest.fixture
def matplotlib_as_before() -> Iterator[None]:
    """Check that a figure leaves matplotlib's settings as they were."""
    before = dict(matplotlib.rcParams)
    yield
    assert dict(matplotlib.rcParams) == before


@pytest.fixture(params=["one block", "many blocks"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test also with so little room that the neurons fall into several blocks."""
    if request.param == "many blocks":
        monkeypatch.setitem(distances.BLOCK_NUMBERS, "cpu", 1)
