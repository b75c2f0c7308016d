"""The short form: every fault of the table, a few times, on real processes; ``make chaos`` runs the long form."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import pytest

from chaoslab.figures import Figures
from chaoslab.forms import NEED_A_SERVER_OF_THEIR_OWN, SHORT, TOGETHER
from chaoslab.laboratory import Laboratory

pytestmark = pytest.mark.slow(30)


@pytest.fixture(scope="module")
def found() -> dict[str, Future[Figures]]:
    """Keep what was run side by side until its own test asks for it."""
    return {}


def alone(name: str, laboratory: Laboratory) -> Figures:
    """Run a scenario with a server of its own."""
    folder, start = laboratory.folder / f"{name}_alone", laboratory.start_process
    with Laboratory(folder, seed=laboratory.seed, start_process=start) as own:
        return SHORT[name](own)


def run(name: str, laboratory: Laboratory, found: dict[str, Future[Figures]]) -> Figures:
    if name not in found:
        group = next(group for group in TOGETHER if name in group)
        with ThreadPoolExecutor(len(group)) as threads:
            for each in group:
                scenario = partial(alone, each) if each in NEED_A_SERVER_OF_THEIR_OWN else SHORT[each]
                found[each] = threads.submit(scenario, laboratory)
        laboratory.end_processes()  # what a scenario that failed has left
    return found[name].result()


@pytest.mark.parametrize("name", SHORT)
def test_nothing_is_lost(name: str, laboratory: Laboratory, found: dict[str, Future[Figures]]) -> None:
    figures = run(name, laboratory, found)
    print(figures)
    if figures.left_out:
        pytest.skip(figures.left_out)
    assert not figures.failures, str(figures)
