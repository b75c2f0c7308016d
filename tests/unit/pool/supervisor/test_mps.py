"""MPS for the workers that share a GPU, with a program that stands in for NVIDIA's control daemon."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import helpers
from december_plugin.errors import SettingsError
from december_plugin.pool.supervisor import mps as mps_module
from december_plugin.pool.supervisor import mps_daemon
from december_plugin.pool.supervisor.gpus import ComputeMode, Gpu
from december_plugin.pool.supervisor.mps import MpsPlan, PoolMps, check_mps, plan_mps
from december_plugin.pool.supervisor.mps_daemon import LOGS, PID_FILE, PIPES, MpsError, daemon_pid
from december_plugin.pool.supervisor.mps_folders import made_base
from december_plugin.pool.supervisor.process_table import children_of
from december_plugin.pool.supervisor.slots import Slot
from helpers.driver import needs_proc, write_mps
from helpers.pool_stage import Stage, are_gone, is_alive, send_self

pytestmark = needs_proc

FIRST = Gpu("GPU-aaaaaaaa-0000", "0", "NVIDIA H200", capability=(9, 0))
SECOND = Gpu("MIG-bbbbbbbb-0000", "1.3", "NVIDIA A100 MIG 3g.20gb", capability=(8, 0))
TURNS = "the workers of a GPU take turns, because "


def shared(*gpus: Gpu, n_sharing: int = 2) -> list[Slot]:
    return [Slot(f"gpu {gpu.label}{number}", gpu, n_sharing) for gpu in gpus for number in range(n_sharing)]


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Return an environment with MPS on the path and no daemon; what a test starts must be gone at its end."""
    # The path of a test's own folder is too long for a socket in it.
    with tempfile.TemporaryDirectory(prefix="mps") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        (tmp_path / "bin").mkdir()
        write_mps(tmp_path / "bin")
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
        monkeypatch.setenv(PIPES, str(tmp_path / "nobody"))
        monkeypatch.setattr(mps_daemon, "END_TIMEOUT", 2.0)
        monkeypatch.setattr(mps_daemon, "refusal_of_cuda", lambda environment: "")  # it knows no GPU of these tests
        yield dict(os.environ)
        left = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if folder in environment_of(pid)]
        assert not any(is_alive(pid) for pid in left)
        assert not list(Path(folder).glob("december-mps-*/*"))


def environment_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/environ").read_text(errors="replace")
    except OSError:
        return ""


class Told(list[str]):
    """What the user is told."""

    def __call__(self, text: str) -> None:
        self.append(text)


def pool_mps(environment: dict[str, str], folder: Path, *gpus: Gpu, **more) -> tuple[PoolMps, Told]:
    told = Told()
    plan = MpsPlan(gpus, is_needed=more.pop("is_needed", False))
    return PoolMps(plan, log_folder=folder, environment=environment, on_event=told, **more), told


def folder_of(mps: PoolMps, gpu: Gpu) -> Path:
    return Path(mps.environment(Slot("gpu", gpu, 2))[PIPES])


# ---- whether it is used


def test_gpus_with_one_worker_each_need_none(environment):
    slots = [Slot("gpu 0", FIRST), Slot("cpu 1")]
    assert plan_mps("auto", slots, environment=environment) == MpsPlan()
    check_mps("on", 2)
    with pytest.raises(
        SettingsError, match=r"--mps on is for GPUs that several workers share. Add --workers-per-gpu 2"
    ):
        check_mps("on", 1)


def test_gpus_that_are_shared_have_a_daemon_each(environment):
    plan = plan_mps("auto", shared(FIRST, SECOND), environment=environment)
    assert (plan.gpus, plan.is_needed) == ((FIRST, SECOND), False)
    assert plan.words == "the workers of a GPU compute concurrently (MPS): 2 control daemons of this pool"
    assert plan_mps("on", shared(FIRST), environment=environment).is_needed


@pytest.mark.parametrize(
    ("mode", "slots", "why"),
    [
        ("off", shared(FIRST), "--mps is off"),
        ("auto", shared(FIRST, n_sharing=49), "MPS takes at most 48 workers on one GPU"),
        ("auto", shared(Gpu("3", "3")), "the UUID of the GPU 3 is unknown"),
        (
            "auto",
            shared(Gpu("GPU-cc", "2", "NVIDIA GeForce GTX 1080", capability=(6, 1))),
            "the GPU 2 (NVIDIA GeForce GTX 1080) is older than Volta, and MPS does not isolate its workers",
        ),
    ],
)
def test_why_there_is_none(environment, mode, slots, why):
    plan = plan_mps(mode, slots, environment=environment)
    assert (plan.gpus, plan.words) == ((), TURNS + why)
    if mode == "auto":
        with pytest.raises(SettingsError) as caught:
            plan_mps("on", slots, environment=environment)
        assert str(caught.value) == (
            f"--mps is on, but {why}. Use --mps auto to do without it, or --workers-per-gpu 1."
        )


def test_without_the_program_workers_take_turns(environment, tmp_path):
    plan = plan_mps("auto", shared(FIRST), environment={**environment, "PATH": str(tmp_path)})
    assert plan.words == TURNS + "nvidia-cuda-mps-control, a part of NVIDIA's driver, is not on the path"


def test_a_gpu_for_one_process_at_a_time_needs_it(environment):
    exclusive = Gpu("GPU-dd", "4.1", "NVIDIA L4", mode=ComputeMode.EXCLUSIVE_PROCESS)
    assert plan_mps("auto", shared(exclusive), environment=environment).is_needed
    with pytest.raises(
        SettingsError,
        match=r"the GPU 4.1 takes one process at a time \(its compute mode is Exclusive Process\), so that 2 workers "
        r"need MPS, and --mps is off. Use --workers-per-gpu 1, or let an administrator run `nvidia-smi -i 4 -c D",
    ):
        plan_mps("off", shared(exclusive), environment=environment)


def test_a_daemon_that_runs_already_is_used_and_left_running(environment, tmp_path):
    folder = tmp_path / "everybody"
    folder.mkdir()
    (folder / PID_FILE).write_text(f"{os.getpid()}\n")
    plan = plan_mps("auto", shared(FIRST), environment={**environment, PIPES: str(folder)})
    assert plan.gpus == ()
    assert plan.words == (f"MPS is running already ({folder}): the workers of a GPU use it, and it is left running")
    # One that has died leaves its socket, and no number of a process that exists.
    (folder / PID_FILE).write_text("0\n")
    assert plan_mps("auto", shared(FIRST), environment={**environment, PIPES: str(folder)}).gpus == (FIRST,)


# ---- its life


def test_daemons_start_each_for_its_gpu_and_end_with_the_pool(environment, tmp_path):
    mps, told = pool_mps(environment, tmp_path, FIRST, SECOND)
    mps.start()
    try:
        for gpu, log in ((FIRST, "mps-gpu-0"), (SECOND, "mps-gpu-1.3")):
            given = mps.environment(Slot("gpu", gpu, 2))
            assert set(given) == {PIPES, LOGS}
            assert len(given[PIPES]) < 90
            assert Path(given[PIPES]).stat().st_mode & 0o077 == 0
            assert given[LOGS] == str(tmp_path / log)
            assert (tmp_path / log / "control.log").read_text() == f"started for {gpu.device}\n"
        assert mps.environment(Slot("gpu", FIRST, 2))[PIPES] != mps.environment(Slot("gpu", SECOND, 2))[PIPES]
        assert mps.environment(Slot("cpu 1")) == mps.environment(Slot("gpu 7", Gpu("GPU-77", "7"))) == {}
        daemons = [daemon_pid(folder_of(mps, gpu)) for gpu in (FIRST, SECOND)]
        assert all(map(is_alive, daemons))
    finally:
        mps.stop()
    assert are_gone(*daemons)
    assert told == []
    assert mps.environment(Slot("gpu", FIRST, 2)) == {}
    mps.stop()  # once more does nothing


def test_a_daemon_that_does_not_listen_is_killed_with_its_server(environment, tmp_path, monkeypatch):
    monkeypatch.setattr(mps_daemon, "END_TIMEOUT", 0.2)
    mps, _ = pool_mps({**environment, "MPS_IS_DEAF": "1"}, tmp_path, FIRST)
    mps.start()
    daemon = daemon_pid(folder_of(mps, FIRST))
    (server,) = (pid for pid in children_of(daemon))
    mps.stop()
    assert are_gone(daemon, server)


def test_a_daemon_that_does_not_start(environment, tmp_path):
    refusing = {**environment, "MPS_REFUSES": "no such device"}
    mps, told = pool_mps(refusing, tmp_path, FIRST)
    mps.start()
    assert told == [
        f"the MPS of the GPU 0 does not start: MPS refuses: no such device (its logs: {tmp_path}/mps-gpu-0); the "
        "workers of a GPU take turns"
    ]
    assert mps.environment(Slot("gpu", FIRST, 2)) == {}
    mps.look_after()
    needed, told = pool_mps(refusing, tmp_path, FIRST, is_needed=True)
    with pytest.raises(
        MpsError,
        match=r"no such device \(its logs: .*\)\. Use --workers-per-gpu 1, or --mps off where the GPUs allow it\.",
    ):
        needed.start()
    assert told == []


def test_a_daemon_that_answers_and_is_of_no_use(environment, tmp_path, monkeypatch):
    monkeypatch.setattr(
        mps_daemon, "refusal_of_cuda", lambda environment: f"no ({environment['CUDA_VISIBLE_DEVICES']})"
    )
    mps, told = pool_mps(environment, tmp_path, FIRST)
    mps.start()
    assert told == [
        f"the MPS of the GPU 0 does not work: no ({FIRST.device}) (its logs: {tmp_path}/mps-gpu-0); the workers of a "
        "GPU take turns"
    ]


def test_workers_that_lose_it_again_and_again_take_turns(environment, tmp_path):
    now = [0.0]
    mps, told = pool_mps(environment, tmp_path, FIRST, SECOND, clock=lambda: now[0])
    first, second = Slot("gpu 0", FIRST, 2), Slot("gpu 1", SECOND, 2)
    mps.start()
    try:
        for now[0] in (0, 300, 590, 700, 710, 711):
            mps.note_loss(first)
        assert told == []  # five of them within ten minutes
        mps.note_loss(first)
        assert told == ["the workers of the GPU 0 have lost MPS 6 times within 10 min: from now on, they take turns"]
        mps.note_loss(first)
        assert len(told) == 1
        assert mps.environment(first) == {}
        assert mps.environment(second) != {}
    finally:
        mps.stop()


def test_where_it_is_needed_it_is_not_given_up(environment, tmp_path):
    mps, told = pool_mps(environment, tmp_path, FIRST, is_needed=True)
    mps.note_loss(Slot("gpu 0", FIRST, 2))  # of a daemon that is not the pool's
    mps.start()
    try:
        for _ in range(20):
            mps.note_loss(Slot("gpu 0", FIRST, 2))
        assert told == []
        assert mps.environment(Slot("gpu 0", FIRST, 2)) != {}
    finally:
        mps.stop()


def test_of_two_daemons_one_that_does_not_start_ends_both(environment, tmp_path, monkeypatch):
    mps, told = pool_mps(environment, tmp_path, FIRST, SECOND)
    start = mps_module.MpsDaemon.start

    def start_first_only(daemon: mps_module.MpsDaemon) -> None:
        if daemon.gpu == SECOND:
            raise MpsError("no")
        start(daemon)

    monkeypatch.setattr(mps_module.MpsDaemon, "start", start_first_only)
    mps.start()
    assert told == ["no; the workers of a GPU take turns"]
    assert mps.environment(Slot("gpu", FIRST, 2)) == {}


def test_a_daemon_that_has_died_is_started_again_with_growing_pauses(environment, tmp_path):
    now = [0.0]
    mps, told = pool_mps(environment, tmp_path, FIRST, clock=lambda: now[0])
    mps.start()
    try:
        mps.look_after()
        assert told == []
        folder = folder_of(mps, FIRST)
        first = daemon_pid(folder)
        (server,) = children_of(first)
        os.kill(first, signal.SIGKILL)
        assert are_gone(first)
        mps.look_after()
        assert told.pop() == (
            f"the MPS of the GPU 0 has died (its logs: {tmp_path}/mps-gpu-0); it is being restarted. Workers that lose "
            "it give their jobs back, which does not count as a failure"
        )
        assert mps.environment(Slot("gpu", FIRST, 2)) == {}  # a worker that starts now takes turns
        mps.look_after()
        assert told == []
        mps._daemons[FIRST]._environment["MPS_REFUSES"] = "not yet"
        for later, pause in ((1, 2), (3, 4)):
            now[0] = later
            mps.look_after()
            assert told.pop().endswith(f"not yet (its logs: {tmp_path}/mps-gpu-0); the next attempt is in {pause} s")
        del mps._daemons[FIRST]._environment["MPS_REFUSES"]
        now[0] = 7
        mps.look_after()
        assert told == ["the MPS of the GPU 0 runs again"]
        assert folder_of(mps, FIRST) == folder
        assert daemon_pid(folder) not in (0, first)
        assert is_alive(server)  # workers may still use it
    finally:
        mps.stop()
    assert are_gone(server)


# ---- its pool


def staged(environment: dict[str, str], folder: Path, *, is_needed: bool = False, **settings) -> Stage:
    """Return a pool of two stand-ins for workers that share a GPU."""
    return Stage(
        folder,
        slots=shared(FIRST),
        mps=lambda told: PoolMps(
            MpsPlan((FIRST,), is_needed=is_needed), log_folder=folder, environment=environment, on_event=told
        ),
        **settings,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_use_the_daemon_of_their_pool_which_an_interruption_ends_after_them(environment, tmp_path, number):
    stage = staged(environment, tmp_path)
    assert stage.run(stage.have_started(2), send_self(number)) == 128 + number
    (pipes,) = {row["CUDA_MPS_PIPE_DIRECTORY"] for row in stage.started()}
    assert {row["CUDA_VISIBLE_DEVICES"] for row in stage.started()} == {FIRST.device}
    assert pipes.startswith(str(tempfile.tempdir))
    assert not Path(pipes).exists()
    assert [text for _, text in stage.lines if text == "saved"] == ["saved"] * 2


def test_a_defect_of_the_supervisor_ends_the_daemon(environment, tmp_path):
    stage = staged(environment, tmp_path)

    def defect() -> bool:
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        stage.run(stage.have_started(2), defect)
    assert not Path(stage.started()[0]["CUDA_MPS_PIPE_DIRECTORY"]).exists()


def test_a_pool_that_cannot_do_without_does_not_begin(environment, tmp_path):
    stage = staged({**environment, "MPS_REFUSES": "busy"}, tmp_path, is_needed=True)
    with pytest.raises(MpsError, match="the MPS of the GPU 0 does not start: MPS refuses: busy"):
        stage.run()
    assert stage.started() == []
    assert stage.database.finished == 1


def test_workers_that_lose_it_fail_no_job_and_the_next_ones_use_the_next_daemon(environment, tmp_path, monkeypatch):
    monkeypatch.setattr(mps_module, "FIRST_DELAY", 0.1)
    stage = staged(environment, tmp_path)
    stage.do_next("import time; time.sleep(0.5); sys.exit(76)")

    def kill_daemon() -> bool:
        os.kill(daemon_pid(Path(stage.started()[0]["CUDA_MPS_PIPE_DIRECTORY"])), signal.SIGKILL)
        return True

    stage.run(
        stage.have_started(2),
        kill_daemon,
        lambda: stage.said("the MPS of the GPU 0 runs again"),
        stage.have_started(3),
        send_self(signal.SIGTERM),
    )
    assert stage.said("the MPS of the GPU 0 has died")
    assert stage.said(
        "ended with code 76 (it has lost MPS, through which it used the GPU): not counted as a failure of its job, "
        "which is free again; the next one starts in 1 s"
    )
    assert (stage.database.dead, len(stage.database.given_back)) == ([], 1)
    assert len(stage.started()) == 3


# ---- what a killed pool has left

KILLED = """
import os, sys, time
from pathlib import Path
from december_plugin.pool.supervisor import mps_daemon
from december_plugin.pool.supervisor.gpus import Gpu
from december_plugin.pool.supervisor.mps import MpsPlan, PoolMps
mps_daemon.refusal_of_cuda = lambda environment: ""
mps = PoolMps(MpsPlan((Gpu("GPU-aaaaaaaa-0000", "0"),)), log_folder=Path(sys.argv[1]), on_event=print)
mps.start()
print(list(mps._daemons.values())[0].pipes, flush=True)
time.sleep(300)
"""


def killed_pool(environment: dict[str, str], folder: Path) -> Path:
    """Start the MPS of another pool, kill that pool, and return the folder that it leaves."""
    root = Path(helpers.__file__).parents[2]
    environment = {**environment, "TMPDIR": str(tempfile.tempdir), "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", KILLED, str(folder)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pipes = Path(process.stdout.readline().strip())
        process.kill()
    return pipes


def test_what_a_killed_pool_has_left_is_ended_by_the_next_one(environment, tmp_path):
    pipes = killed_pool(environment, tmp_path)
    daemon = daemon_pid(pipes)
    assert is_alive(daemon)
    # A worker of the killed pool saves its state, for which it needs MPS.
    code = f"import time; time.sleep(1); print({str(pipes)!r} in open('/proc/{daemon}/environ').read())"
    of_worker = {**environment, PIPES: str(pipes), "DECEMBER_WORKER_ID": "1"}
    worker = subprocess.Popen([sys.executable, "-S", "-c", code], env=of_worker, stdout=subprocess.PIPE, text=True)
    mps, told = pool_mps(environment, tmp_path, FIRST)
    try:
        mps.start()
        assert told == ["the MPS that a killed pool had left has been ended"]
        assert worker.communicate(timeout=20)[0].strip() == "True"
        assert are_gone(daemon)
        assert not pipes.parent.exists()
    finally:
        worker.kill()
        mps.stop()


def test_a_pool_that_begins_at_the_same_time_may_be_quicker_to_end_it(environment, tmp_path, monkeypatch):
    def is_left(folder: Path) -> bool:
        folder.rmdir()
        return True

    (made_base() / "1-1-1").mkdir()
    monkeypatch.setattr(mps_module, "is_left", is_left)
    mps, told = pool_mps(environment, tmp_path, FIRST)
    try:
        mps.start()
        assert told == []
        assert folder_of(mps, FIRST).is_dir()
    finally:
        mps.stop()


def test_a_folder_that_others_may_enter_is_refused(environment, tmp_path):
    made_base().chmod(0o777)
    mps, told = pool_mps(environment, tmp_path, FIRST)
    mps.start()
    assert len(told) == 1
    assert "is not a folder that only you can use. Remove it, or set TMPDIR to another place; the workers" in told[0]
