"""Fixtures for the retina extra. Its tests need openretina: `make retina` runs them in an environment of their own."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from december_plugin.datasets import hoefling_2024_loaders, sridhar_2025_loaders
from helpers.retina_files import GEOMETRY, Hoefling, write_hoefling, write_sridhar

WITHOUT_EXTRA = "test_missing_extra"
SESSIONS = {
    "session_1_ventral1_20201021": {"n_neurons": 6, "order": 1},
    "session_2_ventral1_20201021": {"n_neurons": 4, "order": 2, "eye": "left"},
    "session_1_dorsal1_20200626": {"n_neurons": 3, "order": 1, "eye": "left"},
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if importlib.util.find_spec("openretina") is None:
        here = Path(__file__).parent
        for item in items:
            if here in item.path.parents and item.path.stem != WITHOUT_EXTRA:
                item.add_marker(pytest.mark.skip(reason="needs openretina: run `make retina`"))


@pytest.fixture(scope="session")
def hoefling(tmp_path_factory: pytest.TempPathFactory) -> Hoefling:
    """Three sessions of 6, 4 and 3 neurons; never write into it."""
    return write_hoefling(tmp_path_factory.mktemp("hoefling"), SESSIONS)


@pytest.fixture(scope="session")
def hoefling_loaders(hoefling: Hoefling) -> dict:
    return hoefling_2024_loaders(hoefling.responses, hoefling.movie, 16)


@pytest.fixture(scope="session")
def sridhar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two retinas of 5 and 3 cells; never write into it."""
    return write_sridhar(tmp_path_factory.mktemp("sridhar") / "data", {"01": 5, "02": 3})


@pytest.fixture(scope="session")
def sridhar_loaders(sridhar: Path) -> dict:
    return sridhar_2025_loaders(
        sridhar,
        4,
        retinas=["01", "02"],
        excluded_cells={"01": [2]},
        chunk_frames=10,
        lead_frames=5,
        **GEOMETRY,
    )
