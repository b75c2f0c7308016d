"""What ``december worker`` prints: a line for each long job, one line for many quick ones, and a progress bar."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any, TextIO

from december_plugin.pool.jobs.description import counted
from december_plugin.pool.worker.job_settings import JobWatch
from december_plugin.security.redaction import redacted
from december_plugin.text.terminal import printable

if TYPE_CHECKING:
    from december_plugin.training.monitor import Progress

QUICK = 1.0  # shorter jobs are folded into one line (s)
FOLDED_FOR = 3.0  # at most this long (s)
LONG = 2.0  # a job that takes longer is also named before it ends (s)
NEVER_FOLDED = ("TrainedModel",)


class WorkerConsole(logging.Handler, JobWatch):
    """Prints what a worker logs, and how far its job is.

    Quick jobs are counted and become one line for each table; a job is named as soon as it has taken long. On a
    terminal, a progress bar below the lines shows the epochs of a training; elsewhere, where programs and supervisors
    read the lines, there is none.

    Parameters
    ----------
    stream
        Where to print.
    quiet
        Whether to leave the bar out.
    """

    def __init__(self, stream: TextIO, *, quiet: bool = False):
        super().__init__()
        self.stream, self.has_bar = stream, stream.isatty() and not quiet
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
        self._folded: list[logging.LogRecord] = []
        self._table, self._seconds = "", 0.0
        self._unfolding: threading.Timer | None = None
        self._naming: threading.Timer | None = None  # one for many quick jobs: a thread for each would cost as much
        self._words, self._began, self._is_unnamed = "", 0.0, False
        self._bar: Any = None

    # --- lines -------------------------------------------------------------------------------------------------------

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record, or count it among the quick jobs of its table."""
        table, seconds = getattr(record, "finished", ("", 0.0))
        if table and table not in NEVER_FOLDED and seconds < QUICK:
            if self._folded and table != self._table:
                self._unfold()
            self._folded.append(record)
            self._table, self._seconds = table, self._seconds + seconds
            if self._unfolding is None:
                self._unfolding = self._later(FOLDED_FOR, self.unfold)
            return
        self._unfold()
        if not table and self._is_unnamed:  # messages about a job come after its name
            self._tell_begun()
        self._print(record)

    def unfold(self) -> None:
        """Print what is folded."""
        self.acquire()
        try:
            self._unfold()
        finally:
            self.release()

    def close(self) -> None:
        """Print what is left, and remove the bar."""
        self.ends()
        if self._naming is not None:
            self._naming.cancel()
        self.unfold()
        super().close()

    def _unfold(self) -> None:
        folded, self._folded = self._folded, []
        seconds, self._seconds = self._seconds, 0.0
        if self._unfolding is not None:
            self._unfolding.cancel()
            self._unfolding = None
        if len(folded) == 1:
            self._print(folded[0])
        elif folded:
            words = f"{self._table}: {counted(self._table, len(folded))} done in {seconds:.1f} s"
            self._print(logging.makeLogRecord({**vars(folded[-1]), "msg": words, "args": ()}))

    def _print(self, record: logging.LogRecord) -> None:
        try:
            line = printable(self.format(record))
            if self._bar is not None:
                self._bar.clear()
            self.stream.write(f"{line}\n")
            self.stream.flush()
            if self._bar is not None:
                self._bar.refresh()
        except Exception:
            self.handleError(record)

    @staticmethod
    def _later(seconds: float, action: Any) -> threading.Timer:
        timer = threading.Timer(seconds, action)
        timer.daemon = True
        timer.start()
        return timer

    # --- the job -----------------------------------------------------------------------------------------------------

    def begins(self, words: str) -> None:
        """Name the job as soon as it has taken long."""
        self._words, self._began, self._is_unnamed = words, time.monotonic(), True
        if self._naming is None:
            self._naming = self._later(LONG, self._look)

    def progresses(self, progress: Progress) -> None:
        """Advance the bar."""
        if not self.has_bar:
            return
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(
                total=progress.n_epochs,
                initial=progress.epoch,
                desc=printable(redacted(self._words)),
                unit="epoch",
                file=self.stream,
                leave=False,
                dynamic_ncols=True,
            )
        if progress.score is not None:
            self._bar.set_postfix_str(f"score {progress.score:.3f}", refresh=False)
        self._bar.update(progress.epoch - self._bar.n)

    def ends(self) -> None:
        """Remove the bar."""
        self.acquire()
        try:
            self._is_unnamed = False
            if self._bar is not None:  # a timer may be about to print at the same time
                self._bar.close()
                self._bar = None
        finally:
            self.release()

    def _look(self) -> None:
        """Name the job if it has taken long by now, or look again when it has."""
        self.acquire()
        try:
            self._naming = None
            if self._is_unnamed:
                left = self._began + LONG - time.monotonic()
                if left > 0:
                    self._naming = self._later(left, self._look)
                else:
                    self._tell_begun()
        finally:
            self.release()

    def _tell_begun(self) -> None:
        self._is_unnamed = False
        self._unfold()
        record = {"name": __name__, "levelno": logging.INFO, "msg": redacted(f"{self._words}: started")}
        self._print(logging.makeLogRecord(record))
