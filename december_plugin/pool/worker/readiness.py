"""How a worker tells its supervisor that it could begin: one byte through a pipe.

What ends a worker after that is no mistake in the settings, with which it could never have begun. The supervisor can
read the byte also after the worker's death, and needs no database for it.
"""

from __future__ import annotations

import os
from contextlib import suppress

VARIABLE = "DECEMBER_READY_FD"  # in the environment of a worker: its end of the pipe


def tell_supervisor() -> None:
    """Say that this worker could begin, if it has a supervisor that wants to know; called again, nothing happens."""
    number = os.environ.pop(VARIABLE, "")
    if number.isdecimal():
        with suppress(OSError):  # the supervisor is gone
            os.write(int(number), b"1")
        with suppress(OSError):
            os.close(int(number))


class Listener:
    """The supervisor's end of the pipe."""

    def __init__(self) -> None:
        self._reading, self.writing = os.pipe()
        os.set_blocking(self._reading, False)

    def was_told(self) -> bool:
        """Return whether the worker has said that it could begin, since the last time that this was asked."""
        try:
            return bool(os.read(self._reading, 1))
        except BlockingIOError:
            return False

    def hand_over(self) -> None:
        """Close the end that the worker has now."""
        os.close(self.writing)

    def close(self) -> None:
        """Listen no more."""
        os.close(self._reading)
