"""Tells a worker's supervisor that the worker could begin: one byte through a pipe.

What ends a worker after that is not a mistake in the settings, which would have kept it from beginning. The supervisor
can read the byte even after the worker's death, and needs no database for it.
"""

from __future__ import annotations

import os
from contextlib import suppress

VARIABLE = "DECEMBER_READY_FD"  # in the environment of a worker: its end of the pipe


def tell_supervisor() -> None:
    """Report that this worker could begin, if it has a supervisor that listens; further calls do nothing."""
    number = os.environ.pop(VARIABLE, "")
    if number.isdecimal():
        with suppress(OSError):  # the supervisor has ended
            os.write(int(number), b"1")
        with suppress(OSError):
            os.close(int(number))


class Listener:
    """The supervisor's end of the pipe."""

    def __init__(self) -> None:
        self._reading, self.writing = os.pipe()
        os.set_blocking(self._reading, False)

    def was_told(self) -> bool:
        """Return whether the worker has reported that it could begin since the last call."""
        try:
            return bool(os.read(self._reading, 1))
        except BlockingIOError:
            return False

    def hand_over(self) -> None:
        """Close the worker's end."""
        os.close(self.writing)

    def close(self) -> None:
        """Stop listening."""
        os.close(self._reading)
