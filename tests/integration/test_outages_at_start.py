"""The store, or the database, is away while a pool or one of its workers starts: nobody loses anything by it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from december_plugin.database.connection import connect
from december_plugin.database.store_identity import recognise
from december_plugin.errors import ServerError
from december_plugin.importing.datajoint import quiet_datajoint
from december_plugin.pool import Worker, WorkerSettings
from december_plugin.pool.worker import loop as worker_module
from december_plugin.storage.base import MARK, StoreUnavailableError
from december_plugin.storage.opening import open_store
from helpers import lab_tables
from helpers.fake_sweep import FakeSweep
from helpers.pool_lab import PoolLab
from helpers.s3_server import Proxy
from helpers.waiting import wait_until

pytestmark = pytest.mark.slow(6)

QUICKLY = ("--lease", "20", "--checkpoint-every", "1")


@pytest.fixture(scope="module")
def recordings(recordings: list[str]) -> list[str]:
    """Take one recording: a training begins sooner."""
    return recordings[:1]


def in_training(pool: PoolLab) -> list[tuple[Any, ...]]:
    return pool.query(
        "SELECT worker_pid, job_epoch FROM `{}`.pool_worker WHERE worker_state = 'working' AND job_epoch >= 1"
    )


def test_a_worker_that_starts_while_the_store_is_away_waits_and_the_others_go_on(pool, store_folder, capsys):
    pool.register_endless(seeds=(1, 2))
    process = pool.start("--cpu", "2", *QUICKLY)
    wait_until(lambda: len(in_training(pool)) == 2, "two trainings")
    (healthy, epoch), (killed, _) = in_training(pool)
    away = store_folder.with_name("store-away")
    store_folder.rename(away)
    try:
        os.kill(killed, signal.SIGKILL)
        waiting = "SELECT worker_detail FROM `{}`.pool_worker WHERE worker_state = 'waiting'"
        ((words,),) = wait_until(lambda: pool.query(waiting), "a worker that waits")
        assert words == (
            f"The folder {store_folder} of the store 'minio' does not exist. Create it, mount the disk that holds it, "
            "or correct dj.config['stores']['minio']['location']."
        )
        assert not store_folder.exists()
        # A folder that was made by hand, or where a disk should be mounted, is not the store either.
        store_folder.mkdir()
        wait_until(lambda: "its mark december-store.txt is missing" in pool.query(waiting)[0][0], "the missing mark")
        unknown = f"waiting: The store 'minio' (the folder {store_folder}) is not the one that this database has used"
        wait_until(lambda: unknown in pool.output, "a line about the wrong store")
        # Nobody needs the store to look at the pool, and no command makes it anew.
        assert "2 of 2 workers alive" in pool.run("pool", "status")
        assert "waiting" in pool.run("status")
        wait_until(
            lambda: pool.query(
                "SELECT 1 FROM `{}`.pool_worker WHERE worker_pid = %s AND job_epoch > %s", healthy, epoch + 5
            ),
            "more epochs of the worker that lives",
        )
        assert list(store_folder.iterdir()) == []  # no checkpoint landed there
        store_folder.rmdir()
    finally:
        away.rename(store_folder)
    wait_until(lambda: len(in_training(pool)) == 2, "both trainings again")
    assert healthy in [pid for pid, _ in in_training(pool)]
    assert process.poll() is None
    assert "the server and the store answer again" in pool.output
    pool.run("pool", "stop")
    assert pool.ended(process) == 0, pool.output
    assert pool.query("SELECT job_state, SUM(n_deaths) FROM `{}`.pool_job GROUP BY job_state") == [("free", 1)]


def test_a_database_that_goes_in_the_first_seconds_of_a_pool(pool, server, monkeypatch):
    pool.register(max_iter=2, patience=2)
    proxy, own = Proxy(server.settings.port), server.settings
    for name, value in {"DJ_HOST": f"127.0.0.1:{proxy.port}", "DJ_USER": own.user, "DJ_PASS": own.password}.items():
        monkeypatch.setenv(name, value)
    try:
        process = pool.start("--cpu", "1", "--idle-exit", "1", *QUICKLY)
        wait_until(lambda: proxy.n_received > 1000, "questions after the login, which it would not have waited for")
        proxy.fail("cut")  # whatever it does at the moment
        wait_until(lambda: "[pool] waiting: " in pool.output, "a pool that waits")
        assert process.poll() is None
        time.sleep(1)  # it still does after a while
        proxy.fail("pass")
        wait_until(lambda: pool.query("SELECT 1 FROM `{}`.pool"), "the pool's entry")
        wait_until(lambda: "worker started" in pool.output, "a worker")
        proxy.fail("cut", times=3)  # and in those of its worker
        assert pool.ended(process) == 0, pool.output
    finally:
        proxy.close()
    assert pool.query("SELECT COUNT(*) FROM `{}`.__trained_model") == [(1,)]
    assert pool.query("SELECT COUNT(*), COUNT(pool_ended) FROM `{}`.pool") == [(1, 1)]


# ---- a mistake in the settings, or an outage?


@pytest.fixture
def misplaced(empty_lab: lab_tables.Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSweep]:
    """Yield a sweep whose store is configured in a folder that does not exist."""
    dj = quiet_datajoint()
    before = dj.config["stores"]
    sweep = FakeSweep(empty_lab, seeds=1)
    dj.config["stores"] = {"minio": {"protocol": "file", "location": str(tmp_path / "unmounted")}}
    monkeypatch.setattr(worker_module, "STORE_PATIENCE_SECONDS", 0.0)
    yield sweep
    dj.config["stores"] = before


@pytest.mark.parametrize(
    ("kind", "has_worker", "is_waited_for"),
    [("slurm", False, False), ("slurm", True, True), ("local", False, True), (None, False, False)],
)
def test_a_store_is_waited_for_once_the_pool_has_used_it(
    misplaced: FakeSweep, monkeypatch: pytest.MonkeyPatch, kind: str | None, has_worker: bool, is_waited_for: bool
) -> None:
    pool_id = "b" * 32 if kind is None else misplaced.pool(pool_kind=kind)
    if has_worker:
        misplaced.worker(pool_id=pool_id)
    monkeypatch.setenv("DECEMBER_POOL_ID", pool_id)
    worker = Worker(misplaced.tables, WorkerSettings())
    if is_waited_for:
        assert worker.run().ended_by == "no store for 0 s; the pool's next worker reads the settings again"
        assert len(misplaced.tables.PoolJob()) == 0
    else:
        with pytest.raises(StoreUnavailableError, match=r"unmounted of the store 'minio' does not exist\. Create it"):
            worker.run()


def test_settings_that_name_no_store_are_a_mistake_at_any_time(
    misplaced: FakeSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DECEMBER_POOL_ID", misplaced.pool())
    worker = Worker(misplaced.tables, WorkerSettings())
    quiet_datajoint().config["stores"] = {"minio": {"protocol": "ftp", "location": "/"}}
    with pytest.raises(ServerError, match="Missing or invalid protocol") as raised:
        worker.run()
    assert not isinstance(raised.value, StoreUnavailableError)


# ---- the spool and the logs of a worker that starts


def test_a_worker_works_without_its_spool_and_its_logs(
    empty_lab: lab_tables.Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    empty_lab.plan("baseline", seeds=[1])
    (tmp_path / "file").write_text("")  # not even root makes a folder there
    monkeypatch.setenv("DECEMBER_SPOOL", str(tmp_path / "file" / "spool"))
    report = Worker(
        empty_lab.tables, WorkerSettings(log_folder=tmp_path / "file" / "logs", only=("TrainedModel",))
    ).run()
    assert (report.computed, report.n_failed) == ({"TrainedModel": 1}, 0)
    assert "the result could not be kept on this machine until it is stored" in caplog.text


# ---- the identity of a store


@pytest.fixture
def marked(database: Any, new_schema_name: Callable[[], str], tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Yield a function that opens one schema with the store in a folder of its own, as a command does."""
    from december_plugin.schemas.lab import open_lab

    dj, schema = quiet_datajoint(), new_schema_name()
    before = dj.config["stores"]
    (tmp_path / "disk").mkdir()
    dj.config["stores"] = {"minio": {"protocol": "file", "location": str(tmp_path / "disk")}}
    yield lambda **options: open_lab(schema=schema, nnfabrik=schema, create=True, **options)
    dj.config["stores"] = before


def test_a_store_gets_its_mark_at_the_first_use_and_is_known_by_it(marked: Callable[..., Any], tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    table = marked().tables.StoreIdentity()
    row = table.fetch1()
    assert row == {"store_name": "minio", "store_id": (disk / MARK).read_text().split()[0], "store_place": str(disk)}
    marked()
    assert len(table) == 1
    # A disk that is not mounted, another store, and a mark that says nothing.
    for content, reason in [
        (None, "its mark december-store.txt is missing"),
        ("0" * 32, "its mark december-store.txt is that of another store"),
        ("x", "its mark december-store.txt is that of another store"),
    ]:
        text = (disk / MARK).read_text()
        (disk / MARK).unlink() if content is None else (disk / MARK).write_text(content)
        with pytest.raises(StoreUnavailableError) as raised:
            marked()
        assert str(raised.value) == (
            f"The store 'minio' (the folder {disk}) is not the one that this database has used before: {reason}. Mount "
            "the disk or move the store back to this place, or correct dj.config['stores']['minio']; `december store "
            "accept` makes this place the store from now on."
        )
        marked(read_only=True)  # who only looks needs no store
        (disk / MARK).write_text(text)
    marked()


def test_a_moved_store_is_known_by_its_mark(marked: Callable[..., Any], tmp_path: Path) -> None:
    marked()
    (tmp_path / "disk").rename(tmp_path / "elsewhere")
    quiet_datajoint().config["stores"]["minio"]["location"] = str(tmp_path / "elsewhere")
    marked()


def test_an_old_schema_takes_no_empty_folder_for_its_store(marked: Callable[..., Any], tmp_path: Path) -> None:
    lab, disk = marked(), tmp_path / "disk"
    schema = lab.tables.schema
    # As it was before stores had an identity: rows of files, and no mark.
    lab.tables.StoreIdentity().delete_quick()
    (disk / MARK).unlink()
    external = schema.external["minio"]
    (tmp_path / "model.pth").write_text("weights")
    external.upload_attachment(tmp_path / "model.pth")
    (stored,) = (path for path in disk.rglob("*") if path.is_file())
    stored.rename(tmp_path / "kept")
    with pytest.raises(
        StoreUnavailableError, match=rf"none of the 1 newest files of the schema '{schema.database}'\. Mo"
    ):
        marked()
    assert not (disk / MARK).exists()
    (tmp_path / "kept").rename(stored)
    marked()
    assert (disk / MARK).exists()


def test_an_account_that_may_not_write_leaves_a_store_as_it_is(
    marked: Callable[..., Any], tmp_path: Path, admin: Any, server: Any
) -> None:
    import datajoint

    lab, mark = marked(), tmp_path / "disk" / MARK
    lab.tables.StoreIdentity().delete_quick()
    content = mark.read_text()
    mark.unlink()
    admin.execute("CREATE OR REPLACE USER 'colleague'@'127.0.0.1' IDENTIFIED BY 'a long password'")
    admin.execute(f"GRANT SELECT ON `{lab.schema}`.* TO 'colleague'@'127.0.0.1'")
    connection = datajoint.Connection("127.0.0.1", "colleague", "a long password", server.settings.port, use_tls=False)
    try:
        table = datajoint.FreeTable(connection, f"`{lab.schema}`.`store_identity`")
        for text in (None, content):
            if text is not None:
                mark.write_text(text)
            recognise(table, open_store(), models_schema=lab.schema)
            assert mark.exists() == (text is not None)
            assert len(table) == 0
    finally:
        connection.close()
        admin.execute("DROP USER 'colleague'@'127.0.0.1'")
    marked()  # who may write finds the mark and writes it down
    assert lab.tables.StoreIdentity().fetch1("store_id") == content.split()[0]


def test_accepting_another_place(
    marked: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from december_plugin.cli import main

    lab, disk = marked(), tmp_path / "disk"
    identity = lab.tables.StoreIdentity().fetch1("store_id")
    (disk / MARK).unlink()
    assert main(["store", "accept", "--schema", lab.schema]) == 0
    assert (
        capsys.readouterr().out == f"The folder {disk} is the store 'minio' of the schema {lab.schema} from now on.\n"
    )
    assert (disk / MARK).read_text().split()[0] == identity
    # A place that has an identity keeps it: other schemas may know it by that.
    (disk / MARK).write_text("1" * 32)
    assert main(["store", "accept", "--schema", lab.schema]) == 0
    assert lab.tables.StoreIdentity().fetch1("store_id") == "1" * 32
    marked()


def test_the_default_store_is_not_made_where_one_was(
    database: Any, store_folder: Path, schema_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from december_plugin.schemas.lab import open_lab

    open_lab(schema=schema_name, nnfabrik=schema_name, create=True)
    away = store_folder.with_name("store-away")
    store_folder.rename(away)
    try:
        with pytest.raises(StoreUnavailableError) as raised:
            connect()
        assert str(raised.value) == (
            f"The folder {store_folder} of the store 'minio' is gone, with the models that the database refers to. "
            "Move it back, or mount the disk that holds it. A new one is not created, because models stored in it "
            "would be missing later. If the models are lost, make an empty folder there and run `december store "
            "accept`."
        )
        connect(needs_store=False)
        assert not store_folder.exists()
    finally:
        away.rename(store_folder)
