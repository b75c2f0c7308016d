"""Which messages are made of events, and when they are sent."""

from __future__ import annotations

import platform

import pytest

from december_plugin.pool.notifications.outbox import FIRST_PAUSE, INTERVAL_SECONDS, Event, Outbox

POOL = "ab12cd34" + "0" * 24


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def outbox(clock: Clock) -> Outbox:
    return Outbox("lab", POOL, clock=clock)


def failure(number: int, message: str = "ValueError: the value {} is wrong\nmore") -> Event:
    return Event("failed", message.format(number), "TrainedModel", f"{number:032x}")


def test_failures_of_one_moment_and_one_reason_are_one_message(outbox, clock):
    for number in range(3):
        outbox.add(failure(number))
    outbox.add(failure(9, "OSError: gone"))
    assert outbox.next() is None
    clock.now += 5
    message = outbox.next()
    assert message.event == "failed"
    assert message.text == (
        "december: 4 jobs failed in the schema lab\n"
        "3 × TrainedModel: ValueError: the value # is wrong (`december jobs show 00000000`)\n"
        "1 × TrainedModel: OSError: gone (`december jobs show 00000000`)"
    )
    reasons = [
        {"table": "TrainedModel", "reason": "ValueError: the value # is wrong", "count": 3, "job": "0" * 32},
        {"table": "TrainedModel", "reason": "OSError: gone", "count": 1, "job": f"{9:032x}"},
    ]
    assert message.details() == {
        "id": message.message_id,
        "event": "failed",
        "schema": "lab",
        "pool": "ab12cd34",
        "host": platform.node(),
        "count": 4,
        "reasons": reasons,
    }


def test_a_flood_is_one_message_in_some_minutes_that_counts_all(outbox, clock):
    sent = []
    for second in range(1000):
        clock.now += 1
        if second < 700:
            outbox.add(failure(second))
        if (message := outbox.next()) is not None:
            sent.append((second, message.fields["count"], len(message.text.splitlines())))
            outbox.delivered()
    assert sent == [(5, 6, 2), (305, 300, 2), (605, 300, 2), (905, 94, 2)]
    assert INTERVAL_SECONDS == 300


def test_the_kinds_do_not_wait_for_each_other(outbox, clock):
    outbox.add(failure(1))
    clock.now += 5
    assert outbox.next().event == "failed"
    outbox.delivered()
    outbox.add(Event("poisoned", "ended with code 9\nout of luck", "TrainedModel", "7" * 32))
    clock.now += 5
    message = outbox.next()
    assert message.text == (
        "december: 1 job is poisoned in the schema lab: workers keep dying with it\n"
        "1 × TrainedModel: ended with code 9 (`december jobs show 77777777`)"
    )
    outbox.delivered()
    outbox.add(Event("finished", "december: nothing is left", counts={"done": 7}))
    clock.now += 5
    message = outbox.next()
    assert (message.text, message.fields["done"]) == ("december: nothing is left", 7)


def test_what_did_not_arrive_is_repeated_as_it_was_after_growing_pauses(outbox, clock):
    outbox.add(failure(1))
    clock.now += 5
    first = outbox.next()
    outbox.not_delivered()
    outbox.add(failure(2))
    clock.now += FIRST_PAUSE - 1
    assert outbox.next() is None
    clock.now += 1
    assert outbox.next() is first
    outbox.not_delivered()
    clock.now += 3 * FIRST_PAUSE - 1
    assert outbox.next() is None
    clock.now += 1
    assert outbox.next() is first
    outbox.delivered()
    assert outbox.next() is None
    assert outbox.left() == ["december: 1 job failed in the schema lab"]
    second = outbox.next(at_once=True)
    assert second.message_id != first.message_id
    assert "the value 2 is wrong" in second.text
    outbox.delivered()
    assert outbox.left() == []


def test_secrets_and_control_characters_are_not_told(outbox, clock, monkeypatch):
    monkeypatch.setenv("DJ_PASS", "correct horse battery")
    outbox.add(failure(1, "OSError: cannot log in with correct horse battery\x1b[31m or password='x'"))
    message = outbox.next(at_once=True)
    assert "OSError: cannot log in with *** or password='***'" in message.text
    assert message.fields["reasons"][0]["reason"] == "OSError: cannot log in with *** or password='***'"


def test_many_reasons_are_counted_and_not_all_told(outbox):
    for number, word in enumerate(["one", "two", "three", "four", "five", "six", "seven"]):
        outbox.add(failure(number, f"OSError: {word}"))
    lines = outbox.next(at_once=True).text.splitlines()
    assert len(lines) == 7
    assert lines[-1] == "2 more jobs for other reasons; `december status` lists all"
