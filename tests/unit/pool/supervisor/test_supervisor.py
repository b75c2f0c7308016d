"""The supervisor of a pool, with real processes that stand in for workers and without a database."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

import helpers
from december_plugin.errors import SettingsError
from december_plugin.pool.supervisor import supervisor as local
from december_plugin.pool.supervisor import worker_slot
from december_plugin.pool.supervisor.gpus import Gpu
from december_plugin.pool.supervisor.settings import worker_program
from december_plugin.pool.supervisor.slots import Slot, available_cores
from december_plugin.pool.supervisor.supervisor import PoolSettings
from december_plugin.pool.supervisor.worker_slot import LogFollower, WorkerSlot, ending_in_words
from december_plugin.pool.worker.readiness import VARIABLE, Listener, tell_supervisor
from helpers.pool_stage import Stage, are_gone, is_alive, no_children_left, send_self


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch):
    monkeypatch.setattr(local, "TICK", 0.1)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)}
    with no_children_left():
        yield
    assert {number: signal.getsignal(number) for number in handlers} == handlers


# ---- what a worker is given


def test_each_place_has_its_worker_with_its_own_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    stage = Stage(tmp_path, n_workers=2, idle_exit=30, max_attempts=4, only=("TrainedModel",), allow_modules=("a", "b"))

    def become_idle() -> bool:
        stage.database.idle = 31.0
        return True

    assert stage.run(stage.have_started(2), become_idle) == 0
    rows = stage.started()
    assert len({row["DECEMBER_WORKER_ID"] for row in rows}) == 2
    assert all(len(row["DECEMBER_WORKER_ID"]) == 32 for row in rows)
    assert {row["DECEMBER_WORKER_ID"] for row in rows} == set(stage.database.watched)
    for row in rows:
        assert row["ppid"] == os.getpid() == int(row["DECEMBER_SUPERVISOR"])
        assert row["sid"] == row["pid"]  # Ctrl-C does not reach it
        assert (row["CUDA_VISIBLE_DEVICES"], row["DECEMBER_GPU"]) == ("", "")
        assert (row["DECEMBER_POOL_ID"], row["DECEMBER_POOL_WORKERS"]) == ("0" * 32, "2")
        assert int(row["OMP_NUM_THREADS"]) == max(1, available_cores() // 2)
        assert row["argv"] == [
            *("--schema", "lab", "--poll", "5", "--lease", "60", "--checkpoint-every", "5", "--max-attempts", "4"),
            *("--only", "TrainedModel", "--allow-modules", "a,b"),
        ]
    assert stage.said("ends: nothing to do for 30 s")
    assert stage.database.dead == stage.database.given_back == []
    assert ("cpu 1", "saved") in stage.lines
    assert (tmp_path / "cpu-2.log").read_text().splitlines() == ["working", "saved"]


def test_threads_that_the_user_has_set_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    stage = Stage(tmp_path)
    stage.run(stage.have_started(1), send_self(signal.SIGTERM))
    assert stage.started()[0]["OMP_NUM_THREADS"] == "5"


def test_the_processor_leaves_trainings_to_the_gpus_of_a_mixed_pool():
    settings = PoolSettings(schema="lab", nnfabrik="module:lab.tables", skip=("LabelAgreement",), idle_exit=3)
    gpu, cpu = Slot("gpu 0", Gpu("0", "0")), Slot("cpu 1")
    common = ["--schema", "lab", "--poll", "1", "--lease", "60", "--checkpoint-every", "5", "--max-attempts", "3"]
    common += ["--nnfabrik", "module:lab.tables"]
    assert settings.worker_options(gpu, mixed=True) == [*common, "--skip", "LabelAgreement"]
    assert settings.worker_options(cpu, mixed=True) == [*common, "--skip", "LabelAgreement,gpu"]
    assert settings.worker_options(cpu, mixed=False) == [*common, "--skip", "LabelAgreement"]
    chosen = PoolSettings(schema="lab", only=("gpu",))
    assert "--skip" not in chosen.worker_options(cpu, mixed=True)


def test_settings_can_be_sent_to_other_machines():
    settings = PoolSettings(schema="lab", gpus=(0, 2), log_folder=Path("logs"), idle_exit=60.0)
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert settings.options() == '{"gpus": [0, 2], "idle_exit": 60.0, "log_folder": "logs"}'
    assert PoolSettings(schema="other").options() == "{}"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lease": 0}, "lease is 0; it must be a number above 0."),
        ({"max_attempts": 0}, "max_attempts is 0; it must be at least 1."),
        ({"workers_per_gpu": 1.5}, "workers_per_gpu is 1.5; it must be an integer of at least 1."),
        ({"idle_exit": -1}, "idle_exit is -1; it must be a number of at least 0."),
        ({"retry": "yes"}, "retry is 'yes'; it must be true or false."),
        ({"leese": 3}, "PoolSettings has no setting 'leese'. Did you mean 'lease'?"),
    ],
)
def test_settings_of_a_pool_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        PoolSettings(schema="lab", **settings)
    assert str(caught.value).startswith(message)
    assert caught.value.setting == next(iter(settings))


def test_the_program_is_the_script_beside_the_interpreter():
    *program, word = worker_program()
    assert word == "worker"
    assert program in ([str(Path(sys.executable).with_name("december"))], [sys.executable, "-m", "december_plugin.cli"])


# ---- workers that end


class Notices:
    def __init__(self) -> None:
        self.texts: list[str] = []

    def trouble(self, text: str) -> None:
        self.texts.append(text)


def test_workers_that_cannot_begin_or_keep_ending_need_somebody(tmp_path, monkeypatch):
    stage = Stage(tmp_path)
    stage.pool.notices = notices = Notices()
    stage.do_next("print('december: no privilege'); sys.exit(1)")
    assert stage.run() == 1
    assert notices.texts == [
        "no worker can begin, and the pool has ended. cpu 1 says: working | december: no privilege"
    ]
    monkeypatch.setattr(worker_slot, "FIRST_DELAY", 0.05)
    monkeypatch.setattr(worker_slot, "LONGEST_DELAY", 0.2)
    (tmp_path / "again").mkdir()
    stage = Stage(tmp_path / "again")
    stage.pool.notices = notices = Notices()

    def kill_it() -> bool:
        stage.do_next("os.kill(os.getpid(), signal.SIGKILL)")
        return bool(notices.texts)

    assert stage.run(kill_it, send_self(signal.SIGTERM)) == 143
    log = tmp_path / "again" / "cpu-1.log"
    assert set(notices.texts) == {f"the workers of cpu 1 keep ending: killed by signal 9 (SIGKILL); log: {log}"}


def test_workers_do_not_get_the_address_of_the_notifications(tmp_path, monkeypatch):
    monkeypatch.setenv("DECEMBER_NOTIFY", "https://chat.example/a-secret")
    stage = Stage(tmp_path)
    assert "DECEMBER_NOTIFY" not in stage.pool.workers[0].environment


def test_a_killed_worker_is_reported_and_replaced_by_another(tmp_path):
    stage = Stage(tmp_path, "--helper")

    def kill_it() -> bool:
        os.kill(stage.started()[0]["pid"], signal.SIGKILL)
        return True

    assert stage.run(stage.have_started(1), kill_it, stage.have_started(2), send_self(signal.SIGTERM)) == 143
    first, second = stage.started()
    assert stage.database.dead == [(first["DECEMBER_WORKER_ID"], "killed by signal 9 (SIGKILL)\nworking")]
    assert first["DECEMBER_WORKER_ID"] != second["DECEMBER_WORKER_ID"]
    assert second["time"] - first["time"] >= 1.0
    log = tmp_path / "cpu-1.log"
    words = f"worker (process {first['pid']}) killed by signal 9 (SIGKILL); the next one starts in 1 s; its log: {log}"
    assert ("cpu 1", words) in stage.lines
    # What loads the data of a worker belongs to it: neither a killed nor an ended one leaves it behind.
    assert are_gone(first["helper"], second["helper"])
    assert log.read_text().splitlines() == ["working", "working", "saved"]  # both are in one log


@pytest.fixture
def impatient(monkeypatch):
    """Start workers again after a moment."""
    monkeypatch.setattr(worker_slot, "FIRST_DELAY", 0.1)


def test_retry_is_for_the_first_worker_only(tmp_path, impatient):
    stage = Stage(tmp_path, n_workers=2, retry=True)
    stage.do_next("os._exit(9)")
    assert stage.run(stage.have_started(3), send_self(signal.SIGTERM)) == 143
    assert [row["argv"].count("--retry") for row in stage.started()].count(1) == 1
    assert "--retry" not in stage.started()[2]["argv"]
    assert [words.splitlines()[0] for _, words in stage.database.dead] == ["ended with code 9"]


# What a worker says to its supervisor when it could begin.
BEGUN = f"os.write(int(os.environ['{VARIABLE}']), b'1')"


@pytest.mark.parametrize("code", [1, 2])
def test_wrong_settings_end_the_pool(tmp_path, code):
    stage = Stage(tmp_path, n_workers=2)
    stage.do_next(f"time.sleep(0.3); print('december: error: there is no table X'); sys.exit({code})")
    assert stage.run() == 1
    assert len(stage.started()) == 2
    ends = [text for source, text in stage.lines if source == "pool" and text.startswith("ends: ")]
    assert len(ends) == 1
    assert ends[0].endswith(" says: working | december: error: there is no table X")
    assert stage.database.finished == 1


@pytest.mark.parametrize("words", ["", "december: error: the store cannot be used"])
@pytest.mark.parametrize("code", [1, 2])
def test_a_worker_that_had_begun_has_died_whatever_the_code_and_its_words(tmp_path, impatient, code, words):
    stage = Stage(tmp_path)
    stage.do_next(f"{BEGUN}; print({words!r}, flush=True); os._exit({code})")
    assert stage.run(stage.have_started(2), send_self(signal.SIGTERM)) == 143
    assert [words.splitlines()[0].startswith(f"ended with code {code}") for _, words in stage.database.dead] == [True]


def test_a_worker_that_cannot_begin_ends_no_pool_in_which_another_could(tmp_path, impatient):
    stage = Stage(tmp_path, n_workers=2)
    stage.do_next(BEGUN)

    begun: list[int] = []

    def one_has_begun() -> bool:
        begun.extend(int(path.name.removeprefix("taken-")) for path in tmp_path.glob("taken-*"))
        return bool(begun)

    def refuse_the_other() -> bool:
        stage.do_next("print('december: error: the disk is away'); sys.exit(1)")
        (other,) = (row["pid"] for row in stage.started() if row["pid"] not in begun)
        os.kill(other, signal.SIGKILL)
        return True

    def the_first_works() -> bool:
        return is_alive(*begun)

    acts = (stage.have_started(2), one_has_begun)
    assert stage.run(*acts, refuse_the_other, stage.have_started(4), the_first_works, send_self(signal.SIGTERM)) == 143
    ends = [text for _, text in stage.lines if text.startswith("ends: ")]
    assert ends == ["ends: SIGTERM"]
    assert stage.said("december: error: the disk is away")
    assert sorted(words.splitlines()[0] for _, words in stage.database.dead) == [
        "ended with code 1",
        "killed by signal 9 (SIGKILL)",
    ]


def test_what_a_worker_has_said_is_read_also_after_its_death(tmp_path):
    worker = WorkerSlot(
        Slot("cpu 1"), [sys.executable, "-c", f"import os; {BEGUN}"], environment={}, log=tmp_path / "log"
    )
    silent = WorkerSlot(Slot("cpu 2"), ["true"], environment={}, log=tmp_path / "log")
    before = os.listdir("/dev/fd")
    for each in (worker, silent):
        assert not each.has_begun
        each.start()
        while each.has_ended() is None:
            time.sleep(0.01)
    assert worker.has_begun
    assert not silent.has_begun
    silent.command[:] = [str(tmp_path / "gone")]
    with pytest.raises(FileNotFoundError):
        silent.start()
    assert not silent.has_begun
    silent.command[:] = ["true"]
    silent.start()
    while silent.has_ended() is None:
        time.sleep(0.01)
    assert os.listdir("/dev/fd") == before


def test_a_worker_speaks_to_its_supervisor_once(monkeypatch):
    listener = Listener()
    monkeypatch.setenv(VARIABLE, str(listener.writing))
    assert not listener.was_told()
    tell_supervisor()
    tell_supervisor()  # its processes inherit neither the variable nor the pipe
    assert VARIABLE not in os.environ
    assert listener.was_told()
    assert not listener.was_told()
    monkeypatch.setenv(VARIABLE, "no number")
    tell_supervisor()
    listener.close()


def test_a_defect_is_a_death(tmp_path, impatient):
    stage = Stage(tmp_path)
    stage.do_next("print('x' * 10_000); sys.exit(70)")
    stage.run(stage.have_started(2), send_self(signal.SIGTERM))
    ((_, words),) = stage.database.dead
    assert words.startswith("ended with code 70 (a bug in december)\n")
    assert len(words) < 4000


def test_a_worker_that_ends_by_itself_is_started_again_and_is_no_death(tmp_path, impatient):
    stage = Stage(tmp_path)
    stage.do_next("sys.exit(3)")
    assert stage.run(stage.have_started(2), send_self(signal.SIGTERM)) == 143
    assert stage.database.dead == []
    assert stage.said("ended with code 3; the next one starts in 0 s")


def test_a_program_that_cannot_be_started_is_tried_again(tmp_path):
    stage = Stage(tmp_path)
    stage.pool.workers[0].command[0] = str(tmp_path / "gone")
    began = time.monotonic()
    assert stage.run(lambda: time.monotonic() - began > 1.3, send_self(signal.SIGINT)) == 130
    words = f"no worker can be started: {tmp_path / 'gone'}: No such file or directory"
    assert stage.lines.count(("cpu 1", words)) == 2


def test_a_folder_of_logs_that_is_gone_is_made_anew(tmp_path, impatient):
    stage = Stage(tmp_path)
    stage.pool.workers[0].log = tmp_path / "logs" / "pool" / "cpu-1.log"

    def clean_up_and_kill() -> bool:
        shutil.rmtree(tmp_path / "logs")
        os.kill(stage.started()[0]["pid"], signal.SIGKILL)
        return True

    assert stage.run(stage.have_started(1), clean_up_and_kill, stage.have_started(2), send_self(signal.SIGTERM)) == 143
    assert (tmp_path / "logs" / "pool" / "cpu-1.log").exists()


def test_pauses_double_to_a_minute_and_are_forgotten_after_a_minute_of_life(tmp_path):
    now = [0.0]
    worker = WorkerSlot(Slot("cpu 1"), ["false"], environment={}, log=tmp_path / "log", clock=lambda: now[0])
    pauses = []
    for lived in (0, 1, 2, 3, 3, 3, 59, 59, 60, 0):
        worker.start()
        now[0] += lived
        while worker.has_ended() is None:
            time.sleep(0.01)
        pauses.append(worker.seconds_before_start())
        assert not worker.is_due()
        now[0] += pauses[-1]
        assert worker.is_due()
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 1, 2]


def test_endings_in_words():
    assert ending_in_words(-11) == "killed by signal 11 (SIGSEGV)"
    assert ending_in_words(-200) == "killed by signal 200"
    assert ending_in_words(75) == "ended with code 75 (the GPU failed)"
    assert ending_in_words(17) == "ended with code 17"


# ---- signals


@pytest.fixture
def heard_hang_up():
    """Hear SIGHUP, also where the tests themselves run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("heard_hang_up")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR2, 140), (signal.SIGHUP, 129)]
)
def test_one_signal_lets_the_workers_finish(tmp_path, monkeypatch, number, code):
    monkeypatch.setenv("GOODBYE", "0.4")
    stage = Stage(tmp_path, n_workers=2)
    began = []
    assert stage.run(stage.have_started(2), send_self(number), lambda: began.append(time.monotonic()) or True) == code
    assert time.monotonic() - began[0] > 0.2
    assert stage.lines.count(("cpu 1", "saved")) == stage.lines.count(("cpu 2", "saved")) == 1
    assert stage.said("waiting for cpu 1 (process ")
    assert stage.said("once more kills them")
    assert stage.database.dead == stage.database.given_back == []
    assert len(stage.started()) == 2


def test_the_second_signal_kills_and_costs_the_jobs_no_attempt(tmp_path):
    stage = Stage(tmp_path, "--deaf", "--helper", n_workers=2)
    waited = []

    def wait_a_little() -> bool:
        waited.append(time.monotonic())
        return waited[-1] - waited[0] > 1

    code = stage.run(stage.have_started(2), send_self(signal.SIGINT), wait_a_little, send_self(signal.SIGINT))
    assert code == 130
    assert stage.said("Ctrl-C again: killing cpu 1 (process ")
    assert {row["DECEMBER_WORKER_ID"] for row in stage.started()} == set(stage.database.given_back)
    assert stage.database.dead == []
    assert are_gone(*(row["helper"] for row in stage.started()))


def test_who_is_waited_for_is_said_again(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "REMINDER", 0.3)
    stage = Stage(tmp_path, "--deaf")
    said = stage.lines
    assert (
        stage.run(
            stage.have_started(1),
            send_self(signal.SIGTERM),
            lambda: sum("still waiting for cpu 1 (process" in text for _, text in said) >= 2,
            send_self(signal.SIGTERM),
        )
        == 143
    )


def test_a_request_to_stop_drains(tmp_path):
    stage = Stage(tmp_path)

    def stop() -> bool:
        stage.database.stop_requested = 1
        return True

    assert stage.run(stage.have_started(1), stop) == 0
    assert ("cpu 1", "saved") in stage.lines
    assert stage.said("ends: `december pool stop`")


def test_a_request_to_stop_at_once_kills(tmp_path):
    stage = Stage(tmp_path, "--deaf")

    def stop() -> bool:
        stage.database.stop_requested = 2
        return True

    assert stage.run(stage.have_started(1), stop) == 0
    assert stage.said("`december pool stop --now`: killing cpu 1 (process ")
    assert len(stage.database.given_back) == 1


def test_a_pool_that_is_to_stop_before_it_begins_starts_no_worker(tmp_path):
    stage = Stage(tmp_path)
    stage.database.stop_requested = 1
    assert stage.run() == 0
    assert stage.started() == []


def test_workers_start_although_the_database_does_not_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "FIRST_ANSWER", 0.5)
    stage = Stage(tmp_path)
    stage.database.has_answered, stage.database.is_reachable, stage.database.failures = False, False, None
    began = time.time()
    assert stage.run(stage.have_started(1), send_self(signal.SIGTERM)) == 143
    assert stage.started()[0]["time"] - began >= 0.5
    assert stage.said("the database server could not be told that the pool has ended. Jobs of killed workers are free")


def test_the_time_is_over(tmp_path):
    stage = Stage(tmp_path, max_time=1.5)
    began = time.monotonic()
    assert stage.run() == 0
    assert 1.5 <= time.monotonic() - began < 10
    assert stage.said("ends: its time of 1.5 s is over")


def test_failures_are_told_by_the_exit_code(tmp_path):
    stage = Stage(tmp_path, max_time=0.5)
    stage.database.failures = {"failed": 2, "poisoned": 1}
    assert stage.run() == 3
    assert stage.lines[-1] == ("pool", "2 jobs failed, 1 job poisoned; `december status` says why")


def test_idleness_does_not_count_while_a_worker_is_missing(tmp_path, impatient):
    stage = Stage(tmp_path, n_workers=2, idle_exit=1.0)
    stage.database.idle = 0.0
    stage.do_next("os._exit(9)")
    all_watched: list[tuple[str, ...]] = []
    stage.database.watch = all_watched.append

    def become_idle() -> bool:
        stage.database.idle = 2.0 if len(stage.started()) == 3 else 0.0
        return False

    assert stage.run(become_idle) == 0
    assert [len(ids) for ids, _ in itertools.groupby(all_watched)] == [0, 2, 0, 2]


# ---- the supervisor itself


def test_a_defect_of_the_supervisor_leaves_no_worker(tmp_path):
    stage = Stage(tmp_path, n_workers=2)

    def break_down() -> bool:
        raise RuntimeError("defect")

    with pytest.raises(RuntimeError, match="defect"):
        stage.run(stage.have_started(2), break_down)
    assert stage.lines.count(("cpu 1", "saved")) == 1
    assert stage.database.finished == 1
    assert are_gone(*(row["pid"] for row in stage.started()))


def test_workers_of_a_killed_supervisor_can_notice_it(tmp_path):
    code = f"""
        import sys
        sys.path.insert(0, {helpers.FOLDER!r})
        from pathlib import Path
        from helpers.pool_stage import Stage
        Stage(Path({str(tmp_path)!r}), n_workers=2).pool.run()
    """
    supervisor = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path)
    try:
        until = time.monotonic() + 60
        stage_started = tmp_path / "started"
        while not stage_started.exists() or len(stage_started.read_text().splitlines()) < 2:
            assert time.monotonic() < until
            time.sleep(0.05)
    finally:
        supervisor.kill()
        supervisor.wait()
    assert are_gone(*(json.loads(line)["pid"] for line in stage_started.read_text().splitlines()))


def test_lines_of_a_terminal_that_is_gone_are_dropped(monkeypatch):
    class Gone:
        def write(self, text: str) -> None:
            raise OSError(5, "Input/output error")

        def flush(self) -> None:
            pass

    monkeypatch.setattr(sys, "stderr", Gone())
    assert local.print_event("pool", "hello") is None


# ---- logs


def test_a_log_is_followed_from_where_it_was(tmp_path):
    log = tmp_path / "log"
    log.write_text("of an earlier pool\n")
    follower = LogFollower(log)
    assert list(follower.new_lines()) == []
    with log.open("ab") as file:
        file.write("first\nsecond half: \N{GREEK SMALL LETTER BETA}".encode()[:-1])
    assert list(follower.new_lines()) == ["first"]
    with log.open("ab") as file:
        file.write("\N{GREEK SMALL LETTER BETA}".encode()[-1:] + b"\n10%\r55%\r100%\n\x1b[31mred\xff\nlast")
    assert list(follower.new_lines()) == [
        "second half: \N{GREEK SMALL LETTER BETA}",
        "100%",
        "?[31mred\N{REPLACEMENT CHARACTER}",
    ]
    assert list(follower.new_lines(to_the_end=True)) == ["last"]
    assert follower.last_lines()[0] == "first"
    log.write_text("after logrotate\n")
    assert list(follower.new_lines()) == follower.last_lines() == ["after logrotate"]
    log.unlink()
    assert list(follower.new_lines()) == []
    assert follower.last_lines() == []


def test_a_long_log_is_read_in_pieces(tmp_path):
    log = tmp_path / "log"
    log.write_text("")
    follower = LogFollower(log)
    log.write_text("\n".join(f"line {number}" for number in range(200_000)))
    some = len(list(follower.new_lines()))
    assert 0 < some < 200_000
    assert some + len(list(follower.new_lines(to_the_end=True))) == 200_000
    assert follower.last_lines()[-1] == "line 199999"
    assert len(follower.last_lines()) == 15
