"""Collects events into messages: at most one message per kind of event in some minutes, and each event only once."""

from __future__ import annotations

import platform
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from december_plugin.pool.liveness import SHORT
from december_plugin.pool.notifications.target import Message
from december_plugin.pool.status.failures import MAX_REASON, Reason, grouped
from december_plugin.security.redaction import redacted
from december_plugin.text.formatting import numbered
from december_plugin.text.terminal import printable

GATHER_SECONDS = 5.0  # failures come in groups: the first message waits for those of the same moment
INTERVAL_SECONDS = 300.0  # between two messages of one kind
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 600.0  # before another attempt to deliver (s)
N_REASONS = 5  # in one message
KINDS = ("failed", "poisoned", "finished", "trouble")


@dataclass(frozen=True)
class Event:
    """Something worth reporting.

    Attributes
    ----------
    kind
        One of :data:`KINDS`.
    message
        What happened: of a job, how it failed.
    table, job
        Of a job: the table, and DataJoint's hash of the key.
    counts
        Further numbers.
    """

    kind: str
    message: str
    table: str = ""
    job: str = ""
    counts: dict[str, int] = field(default_factory=dict)


class Outbox:
    """Collects events, and decides which message is sent next.

    Parameters
    ----------
    schema, who_id, who
        What the messages are about, and who tells: ``"pool"`` or ``"worker"``, by its id.
    interval
        Between two messages of one kind (s).
    gather
        Before the first one, so that it includes what happened at the same time (s).
    clock
        Replaced by tests.
    """

    def __init__(
        self,
        schema: str,
        who_id: str,
        *,
        who: str = "pool",
        interval: float = INTERVAL_SECONDS,
        gather: float = GATHER_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.schema, self.who, self.who_id = schema, who, who_id
        self.interval, self.gather, self.clock = interval, gather, clock
        self._events: dict[str, list[Event]] = {kind: [] for kind in KINDS}
        self._not_before = dict.fromkeys(KINDS, float("-inf"))
        self._sending: Message | None = None  # as it was at the first attempt: the next one repeats it
        self._next_attempt = float("-inf")
        self._pause = FIRST_PAUSE

    def add(self, event: Event) -> None:
        """Take an event in."""
        if not self._events[event.kind]:
            self._not_before[event.kind] = max(self._not_before[event.kind], self.clock() + self.gather)
        self._events[event.kind].append(event)

    def next(self, *, at_once: bool = False) -> Message | None:
        """Return the message that is due now; with ``at_once``, also one that would wait."""
        now = self.clock()
        if not at_once and now < self._next_attempt:
            return None
        if self._sending is None:
            for kind in KINDS:
                if self._events[kind] and (at_once or now >= self._not_before[kind]):
                    events, self._events[kind] = self._events[kind], []
                    self._sending = self._composed(kind, events)
                    break
        return self._sending

    def delivered(self) -> None:
        """Note that the last message has arrived."""
        assert self._sending is not None
        self._not_before[self._sending.event] = self.clock() + self.interval
        self._sending, self._next_attempt, self._pause = None, float("-inf"), FIRST_PAUSE

    def not_delivered(self) -> None:
        """Note that the last message has not arrived: it is tried again after a growing pause."""
        self._next_attempt = self.clock() + self._pause
        self._pause = min(3 * self._pause, LONGEST_PAUSE)

    def left(self) -> list[str]:
        """Return the first lines of the messages that were not delivered."""
        rest = [self._composed(kind, events) for kind, events in self._events.items() if events]
        return [message.text.splitlines()[0] for message in ([self._sending] if self._sending else []) + rest]

    # --- in words -------------------------------------------------------------------------------------------------

    def _composed(self, kind: str, events: Sequence[Event]) -> Message:
        fields: dict[str, Any] = {
            "schema": self.schema,
            self.who: self.who_id[:SHORT],
            "host": platform.node(),
            "count": len(events),
        }
        if kind in ("failed", "poisoned"):
            reasons = grouped((event.table, event.job, event.message, kind == "poisoned") for event in events)
            lines = [_title(kind, len(events), self.schema), *_in_words(reasons)]
            fields["reasons"] = [
                {"table": each.table, "reason": _of(each), "count": each.count, "job": each.job} for each in reasons
            ]
        else:
            last = events[-1]
            lines = list(dict.fromkeys(event.message for event in events))
            fields |= last.counts
        text = redacted(printable("\n".join(lines)))
        return Message(uuid.uuid4().hex, kind, text, fields)


def _title(kind: str, count: int, schema: str) -> str:
    if kind == "failed":
        return f"december: {numbered(count, 'job')} failed in the schema {schema}"
    are, them = ("is", "it") if count == 1 else ("are", "them")
    return f"december: {numbered(count, 'job')} {are} poisoned in the schema {schema}: workers keep dying with {them}"


def _in_words(reasons: Sequence[Reason]) -> list[str]:
    lines = [
        f"{each.count} × {each.table}: {_of(each)} (`december jobs show {each.job[:SHORT]}`)"
        for each in reasons[:N_REASONS]
    ]
    if len(reasons) > N_REASONS:
        rest = sum(each.count for each in reasons[N_REASONS:])
        lines.append(f"{numbered(rest, 'more job')} for other reasons; `december status` lists all")
    return lines


def _of(reason: Reason) -> str:
    """Return a reason for a message: that of a single job keeps its numbers."""
    first = reason.example.strip().splitlines()[:1]
    text = first[0] if reason.count == 1 and first else reason.reason
    return redacted(printable(text if len(text) <= MAX_REASON else text[: MAX_REASON - 1] + "…"))
