"""Stores in a folder, checkpoints and the spool: whole or not there, whatever happens to disk and processes."""

from __future__ import annotations

import logging
import os
import resource
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from december_plugin import storage
from december_plugin.cli import main
from december_plugin.errors import DecemberError, ServerError, SettingsError
from december_plugin.pool.worker.checkpoints import CheckpointFile, JobCheckpoints
from december_plugin.pool.worker.spool import Spool, spool_folder
from december_plugin.storage.atomic import DamagedError, verify_checksum, with_checksum, write_atomically
from december_plugin.storage.attachments import attachment_path
from december_plugin.storage.base import MARK, UNREADABLE, StoreUnavailableError, is_store_outage
from december_plugin.storage.folder import FolderStore
from december_plugin.storage.opening import open_store

MAGIC = b"test-1 "
JOB = ("lab", "__trained_model", "0123456789abcdef" * 2)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    (tmp_path / "store").mkdir()
    return FolderStore("minio", tmp_path / "store")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 256 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("only root can mount a disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


# --- checksums


def test_content_with_a_checksum_comes_back() -> None:
    assert verify_checksum(MAGIC, with_checksum(MAGIC, b"payload")) == b"payload"
    assert verify_checksum(MAGIC, with_checksum(MAGIC, b"")) == b""
    # The digest of b"abc" that the standard gives (FIPS 180-2, appendix B.1).
    digest = bytes.fromhex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    assert with_checksum(MAGIC, b"abc") == b"test-1 " + digest + b"abc"


@given(st.binary(max_size=50), st.data())
def test_any_changed_byte_and_any_cut_is_noticed(payload: bytes, data: st.DataObject) -> None:
    content = with_checksum(MAGIC, payload)
    where = data.draw(st.integers(0, len(content) - 1))
    change = data.draw(st.integers(1, 255))
    for damaged in (
        content[:where],
        content[:where] + bytes([content[where] ^ change]) + content[where + 1 :],
        content + b"\0",
    ):
        with pytest.raises(DamagedError):
            verify_checksum(MAGIC, damaged)


def test_words_about_damage() -> None:
    content = with_checksum(MAGIC, b"payload")
    with pytest.raises(DamagedError) as cut:
        verify_checksum(MAGIC, content[:-1])
    assert str(cut.value) == "the checksum does not fit the content (45 bytes): it was cut short or altered"
    with pytest.raises(DamagedError) as empty:
        verify_checksum(MAGIC, b"")
    assert str(empty.value) == "the content is empty (0 bytes)"
    with pytest.raises(DamagedError) as other:
        verify_checksum(b"test-2 ", content)
    assert str(other.value) == "the content is of another kind, or its beginning is damaged (46 bytes)"
    assert isinstance(other.value, DecemberError)


# --- writing


def test_writing_leaves_nothing_else_and_keeps_to_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a", b"1")
        write_atomically(tmp_path / "a", b"22")
        write_atomically(tmp_path / "private", b"3", mode=0o600)
    finally:
        os.umask(before)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"22", "private": b"3"}
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "private").stat().st_mode) == 0o600


@contextmanager
def child(action: Callable[[], None]) -> Iterator[Callable[[], int]]:
    """Run an action in a child of this process; yields what waits for its end and returns the exit status.

    A fork, because a new interpreter takes seconds to import what the action needs.
    """
    pid = os.fork()
    if pid == 0:
        try:
            action()
            os._exit(0)
        finally:
            os._exit(1)
    statuses: list[int] = []

    def wait() -> int:
        if not statuses:
            statuses.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        return statuses[0]

    try:
        yield wait
    finally:
        if not statuses:
            os.kill(pid, signal.SIGKILL)
            wait()


def test_writing_that_fails_in_the_middle_keeps_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_atomically(path, b"old")

    def write_under_limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with pytest.raises(OSError, match="File too large"):
            write_atomically(path, b"x" * 5000)

    with child(write_under_limit) as wait:
        assert wait() == 0
    assert {found.name: found.read_bytes() for found in tmp_path.iterdir()} == {"a": b"old"}


def test_crash_before_renaming_leaves_the_old_checkpoint(store: FolderStore) -> None:
    checkpoint = CheckpointFile(store, *JOB)
    checkpoint.save(b"old")

    def save_and_die() -> None:
        os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
        checkpoint.save(b"new" * 1000)

    with child(save_and_die) as wait:
        assert wait() == -signal.SIGKILL
    assert checkpoint.load() == b"old"
    names = [found.path.rsplit("/", 1)[1] for found in store.list()]
    assert len(names) == 2
    assert [name for name in names if name.startswith(f".{JOB[2]}.") and name.endswith(".writing")]
    checkpoint.save(b"newer")
    assert checkpoint.load() == b"newer"


def test_two_processes_that_save_at_once_leave_one_whole_file(
    store: FolderStore, caplog: pytest.LogCaptureFixture
) -> None:
    CheckpointFile(store, *JOB).save(b"a" * 200_000)

    def save_often(letter: bytes) -> None:
        os.fsync = lambda _: None  # type: ignore[assignment]  # minutes on a busy disk, and this is no power cut
        for _ in range(300):
            CheckpointFile(store, *JOB).save(letter * 200_000)

    loads = []
    with child(lambda: save_often(b"b")) as wait_for_b, child(lambda: save_often(b"c")) as wait_for_c:
        for _ in range(100):
            loads.append(CheckpointFile(store, *JOB).load())
        assert (wait_for_b(), wait_for_c()) == (0, 0)
    loads.append(CheckpointFile(store, *JOB).load())
    assert {bytes(set(load or b"")) for load in loads} <= {b"a", b"b", b"c"}
    assert {len(load or b"") for load in loads} == {200_000}
    assert len(list(store.list())) == 1
    assert not caplog.records


# --- the store in a folder


def test_file_store(store: FolderStore) -> None:
    assert list(store.list()) == []
    assert list(store.list("nowhere")) == []
    assert store.find("a/b/c") is None
    store.put("a/b/c", b"123")
    store.put("a/d", b"")
    store.put("ab", b"4")
    assert store.get("a/b/c") == b"123"
    assert {(found.path, found.size) for found in store.list()} == {("a/b/c", 3), ("a/d", 0), ("ab", 1)}
    assert {found.path for found in store.list("a")} == {"a/b/c", "a/d"}
    found = store.find("a/b/c")
    assert found is not None
    assert abs((datetime.now(timezone.utc) - found.modified).total_seconds()) < 60
    store.remove("a/b/c")
    store.remove("a/b/c")
    with pytest.raises(FileNotFoundError):
        store.get("a/b/c")
    store.check()


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../x", "a//b", "a/", ".", "a/./b", "a\0b"])
def test_paths_stay_inside(store: FolderStore, path: str) -> None:
    for action in (store.get, store.remove, store.find, lambda path: store.put(path, b"")):
        with pytest.raises(SettingsError) as raised:
            action(path)
        message = f"the path {path!r} in a store must be relative, without empty parts, '.' and '..'."
        assert str(raised.value) == message


def test_a_store_is_known_by_its_mark(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    store = FolderStore("minio", tmp_path / "disk")
    assert store.read_mark() is None
    store.check_identity()  # without an expected identity any store is the right one
    store.write_mark("a" * 32)
    store.put("lab/model", b"weights")
    assert store.read_mark() == "a" * 32
    store.identity = "a" * 32
    store.check_identity()
    (tmp_path / "disk").rename(tmp_path / "away")
    (tmp_path / "disk").mkdir()  # where a disk should be mounted
    words = "is not the one that this database has used before: its mark december-store.txt is missing. Mount the disk"
    for action in (
        store.check,
        store.check_identity,
        lambda: store.put("lab/model", b"other weights"),
        lambda: store.get("lab/model"),
        lambda: store.find("lab/model"),
        lambda: store.remove("lab/model"),
        lambda: list(store.list("lab")),
    ):
        with pytest.raises(StoreUnavailableError, match=words):
            action()
    assert list((tmp_path / "disk").iterdir()) == []
    (tmp_path / "disk" / MARK).write_bytes(b"\xff nonsense")
    assert FolderStore("minio", tmp_path / "disk").read_mark() == UNREADABLE
    with pytest.raises(StoreUnavailableError, match=r"its mark december-store\.txt is that of another store"):
        store.check()


def test_a_disk_that_is_not_mounted_is_not_an_empty_store(tmp_path: Path) -> None:
    store = FolderStore("minio", tmp_path / "gone")
    checkpoint = CheckpointFile(store, *JOB)
    message = (
        f"The store 'minio' (the folder {tmp_path / 'gone'}) cannot be used: it does not exist or is not a folder. "
        "Check that it runs, is mounted and has room, and check dj.config['stores']['minio']."
    )
    for action in (checkpoint.load, checkpoint.remove, lambda: list(store.list())):
        with pytest.raises(StoreUnavailableError) as raised:
            action()
        assert str(raised.value) == message
        assert isinstance(raised.value, ServerError)
    with pytest.raises(StoreUnavailableError) as raised:
        store.check()
    assert str(raised.value) == (
        f"The folder {tmp_path / 'gone'} of the store 'minio' does not exist. Create it, mount the disk that holds it, "
        "or correct dj.config['stores']['minio']['location']."
    )
    with pytest.raises(StoreUnavailableError):
        checkpoint.save(b"x")
    assert not (tmp_path / "gone").exists()


def test_full_disk_keeps_the_old_checkpoint(small_disk: Path) -> None:
    checkpoint = CheckpointFile(FolderStore("minio", small_disk), *JOB)
    checkpoint.save(b"old" * 10_000)
    with pytest.raises(StoreUnavailableError) as raised:
        checkpoint.save(b"n" * 300_000)
    assert str(raised.value) == (
        f"The store 'minio' (the folder {small_disk}) cannot be used: No space left on device. Check that it runs, is "
        "mounted and has room, and check dj.config['stores']['minio']."
    )
    assert is_store_outage(raised.value)
    assert checkpoint.load() == b"old" * 10_000
    assert len(list(checkpoint.store.list())) == 1
    checkpoint.save(b"short")  # what was half written does not take the room
    assert checkpoint.load() == b"short"


def test_read_only_disk(small_disk: Path) -> None:
    checkpoint = CheckpointFile(FolderStore("minio", small_disk), *JOB)
    checkpoint.save(b"old")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for action in (lambda: checkpoint.save(b"new"), checkpoint.remove):
        with pytest.raises(StoreUnavailableError, match=r"cannot be used: Read-only file system\. Check that"):
            action()
    with pytest.raises(StoreUnavailableError, match=r"not writable for user id 0 \(Read-only file system\)\. Allow"):
        checkpoint.store.check()
    assert checkpoint.load() == b"old"


# --- which store


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict]:
    """Yield the settings of DataJoint's stores, empty."""
    import datajoint as dj

    monkeypatch.setenv("DECEMBER_HOME", str(tmp_path / "home"))
    before = dj.config.get("stores")
    stores: dict = {}
    dj.config["stores"] = stores
    yield stores
    dj.config["stores"] = before or {}


def test_store_of_the_settings(configured: dict, tmp_path: Path) -> None:
    default = open_store()
    assert isinstance(default, FolderStore)
    assert default.location == tmp_path / "home" / "store"
    configured["minio"] = {"protocol": "file", "location": str(tmp_path)}
    assert open_store().place == f"the folder {tmp_path}"


def test_store_with_wrong_settings(configured: dict) -> None:
    with pytest.raises(ServerError) as raised:
        open_store("other")
    assert str(raised.value) == (
        "The store 'other' cannot be used: Storage other is requested but not configured. Correct "
        "dj.config['stores']['other'], e.g. {'protocol': 'file', 'location': '/path/to/folder'}."
    )
    configured["minio"] = {"protocol": "ftp", "location": "x"}
    with pytest.raises(ServerError, match="Missing or invalid protocol"):
        open_store()


def test_a_store_is_checked_only_where_it_is_configured(configured: dict, tmp_path: Path) -> None:
    """DataJoint stores nothing in a store that its settings do not have."""
    (tmp_path / "home" / "store").mkdir(parents=True)
    storage.open_store().check()
    with pytest.raises(ServerError, match=r"^The store 'minio' cannot be used: Storage minio is requested but not con"):
        storage.check_store()
    configured["minio"] = {"protocol": "file", "location": str(tmp_path)}
    storage.check_store()


def test_where_attachments_are() -> None:
    content = bytes.fromhex("0123456789abcdef" * 2)
    assert attachment_path("lab", content, "model.pth.tar", subfolding=(2, 2)) == (
        "lab/01/23/0123456789abcdef0123456789abcdef.model.pth.tar"
    )
    assert attachment_path("lab", content, "", subfolding=()) == "lab/0123456789abcdef0123456789abcdef"


def test_status_of_a_store_that_is_away(
    configured: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DECEMBER_SPOOL", raising=False)
    assert main(["store", "status"]) == 3
    assert capsys.readouterr().out == (
        f"store      minio, the folder {tmp_path}/home/store\n"
        f"state      The folder {tmp_path}/home/store of the store 'minio' does not exist. Create it, mount the disk "
        "that holds it, or correct dj.config['stores']['minio']['location'].\n"
        f"spool      {tmp_path}/home/spool, 0 finished results wait for the database\n"
    )


# --- checkpoints


def test_checkpoints_of_the_attempts(store: FolderStore) -> None:
    first, second = (JobCheckpoints(store, *JOB, attempt=attempt) for attempt in (1, 2))
    assert first.load() is None
    first.save(b"first, epoch 5")
    other = JobCheckpoints(store, JOB[0], JOB[1], "f" * 32, attempt=1)
    other.save(b"other")
    assert second.load() == b"first, epoch 5"
    second.save(b"second, epoch 7")
    first.save(b"first, epoch 10")  # it was suspended and does not know that it lost the job
    assert second.load() == b"second, epoch 7"
    second.remove()
    assert (first.load(), other.load()) == (None, b"other")


def test_store_that_goes_away_after_saving(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    JobCheckpoints(store, *JOB, attempt=1).save(b"first")
    second = JobCheckpoints(store, *JOB, attempt=2)
    with monkeypatch.context() as patch:
        patch.setattr(store, "remove", lambda path: (_ for _ in ()).throw(store.unavailable("gone")))
        second.save(b"second")
    assert second.load() == b"second"
    assert len(list(store.list())) == 2
    second.save(b"second, later")
    assert [store.get(found.path)[-13:] for found in store.list()] == [b"second, later"]


def test_earlier_attempt_takes_the_place_of_a_damaged_one(store: FolderStore, caplog: pytest.LogCaptureFixture) -> None:
    second = JobCheckpoints(store, *JOB, attempt=2)
    second.save(b"second")
    JobCheckpoints(store, *JOB, attempt=1).save(b"first")
    path = store.location / "december_checkpoints" / "lab" / "__trained_model" / f"{JOB[2]}-00000002"
    path.write_bytes(path.read_bytes()[:-3])
    assert second.load() == b"first"
    assert len(caplog.records) == 1
    assert caplog.records[0].levelno == logging.WARNING
    assert caplog.records[0].getMessage() == (
        f"the checkpoint december_checkpoints/lab/__trained_model/{JOB[2]}-00000002 in the folder {store.location} is "
        f"damaged and is not used: the checksum does not fit the content ({path.stat().st_size} bytes): it was cut "
        "short or altered."
    )


def test_checkpoint_of_another_job_is_refused(store: FolderStore, caplog: pytest.LogCaptureFixture) -> None:
    CheckpointFile(store, *JOB).save(b"mine")
    folder = store.location / "december_checkpoints" / "lab" / "__trained_model"
    (folder / JOB[2]).rename(folder / ("e" * 32))
    assert CheckpointFile(store, JOB[0], JOB[1], "e" * 32).load() is None
    assert "is damaged and is not used" in caplog.text


def test_checkpoint_needs_names() -> None:
    with pytest.raises(SettingsError, match="must be relative"):
        CheckpointFile(FolderStore("minio", "/nowhere"), "lab", "..", "x")


# --- the spool


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "deep" / "spool")


def test_spool(spool: Spool) -> None:
    assert spool.get(*JOB) is None
    assert spool.entries("lab") == []
    spool.remove(*JOB)
    spool.put(*JOB, b"early")
    spool.put(*JOB, b"result")
    spool.put("lab", "_summary", "b" * 32, b"later")
    spool.put("other", "_summary", "c" * 32, b"elsewhere")
    os.utime(spool.folder / "lab" / "_summary" / ("b" * 32), (5e9, 5e9))
    assert spool.entries("lab") == [(JOB[1], JOB[2]), ("_summary", "b" * 32)]
    assert spool.get(*JOB) == b"result"
    spool.remove(*JOB)
    assert spool.get(*JOB) is None
    assert spool.entries("lab") == [("_summary", "b" * 32)]


def test_only_the_user_can_read_the_spool(spool: Spool) -> None:
    before = os.umask(0)
    try:
        spool.put(*JOB, b"result")
    finally:
        os.umask(before)
    paths = [spool.folder, *spool.folder.rglob("*")]
    assert [stat.S_IMODE(path.stat().st_mode) for path in paths] == [0o700, 0o700, 0o700, 0o600]


def test_damaged_result_is_moved_aside(spool: Spool, caplog: pytest.LogCaptureFixture) -> None:
    spool.put(*JOB, b"result")
    path = spool.folder / "lab" / "__trained_model" / JOB[2]
    damaged = path.read_bytes()[:-1] + b"T"
    path.write_bytes(damaged)
    assert spool.get(*JOB) is None
    assert spool.entries("lab") == []
    (aside,) = (spool.folder / "damaged").iterdir()
    assert aside.name.startswith(f"lab.__trained_model.{JOB[2]}.")
    assert aside.read_bytes() == damaged
    assert caplog.records[0].getMessage() == (
        f"the finished result {path} is damaged and is not used: the checksum does not fit the content ({len(damaged)} "
        f"bytes): it was cut short or altered. It is now {aside}; its job is computed again."
    )
    assert spool.get(*JOB) is None
    assert len(caplog.records) == 1


def test_result_of_another_job_is_refused(spool: Spool, caplog: pytest.LogCaptureFixture) -> None:
    spool.put(*JOB, b"result")
    folder = spool.folder / "lab" / "__trained_model"
    (folder / JOB[2]).rename(folder / ("e" * 32))
    assert spool.get("lab", "__trained_model", "e" * 32) is None
    assert "is damaged and is not used" in caplog.text


def test_full_disk_keeps_the_earlier_result(small_disk: Path) -> None:
    spool = Spool(small_disk / "spool")
    spool.put(*JOB, b"early")
    with pytest.raises(StoreUnavailableError) as raised:
        spool.put(*JOB, b"n" * 300_000)
    assert str(raised.value) == (
        f"The folder {small_disk / 'spool'} for finished results cannot be used: No space left on device. Make room or "
        "allow writing there, or set DECEMBER_SPOOL to another folder on a local disk."
    )
    assert spool.get(*JOB) == b"early"
    assert spool.entries("lab") == [(JOB[1], JOB[2])]
    assert list(spool.unfinished()) == []


def test_result_that_was_never_completed_is_none(spool: Spool) -> None:
    spool.put(*JOB, b"result")
    half = spool.folder / "lab" / "__trained_model" / f".{'d' * 32}.0123.writing"
    half.write_bytes(b"half")
    assert spool.entries("lab") == [(JOB[1], JOB[2])]
    assert list(spool.unfinished()) == [half]


def test_default_folder_of_the_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DECEMBER_HOME", str(tmp_path))
    monkeypatch.delenv("DECEMBER_SPOOL", raising=False)
    assert Spool().folder == tmp_path / "spool"
    monkeypatch.setenv("DECEMBER_SPOOL", "~/results")
    monkeypatch.setenv("HOME", "/somebody")
    assert spool_folder() == Path("/somebody/results")


def test_spool_needs_names(spool: Spool) -> None:
    with pytest.raises(SettingsError, match="must be relative"):
        spool.put("lab", "../..", "x", b"")


@pytest.mark.parametrize("path", ["one.bin", "lab/checkpoints/one.bin"])
def test_a_store_that_goes_away_after_it_was_looked_at_is_not_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    store = FolderStore("minio", folder)
    look = store._require_location

    def look_before_it_goes() -> None:
        look()
        folder.rename(tmp_path / "away")

    monkeypatch.setattr(store, "_require_location", look_before_it_goes)
    with pytest.raises(StoreUnavailableError, match="minio"):
        store.put(path, b"content")
    assert not folder.exists()
