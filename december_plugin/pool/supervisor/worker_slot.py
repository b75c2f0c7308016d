"""One place of a pool: the worker process in it, its log, and how long to wait before the next one is started."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from december_plugin.errors import ExitCode
from december_plugin.pool.supervisor.slots import Slot
from december_plugin.pool.worker.readiness import VARIABLE, Listener

FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0  # before a worker is started again (s)
HEALTHY_AFTER = 60.0  # a worker that lived this long was not a false start (s)
LONGEST_READ = 1 << 20  # of a log at once (bytes)
LONGEST_LINE = 4000
N_LAST_LINES = 15

MEANINGS: dict[int, str] = {
    ExitCode.BUG: "a bug in december",
    ExitCode.DEVICE_BROKEN: "the GPU failed",
    ExitCode.MPS_LOST: "it has lost MPS, through which it used the GPU",
}  # of exit codes
DRAINED = (ExitCode.DONE, ExitCode.SOME_FAILED, 130, 140, 143)  # ended on its own or on request, its job given back
MISTAKEN = (ExitCode.ERROR, ExitCode.USAGE)  # of a worker that could not begin: the next one would end the same way


class LogFollower:
    """Reads what is appended to a file, line by line."""

    def __init__(self, path: Path):
        self.path = path
        self._offset = path.stat().st_size if path.exists() else 0
        self._began = self._offset
        self._rest = b""

    def new_lines(self, *, to_the_end: bool = False) -> Iterator[str]:
        """Yield the lines since the last call; with ``to_the_end``, also a last one without a line break."""
        while chunk := self._read():
            self._rest += chunk
            *lines, self._rest = self._rest.split(b"\n")
            yield from map(_readable, lines)
            if len(self._rest) > LONGEST_READ:  # a program that writes no line breaks
                yield _readable(self._rest)
                self._rest = b""
            if not to_the_end:
                break
        if to_the_end and self._rest:
            yield _readable(self._rest)
            self._rest = b""

    def last_lines(self) -> list[str]:
        """Return the last lines since this follower was made."""
        try:
            with self.path.open("rb") as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(max(self._began, end - 64 * LONGEST_LINE))
                lines = [_readable(line) for line in file.read().splitlines()]
        except OSError:
            return []
        return [line for line in lines if line.strip()][-N_LAST_LINES:]

    def _read(self) -> bytes:
        try:
            with self.path.open("rb") as file:
                if file.seek(0, os.SEEK_END) < self._offset:  # truncated, as by logrotate
                    self._offset = self._began = 0
                file.seek(self._offset)
                chunk = file.read(LONGEST_READ)
        except OSError:  # removed, or the disk is away: that is the worker's business
            return b""
        self._offset += len(chunk)
        return chunk


def _readable(line: bytes) -> str:
    text = line.decode("utf-8", errors="replace").rstrip("\r\n")
    text = text.rsplit("\r", 1)[-1]  # the last state of a progress bar
    return "".join(char if char.isprintable() or char == "\t" else "?" for char in text)[:LONGEST_LINE]


def ending_in_words(code: int) -> str:
    """Return how a process ended, from its return code as ``subprocess`` has it."""
    if code < 0:
        try:
            return f"killed by signal {-code} ({signal.Signals(-code).name})"
        except ValueError:
            return f"killed by signal {-code}"
    return f"ended with code {code}" + (f" ({MEANINGS[code]})" if code in MEANINGS else "")


class WorkerSlot:
    """A place with its worker process, which is restarted whenever it ends.

    The worker leads its own session, so that Ctrl-C reaches only the supervisor; its group is killed when it has ended,
    so that the processes that load its data never outlive it.

    Parameters
    ----------
    slot
        Which place.
    command
        The program and its options.
    environment
        Of the worker; the slot's variables and the worker's id are added.
    log
        File to which the worker's output is appended.
    clock
        Replaced by tests.
    """

    def __init__(
        self,
        slot: Slot,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        log: Path,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.slot, self.command, self.log = slot, list(command), log
        self.environment = dict(environment)
        self.clock = clock
        self.process: subprocess.Popen[bytes] | None = None
        self.worker_id = ""
        self.follower = LogFollower(log)
        self.delay = FIRST_DELAY
        self.not_before = float("-inf")
        self.n_starts = 0
        self._began = 0.0
        self._listener: Listener | None = None
        self._has_begun = False

    @property
    def name(self) -> str:
        """The name in messages."""
        return self.slot.name

    @property
    def is_running(self) -> bool:
        """Whether it has a process that was not yet found to have ended."""
        return self.process is not None

    @property
    def pid(self) -> int:
        """Process id of the worker; 0 for none."""
        return self.process.pid if self.process is not None else 0

    @property
    def has_begun(self) -> bool:
        """Whether any worker in this place has ever reported that it could begin."""
        if not self._has_begun and self._listener is not None:
            self._has_begun = self._listener.was_told()
        return self._has_begun

    @property
    def keeps_ending(self) -> bool:
        """Whether one worker after the other has ended soon after its start."""
        return self.delay >= LONGEST_DELAY

    def start(self, *extra: str, shared: Mapping[str, str] | None = None) -> None:
        """Start a worker with these additional options.

        Parameters
        ----------
        extra
            The options.
        shared
            Additional variables of its environment: how it currently shares its GPU.

        Raises
        ------
        OSError
            If the log cannot be written or the program cannot be started; the next attempt is due after a pause.
        """
        self.worker_id = uuid.uuid4().hex
        self._began = self.clock()
        self.n_starts += 1
        self._stop_listening()
        listener = self._listener = Listener()
        environment = {
            **self.environment,
            **self.slot.environment(),
            **(shared or {}),
            "DECEMBER_WORKER_ID": self.worker_id,
            "DECEMBER_SUPERVISOR": str(os.getpid()),
            VARIABLE: str(listener.writing),
            "PYTHONUNBUFFERED": "1",
        }
        self.follower = LogFollower(self.log)
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)  # it may have been removed meanwhile
            with self.log.open("ab") as file:
                self.process = subprocess.Popen(
                    [*self.command, *extra],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    pass_fds=(listener.writing,),
                    start_new_session=True,
                )
        except OSError:
            self._plan_restart()
            raise
        finally:
            listener.hand_over()

    def has_ended(self) -> int | None:
        """Return the return code of a worker that has ended, once; None while it is alive.

        The rest of its process group is killed before its id can be reused.
        """
        if self.process is None:
            return None
        with suppress(ChildProcessError):
            if os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return None
        self._signal_group(signal.SIGKILL)
        code = self.process.wait()
        self.process = None
        self._stop_listening()
        self._plan_restart()
        return code

    def send(self, number: int) -> None:
        """Send the worker a signal."""
        if self.process is not None:
            with suppress(ProcessLookupError, PermissionError):
                self.process.send_signal(number)

    def kill(self) -> None:
        """Kill the worker and all processes of its group."""
        if self.process is not None:
            self._signal_group(signal.SIGKILL)
            self.send(signal.SIGKILL)

    def _signal_group(self, number: int) -> None:
        if self.process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)

    def _stop_listening(self) -> None:
        """Note whether a worker that has ended had reported that it could begin."""
        if self._listener is not None:
            self._has_begun = self.has_begun
            self._listener.close()
            self._listener = None

    def _plan_restart(self) -> None:
        now = self.clock()
        if now - self._began >= HEALTHY_AFTER:
            self.delay = FIRST_DELAY
        self.not_before = now + self.delay
        self.delay = min(2 * self.delay, LONGEST_DELAY)

    def seconds_before_start(self) -> float:
        """Return how long to wait before the next worker is started (s)."""
        return max(0.0, self.not_before - self.clock())

    def is_due(self) -> bool:
        """Whether a worker should be started now."""
        return self.process is None and self.seconds_before_start() == 0
