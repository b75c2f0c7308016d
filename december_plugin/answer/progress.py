"""The progress of a study, as one line of the terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from december_plugin.text.formatting import format_duration

WIDTH = 78
REFRESH = 0.2  # seconds between two lines, at least


class ProgressLine:
    """Writes the progress of a study, repeatedly on one line of standard error.

    Parameters
    ----------
    total
        Number of clusterings.
    stream
        Where to write; None: standard error.
    """

    def __init__(self, total: int, stream: Any = None) -> None:
        self.total, self.done = total, 0
        self.stream = sys.stderr if stream is None else stream
        self.began = time.monotonic()
        self.written = -REFRESH

    def __call__(self, what: str, n: int) -> None:
        """Add to the number of finished clusterings, and write what is being computed."""
        self.done += n
        now = time.monotonic() - self.began
        if now - self.written >= REFRESH or self.done >= self.total:
            self.written = now
            left = format_duration(now / self.done * (self.total - self.done))
            line = f"{self.done / self.total:4.0%}  {what}, about {left} left"
            self.stream.write(f"\r{line[:WIDTH]:<{WIDTH}}")
            self.stream.flush()

    def close(self) -> None:
        """End the line."""
        self.stream.write("\r" + " " * WIDTH + "\r")
        self.stream.flush()


@contextmanager
def reported(
    progress: bool | Callable[[str, int, int], None] | None, total: int
) -> Iterator[Callable[[str, int], None]]:
    """Yield a function to call after every task with what is being computed, and the clusterings that were added.

    Parameters
    ----------
    progress
        True writes a line, False nothing, None a line if standard error is a terminal; a function is called with what
        is being computed, the clusterings that are done, and ``total``.
    total
        Number of clusterings.
    """
    if callable(progress):
        yield _Told(progress, total)
    elif progress or (progress is None and sys.stderr.isatty()):
        line = ProgressLine(total)
        try:
            yield line
        finally:
            line.close()
    else:
        yield lambda what, n: None


class _Told:
    def __init__(self, function: Callable[[str, int, int], None], total: int) -> None:
        self.function, self.total, self.done = function, total, 0

    def __call__(self, what: str, n: int) -> None:
        self.done += n
        self.function(what, self.done, self.total)
