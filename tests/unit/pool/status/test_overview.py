"""Failures by reason, and the layout of the status, without a database."""

from __future__ import annotations

import dataclasses
import io
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from december_plugin.cli.views import tables as tables_view
from december_plugin.cli.views.as_json import dumped, overview_as_json
from december_plugin.cli.views.status import StatusView
from december_plugin.pool.jobs import lookup
from december_plugin.pool.jobs.description import KINDS, counted
from december_plugin.pool.jobs.job import Job
from december_plugin.pool.jobs.lookup import log_tail
from december_plugin.pool.liveness import PoolStatus, WorkerStatus
from december_plugin.pool.status.failures import all_redacted, grouped, normalised
from december_plugin.pool.status.overview import Overview, TableCounts, Throughput
from december_plugin.schemas.declare import DecemberTables
from december_plugin.text.formatting import format_duration
from december_plugin.text.terminal import printable

# ---- reasons


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has 39.39 GiB",
            "OutOfMemoryError: CUDA out of memory. Tried to allocate # MiB. GPU # has # GiB",
        ),
        (
            "FileNotFoundError: [Errno 2] '/data/605b371b-6d36-9099-fe13-1acd45383b9a/trial_2840.npy'",
            "FileNotFoundError: [Errno #] '/data/#/trial_#.npy'",
        ),
        ("ValueError: shapes (3, 64, 128) and (3, 64) at 0x7f12ab", "ValueError: shapes (#) and (#) at #"),
        ("no d41d8cd98f00b204e9800998ecf8427e on gpu3", "no # on gpu#"),
        ("Conv2d of a facade: loss 5e-4, K=-3", "Conv2d of a facade: loss #, K=#"),
        ("first line 1\nsecond line 2", "first line #"),
        ("\n  spaced   out\t1 ", "spaced out #"),
        ("", ""),
    ],
)
def test_normalised(message: str, expected: str) -> None:
    assert normalised(message) == expected


@given(st.text(), st.integers(min_value=0, max_value=10**12), st.integers(min_value=0, max_value=10**12))
def test_messages_that_differ_in_a_number_are_of_one_kind(words: str, first: int, second: int) -> None:
    assert normalised(f"failed after {first} s: {words}") == normalised(f"failed after {second} s: {words}")


def test_a_long_reason_is_cut() -> None:
    assert normalised("word " * 1000) == ("word " * 40)[:199] + "…"


def test_grouped() -> None:
    failures = [
        ("A", "1", "bad 1", False),
        ("A", "2", "bad 2", False),
        ("B", "3", "bad 3", False),
        ("A", "4", "bad 4", True),
    ]
    groups = [(group.table, group.reason, group.count, group.job, group.poisoned) for group in grouped(failures)]
    assert groups == [
        ("A", "bad #", 2, "1", False),
        ("A", "bad #", 1, "4", True),
        ("B", "bad #", 1, "3", False),
    ]
    assert grouped([]) == []


def test_what_a_terminal_would_obey_is_not_shown() -> None:
    assert printable("a\x1b[31mred\x1b[0m\x07 \x1b]0;title\x07\tb\nc\x9b2J") == "ared ]0;title\tb\nc2J"


def test_redacted_at_once_as_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_PASSWORD", "hunter2-of-the-lab")
    texts = ["x hunter2-of-the-lab y", "", "password='abc'\nmore", "bad password:", '"quoted" text', "a\0b"]
    assert all_redacted(texts) == ["x *** y", "", "password='***'\nmore", "bad password:", '"quoted" text', "ab"]
    assert all_redacted([]) == []


def test_json_stays_valid_where_secrets_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_PASSWORD", 'a"b\\c-of-the-lab')
    content = {"reason": 'no password: a"b\\c-of-the-lab', "rows": [{"detail": "bad password:"}, {"detail": '"x"'}]}
    assert json.loads(dumped(content)) == {
        "reason": "no password: ***",
        "rows": [{"detail": "bad password:"}, {"detail": '"x"'}],
    }


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (5400, "1.5 h"), (36000, "10 h"), (200000, "2.3 d")],
)
def test_in_words(seconds: float, words: str) -> None:
    assert format_duration(seconds) == words


def test_every_table_that_workers_fill_has_words() -> None:
    class Names:
        def __getattr__(self, name: str) -> str:
            return name

    computed = DecemberTables.computed.fget(Names())  # type: ignore[attr-defined]
    assert tuple(KINDS) == computed
    assert [counted("SurrogateAgreement", number) for number in (1, 2000)] == ["1 null job", "2,000 null jobs"]
    assert counted("LabsOwn", 2) == "2 LabsOwn jobs"


# ---- the end of a log


def test_end_of_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "a log: of a job"
    log.write_bytes(b"".join(b"line %d\n" % number for number in range(1000)) + b"last \xff")
    monkeypatch.setattr(lookup, "TAIL_BYTES", 30)
    assert log_tail(f"gpu3:{log}", 2) == (str(log), ["line 999", "last \ufffd"])
    assert log_tail(f"gpu3:{log}", 20)[1] == ["line 998", "line 999", "last \ufffd"]  # without the half line
    assert log_tail(f"gpu3:{log}", 0)[1] == []
    assert log_tail("", 20) == ("", None)
    place, lines = log_tail(f"gpu3:{tmp_path}", 20)
    assert (place, lines) == (f"{tmp_path} on the host gpu3, which cannot be read here (Is a directory)", None)


# ---- layout

LONG = "a description that is much longer than any terminal is wide, with a \x1b[31mcolour and words " * 3


def worker(number: int, **values: Any) -> WorkerStatus:
    row: dict[str, Any] = {"worker_id": f"{number:032x}", "pool_id": "", "host": "gpu3.lab.example", "pid": 4711}
    row |= {"gpu": str(number), "slurm_job": "", "state": "working", "detail": "", "lease": 60.0, "heartbeat_age": 3.0}
    row |= {"job_table": "__trained_model", "job_hash": f"{number:032x}", "epoch": 12, "n_epochs": 200, "score": 0.25}
    row |= {"seconds_left": 4000.0, "n_done": 1234, "n_failed": 1, "busy_seconds": 0.0, "version": "0.2.0"}
    return WorkerStatus(**{**row, **values})


def overview(**values: Any) -> Overview:
    workers = [worker(1), worker(2, state="waiting", detail=LONG), worker(3, heartbeat_age=400.0)]
    job: dict[str, Any] = {"table": "TrainedModel", "key": {"seed": 1}, "user": "u", "pid": 1, "age": 900.0}
    jobs = [
        Job(job_hash=each.job_hash, state="running", host=each.host, holder=each.worker_id, worker=each, **job)
        for each in workers
    ]
    jobs.append(Job(job_hash="f" * 32, state="running", host=LONG, **job))
    failed = [Job(job_hash=f"{i:032x}", state="failed", host="h", reason=f"bad {LONG}", **job) for i in range(30)]
    parts: dict[str, Any] = {"schema": "december", "time": datetime(2026, 5, 4, 3, 2, 1), "planned": 25000}
    parts |= {"jobs": jobs + failed, "workers": workers, "has_pool_tables": True}
    parts["tables"] = [TableCounts("TrainedModel", 12345, 4, 12345, 30, 0, 0), TableCounts("Empty", 0, 0, 0, 0, 0, 0)]
    parts["reasons"] = grouped((each.table, each.job_hash, each.reason, False) for each in failed)
    parts["pools"] = [PoolStatus("a" * 32, "slurm", LONG, 0, LONG, "812345", 8, "", 1, 900.0, None)]
    parts["throughput"] = Throughput({"TrainedModel": 3}, {"TrainedModel": 70}, {"TrainedModel": 2000.0}, 9000.0)
    parts["describe"] = lambda table, key: f"{table}: {LONG}, seed {key['seed']}"
    return Overview(**{**parts, **values})


def drawn(content: Overview, width: int, *, terminal: bool = False, most: int | None = 20) -> list[str]:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=terminal, highlight=False, markup=False)
    for part in StatusView(content, width=width, plain=not terminal, most=most).parts():
        console.print(part)
    return file.getvalue().splitlines()


@pytest.mark.parametrize("width", [60, 80, 109, 110, 140, 200])
def test_every_line_fits(width: int) -> None:
    lines = drawn(overview(), width)
    assert max(map(len, lines)) <= width
    assert not [line for line in lines if "\x1b" in line]  # not a terminal, and what is shown brings none along
    rows = [line for line in lines if line.startswith(("0000000", "ffffffff"))]
    assert len(rows) == 4  # each job in one line
    if width >= 80:
        numbers = next(line.split() for line in lines if line.startswith("TrainedModel  "))
        assert numbers[:7] == ["TrainedModel", "12,345", "4", "12,345", "30", "0", "0"]


@pytest.mark.parametrize("width", [80, 140])
def test_what_is_said_at_any_width(width: int) -> None:
    text = " ".join(" ".join(drawn(overview(), width)).split())
    assert "schema december, 25,000 trainings planned, 2026-05-04 03:02:01 UTC" in text
    assert "3 jobs done in the last hour, 70 in the last day 70 trainings among these, 33 min each" in text
    assert "about 2.5 h left for what can start now, until 2026-05-04 05:32 UTC, with 2 workers" in text
    assert "failed (30, one reason)" in text
    assert "workers (2 alive, 1 overdue)" in text
    assert "12/200 0.250 67 min" in text
    assert "! 1 pool asked to stop: aaaaaaaa." in text


def test_what_cannot_be_estimated_is_said() -> None:
    throughput = Throughput({}, {"TrainedModel": 70}, {"TrainedModel": 2000.0}, 0.0, {"SurrogateAgreement": 42})
    text = " ".join(" ".join(drawn(overview(throughput=throughput), 140)).split())
    assert (
        "about 0 s left for what can start now and has run before, with 2 workers; not estimated yet: 42 null jobs"
    ) in text


def test_little_room_goes_to_what_differs() -> None:
    content = overview(describe=lambda table, key: f"{table}: K 25, seed {key['seed']}")
    narrow, wide = drawn(content, 80), drawn(content, 140)
    (row,) = [line for line in narrow if line.startswith("00000000  K 25, seed 1") and "GPU 1" in line]
    assert "gpu3 GPU 1" in row
    assert [line for line in wide if "TrainedModel: K 25, seed 1" in line and "gpu3.lab.example GPU 1" in line]


def test_terminals_get_colours_and_bars() -> None:
    lines = drawn(overview(), 140, terminal=True)
    assert any("\x1b[" in line for line in lines)
    assert any("█" in line and "49 %" in line for line in lines)


def test_tables_are_cut() -> None:
    content = overview(workers=[worker(number) for number in range(30)])
    lines = drawn(content, 100)
    assert "... and 10 more workers (--json has all)" in lines
    assert not [line for line in drawn(content, 100, most=None) if "more workers" in line]


def test_nothing_planned() -> None:
    empty = {"jobs": [], "workers": [], "pools": [], "reasons": [], "throughput": Throughput(), "planned": 0}
    content = overview(tables=[TableCounts("TrainedModel", 0, 0, 0, 0, 0, 0)], **empty)
    text = "\n".join(drawn(content, 80))
    assert "TrainedModel     0        0        0       0         0        0" in text
    for heading in ("what blocks", "running", "failed (", "workers", "pools", "throughput", "Mend"):
        assert heading not in text.replace("running  waiting", "")


def test_json_has_all() -> None:
    content = json.loads(overview_as_json(overview()))
    assert list(content) == [
        "schema",
        "time",
        "planned",
        "tables",
        "failures",
        "workers",
        "pools",
        "throughput",
        "blocks",
    ]
    assert content["time"] == "2026-05-04T03:02:01Z"
    table = content["tables"][0]
    assert list(table) == ["table", "done", "waiting", "running", "failed", "poisoned", "ignored"]
    assert (len(table["running"]), len(table["failed"])) == (4, 30)
    named = {field.name for field in dataclasses.fields(WorkerStatus)} | {"alive", "overdue"}
    assert set(content["workers"][0]) == named
    assert [block["kind"] for block in content["blocks"]] == [
        "workers_wait",
        "workers_overdue",
        "reservations_without_worker",
        "stop_requested",
    ]


def test_lines_for_files_end_without_spaces(capsys: pytest.CaptureFixture[str]) -> None:
    table = tables_view.new_table("a", "b", plain=True)
    table.add_row("x", "")
    table.add_row("long one", "y")
    tables_view.show(tables_view.new_console(), [table])
    assert capsys.readouterr().out == "a         b\nx\nlong one  y\n"
