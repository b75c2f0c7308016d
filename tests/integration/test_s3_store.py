"""Stores on an S3 server: a process of its own, and one that fails in every way that a network knows."""

from __future__ import annotations

import json
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import datajoint as dj
import numpy as np
import pytest

import helpers
from december_plugin.errors import ServerError
from december_plugin.pool.worker.checkpoints import CheckpointFile, JobCheckpoints
from december_plugin.schemas.stored_models import stored_state_dict
from december_plugin.storage import s3 as s3_store
from december_plugin.storage.base import MARK, StoreUnavailableError, is_store_outage
from december_plugin.storage.opening import check_store, open_store
from december_plugin.storage.s3 import S3Store, use_quick_client
from helpers import lab_tables, planted_lab, s3_server
from helpers.s3_server import ACCESS_KEY, BUCKET, SECRET_KEY, Proxy, S3Server

JOB = ("lab", "__trained_model", "0123456789abcdef" * 2)
PLACE = "the bucket 'models' at 127.0.0.1:{port}, below 'lab/vision'"
AWAY = (
    "The store 'cloud' ({place}) cannot be used: {words}. Check that it runs, is mounted and has room, and check "
    "dj.config['stores']['cloud']."
)
LARGE = bytes(range(256)) * 65536  # 16 MB: several parts in DataJoint's client


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    server = S3Server(tmp_path_factory.mktemp("s3") / "log")
    yield server
    server.stop()


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[Proxy]:
    """Yield a proxy to the server, whose bucket is emptied after the test."""
    proxy = Proxy(s3.port)
    yield proxy
    proxy.close()
    for name in s3.names():
        s3.client.remove_object(BUCKET, name)


@pytest.fixture
def configured(proxy: Proxy) -> Iterator[dict[str, Any]]:
    """Yield DataJoint's stores, with the store ``cloud`` behind the proxy."""
    before = dj.config.get("stores")
    stores: dict[str, Any] = {**(before or {}), "cloud": s3_server.store_settings(proxy.port)}
    dj.config["stores"] = stores
    yield stores
    dj.config["stores"] = before or {}


@pytest.fixture
def store(configured: dict[str, Any]) -> S3Store:
    store = open_store("cloud")
    assert isinstance(store, S3Store)
    return store


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for a second instead of seven; name it before the store."""
    monkeypatch.setattr(s3_store, "ANSWER_SECONDS", 1.0)


def failure(action: Callable[[], Any], *, within: float = 10.0) -> str:
    """Return the words of the error, which comes within that time (s) and names no keys."""
    began = time.monotonic()
    with pytest.raises(StoreUnavailableError) as raised:
        action()
    assert time.monotonic() - began < within
    assert is_store_outage(raised.value)
    everything = "".join(traceback.format_exception(raised.value))
    assert ACCESS_KEY not in everything
    assert SECRET_KEY not in everything
    return str(raised.value)


# --- a server that works


def test_files_in_a_bucket(store: S3Store, s3: S3Server) -> None:
    assert list(store.list()) == []
    assert store.find("a/b/c") is None
    store.put("a/b/c", b"123")
    store.put("a/b/c", b"1234")
    store.put("a/d", b"")
    store.put("ab", b"4")
    assert s3.names() == ["lab/vision/a/b/c", "lab/vision/a/d", "lab/vision/ab"]
    assert (store.get("a/b/c"), store.get("a/d")) == (b"1234", b"")
    assert {(found.path, found.size) for found in store.list()} == {("a/b/c", 4), ("a/d", 0), ("ab", 1)}
    assert {found.path for found in store.list("a")} == {"a/b/c", "a/d"}
    assert list(store.list("nowhere")) == []
    found = store.find("a/b/c")
    assert found is not None
    assert abs((datetime.now(timezone.utc) - found.modified).total_seconds()) < 60
    store.remove("a/b/c")
    store.remove("a/b/c")
    with pytest.raises(FileNotFoundError):
        store.get("a/b/c")
    store.check()


@pytest.mark.slow(4)
def test_more_files_than_one_answer_lists(store: S3Store, s3: S3Server) -> None:
    names = {f"many/{number:04d}" for number in range(1005)}
    for name in names:
        store.put(name, b"")
    assert {found.path for found in store.list("many")} == names


@pytest.mark.parametrize(("location", "prefix"), [("", ""), ("lab", "lab/"), ("a\\b", "a/b/"), ("a/b/", "a/b/")])
def test_location_is_datajoints(
    configured: dict[str, Any], proxy: Proxy, s3: S3Server, location: str, prefix: str
) -> None:
    configured["cloud"] = s3_server.store_settings(proxy.port, location=location)
    store = open_store("cloud")
    store.put("x/y", b"1")
    assert s3.names() == [f"{prefix}x/y"]
    assert [found.path for found in store.list()] == ["x/y"]


def test_checkpoints_in_a_bucket(store: S3Store, s3: S3Server, caplog: pytest.LogCaptureFixture) -> None:
    first, second = (JobCheckpoints(store, *JOB, attempt=attempt) for attempt in (1, 2))
    assert first.load() is None
    first.save(LARGE)
    assert second.load() == LARGE
    second.save(b"second")
    (name,) = s3.names()
    assert name == f"lab/vision/december_checkpoints/lab/__trained_model/{JOB[2]}-00000002"
    whole = store.get(name.removeprefix("lab/vision/"))
    store.put(name.removeprefix("lab/vision/"), whole[:-1])
    assert second.load() is None
    assert "is damaged and is not used: the checksum does not fit the content" in caplog.text
    second.remove()
    assert s3.names() == []


def test_large_file_is_one_request(store: S3Store, s3: S3Server) -> None:
    store.put("large", LARGE)
    assert store.get("large") == LARGE
    # Made of parts, its tag would end in their number.
    assert "-" not in (s3.client.stat_object(BUCKET, "lab/vision/large").etag or "-")


def test_interrupted_uploads_are_found(store: S3Store, s3: S3Server) -> None:
    begin = s3.client._create_multipart_upload
    upload_id = begin(BUCKET, "lab/vision/lab/aa/bb/cc.pth.tar", {})
    begin(BUCKET, "elsewhere/x", {})
    (found,) = store.unfinished_uploads()
    assert (found.path, found.upload_id) == ("lab/aa/bb/cc.pth.tar", upload_id)
    assert abs((datetime.now(timezone.utc) - found.begun).total_seconds()) < 1e9  # moto says always the same
    assert list(store.unfinished_uploads("other")) == []
    store.abort_upload(found)
    store.abort_upload(found)
    assert list(store.unfinished_uploads()) == []


# --- a server that fails


def test_nobody_listens(configured: dict[str, Any]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    configured["cloud"] = s3_server.store_settings(port)
    store = open_store("cloud")
    expected = AWAY.format(place=PLACE.format(port=port), words="no connection (Connection refused)")
    checkpoint = CheckpointFile(store, *JOB)
    for action in (store.check, checkpoint.load, checkpoint.remove, lambda: checkpoint.save(b"x")):
        assert failure(action) == expected
    assert failure(lambda: list(store.list())) == expected
    assert failure(lambda: check_store("cloud")) == expected


def test_hosts_that_do_not_exist(configured: dict[str, Any]) -> None:
    configured["cloud"] = {**s3_server.store_settings(1), "endpoint": "no-such-host.invalid:9000"}
    assert "cannot be used: the name of its host cannot be resolved. Check" in failure(
        open_store("cloud").check, within=30
    )
    configured["cloud"] = {**s3_server.store_settings(1), "endpoint": "http://127.0.0.1:9000"}
    with pytest.raises(ServerError, match="cannot be used: ValueError: path in endpoint is not allowed"):
        open_store("cloud")


def test_short_trouble_is_not_noticed(store: S3Store, proxy: Proxy) -> None:
    store.put("x", b"old")
    began = time.monotonic()
    proxy.fail("503", times=2)
    store.put("x", b"new")
    proxy.fail("503", times=2)
    assert store.get("x") == b"new"
    assert time.monotonic() - began < 10  # and not the two minutes that the server asks for


FAILURES = {
    "503": "SlowDown: Please reduce your request rate",
    "hang": "no answer for 1 s",
    "403": "SignatureDoesNotMatch: The signature of *** does not match ***",
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("how", FAILURES)
def test_server_that_answers_badly(store: S3Store, proxy: Proxy, how: str) -> None:
    checkpoint = CheckpointFile(store, *JOB)
    checkpoint.save(b"old")
    expected = AWAY.format(place=PLACE.format(port=proxy.port), words=FAILURES[how])
    proxy.fail(how)
    assert failure(lambda: checkpoint.save(b"new" * 1000)) == expected
    assert failure(checkpoint.load) == expected
    assert failure(lambda: list(store.list())) == expected
    assert failure(checkpoint.remove) == expected
    proxy.fail("pass")
    assert checkpoint.load() == b"old"


def test_a_bucket_is_known_by_its_mark(store: S3Store, s3: S3Server) -> None:
    assert store.read_mark() is None
    store.write_mark("a" * 32)
    assert store.read_mark() == "a" * 32
    store.identity = "a" * 32
    store.check()
    store.identity = "b" * 32
    with pytest.raises(
        StoreUnavailableError, match=r"database has used before: its mark december-store.txt is that of another"
    ):
        store.check()
    store.remove(MARK)
    with pytest.raises(
        StoreUnavailableError, match=r"database has used before: its mark december-store.txt is missing"
    ):
        store.check()


def test_check_of_a_server_that_hangs(store: S3Store, proxy: Proxy) -> None:
    proxy.fail("hang")
    assert "no answer for 7 s" in failure(lambda: check_store("cloud"))


def test_upload_that_comes_to_a_standstill(store: S3Store, proxy: Proxy) -> None:
    store.put("x", b"old")
    proxy.fail("stall")
    assert "cannot be used: sending stalled. Check" in failure(lambda: store.put("x", LARGE))
    proxy.fail("pass")
    assert store.get("x") == b"old"


def test_connection_that_is_cut_while_sending(store: S3Store, proxy: Proxy, s3: S3Server) -> None:
    store.put("x", b"old")
    proxy.fail("cut-send")
    words = "cannot be used: the connection was cut in the middle. Check"
    assert words in failure(lambda: store.put("x", LARGE))
    assert words in failure(lambda: store.put("y", LARGE))
    proxy.fail("pass")
    assert store.get("x") == b"old"
    assert s3.names() == ["lab/vision/x"]


def test_connection_that_is_cut_while_reading(store: S3Store, proxy: Proxy) -> None:
    store.put("x", LARGE)
    proxy.fail("cut")
    assert "cannot be used: the connection was cut in the middle. Check" in failure(lambda: store.get("x"))


def test_bucket_that_does_not_exist(configured: dict[str, Any], proxy: Proxy) -> None:
    configured["cloud"] = {**s3_server.store_settings(proxy.port), "bucket": "nowhere"}
    store = open_store("cloud")
    assert "(the bucket 'nowhere' at 127.0.0.1:" in failure(store.check)
    assert "cannot be used: the bucket does not exist. Check that" in failure(lambda: check_store("cloud"))
    # No checkpoint there is something else than a checkpoint that is not there.
    assert "NoSuchBucket: The specified bucket does not exist" in failure(lambda: store.get("x"))


def test_keys_are_not_in_what_is_printed(store: S3Store, proxy: Proxy) -> None:
    for words in (repr(store), str(vars(store)["place"]) if "place" in vars(store) else store.place):
        assert SECRET_KEY not in words
        assert ACCESS_KEY not in words


# --- DataJoint's attachments


@pytest.fixture
def models(configured: dict[str, Any], database: Any, schema_name: str) -> Any:
    """Return a table with an attachment, as nnfabrik's models have."""
    schema = dj.Schema(schema_name, connection=database.connection)

    @schema
    class Models(dj.Manual):
        definition = """
        number: int
        ---
        model_state: attach@cloud
        """

    return Models


def test_attachments_through_the_quick_client(models: Any, s3: S3Server, tmp_path: Path, schema_name: str) -> None:
    use_quick_client(models.connection, schema_name, "cloud")
    path = tmp_path / "0123abcd.pth.tar"
    path.write_bytes(LARGE)
    models.insert1({"number": 1, "model_state": str(path)})
    (name,) = s3.names()
    assert name.startswith(f"lab/vision/{schema_name}/")
    assert name.endswith(".0123abcd.pth.tar")
    (tmp_path / "out").mkdir()
    fetched = (models & "number = 1").fetch1("model_state", download_path=str(tmp_path / "out"))
    assert Path(fetched).read_bytes() == LARGE


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("how", ["503", "hang", "cut-send", "403"])
def test_attachments_while_the_server_fails(
    models: Any, proxy: Proxy, tmp_path: Path, schema_name: str, how: str
) -> None:
    use_quick_client(models.connection, schema_name, "cloud")
    path = tmp_path / "model.pth.tar"
    path.write_bytes(LARGE)
    proxy.fail(how)
    began = time.monotonic()
    with pytest.raises(Exception) as raised:  # noqa: PT011
        models.insert1({"number": 1, "model_state": str(path)})
    assert time.monotonic() - began < 20  # the parts that are there already are given up, too
    assert is_store_outage(raised.value)
    assert len(models()) == 0
    proxy.fail("pass")
    models.insert1({"number": 1, "model_state": str(path)})
    assert Path((models & "number = 1").fetch1("model_state", download_path=str(tmp_path))).read_bytes() == LARGE


@pytest.mark.slow(6)
def test_worker_keeps_its_models_in_a_bucket(
    configured: dict[str, Any], s3: S3Server, december: Callable[..., Any], schema_name: str, tmp_path: Path
) -> None:
    configured["minio"] = s3_server.store_settings(s3.port)
    (tmp_path / "dj_local_conf.json").write_text(json.dumps({"stores": {"minio": configured["minio"]}}))
    lab = lab_tables.open_lab(schema_name)
    lab.plan("baseline", [1, 2])
    words = ("worker", "--schema", schema_name, "--only", "TrainedModel", "--allow-modules", "helpers.planted_lab")
    done = december(*words, cwd=tmp_path, PYTHONPATH=helpers.FOLDER)
    assert done.returncode == 0, done.stderr
    assert SECRET_KEY not in done.stdout + done.stderr
    assert len(lab.tables.TrainedModel()) == 2
    # The mark of the store, two models, and no checkpoint that is left.
    assert sorted(name.split("/")[2] for name in s3.names()) == sorted([schema_name, schema_name, MARK])
    for seed in (1, 2):
        weights = stored_state_dict(lab.tables.TrainedModel, {"seed": seed})["readout.first.features"]
        assert np.allclose(weights[0, :, 0].T, planted_lab.planted_vectors(seed, "first"), atol=1e-6)


def test_folder_stores_need_no_client(database: Any, schema_name: str) -> None:
    schema = dj.Schema(schema_name, connection=database.connection)
    use_quick_client(database.connection, schema_name, "minio")
    assert schema.external["minio"]._s3 is None
