"""The thread of a pool, or of a single worker, that sends notifications; neither waits for it until it ends.

What cannot be delivered is tried again with growing pauses, as long as the pool or worker runs. Nothing that goes
wrong here affects anything else; the log mentions it once.
"""

from __future__ import annotations

import platform
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from december_plugin.pool.liveness import SHORT
from december_plugin.pool.notifications.observer import WAITING_SECONDS, Observer, lock_name
from december_plugin.pool.notifications.outbox import Event, Outbox
from december_plugin.pool.notifications.target import DeliveryError, NotificationTarget
from december_plugin.security.redaction import redacted
from december_plugin.text.formatting import format_duration, numbered

LOOK_SECONDS = 2.0
LONGEST_PAUSE = 15.0  # between two looks while the server is away (s)
FAREWELL_SECONDS = 12.0  # for the last messages, when the pool has ended


class Notifier:
    """Notifies a target of what happens to the jobs of a schema, and to a pool or a single worker.

    Parameters
    ----------
    target
        The recipient of the messages.
    observer
        What happens to the jobs.
    schema
        Of the tables.
    who, who_id
        Who tells, ``"pool"`` or ``"worker"``, and its id.
    log
        Called, from the thread, with what the user should know.
    outbox
        Replaced by tests.
    """

    def __init__(
        self,
        target: NotificationTarget,
        observer: Observer,
        *,
        schema: str,
        who: str,
        who_id: str,
        log: Callable[[str], None],
        outbox: Outbox | None = None,
    ):
        self.target, self.observer = target, observer
        self.schema, self.who, self.who_id = schema, who, who_id
        self.outbox = outbox if outbox is not None else Outbox(schema, who_id, who=who)
        self._log = log
        self._troubles: deque[str] = deque()
        self._told_troubles: set[str] = set()
        self._is_failing = False
        self._away_since: float | None = None
        self._told_away = False
        self._ends_idle = False
        self._wake, self._ending, self._over = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="notifier", daemon=True)

    @classmethod
    def of_jobs(
        cls,
        target: NotificationTarget,
        *,
        schema: str,
        who: str,
        who_id: str,
        connect: Callable[[], Any],
        log: Callable[[str], None],
    ) -> Notifier:
        """Return one that watches the jobs of a schema on its own connection, which ``connect`` opens."""
        observer = Observer(schema, lock_name(schema, target.identity), connect=connect)
        return cls(target, observer, schema=schema, who=who, who_id=who_id, log=log)

    # --- the side of who tells ------------------------------------------------------------------------------------

    @contextmanager
    def running(self, *, ended_idle: Callable[[], bool]) -> Iterator[None]:
        """Look and tell within the block, and tell of an error that ends it.

        Parameters
        ----------
        ended_idle
            Returns, after the block, whether it has ended because there was nothing to do.
        """
        self._log(f"notifications go to {self.target.name}")
        self.start()
        try:
            yield
        except Exception as error:
            self.trouble(f"the {self.who} has ended: {type(error).__name__}: {error}")
            raise
        finally:
            self.finish(ends_idle=ended_idle())

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def trouble(self, text: str) -> None:
        """Report, once, what keeps this pool or worker from working and needs attention."""
        if text not in self._told_troubles:
            self._told_troubles.add(text)
            self._troubles.append(text)
            self._wake.set()

    def finish(self, *, ends_idle: bool) -> None:
        """Send the remaining messages, for a few seconds at most.

        Parameters
        ----------
        ends_idle
            Whether it has ended because there was nothing to do.
        """
        self._ends_idle = ends_idle
        self._ending.set()
        self._wake.set()
        self._over.wait(FAREWELL_SECONDS)
        if left := self.outbox.left():
            n_left = numbered(len(left), "notification")
            self._log(f"{n_left} could not be delivered before the {self.who} ended: {redacted('; '.join(left))}")

    # --- the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        pause = LOOK_SECONDS
        while not self._ending.is_set():
            pause = LOOK_SECONDS if self._look() else min(2 * pause, LONGEST_PAUSE)
            self._send()
            self._wake.wait(pause)
            self._wake.clear()
        # What happens while the last messages are sent is this one's to tell as long as it holds the lock.
        while self._look() and self._send(at_once=True):
            pass
        self._send(at_once=True)
        with suppress(Exception):
            self.observer.close()
        self._over.set()

    def _look(self) -> bool:
        """Take in what has happened; return whether the server has answered."""
        while self._troubles:
            where = f"{self.who} {self.who_id[:SHORT]} of {self.schema} on {platform.node()}"
            self.outbox.add(Event("trouble", f"december: {where}: {self._troubles.popleft()}"))
        try:
            events = self.observer.look(ends_idle=self._ending.is_set() and self._ends_idle)
        except Exception as error:  # of the server or the network; a bug must not end the thread either
            self._note_outage(error)
            return False
        self._away_since, self._told_away = None, False
        for event in events:
            self.outbox.add(event)
        return True

    def _note_outage(self, error: Exception) -> None:
        with suppress(Exception):
            self.observer.close()
        now = time.monotonic()
        self._away_since = now if self._away_since is None else self._away_since
        away = now - self._away_since
        # Of several pools, only the one that was sending.
        if away >= WAITING_SECONDS and self.observer.is_telling and not self._told_away:
            self._told_away = True
            first = "".join(str(error.args[-1] if error.args else error).splitlines()[:1])
            what = f"the database server of {self.schema} has not answered for {format_duration(away)} ({first})"
            self.outbox.add(Event("trouble", f"december: {what}. Workers continue, and wait for it"))

    def _send(self, *, at_once: bool = False) -> bool:
        """Send a message that is due, or with ``at_once`` all; return whether one was sent and none is left.

        Between two messages the server is asked again, so that it does not take the lock for one of a lost machine.
        """
        sent = False
        while (message := self.outbox.next(at_once=at_once)) is not None:
            try:
                self.target.deliver(message)
            except DeliveryError as error:
                self._note_failure(str(error))
                return False
            except Exception as error:  # a bug; it must not end the thread
                self._note_failure(f"{type(error).__name__}: {error}")
                return False
            sent = True
            self.outbox.delivered()
            if self._is_failing:
                self._is_failing = False
                self._log(f"notifications reach {self.target.name} again")
            if not at_once:
                break
        return sent

    def _note_failure(self, reason: str) -> None:
        self.outbox.not_delivered()
        if not self._is_failing:
            self._is_failing = True
            self._log(
                redacted(
                    f"a notification could not be delivered to {self.target.name} ({reason}); it is tried again, with "
                    "growing pauses"
                )
            )
