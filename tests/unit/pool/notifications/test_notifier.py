"""The thread that tells: it survives whatever happens to the server and the target, and keeps nobody waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from december_plugin.pool.notifications import notifier as module
from december_plugin.pool.notifications import outbox as outbox_module
from december_plugin.pool.notifications.notifier import Notifier
from december_plugin.pool.notifications.outbox import Event, Outbox
from december_plugin.pool.notifications.target import DeliveryError
from helpers.waiting import wait_until


class Sight:
    """An observer that sees what it is given."""

    is_telling = True

    def __init__(self) -> None:
        self.to_come: list[Event] = []
        self.error: Exception | None = None
        self.closed = 0

    def look(self, *, ends_idle: bool = False) -> list[Event]:
        if self.error is not None:
            raise self.error
        events, self.to_come = self.to_come, []
        return [*events, *([Event("finished", "all done")] if ends_idle and events else [])]

    def close(self) -> None:
        self.closed += 1


class Post:
    """A target that keeps what it is sent, after it has done something else."""

    name = identity = "post"

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.before: Callable[[], None] = lambda: None

    def deliver(self, message) -> None:
        self.before()
        self.texts.append(message.text)


@pytest.fixture
def make(monkeypatch):
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(outbox_module, "FIRST_PAUSE", 0.05)
    made = []

    def start(**settings):
        lines: list[str] = []
        outbox = Outbox("lab", "ab" * 16, **{"gather": 0.0, "interval": 0.0, **settings})
        notifier = Notifier(
            Post(), Sight(), schema="lab", who="pool", who_id="ab" * 16, log=lines.append, outbox=outbox
        )
        notifier.start()
        made.append(notifier)
        return notifier, notifier.observer, notifier.target, lines

    yield start
    for notifier in made:
        notifier.target.before = lambda: None
        notifier.finish(ends_idle=False)


def refuse() -> None:
    raise DeliveryError("it answers with status 500")


def test_events_and_troubles_are_sent(make):
    notifier, sight, post, lines = make()
    sight.to_come = [Event("failed", "OSError: gone", "TrainedModel", "1" * 32)]
    wait_until(lambda: len(post.texts) == 1, "a message", seconds=10)
    for _ in range(2):
        notifier.trouble("gpu 0: no worker can be started: Permission denied")
    wait_until(lambda: len(post.texts) == 2, "another message", seconds=10)
    assert post.texts[1].startswith("december: pool abababab of lab on ")
    assert post.texts[1].endswith(": gpu 0: no worker can be started: Permission denied")
    notifier.finish(ends_idle=True)
    assert len(post.texts) == 2
    assert (lines, sight.closed) == ([], 1)


def test_a_target_that_refuses_is_named_once_and_gets_all_in_the_end(make):
    _, sight, post, lines = make()
    post.before = refuse
    sight.to_come = [Event("failed", "OSError: gone", "TrainedModel", "1" * 32)]
    wait_until(lambda: lines, "a line in the log", seconds=10)
    time.sleep(0.4)
    assert lines == [
        "a notification could not be delivered to post (it answers with status 500); it is tried again, with growing "
        "pauses"
    ]
    post.before = lambda: None
    wait_until(lambda: post.texts, "the message", seconds=10)
    wait_until(lambda: len(lines) == 2, "a line in the log", seconds=10)
    assert lines[1] == "notifications reach post again"
    assert len(post.texts) == 1


def test_a_target_that_hangs_keeps_nobody_waiting(make, monkeypatch):
    monkeypatch.setattr(module, "FAREWELL_SECONDS", 0.3)
    notifier, sight, post, lines = make()
    leave, arrived = threading.Event(), threading.Event()
    post.before = lambda: (arrived.set(), leave.wait(30))
    sight.to_come = [Event("failed", "OSError: gone", "TrainedModel", "1" * 32)]
    assert arrived.wait(10)
    began = time.monotonic()
    notifier.trouble("no worker can begin")
    notifier.finish(ends_idle=True)
    assert time.monotonic() - began < 5
    assert lines == [
        "1 notification could not be delivered before the pool ended: december: 1 job failed in the schema lab"
    ]
    leave.set()


def test_the_last_messages_do_not_wait_for_their_time(make):
    notifier, sight, post, _ = make(gather=60.0, interval=600.0)
    sight.to_come = [Event("failed", "OSError: gone", "TrainedModel", "1" * 32)]
    time.sleep(0.2)
    assert post.texts == []
    sight.to_come += [Event("poisoned", "killed", "TrainedModel", "2" * 32)]
    notifier.finish(ends_idle=True)
    assert [text.splitlines()[0] for text in post.texts[:2]] == [
        "december: 1 job failed in the schema lab",
        "december: 1 job is poisoned in the schema lab: workers keep dying with it",
    ]


def test_a_server_that_is_away_is_told_after_a_while_and_once(make, monkeypatch):
    monkeypatch.setattr(module, "WAITING_SECONDS", 0.2)
    _, sight, post, _ = make()
    sight.error = OSError(111, "connection refused")
    wait_until(lambda: post.texts, "a message", seconds=10)
    time.sleep(0.3)
    (text,) = post.texts
    assert text == (
        "december: the database server of lab has not answered for 0 s (connection refused). Workers continue, and "
        "wait for it"
    )
    sight.error = None
    sight.to_come = [Event("failed", "OSError: gone", "TrainedModel", "1" * 32)]
    wait_until(lambda: len(post.texts) == 2, "what happened meanwhile", seconds=10)
    # Of several pools only the one that was telling says so.
    sight.is_telling, sight.error = False, OSError(111, "connection refused")
    time.sleep(0.4)
    assert len(post.texts) == 2


def test_a_defect_of_the_target_ends_nothing(make):
    def stumble() -> None:
        raise KeyError("unforeseen")

    _, sight, post, lines = make()
    post.before = stumble
    sight.to_come = [Event("failed", "OSError: gone", "TrainedModel", "1" * 32)]
    wait_until(lambda: lines, "a line in the log", seconds=10)
    assert "(KeyError: 'unforeseen')" in lines[0]
    post.before = lambda: None
    wait_until(lambda: post.texts, "the message", seconds=10)
