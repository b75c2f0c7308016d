"""The pool on one machine: a supervisor that keeps a worker running in each of its places.

The supervisor computes nothing and never waits for the database: the thread of
:class:`~december_plugin.pool.supervisor.database.SupervisorDatabase` does that. The queue is DataJoint's, and jobs are
the workers' business. If the supervisor itself is killed, its workers notice, save their state and end; nothing is left
running.

A worker that cannot begin ends the pool only as long as no other one could: once the settings have worked for a worker,
the next one must have failed because of an outage or a later mistake, and the others continue.

====================  ============================================================================================
exit code             meaning
====================  ============================================================================================
0                     idle for long enough, asked to stop, or out of time
1                     no worker could begin with these settings; one's message is printed
3                     the same as 0, but some jobs failed or are poisoned
130, 143, 140, 129    ended by SIGINT (Ctrl-C), SIGTERM, SIGUSR2, SIGHUP
====================  ============================================================================================
"""

from __future__ import annotations

import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from december_plugin.errors import ExitCode
from december_plugin.pool.notifications.target import VARIABLE, NotificationTarget
from december_plugin.pool.supervisor.gpus import visible_gpus
from december_plugin.pool.supervisor.mps import PoolMps, plan_mps
from december_plugin.pool.supervisor.settings import (
    PoolSettings,
    log_folder_of,
    made_log_folder,
    notice,
    sharing_in_words,
    slots_of,
    worker_program,
)
from december_plugin.pool.supervisor.signals import SignalPipe, signal_name
from december_plugin.pool.supervisor.slots import Slot, threads_per_worker
from december_plugin.pool.supervisor.worker_slot import DRAINED, MISTAKEN, WorkerSlot, ending_in_words
from december_plugin.security.redaction import redacted
from december_plugin.text.formatting import numbered

__all__ = ["LocalPool", "PoolSettings", "run_pool"]

SIGNALLED = 128
STOP, STOP_NOW = 1, 2  # Pool.stop_requested: save the states and end, or end at once
END = signal.SIGTERM  # to workers: save the state, give the job back
TICK = 0.5  # longest pause between two checks of the workers (s)
FIRST_ANSWER = 5.0  # then workers start without an answer (s): a pool that was asked to stop starts none
REMINDER = 30.0  # between two lines that say which workers a draining pool waits for (s)
LAST_WORDS_TO_SERVER = 15.0  # for reporting dead workers and the end of the pool (s)
FORCED_END = 15.0  # workers' time after an unexpected error in the supervisor (s)
MAX_MESSAGE = 3800  # of what the table of jobs keeps
N_SHOWN = 5  # last lines of a worker that cannot work


class Database(Protocol):
    """What the supervisor needs from the database; ``supervisor.database.SupervisorDatabase`` does it in a thread."""

    stop_requested: int
    has_answered: bool
    failures: dict[str, int] | None

    def start(self) -> None:
        """Start."""

    def watch(self, worker_ids: tuple[str, ...]) -> None:
        """Set which workers' idleness counts."""

    def idle_for(self) -> float:
        """Return for how long (s) they have been idle."""

    def mark_dead(self, worker_id: str, message: str) -> None:
        """Give back what a dead worker held, with the attempt counted."""

    def give_back(self, worker_id: str, message: str) -> None:
        """Give back what a worker held that was killed on purpose."""

    def finish(self, *, timeout: float) -> bool:
        """Deliver what is left; return whether that was possible."""


def print_event(source: str, text: str) -> None:
    """Print one line about the pool or from a worker to stderr; a closed terminal does not end the pool."""
    with suppress(OSError, ValueError):
        print(f"[{source}] {text}", file=sys.stderr, flush=True)


class Notices(Protocol):
    """Receives what needs attention; ``notifications.notifier.Notifier`` sends it in a thread."""

    def trouble(self, text: str) -> None:
        """Report, once, what keeps the pool from working."""


class LocalPool:
    """The supervisor.

    Parameters
    ----------
    settings
        See :class:`PoolSettings`.
    slots
        Places of the workers.
    database
        See :class:`Database`.
    pool_id
        Of the row in ``Pool``.
    log_folder
        For the workers' logs.
    program
        The command of a worker, without its options.
    environment
        Of the workers; by default that of this process.
    on_event
        Called with the source of each line and its text.
    on_tick
        Called about every second.
    mps
        Lets the workers of one GPU compute concurrently; None without it.
    notices
        Receives what needs attention; None sends nothing.
    """

    def __init__(
        self,
        settings: PoolSettings,
        slots: Sequence[Slot],
        *,
        database: Database,
        pool_id: str,
        log_folder: Path,
        program: Sequence[str],
        environment: Mapping[str, str] | None = None,
        on_event: Callable[[str, str], None] = print_event,
        on_tick: Callable[[], None] | None = None,
        mps: PoolMps | None = None,
        notices: Notices | None = None,
    ):
        self.settings, self.database, self.mps, self.notices = settings, database, mps, notices
        self.on_event, self.on_tick = on_event, on_tick
        own = {"DECEMBER_POOL_ID": pool_id, "DECEMBER_POOL_WORKERS": str(len(slots))}
        environment = {**(os.environ if environment is None else environment), **own}
        environment.pop(VARIABLE, None)  # a secret that no worker needs
        mixed = len({slot.gpu is None for slot in slots}) == 2
        self.workers = [
            WorkerSlot(
                slot,
                [*program, *settings.worker_options(slot, mixed=mixed)],
                environment=_with_threads(environment, slot, slots),
                log=log_folder / f"{slot.file_name}.log",
            )
            for slot in slots
        ]
        self.code: int = ExitCode.DONE
        self.ended_idle = False
        self._began = time.monotonic()
        self._draining = self._killing = False
        self._reminded = self._ticked = self._looked_at_mps = float("-inf")
        self._retried = not settings.retry

    def run(self) -> int:
        """Keep the workers running until asked to stop; return the exit code. Must be called in the main thread."""
        self.database.start()
        with SignalPipe() as signals:
            try:
                if self.mps is not None:
                    self.mps.start()
                while True:
                    for number in signals.received():
                        self._on_signal(number)
                    self._look_at_database()
                    self._reap()
                    if self._draining and not self._running():
                        break
                    if self._draining:
                        self._remind()
                    else:
                        self._look_after_mps()
                        self._start_due()
                    self._tick()
                    signals.wait(self._pause())
            finally:
                self._leave_nothing_running()
                if self.mps is not None:
                    self.mps.stop()
                self._finish()
        return self.code or self._code_of_failures()

    # --- why it ends -----------------------------------------------------------------------------------------------

    def _on_signal(self, number: int) -> None:
        # Slurm sends SIGTERM more than once, or after USR2, and itself kills the workers when their time is over.
        can_be_impatient = not self.settings.pool_id
        if self.code >= SIGNALLED:  # a user asked before, and is now impatient
            if can_be_impatient:
                self._kill(f"{signal_name(number)} again")
            return
        self.code = SIGNALLED + number
        self._drain(signal_name(number))
        if self._running():
            once_more = "; once more kills them" if can_be_impatient else ""
            self.on_event("pool", f"the workers save their state and give their jobs back{once_more}")

    def _drain(self, reason: str) -> None:
        """Start no more workers, and tell the running ones to save their state, give their jobs back and end."""
        self.on_event("pool", f"ends: {reason}")
        if not self._draining and self._running():
            self.on_event("pool", f"waiting for {self._names()}")
        self._draining = True
        self._reminded = time.monotonic()
        for worker in self._running():
            worker.send(END)

    def _kill(self, reason: str) -> None:
        self._draining = True
        if not self._killing and self._running():
            self.on_event("pool", f"{reason}: killing {self._names()}")
        self._killing = True
        for worker in self._running():
            worker.kill()

    def _look_at_database(self) -> None:
        stop = self.database.stop_requested
        if stop >= STOP_NOW and not self._killing:
            self._kill("`december pool stop --now`")
        elif stop and not self._draining:
            self._drain("`december pool stop`")
        if self._draining:
            return
        elapsed = time.monotonic() - self._began
        if self.settings.max_time is not None and elapsed >= self.settings.max_time:
            self._drain(f"its time of {self.settings.max_time:g} s is over")
        elif self.settings.idle_exit is not None:
            running = self._running()
            everybody = len(running) == len(self.workers)
            self.database.watch(tuple(worker.worker_id for worker in running) if everybody else ())
            if self.database.idle_for() >= self.settings.idle_exit:
                self.ended_idle = True
                self._drain(f"nothing to do for {self.settings.idle_exit:g} s")

    # --- the workers -----------------------------------------------------------------------------------------------

    def _running(self) -> list[WorkerSlot]:
        return [worker for worker in self.workers if worker.is_running]

    def _names(self) -> str:
        return ", ".join(f"{worker.name} (process {worker.pid})" for worker in self._running())

    def _start_due(self) -> None:
        if not self.database.has_answered and time.monotonic() - self._began < FIRST_ANSWER:
            return
        for worker in self.workers:
            if not worker.is_due():
                continue
            try:
                # A restarted worker must not free the job that has just killed its predecessor.
                shared = self.mps.environment(worker.slot) if self.mps is not None else {}
                worker.start(*([] if self._retried else ["--retry"]), shared=shared)
            except OSError as error:
                where = error.filename or worker.command[0]
                problem = f"no worker can be started: {where}: {error.strerror or error}"
                self.on_event(worker.name, problem)
                self._notify(f"{worker.name}: {problem}")
                continue
            self._retried = True
            self.on_event(worker.name, f"worker started: process {worker.pid}, log {worker.log}")

    def _look_after_mps(self) -> None:
        if self.mps is not None and time.monotonic() - self._looked_at_mps >= 1:
            self._looked_at_mps = time.monotonic()
            self.mps.look_after()

    def _reap(self) -> None:
        for worker in self.workers:
            pid = worker.pid
            code = worker.has_ended()
            for line in worker.follower.new_lines(to_the_end=code is not None):
                self.on_event(worker.name, line)
            if code is not None:
                self._ended(worker, pid, code)

    def _ended(self, worker: WorkerSlot, pid: int, code: int) -> None:
        asked = self._draining and code in DRAINED  # its code is that of the signal, which would look like a crash
        words = f"worker (process {pid}) " + ("has ended, as requested" if asked else ending_in_words(code))
        next_start = "" if self._draining else f"; the next one starts in {worker.seconds_before_start():.0f} s"
        if self._killing and code < 0:
            self.on_event(worker.name, words)
            self.database.give_back(worker.worker_id, "killed when its pool was ended at once")
        elif self._draining and code == -END:  # before it was ready to react to it
            self.on_event(worker.name, words)
            self.database.give_back(worker.worker_id, "ended with its pool")
        elif code in DRAINED:
            self.on_event(worker.name, words + next_start)
        elif code == ExitCode.MPS_LOST:
            self.on_event(worker.name, f"{words}: not counted as a failure of its job, which is free again{next_start}")
            self.database.give_back(worker.worker_id, "MPS, through which it used the GPU, has ended")
            if self.mps is not None:
                self.mps.note_loss(worker.slot)
        elif code in MISTAKEN and not self._draining and not any(each.has_begun for each in self.workers):
            self.on_event(worker.name, f"{words}: it cannot work with these settings, and neither could the next one")
            self.database.mark_dead(worker.worker_id, ending_in_words(code))
            self.code = self.code or ExitCode.ERROR
            said = f"{worker.name} says: " + " | ".join(worker.follower.last_lines()[-N_SHOWN:])
            self._drain(said)
            self._notify(f"no worker can begin, and the pool has ended. {said}")
        else:
            self.on_event(worker.name, f"{words}{next_start}; its log: {worker.log}")
            self.database.mark_dead(worker.worker_id, _last_words(ending_in_words(code), worker.follower.last_lines()))
            if worker.keeps_ending and not self._draining:
                self._notify(f"the workers of {worker.name} keep ending: {ending_in_words(code)}; log: {worker.log}")

    def _notify(self, text: str) -> None:
        if self.notices is not None:
            self.notices.trouble(text)

    def _remind(self) -> None:
        if time.monotonic() - self._reminded >= REMINDER:
            self._reminded = time.monotonic()
            self.on_event("pool", f"still waiting for {self._names()}; Ctrl-C kills them")

    # --- time ------------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        if self.on_tick is not None and time.monotonic() - self._ticked >= 1:
            self._ticked = time.monotonic()
            self.on_tick()

    def _pause(self) -> float:
        if self._draining:
            return TICK / 5
        waits = [worker.seconds_before_start() for worker in self.workers if not worker.is_running]
        return min([TICK, *(max(wait, 0.02) for wait in waits)])

    # --- the end ---------------------------------------------------------------------------------------------------

    def _leave_nothing_running(self) -> None:
        """After an unexpected error in the supervisor, end the workers in time; otherwise none are left."""
        if not self._running():
            return
        self._draining = True
        for worker in self._running():
            worker.send(END)
        until = time.monotonic() + FORCED_END
        while self._running() and time.monotonic() < until:
            self._reap()
            time.sleep(0.05)
        self._killing = True
        for worker in self._running():
            worker.kill()
        while self._running():
            self._reap()
            time.sleep(0.02)

    def _finish(self) -> None:
        if not self.database.finish(timeout=LAST_WORDS_TO_SERVER):
            self.on_event(
                "pool",
                "the database server could not be told that the pool has ended. Jobs of killed workers are free when "
                f"their leases ({self.settings.lease:g} s) have run out; `december pool stop` closes the pool's entry",
            )

    def _code_of_failures(self) -> int:
        counts = self.database.failures or {}
        words = [f"{numbered(number, 'job')} {kind}" for kind, number in counts.items() if number]
        if not words:
            return ExitCode.DONE
        self.on_event("pool", f"{', '.join(words)}; `december status` says why")
        return ExitCode.SOME_FAILED


def _with_threads(environment: Mapping[str, str], slot: Slot, slots: Sequence[Slot]) -> dict[str, str]:
    """Return the environment of a worker; those on the processor share its cores."""
    if slot.gpu is not None or "OMP_NUM_THREADS" in environment:
        return dict(environment)
    return {**environment, "OMP_NUM_THREADS": str(threads_per_worker(slots))}


def _last_words(ending: str, lines: Sequence[str]) -> str:
    """Return how a worker ended, with the end of its log, short enough for the table of jobs."""
    return redacted(f"{ending}\n{chr(10).join(lines)[-MAX_MESSAGE:]}").rstrip()


def run_pool(
    settings: PoolSettings,
    *,
    program: Sequence[str] | None = None,
    environment: Mapping[str, str] | None = None,
    on_event: Callable[[str, str], None] = print_event,
    on_tick: Callable[[], None] | None = None,
    notify: NotificationTarget | None = None,
) -> int:
    """Run a pool on this machine until it ends, and return the exit code. Must be called in the main thread.

    Parameters
    ----------
    settings
        See :class:`PoolSettings`. With a ``pool_id``, the row in ``Pool`` belongs to the caller and is not ended here.
    program
        The command of a worker, without its options; by default ``december worker``.
    environment
        Of the workers; by default that of this process.
    on_event
        Called with the source of each line, such as ``gpu 0`` or ``pool``, and its text.
    on_tick
        Called about every second, in the main thread.
    notify
        Target for messages about failed or poisoned jobs, the end of the work, and what needs attention; None sends
        none.

    Raises
    ------
    SettingsError
        If a GPU does not exist or cannot be shared as requested, or the folder for logs cannot be created.
    MpsError
        If the workers of a GPU need MPS, and it does not start.
    ServerError
        If the pool is new and the database refuses it, or this process has never reached it. After that, it waits for
        outages to end.
    """
    from december_plugin.database.connection import connect, has_connected
    from december_plugin.database.outages import with_server
    from december_plugin.pool.jobs.records import PoolRecords
    from december_plugin.pool.notifications.notifier import Notifier
    from december_plugin.pool.supervisor.database import SupervisorDatabase, own_connection

    visible = visible_gpus()
    slots = slots_of(settings, visible)
    plan = plan_mps(settings.mps, slots, environment=environment)
    pool_id = settings.pool_id or uuid.uuid4().hex
    log_folder = made_log_folder(
        log_folder_of(settings, pool_id),
        "the folder {folder} for the workers' logs cannot be created ({reason}). Name another one with --log-folder.",
    )
    if not settings.pool_id:
        with_server(
            lambda: PoolRecords(connect(needs_store=False).connection, settings.schema).add_pool(
                pool_id, kind="local", n_workers=len(slots), options=settings.options()
            ),
            waits=has_connected,
            on_outage=lambda error: on_event("pool", f"waiting: {error}"),
        )
    database = SupervisorDatabase(
        settings.schema,
        pool_id,
        connect=own_connection,
        max_attempts=settings.max_attempts,
        ends_pool=not settings.pool_id,
        log=lambda text: on_event("pool", text),
    )
    names = ", ".join(slot.name for slot in slots)
    workers = numbered(len(slots), "worker")
    on_event("pool", f"pool {pool_id[:8]} of {settings.schema}: {workers} ({names}), logs in {log_folder}")
    for words in (notice(settings, visible, slots), sharing_in_words(slots), plan.words):
        if words:
            on_event("pool", words)
    notifier = None
    if notify is not None:
        notifier = Notifier.of_jobs(
            notify,
            schema=settings.schema,
            who="pool",
            who_id=pool_id,
            connect=own_connection,
            log=lambda text: on_event("pool", text),
        )
    pool = LocalPool(
        settings,
        slots,
        database=database,
        pool_id=pool_id,
        log_folder=log_folder,
        program=program if program is not None else worker_program(),
        environment=environment,
        on_event=on_event,
        on_tick=on_tick,
        mps=PoolMps(plan, log_folder=log_folder, environment=environment, on_event=lambda text: on_event("pool", text)),
        notices=notifier,
    )
    if notifier is None:
        return pool.run()
    with notifier.running(ended_idle=lambda: pool.ended_idle):
        return pool.run()
