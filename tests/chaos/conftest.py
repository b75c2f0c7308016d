"""One laboratory for all scenarios: a server of its own, whose processes are all ended."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from chaoslab.laboratory import Laboratory
from helpers import warm


def start_process(words: list[str], **options: Any) -> subprocess.Popen:
    """Fork workers, of which chaos needs many; the long form executes them."""
    return warm.Popen(words, warm_children="pool" in words, **options)


@pytest.fixture(scope="session")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    seed = int(os.environ.get("CHAOS_SEED", "1"))  # of all random choices
    with Laboratory(tmp_path_factory.mktemp("chaos"), seed=seed, start_process=start_process) as laboratory:
        yield laboratory
