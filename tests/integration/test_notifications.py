"""Notifications of pools with real workers on a real server."""

from __future__ import annotations

import time
from typing import Any

import pytest

from december_plugin.database.connection import second_connection
from december_plugin.pool.notifications import observer as module
from december_plugin.pool.notifications.observer import Observer, lock_name
from helpers.fake_sweep import FakeSweep
from helpers.webhook import PATH, Webhook

# A lab's own trainer, two of whose seeds come to a bad end.
CHOOSY = """
import os
from december_plugin.trainers import baseline_trainer

def choosy_trainer(model, dataloaders, seed, uid=None, cb=None, **settings):
    if seed == 2:
        print("out of luck", flush=True)
        os._exit(9)
    if seed == 3:
        raise ValueError(f"no training with the seed {seed}, says {os.environ['LAB_TOKEN']}; "
                         f"the hook is {os.environ.get('DECEMBER_NOTIFY')}")
    return baseline_trainer(model, dataloaders, seed, uid=uid, cb=cb, **settings)
"""
QUICKLY = ("--lease", "10", "--idle-exit", "3", "--max-attempts", "1", "--allow-modules", "choosy_lab")


@pytest.fixture
def choosy(pool: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a lab whose trainer refuses the seed 3 and kills its worker for the seed 2."""
    (pool.folder / "choosy_lab.py").write_text(CHOOSY)
    monkeypatch.syspath_prepend(str(pool.folder))
    monkeypatch.setenv("PYTHONPATH", str(pool.folder))
    monkeypatch.setenv("LAB_TOKEN", "correct horse battery")
    return pool


def register(pool: Any, *seeds: int) -> None:
    pool.register(seeds=seeds, trainer="choosy_lab.choosy_trainer", max_iter=2)


@pytest.mark.slow(10)
def test_two_pools_tell_each_event_once(choosy, monkeypatch):
    register(choosy, 1, 2, 3)
    with Webhook() as webhook:
        monkeypatch.setenv("DECEMBER_NOTIFY", webhook.address)
        pools = [choosy.start("--cpu", "1", *QUICKLY) for _ in range(2)]
        assert [choosy.ended(each) for each in pools] == [3, 3], choosy.output
    (failed,), (poisoned,), (finished,) = (webhook.events(kind) for kind in ("failed", "poisoned", "finished"))
    reason = "ValueError: no training with the seed 3, says ***; the hook is None"
    assert [(each["table"], each["reason"]) for each in failed["reasons"]] == [("TrainedModel", reason)]
    assert [(each["table"], each["reason"]) for each in poisoned["reasons"]] == [("TrainedModel", "ended with code 9")]
    jobs = {state: job for job, state in choosy.query("SELECT job_hash, job_state FROM `{}`.pool_job")}
    assert failed["reasons"][0]["job"] == jobs["failed"]
    assert poisoned["reasons"][0]["job"] == jobs["poisoned"]
    assert (failed["count"], poisoned["count"], failed["schema"]) == (1, 1, choosy.schema)
    assert (finished["failed"], finished["poisoned"]) == (1, 1)
    assert finished["done"] == choosy.query("SELECT COUNT(*) FROM `{}`.pool_job WHERE job_state = 'done'")[0][0] >= 2
    texts = {each["december"]["event"]: each["text"] for each in webhook.received}
    assert texts["finished"].startswith(f"december: nothing is left to do in the schema {choosy.schema} for the")
    assert choosy.output.count("[pool] notifications go to 127.0.0.1") == 2
    # The address is in no log and no table.
    logs = "".join(path.read_text() for path in (choosy.folder / "logs").rglob("*.log"))
    rows = str([choosy.query(f"SELECT * FROM `{{}}`.{table}") for table in ("pool", "pool_job", "pool_worker")])
    assert PATH not in choosy.output + logs + rows


@pytest.mark.slow(5)
def test_a_webhook_that_hangs_changes_nothing(choosy):
    register(choosy, 3)
    with Webhook(hangs=True) as webhook:
        (choosy.folder / "hook").write_text(webhook.address)
        process = choosy.start("--cpu", "1", "--notify", f"file:{choosy.folder}/hook", *QUICKLY)
        assert choosy.ended(process) == 3, choosy.output
    assert choosy.query("SELECT job_state FROM `{}`.pool_job") == [("failed",)]
    assert choosy.query("SELECT worker_state FROM `{}`.pool_worker") == [("ended",)]
    assert choosy.query("SELECT pool_ended IS NOT NULL FROM `{}`.pool") == [(1,)]
    assert choosy.output.count("[pool] a notification could not be delivered to 127.0.0.1 (") == 1
    assert "could not be delivered before the pool ended: december: 1 job failed in the schema" in choosy.output
    assert len({each["december"]["id"] for each in webhook.received}) == 1  # repeated, not sent anew
    assert PATH not in choosy.output


@pytest.mark.slow(5)
@pytest.mark.parametrize("how", ["option", "variable", "worker of a pool"])
def test_a_worker_tells_what_happens_unless_its_pool_does(choosy, monkeypatch, how):
    register(choosy, 3)
    with Webhook() as webhook:
        (choosy.folder / "hook").write_text(webhook.address)
        if how != "option":
            monkeypatch.setenv("DECEMBER_NOTIFY", f"file:{choosy.folder}/hook")
        if how == "worker of a pool":
            monkeypatch.setenv("DECEMBER_POOL_ID", "a" * 32)
        option = ("--notify", f"file:{choosy.folder}/hook") if how == "option" else ()
        said = choosy.run("worker", *option, "--allow-modules", "choosy_lab", code=3)
    assert "says ***; the hook is None" in said
    if how == "worker of a pool":
        assert webhook.received == []
        return
    assert "notifications go to 127.0.0.1" in said
    assert PATH not in said
    (failed,), (finished,) = webhook.events("failed"), webhook.events("finished")
    assert (failed["count"], finished["failed"]) == (1, 1)
    (worker,) = choosy.query("SELECT worker_id FROM `{}`.pool_worker")
    assert failed["worker"] == worker[0][:8]
    assert "pool" not in failed


def test_slurm_and_other_actions_take_no_address(pool):
    assert pool.lab.schema == pool.schema
    said = pool.run("pool", "--slurm", "--workers", "1", "--notify", "https://chat.example/a-secret", code=1)
    assert "--notify is for a pool on this machine: its value would be in files that Slurm keeps." in said
    said = pool.run("pool", "status", "--notify", "https://chat.example/a-secret", code=1)
    assert "--notify is for `december pool start`" in said
    shown = pool.run("pool", "--dry-run", "--cpu", "1", "--notify", "https://chat.example/a-secret")
    assert "\nNotifications go to chat.example.\n" in shown
    assert "a-secret" not in shown


# ---- who tells, and what


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Sweep(FakeSweep):
    """A sweep with observers."""

    def observer(self, clock: Clock | None = None, *, target: str = "hook") -> Observer:
        lock = lock_name(self.schema, target)
        return Observer(self.schema, lock, connect=second_connection, clock=clock or Clock())

    def end_job(self, number: int, state: str, words: str = "") -> None:
        self.execute(
            "INSERT INTO POOL_job` (job_table, job_hash, job_schema, job_state, n_starts, last_words, begun, ended) "
            "VALUES ('__trained_model', %s, %s, %s, 1, %s, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6))",
            f"{number:032x}",
            self.schema,
            state,
            words,
        )


@pytest.fixture
def sweep(empty_lab):
    sweep = Sweep(empty_lab, seeds=1)
    yield sweep
    for table in ("POOL_job`", "POOL_worker`"):
        sweep.execute(f"DELETE FROM {table}")


def kinds(observer: Observer, **settings: Any) -> list[str]:
    return [event.kind for event in observer.look(**settings)]


def test_one_of_several_tells_and_another_takes_over(sweep):
    sweep.end_job(1, "failed", "OSError: before")
    first, second, elsewhere = sweep.observer(), sweep.observer(), sweep.observer(target="another hook")
    try:
        assert [kinds(each) for each in (first, second, elsewhere)] == [[], [], []]
        sweep.end_job(2, "failed", "OSError: gone")
        sweep.end_job(3, "poisoned", "killed by signal 9")
        sweep.end_job(4, "done")
        (event, _) = first.look()
        assert (event.kind, event.table, event.job) == ("failed", "TrainedModel", f"{2:032x}")
        assert event.message == "OSError: gone"
        assert kinds(second) == []
        assert kinds(elsewhere) == ["failed", "poisoned"]
        assert kinds(first) == []
        first.close()
        assert kinds(second) == []  # takes over, and repeats nothing
        sweep.end_job(5, "failed", "OSError: gone")
        assert kinds(first) == []
        assert kinds(second) == ["failed"]
    finally:
        for each in (first, second, elsewhere):
            each.close()


def test_a_lost_connection_neither_loses_nor_repeats_anything(sweep):
    observer = sweep.observer()
    try:
        assert kinds(observer) == []
        sweep.end_job(2, "failed", "OSError: gone")
        assert kinds(observer) == ["failed"]
        (number,) = observer._connection.query("SELECT CONNECTION_ID()").fetchone()
        sweep.connection.query(f"KILL {number}")
        sweep.end_job(3, "failed", "OSError: gone")
        found: list[str] = []
        for _ in range(3):
            try:
                found += kinds(observer)
            except Exception:
                observer.close()
        assert found == ["failed"]
    finally:
        observer.close()


def test_nothing_is_left_when_all_workers_have_been_idle_for_a_while(sweep):
    clock = Clock()
    observer = sweep.observer(clock)
    try:
        worker = sweep.worker(worker_state="idle")
        assert kinds(observer) == []
        clock.now += 100
        assert kinds(observer) == []  # nothing was done yet
        sweep.end_job(2, "done")
        assert kinds(observer) == []
        clock.now += module.SETTLED_SECONDS - 1
        assert kinds(observer) == []
        sweep.execute("UPDATE POOL_worker` SET worker_state = 'working' WHERE worker_id = %s", worker)
        clock.now += 10
        assert kinds(observer) == []
        sweep.execute("UPDATE POOL_worker` SET worker_state = 'idle' WHERE worker_id = %s", worker)
        assert kinds(observer) == []
        clock.now += module.SETTLED_SECONDS
        (event,) = observer.look()
        assert (event.kind, event.counts) == ("finished", {"done": 1})
        assert ": 1 done, 0 failed, 0 poisoned since " in event.message
        clock.now += 100
        assert kinds(observer) == []
        # More was registered: told again when that is done.
        time.sleep(0.01)
        sweep.end_job(3, "done")
        assert kinds(observer, ends_idle=True) == ["finished"]
    finally:
        observer.close()


def test_workers_that_wait_for_long_need_somebody(sweep):
    clock = Clock()
    observer = sweep.observer(clock)
    try:
        for _ in range(2):
            sweep.worker(worker_state="waiting", worker_detail="the store /mnt/lab cannot be used")
        assert kinds(observer) == []
        clock.now += module.WAITING_SECONDS
        (event,) = observer.look()
        assert event.kind == "trouble"
        assert event.message == (
            f"december: 2 workers of the schema {sweep.schema} waited for 10 min so far: the store /mnt/lab cannot be "
            "used"
        )
        clock.now += module.WAITING_SECONDS
        assert kinds(observer) == []
    finally:
        observer.close()
