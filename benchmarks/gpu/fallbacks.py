"""What does not work here and was replaced by something slower: a training continues, a benchmark says so."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def reason_against(works: Callable[[], bool]) -> str:
    """Return the warning with which a check of a kernel says why it does not work; empty if it does."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if works():
            return ""
    return str(said[-1].message) if said else "it does not work on this device"


@contextmanager
def heard(name: str) -> Iterator[list[str]]:
    """Collect the warnings that a logger of this name, or one below it, gives."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    listener = Listener(logging.WARNING)
    logger = logging.getLogger(name)
    logger.addHandler(listener)
    try:
        yield said
    finally:
        logger.removeHandler(listener)
