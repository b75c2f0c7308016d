"""What all tests need: signals that are heard, marks that follow from what a test uses, and long files first."""

from __future__ import annotations

import functools
import logging
import os
import signal
from collections import defaultdict
from pathlib import Path

import pytest

from december_plugin.security import redaction

# A shell has SIGINT ignored in what it starts in the background, nohup SIGHUP: that is inherited by every process that
# a test starts, which then never hears what the test sends.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)

# Triton decides when it is imported whether it interprets its kernels on the CPU.
if not any(Path("/dev").glob("nvidia[0-9]*")) and not Path("/dev/dxg").exists():  # the second is Windows' way
    os.environ.setdefault("TRITON_INTERPRET", "1")

# The fixtures that start what a mark is about, each with the mark.
NEEDS = {"server": "database", "laboratory": "database", "slurm": "slurm", "browser": "browser"}


@pytest.fixture(autouse=True)
def _heard_log() -> None:
    """Let the package log as it does at first: a worker in this process, of an earlier test, sets a level."""
    logging.getLogger("december_plugin").setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def _own_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process forget what a test has told it to keep secret."""
    monkeypatch.setattr(redaction, "_remembered", set())


@functools.cache
def has_gpu() -> bool:
    """Whether torch sees a GPU; it is imported only if a test asks."""
    import torch

    return torch.cuda.is_available()


def seconds_of(item: pytest.Item) -> float:
    """Return how long a test takes on an idle machine, as its mark ``slow`` says."""
    return max((mark.args[0] for mark in item.iter_markers("slow")), default=0.0)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for fixture in NEEDS.keys() & set(getattr(item, "fixturenames", ())):
            item.add_marker(NEEDS[fixture])
        if item.get_closest_marker("gpu") and not has_gpu():
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))
    if hasattr(config, "workerinput"):  # of several processes: the file that takes longest first
        seconds: defaultdict[Path, float] = defaultdict(float)
        for item in items:
            seconds[item.path] += seconds_of(item)
        items.sort(key=lambda item: -seconds[item.path])
