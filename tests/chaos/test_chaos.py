"""The short form: every fault of the table, a few times, on real processes; ``make chaos`` runs the long form."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chaoslab.forms import SHORT
from chaoslab.laboratory import Laboratory


@pytest.fixture
def clean(laboratory: Laboratory) -> Iterator[Laboratory]:
    """Return the laboratory; afterwards no process of the scenario is left and the server runs, whatever happened."""
    yield laboratory
    laboratory.end_processes()
    laboratory.server.start()


@pytest.mark.parametrize("name", SHORT)
def test_nothing_is_lost(name: str, clean: Laboratory) -> None:
    figures = SHORT[name](clean)
    print(figures)
    if figures.left_out:
        pytest.skip(figures.left_out)
    assert not figures.failures, str(figures)
