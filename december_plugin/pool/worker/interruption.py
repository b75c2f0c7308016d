"""What ends a worker before its work is done: a signal, or a request; and how long its last steps may take."""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from december_plugin.pool.worker.heartbeat import WorkerState
from december_plugin.pool.worker.settings import WorkerReport

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
INTERRUPT_RETRY_SECONDS = 1.0  # until an interruption is raised once more
MAX_ALARMS = 3  # after which the worker ends without the job's consent
EXIT_DEADLINE_SECONDS = 30.0  # after this time, the process ends, whatever it waits for


class Interrupted(BaseException):
    """A signal, or a request to stop, has interrupted the worker."""


class Interruption:
    """Raises :class:`Interrupted` in the main thread when the worker should end, until it does.

    Parameters
    ----------
    state
        Becomes ``draining``.
    report
        Records why the worker ends.
    say_goodbye
        The last steps of a worker whose job ignores the interruption.
    """

    def __init__(self, state: WorkerState, report: WorkerReport, *, say_goodbye: Callable[[], None]):
        self.state, self.report, self._say_goodbye = state, report, say_goodbye
        self._was_raised = self._is_leaving = False
        self._n_alarms = 0
        self._pid = os.getpid()

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Let signals interrupt the worker within the block, which must be in the main thread."""
        handlers = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        handlers[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._on_alarm)
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def ask(self, reason: str) -> None:
        """Interrupt the main thread; called by the heartbeat."""
        if not self._was_raised:
            self.report.ended_by = reason
            ident = threading.main_thread().ident
            assert ident is not None
            signal.pthread_kill(ident, signal.SIGTERM)

    def note_end(self) -> None:
        """Stop raising: the worker is about to end."""
        self._is_leaving = True

    def leave(self, say_goodbye: Callable[[], None]) -> None:
        """Take the last steps, which no signal interrupts and which end the process if they take too long."""
        self._was_raised = self._is_leaving = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        # A lock that is needed here but held elsewhere must not keep the process alive.
        faulthandler.dump_traceback_later(EXIT_DEADLINE_SECONDS, exit=True, file=2)  # a notebook's stderr is not a file
        say_goodbye()
        faulthandler.cancel_dump_traceback_later()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a process of a data loader, forked with this handler
            os._exit(1)
        if self._was_raised:
            if number == signal.SIGINT:
                os._exit(128 + number)
            return
        self._was_raised = True
        self.state.state = "draining"
        if self.report.signal is None and self.report.ended_by == WorkerReport.ended_by:
            self.report.signal = number
            self.report.ended_by = signal.Signals(number).name
        signal.setitimer(signal.ITIMER_REAL, INTERRUPT_RETRY_SECONDS, INTERRUPT_RETRY_SECONDS)
        raise Interrupted

    def _on_alarm(self, number: int, frame: FrameType | None) -> None:
        # Python drops an exception that is raised within a finalizer or a fork hook, and trainers may catch it.
        if os.getpid() != self._pid or self._is_leaving:
            return
        self._n_alarms += 1
        if self._n_alarms > MAX_ALARMS:
            self.leave(self._say_goodbye)
            os._exit(128 + (self.report.signal or signal.SIGTERM))
        raise Interrupted
