"""What a worker prints: quick jobs folded, long ones named, a bar on a terminal only."""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Iterator

import pytest

from december_plugin.cli.views import worker as worker_view
from december_plugin.cli.views.worker import WorkerConsole
from december_plugin.training.monitor import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def consoles() -> Iterator[list[WorkerConsole]]:
    made: list[WorkerConsole] = []
    logger = logging.getLogger("december_plugin")
    before = logger.level
    logger.setLevel(logging.INFO)
    yield made
    logger.setLevel(before)
    for console in made:
        logger.removeHandler(console)
        console.close()


@pytest.fixture
def console(consoles: list[WorkerConsole]) -> WorkerConsole:
    return attached(consoles, io.StringIO())


def attached(consoles: list[WorkerConsole], stream: io.StringIO, **settings: bool) -> WorkerConsole:
    console = WorkerConsole(stream, **settings)
    console.setFormatter(logging.Formatter("%(message)s"))
    logging.getLogger("december_plugin").addHandler(console)
    consoles.append(console)
    return console


def done(table: str, seconds: float, words: str = "seeds 1, 2") -> None:
    logging.getLogger("december_plugin.pool.worker.loop").info(
        "%s: %s: done in %.1f s", table, words, seconds, extra={"finished": (table, seconds)}
    )


def lines(console: WorkerConsole) -> list[str]:
    return console.stream.getvalue().splitlines()


def test_what_takes_no_time_is_one_line_for_each_table(console: WorkerConsole) -> None:
    for _ in range(250):
        done("SeedAgreement", 0.01)
    assert lines(console) == []
    done("Consensus", 0.2, "K 3")
    done("SurrogateAgreement", 75.0, "K 3")
    for _ in range(2):
        done("LabsOwn", 0.1)
    logging.getLogger("december_plugin.x").warning("waiting: the server is away")
    assert lines(console) == [
        "SeedAgreement: 250 comparisons of seeds done in 2.5 s",
        "Consensus: K 3: done in 0.2 s",
        "SurrogateAgreement: K 3: done in 75.0 s",
        "LabsOwn: 2 LabsOwn jobs done in 0.2 s",
        "waiting: the server is away",
    ]


def test_trainings_are_never_folded_and_the_end_prints_what_is_left(console: WorkerConsole) -> None:
    done("TrainedModel", 0.01, "seed 1")
    assert lines(console) == ["TrainedModel: seed 1: done in 0.0 s"]
    done("SeedAgreement", 0.01)
    console.close()
    assert lines(console)[1:] == ["SeedAgreement: seeds 1, 2: done in 0.0 s"]


def test_folded_lines_are_printed_after_a_while(console: WorkerConsole, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_view, "FOLDED_FOR", 0.02)
    done("SeedAgreement", 0.01)
    until = time.monotonic() + 5
    while not lines(console) and time.monotonic() < until:
        time.sleep(0.01)
    assert lines(console) == ["SeedAgreement: seeds 1, 2: done in 0.0 s"]


def test_a_job_is_named_when_it_takes_long(console: WorkerConsole, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_view, "LONG", 0.02)
    console.begins("TrainedModel: baseline, seed 1")
    until = time.monotonic() + 5
    while not lines(console) and time.monotonic() < until:
        time.sleep(0.01)
    console.ends()
    console.begins("TrainedModel: baseline, seed 2")
    console.ends()
    time.sleep(0.05)  # the second job took no longer than that
    assert lines(console) == ["TrainedModel: baseline, seed 1: started"]


def test_a_job_is_named_before_anything_is_said_about_it(console: WorkerConsole) -> None:
    done("SeedAgreement", 0.01)
    console.begins("TrainedModel: baseline, seed 1")
    for epochs in (10, 20):
        logging.getLogger("december_plugin.training").info("reused a pretraining of %d epochs", epochs)
    console.ends()
    done("TrainedModel", 3.0, "baseline, seed 1")
    assert lines(console) == [
        "SeedAgreement: seeds 1, 2: done in 0.0 s",
        "TrainedModel: baseline, seed 1: started",
        "reused a pretraining of 10 epochs",
        "reused a pretraining of 20 epochs",
        "TrainedModel: baseline, seed 1: done in 3.0 s",
    ]


def test_a_bar_on_a_terminal(consoles: list[WorkerConsole]) -> None:
    terminal = attached(consoles, Terminal())
    terminal.begins("TrainedModel: base\x1b[2Jline, seed 1")
    terminal.progresses(Progress(12, 40, 0.25, 1.0))
    terminal.progresses(Progress(13, 40, 0.26, 1.0))
    logging.getLogger("december_plugin.x").warning("the checkpoint could not be saved")
    terminal.ends()
    shown = terminal.stream.getvalue()
    assert "TrainedModel: baseline, seed 1" in shown
    assert "12/40" in shown
    assert "score 0.26" in shown
    assert "the checkpoint could not be saved\n" in shown
    assert shown.rsplit("\r", 1)[-1].strip() == ""  # the bar is gone


def test_no_bar_elsewhere(consoles: list[WorkerConsole]) -> None:
    for console in (attached(consoles, io.StringIO()), attached(consoles, Terminal(), quiet=True)):
        console.begins("TrainedModel: baseline, seed 1")
        console.progresses(Progress(12, 40, 0.25, 1.0))
        console.ends()
        assert console.stream.getvalue() == ""


def test_a_terminal_obeys_nothing_that_a_comment_holds(console: WorkerConsole) -> None:
    done("TrainedModel", 3.0, "\x1b]0;mine\x07 seed 1")
    assert lines(console) == ["TrainedModel: ]0;mine seed 1: done in 3.0 s"]
