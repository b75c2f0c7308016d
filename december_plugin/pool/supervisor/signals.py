"""Signals for a loop that waits: noted when they arrive, handled when the loop checks."""

from __future__ import annotations

import os
import select
import signal
from collections import deque
from contextlib import suppress
from types import FrameType
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP)


def signal_name(number: int) -> str:
    """Return the name of a signal as users know it."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


class SignalPipe:
    """Within a with block, note the signals that would end a process; those of ended children end a wait.

    Only for the main thread. Earlier handlers are restored at the end. SIGHUP stays ignored where it is,
    as under ``nohup``.
    """

    def __init__(self) -> None:
        self._received: deque[int] = deque()
        self._before: dict[int, Any] = {}
        self._wakeup = -1
        self._read = self._write = -1

    def __enter__(self) -> SignalPipe:
        self._read, self._write = os.pipe()
        for end in (self._read, self._write):
            os.set_blocking(end, False)
        for number in ENDING:
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, _ignore)
        # A byte in the pipe, and not an exception, ends a wait: nothing is interrupted half-way.
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        return self

    def __exit__(self, *exception: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        os.close(self._read)
        os.close(self._write)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._received.append(number)

    def received(self) -> list[int]:
        """Return the signals since the last call."""
        found = []
        while self._received:
            found.append(self._received.popleft())
        return found

    def wait(self, seconds: float) -> None:
        """Wait until a signal arrives, a child ends, or the time is over."""
        select.select([self._read], [], [], max(0.0, seconds))
        with suppress(BlockingIOError):
            os.read(self._read, 4096)


def _ignore(number: int, frame: FrameType | None) -> None:
    pass
