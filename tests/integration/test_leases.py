"""Leases on a real server: one holder at a time, the dead lose them, and who lost one cannot store."""

from __future__ import annotations

import threading
import time
import uuid

import pymysql
import pytest

from december_plugin.database.outages import server_failure
from december_plugin.errors import SettingsError
from december_plugin.pool.jobs.description import describe_jobs
from december_plugin.pool.jobs.job import Lease
from december_plugin.pool.jobs.leases import Leases
from december_plugin.pool.jobs.queue import JobQueue, TableQueue, choose_tables
from december_plugin.pool.transactions import transaction
from helpers.waiting import wait_until, waits_for_lock


@pytest.fixture
def lab(empty_lab):
    empty_lab.plan("baseline", seeds=[1, 2, 3])
    return empty_lab


@pytest.fixture
def table(lab):
    return lab.tables.TrainedModel()


@pytest.fixture
def key(table):
    return table.key_source.fetch("KEY", order_by="seed", limit=1)[0]


@pytest.fixture
def leases(lab) -> Leases:
    return Leases(lab.tables.schema.database, max_attempts=2)


@pytest.fixture
def other(other):
    while uptime(other) < 4:  # before that, no heartbeat is too old
        time.sleep(0.2)
    return other


def uptime(connection) -> float:
    return float(connection.query("SHOW GLOBAL STATUS LIKE 'Uptime'").fetchone()[1])


def new_worker(lab, *, age: float = 0.0, lease: float = 60.0) -> str:
    """Enter a worker whose last heartbeat was ``age`` seconds ago."""
    worker_id = uuid.uuid4().hex
    lab.tables.schema.connection.query(
        f"INSERT INTO `{lab.tables.schema.database}`.`pool_worker` (worker_id, worker_host, worker_pid, worker_state, "
        "lease, heartbeat, worker_started) VALUES (%s, 'somewhere', 1, 'working', %s, "
        "UTC_TIMESTAMP(6) - INTERVAL %s MICROSECOND, UTC_TIMESTAMP(6))",
        args=(worker_id, lease, int(age * 1e6)),
    )
    return worker_id


def job_row(lab) -> dict:
    return lab.tables.PoolJob.fetch1()


def reservations(lab) -> list[str]:
    return list(lab.tables.schema.jobs.fetch("status"))


def test_one_holder_at_a_time(lab, table, key, leases):
    first, second = new_worker(lab), new_worker(lab)
    lease = leases.claim(table, key, first, log_file="here:/log")
    assert leases.claim(table, key, second) is None
    assert (lease.worker_id, lease.n_starts, lease.job_table) == (first, 1, "__trained_model")
    row = job_row(lab)
    assert (row["worker_id"], row["job_state"], row["n_starts"], row["log_file"]) == (first, "running", 1, "here:/log")
    assert reservations(lab) == ["reserved"]
    assert leases.is_held(table.connection, lease)


def test_a_job_that_is_given_back_can_be_claimed_again(lab, table, key, leases):
    first, second = new_worker(lab), new_worker(lab)
    lease = leases.claim(table, key, first)
    assert leases.finish(table.connection, lease, state="free", message="interrupted")
    assert reservations(lab) == []
    assert job_row(lab)["last_words"] == "interrupted"
    again = leases.claim(table, key, second)
    assert again.n_starts == 2
    assert not leases.is_held(table.connection, lease)
    assert leases.is_held(table.connection, again)


def test_the_same_worker_cannot_use_an_earlier_lease_of_its_own(lab, table, key, leases):
    worker = new_worker(lab)
    first = leases.claim(table, key, worker)
    leases.finish(table.connection, first, state="free")
    leases.claim(table, key, worker)
    assert not leases.finish(table.connection, first)
    assert reservations(lab) == ["reserved"]


def claim_all(leases, table, worker: str) -> list[Lease]:
    """Claim all three trainings at once."""
    keys = table.key_source.fetch("KEY")
    claimed = leases.claim_several(table, keys, worker, log_file=lambda job_hash: f"here:/{job_hash}")
    assert sorted(key["seed"] for key, _ in claimed) == [1, 2, 3]
    return [lease for _, lease in claimed]


def test_of_jobs_that_are_claimed_together_one_is_begun(lab, table, leases):
    worker = new_worker(lab)
    first, *others = claim_all(leases, table, worker)
    assert reservations(lab) == ["reserved"] * 3
    assert set(lab.tables.PoolJob.fetch("worker_id")) == {worker}
    begun = (lab.tables.PoolJob & "n_starts = 1").fetch1("job_hash", "job_state", "log_file")
    assert begun == (first.job_hash, "running", f"here:/{first.job_hash}")
    assert set((lab.tables.PoolJob & "n_starts = 0").fetch("job_state")) == {"free"}
    assert leases.begin(table.connection, others[0], log_file="here:/log")
    assert leases.begin(table.connection, others[0], log_file="here:/log")  # its answer was lost: it has begun
    assert leases.is_held(table.connection, others[0])
    assert leases.finish(table.connection, others[0])
    assert not leases.begin(table.connection, others[0], log_file="")


def test_those_that_others_have_are_left_out_of_a_claim(lab, table, key, leases):
    leases.claim(table, key, new_worker(lab))
    keys = table.key_source.fetch("KEY")
    claimed = leases.claim_several(table, keys, new_worker(lab), log_file=lambda _: "")
    assert sorted(key["seed"] for key, _ in claimed) == [2, 3]
    assert leases.claim_several(table, keys, new_worker(lab), log_file=lambda _: "") == []


def test_a_death_counts_for_the_job_that_was_begun_only(lab, table, leases, other):
    worker = new_worker(lab)
    first, *others = claim_all(leases, table, worker)
    (released,) = leases.mark_dead(other, worker, "killed by signal 9")
    assert (released.job_hash, released.n_deaths) == (first.job_hash, 1)
    assert sorted(lab.tables.PoolJob.fetch("n_deaths")) == [0, 0, 1]
    assert reservations(lab) == []
    assert not any(leases.begin(table.connection, lease, log_file="") for lease in others)
    second = new_worker(lab, age=10, lease=1)
    claim_all(leases, table, second)
    assert len(leases.release_expired(other)) == 1
    assert sum(lab.tables.PoolJob.fetch("n_deaths")) == 2
    assert set(lab.tables.PoolJob.fetch("worker_id")) == {""}


def test_what_was_not_begun_can_be_given_back_for_others(lab, table, leases, other):
    worker = new_worker(lab)
    first, *others = claim_all(leases, table, worker)
    leases.begin(table.connection, others[0], log_file="")
    assert leases.release_not_begun(other, worker) == 1
    assert leases.is_held(other, first)
    assert leases.is_held(other, others[0])
    assert not leases.begin(table.connection, others[1], log_file="")
    assert leases.release_all(other, worker, message="interrupted") == 2
    assert reservations(lab) == []


def test_only_old_heartbeats_lose_their_leases(lab, table, leases, other):
    keys = table.key_source.fetch("KEY", order_by="seed")
    alive, dead = new_worker(lab, age=1.0, lease=2.0), new_worker(lab, age=3.0, lease=2.0)
    kept, taken = leases.claim(table, keys[0], alive), leases.claim(table, keys[1], dead)
    released = leases.release_expired(other)
    assert [(row.job_hash, row.n_deaths, row.poisoned) for row in released] == [(taken.job_hash, 1, False)]
    assert leases.is_held(other, kept)
    assert not leases.is_held(other, taken)
    row = (lab.tables.PoolJob & {"job_hash": taken.job_hash}).fetch1()
    assert (row["job_state"], row["n_deaths"], row["worker_id"]) == ("free", 1, "")
    assert row["last_words"].startswith("no heartbeat for 3 s")
    assert (lab.tables.PoolWorker & {"worker_id": dead}).fetch1("worker_state") == "dead"
    assert leases.release_expired(other) == []


def test_a_holder_without_a_row_counts_as_dead(lab, table, key, leases, other):
    leases.claim(table, key, uuid.uuid4().hex)
    (released,) = leases.release_expired(other)
    assert released.n_deaths == 1
    assert job_row(lab)["last_words"] == "its worker is unknown"


def test_a_server_that_came_up_a_moment_ago_takes_no_lease_away(lab, table, key, leases, other):
    lease = leases.claim(table, key, new_worker(lab, age=uptime(other) + 2000, lease=uptime(other) + 1000))
    assert leases.release_expired(other) == []
    assert leases.is_held(other, lease)


def test_a_job_that_kills_its_workers_is_poisoned(lab, table, key, leases, other):
    for attempt in (1, 2):
        worker = new_worker(lab)
        leases.claim(table, key, worker)
        (released,) = leases.mark_dead(other, worker, "killed by signal 9")
        assert (released.n_deaths, released.poisoned) == (attempt, attempt == 2)
    assert job_row(lab)["job_state"] == "poisoned"
    (message,) = lab.tables.schema.jobs.fetch("error_message")
    assert message == "poisoned: 2 workers died while they computed it; the last one: killed by signal 9"
    assert lab.tables.schema.jobs.fetch1("key") == key
    assert leases.claim(table, key, new_worker(lab)) is None


def test_a_failure_is_recorded_by_the_holder_only(lab, table, key, leases):
    lease = leases.claim(table, key, new_worker(lab))
    stale = Lease(lease.job_schema, lease.job_table, lease.job_hash, new_worker(lab), 1)
    assert not leases.fail(table, key, stale, message="no", stack="")
    assert leases.fail(table, key, lease, message="ValueError: x", stack="Traceback ...")
    assert lab.tables.schema.jobs.fetch1("error_message", "error_stack") == ("ValueError: x", "Traceback ...")
    assert job_row(lab)["job_state"] == "failed"


def test_taking_a_lease_away_waits_for_a_holder_that_stores(lab, table, key, leases, other):
    lease = leases.claim(table, key, new_worker(lab, age=10, lease=1))
    found = []
    with transaction(table.connection):
        assert leases.end(table.connection, lease)
        thread = threading.Thread(target=lambda: found.extend(leases.release_expired(other)))
        thread.start()
        wait_until(lambda: waits_for_lock(table.connection), "the other waits")
        assert thread.is_alive()
    thread.join(10)
    assert found == []  # it was done by then
    assert job_row(lab)["job_state"] == "done"


def test_a_holder_that_stores_for_long_does_not_stop_the_heartbeats_of_others(lab, table, key, leases, other):
    lease = leases.claim(table, key, new_worker(lab, age=10, lease=1))
    with transaction(table.connection):
        leases.end(table.connection, lease)
        start = time.monotonic()
        assert leases.release_expired(other) == []
        assert 1 < time.monotonic() - start < 10


def test_a_result_that_is_not_stored_leaves_the_lease(lab, table, key, leases, other):
    lease = leases.claim(table, key, new_worker(lab))
    table.connection.start_transaction()
    assert leases.end(table.connection, lease)
    assert leases.is_held(other, lease)
    table.connection.cancel_transaction()
    assert leases.is_held(other, lease)
    assert reservations(lab) == ["reserved"]


def test_release_all_gives_back_without_counting_an_attempt(lab, table, leases):
    worker = new_worker(lab)
    for key in table.key_source.fetch("KEY"):
        leases.claim(table, key, worker)
    assert leases.release_all(table.connection, worker, message="interrupted") == 3
    assert reservations(lab) == []
    assert set(lab.tables.PoolJob.fetch("n_deaths")) == {0}


def test_ages_of_other_holders(lab, table, key, leases):
    me, dead = new_worker(lab), new_worker(lab, age=5)
    leases.claim(table, key, dead)
    assert leases.others(table.connection, dead) == {}
    (age,) = leases.others(table.connection, me).values()
    assert 5 <= age < 15


def test_a_queue_leaves_out_what_is_reserved_or_failed(lab, table, leases):
    keys = table.key_source.fetch("KEY", order_by="seed")
    lease = leases.claim(table, keys[0], new_worker(lab))
    leases.fail(table, keys[0], lease, message="x", stack="")
    leases.claim(table, keys[1], new_worker(lab))
    queue = TableQueue(table)
    assert queue.next() == keys[2]
    leases.claim(table, keys[2], new_worker(lab))
    assert queue.next() is None


def test_a_queue_keeps_families_together_and_leaves_those_of_others_for_later(lab, table, leases):
    lab.plan("december", seeds=[1, 2, 3])
    keys = table.key_source.fetch("KEY")
    taken = next(key for key in keys if key["seed"] == 2)
    leases.claim(table, taken, new_worker(lab))
    queue = TableQueue(table)
    seeds = [queue.next()["seed"] for _ in range(5)]
    assert seeds in ([1, 1, 3, 3, 2], [3, 3, 1, 1, 2])


def test_the_queue_goes_back_to_tables_that_were_empty(lab, table):
    queue = JobQueue([lab.tables.TrainingSummary, lab.tables.TrainedModel])
    assert queue.next()[1]["seed"] in (1, 2, 3)
    lab.tables.TrainedModel.populate()
    queue = JobQueue([lab.tables.TrainingSummary, lab.tables.TrainedModel])
    assert queue.next()[0].table.table_name == "__training_summary"


def test_tables_are_chosen_by_name_or_kind(lab):
    def names(**choice):
        return [table.__name__ for table in choose_tables(lab.tables, **choice)]

    on_gpus = ["TrainedModel", "TestPerformance", "FeatureCovariance", "Mei", "MeiConfusion"]
    assert names(only=("gpu",)) == on_gpus
    assert names(skip=("gpu",)) == [
        "TrainingSummary",
        "Alignment",
        "ClusterAssignment",
        "SeedAgreement",
        "LabelAgreement",
        "Consensus",
        "ClusterQuality",
        "WithinModelStability",
        "ClusterConfusion",
        "SurrogateAgreement",
        "ConfigurationAgreement",
    ]
    skipped = ("SeedAgreement", "LabelAgreement", "Consensus", "ClusterQuality", "SurrogateAgreement")
    skipped += ("ConfigurationAgreement", "WithinModelStability", "ClusterConfusion")
    assert names(only=("cpu",), skip=skipped) == ["TrainingSummary", "Alignment", "ClusterAssignment"]
    with pytest.raises(SettingsError, match=r"there is no table 'TrainedModels'\. Did you mean 'TrainedModel'\?"):
        names(only=("TrainedModels",))
    with pytest.raises(SettingsError, match="--only gpu and --skip gpu leave no table to fill"):
        names(only=("gpu",), skip=("gpu",))


def test_a_transaction_that_the_server_took_with_it_is_over(lab, table, key, leases, other, monkeypatch):
    connection, worker = table.connection, new_worker(lab)

    def lose_the_server_in_a_transaction():
        with transaction(connection):
            kill(other, connection)
            patch.setattr("datajoint.connection.connect_host_hook", away)  # DataJoint's attempt to reconnect
            connection.query("SELECT 1")

    def away(*_):
        raise pymysql.err.OperationalError(2003, "Can't connect to MySQL server")

    with monkeypatch.context() as patch, pytest.raises(pymysql.err.OperationalError):
        lose_the_server_in_a_transaction()
    assert not connection._in_transaction
    assert server_failure(connection) is None
    assert leases.claim(table, key, worker) is not None


def test_a_connection_that_is_lost_within_a_transaction_is_made_anew_outside_one(table, other, monkeypatch):
    connection = table.connection
    connection.start_transaction()
    kill(other, connection)
    assert server_failure(connection) is None
    assert not connection._in_transaction
    table.populate(keys=[])  # refuses within a transaction


def kill(other, connection) -> None:
    """Have the server end a connection."""
    (number,) = connection.query("SELECT connection_id()").fetchone()
    other.query(f"KILL {number}")
    listed = f"SELECT 1 FROM information_schema.processlist WHERE id = {number}"
    wait_until(lambda: not other.query(listed).fetchall(), "the end of the connection")


def test_deaths_with_a_checkpoint_in_between_do_not_poison_a_job(lab, table, key, leases, other):
    for attempt in (1, 2, 3):
        worker = new_worker(lab)
        lease = leases.claim(table, key, worker)
        leases.note_progress(other, lease)
        (released,) = leases.mark_dead(other, worker, "power loss")
        assert (released.n_deaths, released.n_fruitless, released.poisoned) == (attempt, 1, False)
    worker = new_worker(lab)
    leases.claim(table, key, worker)
    leases.note_progress(other, lease)  # of an earlier attempt: no progress of this one
    (released,) = leases.mark_dead(other, worker, "power loss")
    assert (released.n_deaths, released.n_fruitless, released.poisoned) == (4, 2, True)


def test_jobs_of_functions_with_the_same_settings_are_told_apart(lab):
    describe = describe_jobs(lab.tables)
    for name in ("december", "without_mixture", "diverges"):  # the configuration of each is empty
        lab.plan(name, [1])
    words = {describe("TrainedModel", key) for key in lab.tables.TrainingPlan.fetch("KEY") if key["seed"] == 1}
    assert words == {
        "TrainedModel: helpers.planted_lab.baseline {}, seed 1",
        "TrainedModel: helpers.planted_lab.december {}, seed 1",
        "TrainedModel: helpers.planted_lab.without_mixture {}, seed 1",
        "TrainedModel: helpers.planted_lab.diverges {}, seed 1",
    }
    assert describe("SeedAgreement", {"trainer_fn": "a.b", "trainer_hash": "x", "seed_a": 1}) == (
        "SeedAgreement: b, seed_a 1"
    )
