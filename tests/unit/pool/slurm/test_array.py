"""What is asked of Slurm, what its answers mean, and what a task of an array does when it is interrupted; no Slurm."""

from __future__ import annotations

import argparse
import os
import pickle
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from december_plugin.cli import slurm_options
from december_plugin.errors import SettingsError
from december_plugin.pool.liveness import PoolStatus
from december_plugin.pool.notifications.target import Webhook
from december_plugin.pool.slurm import array as slurm
from december_plugin.pool.slurm import task as slurm_task
from december_plugin.pool.slurm.array import ArraySettings, ArrayStatus, SlurmError, parse_time
from december_plugin.pool.slurm.task import PoolTask
from december_plugin.pool.supervisor import supervisor as local
from december_plugin.pool.supervisor.settings import PoolSettings
from helpers.pool_stage import Stage


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    slurm_options.add_slurm_options(parser)
    return parser.parse_args(["--slurm", *words])


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Return a function that puts a stand-in for a program before all others."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def make(name: str, script: str) -> None:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return make


# ---- options


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("90", 90),
        ("12:00:00", 720),
        ("0:00:01", 1),
        ("5:30", 6),
        ("2-0", 2880),
        ("1-12", 2160),
        ("1-00:30", 1470),
        ("1-00:00:30", 1441),
    ],
)
def test_time_limits_are_read_as_sbatch_reads_them(text, minutes):
    assert parse_time(text) == minutes


@pytest.mark.parametrize("text", ["", "soon", "1:2:3:4", "1-", "-5", "1.5"])
def test_other_times_are_refused(text):
    with pytest.raises(SettingsError, match=r"--time is .*; it must be minutes, minutes:seconds, hours:minutes"):
        parse_time(text)


def test_the_options_become_parameters_of_submitit():
    words = ["--workers", "8", "--partition", "gpu", "--cpus-per-worker", "4", "--mem", "32G", "--qos", "long"]
    words += ["--account", "vision", "--constraint", "a100|h100", "--slurm-option", "exclude=node7"]
    assert slurm_options.array_settings(parse(*words)).parameters() == {
        "job_name": "december",
        "time": 720,
        "nodes": 1,
        "ntasks_per_node": 1,
        "partition": "gpu",
        "account": "vision",
        "qos": "long",
        "constraint": "a100|h100",
        "cpus_per_task": 4,
        "gpus_per_node": 1,
        "array_parallelism": 8,
        "signal_delay_s": 90,
        "additional_parameters": {"requeue": True, "mem": "32G", "exclude": "node7"},
        "srun_args": ["--cpus-per-task=4"],
    }


def test_gpus_of_a_kind_replace_the_number_and_none_are_asked_for_without():
    by_kind = slurm_options.array_settings(parse("--workers", "1", "--slurm-option", "gres=gpu:a100:1"))
    assert "gpus_per_node" not in by_kind.parameters()
    assert by_kind.parameters()["additional_parameters"] == {"requeue": True, "gres": "gpu:a100:1"}
    without = slurm_options.array_settings(parse("--workers", "1", "--gpus-per-worker", "0", "--time", "2"))
    assert "gpus_per_node" not in without.parameters()
    assert without.parameters()["signal_delay_s"] == 60


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "--slurm needs --workers N, the number of tasks of the array."),
        (("--workers", "0"), "--workers is 0; it must be at least 1."),
        (("--workers", "1", "--gpus-per-worker", "-1"), "--gpus-per-worker is -1; it must be at least 0."),
        (("--workers", "1", "--time", "0"), "--time is 0; it must be at least 1."),
        (
            ("--workers", "1", "--slurm-option", "exclude"),
            "--slurm-option is 'exclude'; it must be KEY=VALUE, such as exclude=node7.",
        ),
        (
            ("--workers", "1", "--slurm-option", "array=0-3"),
            "--slurm-option array: december sets this option of sbatch itself. Leave it out.",
        ),
        (
            ("--workers", "1", "--slurm-option", "comment=a\nb"),
            r"--slurm-option comment is 'a\nb'; it must be printable and on one line.",
        ),
        (("--workers", "1", "--partition", "a\nb"), r"--partition is 'a\nb'; it must be printable and on one line."),
        (("--workers", "1", "--folder", "/a/%j"), "--folder is '/a/%j'; it must not contain the character %."),
    ],
)
def test_wrong_options_are_named(words, message):
    with pytest.raises(SettingsError) as raised:
        slurm.array_folder(slurm_options.array_settings(parse(*words)), "0" * 32)
    assert str(raised.value) == message


def test_a_password_in_an_option_is_refused(monkeypatch):
    monkeypatch.setenv("DJ_PASS", "correct horse")
    with pytest.raises(SettingsError, match="--slurm-option comment contains a password, which others could read in"):
        slurm_options.array_settings(parse("--workers", "1", "--slurm-option", "comment=correct horse"))


def test_options_of_one_place_are_refused_in_the_other():
    with pytest.raises(SettingsError, match=r"--mem is an option for Slurm\. Add --slurm to submit to a cluster, or"):
        slurm_options.check_without_slurm(parse("--mem", "3G"))
    slurm_options.check_without_slurm(parse())
    args = parse("--workers", "1")
    args.cpu = 4
    with pytest.raises(SettingsError, match=r"--cpu is for a pool on this machine; Slurm chooses from what you ask"):
        slurm_options.array_settings(args)


# ---- what the nodes find


def test_credentials_that_would_not_reach_the_nodes_are_named(tmp_path, monkeypatch, program):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DJ_USER", "student")
    monkeypatch.delenv("DJ_PASS", raising=False)
    program("scontrol", "echo 'AccountingStoreFlags    = job_comment'")
    with pytest.raises(SettingsError, match="the workers on the nodes would not find the password of the database"):
        slurm.check_credentials()
    (tmp_path / ".datajoint_config.json").write_text('{"database.password": "correct horse"}')
    slurm.check_credentials()
    monkeypatch.setenv("DJ_PASS", "correct horse")
    slurm.check_credentials()
    program("scontrol", "echo 'AccountingStoreFlags    = job_comment,job_env'")
    with pytest.raises(SettingsError, match="the password is in DJ_PASS, and this Slurm stores the environment of all"):
        slurm.check_credentials()
    monkeypatch.delenv("DJ_PASS")
    monkeypatch.setenv("DECEMBER_NOTIFY", "https://chat.example/a-secret")
    with pytest.raises(SettingsError, match="DECEMBER_NOTIFY may hold a secret, and this Slurm stores the environment"):
        slurm.check_credentials()


def test_a_database_on_the_loopback_interface_is_refused_for_other_nodes(program, monkeypatch):
    monkeypatch.setattr("platform.node", lambda: "login.lab.org")
    settings = ArraySettings(workers=1, partition="gpu")
    assert slurm.check_reach(settings, host="db.lab.org") == ""
    program("sinfo", "echo login")
    assert slurm.check_reach(settings, host=None) == "login.lab.org"
    program("sinfo", "echo login; echo node1; echo node2; echo node2; echo node3; echo node4")
    with pytest.raises(SettingsError) as raised:
        slurm.check_reach(settings, host="localhost")
    assert "the database server localhost can be reached only on this machine (login.lab.org), but" in str(raised.value)
    assert "other nodes (node1, node2, node3, ...)." in str(raised.value)


# ---- what has become of an array


def pool_of(pool_id: str, slurm_job: str) -> PoolStatus:
    return PoolStatus(pool_id, "slurm", "login", 0, "ada", slurm_job, 2, "", 0, 60.0, None)


def test_the_queue_is_told_in_words(program):
    lines = ["7 |RUNNING |0|None", "7|RUNNING|2|None", "7|PENDING|0|Resources", "7|PENDING|1|BeginTime", "9|RUNNING|0|"]
    program("squeue", "\n".join(f"echo '{line}'" for line in lines))
    pools = [pool_of("a", "7"), pool_of("b", "8"), pool_of("c", "")]
    found = slurm.slurm_status(pools)
    assert found == {"a": ArrayStatus(1, 2, 1, ("Resources", "BeginTime")), "b": ArrayStatus()}
    assert found["a"].words() == "2 running, 1 pending, 1 requeued (Resources, BeginTime)"
    assert found["b"].words() == "ended"
    assert found["b"].is_over
    assert slurm.slurm_status(pools[2:]) == {}


def test_slurm_that_does_not_answer_is_said(program, monkeypatch):
    program("squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    pool = pool_of("a", "7")
    with pytest.raises(SlurmError, match=r"squeue says: slurm_load_jobs error: Unable to contact slurm controller\."):
        slurm.slurm_status([pool])
    program("scancel", "echo 'scancel: error: Kill job error on job id 7: Invalid job id specified' >&2; exit 1")
    assert slurm.cancel_pending("7") is False
    assert slurm.cancel_all("7") is False
    program("scancel", "echo 'scancel: error: Access/permission denied' >&2; exit 1")
    with pytest.raises(SlurmError, match=r"scancel says: Access/permission denied\."):
        slurm.cancel_pending("7")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SlurmError, match="squeue cannot be found here"):
        slurm.slurm_status([pool])


# ---- a task on its node


retries: list[bool] = []  # what each start of a pool was told about failed jobs
targets: list[Any] = []  # who each start of a pool was to notify


@pytest.fixture
def task(monkeypatch):
    """Return a function that runs a task whose pool ends like this while Slurm says that; and what was requeued."""
    requeued: list[int] = []
    retries.clear()
    targets.clear()
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")  # the last task has the array's own number
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    monkeypatch.setattr(slurm_task, "REQUEUE_PAUSE", 0.01)
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM)}

    def on_usr2(number: int, frame: object) -> None:
        requeued.append(number)
        raise SystemExit(255)

    def run(code: int | Exception, **options: str) -> int:
        def run_pool(settings: PoolSettings, *, notify: Any) -> int:
            targets.append(notify)
            retries.append(settings.retry)
            if isinstance(code, Exception):
                raise code
            return code

        monkeypatch.setattr(local, "run_pool", run_pool)
        signal.signal(signal.SIGUSR2, on_usr2)
        settings = PoolSettings(schema="lab", pool_id="1" * 32, retry=True)
        return pickle.loads(pickle.dumps(PoolTask(settings, **options)))()

    yield run, requeued
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("code", [140, 143])
def test_an_interrupted_task_that_slurm_leaves_alone_requeues_itself(task, program, code):
    program("scontrol", 'test "$4" = 7_2 && echo "JobId=7 ArrayJobId=7 JobState=RUNNING Reason=None"')
    run, requeued = task
    with pytest.raises(SystemExit) as ended:
        run(code)
    assert ended.value.code == 255
    assert requeued == [signal.SIGUSR2]


@pytest.mark.parametrize(
    ("code", "state"), [(143, "COMPLETING"), (143, "CANCELLED"), (140, "PENDING"), (3, "RUNNING"), (1, "RUNNING")]
)
def test_other_ends_of_a_task_are_left_to_slurm(task, program, code, state):
    program("scontrol", f"echo JobState={state}")
    run, requeued = task
    with pytest.raises(SystemExit) as ended:
        run(code)
    assert ended.value.code == code
    assert requeued == []


def test_a_task_with_nothing_left_to_do_is_done(task):
    run, requeued = task
    assert run(0) == 0
    assert requeued == []


def test_a_controller_that_does_not_answer_is_asked_again(task, program, tmp_path):
    asked = tmp_path / "asked"
    program("scontrol", f"echo x >> {asked}; test $(wc -l < {asked}) -gt 2 || exit 1; echo JobState=RUNNING")
    run, requeued = task
    with pytest.raises(SystemExit):
        run(143)
    assert requeued == [signal.SIGUSR2]
    assert len(asked.read_text().split()) == 3


def test_a_requeueing_that_fails_is_tried_again(monkeypatch):
    monkeypatch.setattr(slurm_task, "REQUEUE_PAUSE", 0.0)
    before = signal.getsignal(signal.SIGTERM)
    attempts = []

    def on_usr2(number: int, frame: object) -> None:
        attempts.append(number)
        if len(attempts) < 3:
            raise subprocess.CalledProcessError(1, ["scontrol"])

    try:
        slurm_task.requeue(on_usr2)
        assert len(attempts) == 3
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        attempts[:] = [0] * -100
        with pytest.raises(subprocess.CalledProcessError):
            slurm_task.requeue(lambda *_: subprocess.run(["false"], check=True))
    finally:
        signal.signal(signal.SIGTERM, before)


def test_explained_errors_of_a_task_are_its_last_words(task):
    run, _ = task
    with pytest.raises(SystemExit) as ended:
        run(SettingsError("there is no GPU 0 here"))
    assert ended.value.code == "error: there is no GPU 0 here"
    with pytest.raises(SystemExit) as ended:
        run(0, only_host="elsewhere")
    assert "but the database listens only on elsewhere. Configure a server that all nodes reach" in ended.value.code


def test_a_node_without_the_settings_starts_no_database_of_its_own(task, monkeypatch):
    run, _ = task
    monkeypatch.setattr("december_plugin.database.lab_settings.lab_settings", lambda: None)
    with pytest.raises(SystemExit) as ended:
        run(0, server="db.lab.org:3306")
    assert "error: no settings for the database server db.lab.org:3306 are found on " in ended.value.code
    assert "or let sbatch pass the environment on (no --export=NONE, no SBATCH_EXPORT=NONE)" in ended.value.code
    assert retries == []
    monkeypatch.setattr("december_plugin.database.lab_settings.lab_settings", lambda: object())
    assert run(0, server="db.lab.org:3306") == 0


def test_failed_jobs_are_tried_again_once_and_not_after_each_requeueing(task, monkeypatch):
    run, _ = task
    run(0)
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    run(0)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    run(0)
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID")
    monkeypatch.delenv("SLURM_RESTART_COUNT")
    run(0)
    assert retries == [False, True, False, True]


def test_who_is_notified_is_read_on_the_node(task, monkeypatch):
    run, _ = task
    run(0)
    monkeypatch.setenv("DECEMBER_NOTIFY", "https://chat.example/a-secret")
    run(0)
    assert targets == [None, Webhook("https://chat.example/a-secret")]


def test_what_is_written_for_submitit_holds_no_password(monkeypatch):
    monkeypatch.setenv("DJ_PASS", "correct horse")
    task = PoolTask(PoolSettings(schema="lab", pool_id="1" * 32, log_folder=Path("/logs")))
    assert b"correct horse" not in pickle.dumps(task)
    assert b"correct horse" not in pickle.dumps(task.checkpoint())
    assert task.checkpoint().function == task


def test_a_second_signal_does_not_kill_the_workers_of_a_task(tmp_path, monkeypatch):
    monkeypatch.setenv("GOODBYE", "0.5")
    stage = Stage(tmp_path, pool_id="1" * 32)

    def send_all() -> bool:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGUSR2):
            os.kill(os.getpid(), number)
        return True

    assert stage.run(stage.have_started(1), send_all, send_all) == 143
    assert stage.lines.count(("cpu 1", "saved")) == 1
    assert not stage.said("killing")
    assert stage.database.dead == stage.database.given_back == []
