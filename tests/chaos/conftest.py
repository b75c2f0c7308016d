"""One laboratory for all scenarios: a server of its own, whose processes are all ended."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from chaoslab.laboratory import Laboratory


@pytest.fixture(scope="session")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    seed = int(os.environ.get("CHAOS_SEED", "1"))  # of all random choices
    with Laboratory(tmp_path_factory.mktemp("chaos"), seed=seed) as laboratory:
        yield laboratory
