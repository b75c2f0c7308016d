"""``december store``: leftovers are found, and nothing that a row refers to, or may soon refer to, is ever removed."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import datajoint as dj
import pytest
from datajoint.hash import key_hash

from december_plugin.cli import main
from december_plugin.database.connection import second_connection
from december_plugin.pool.store_leftovers import Cleaner, Findings
from december_plugin.pool.store_rows import ExternalRows
from december_plugin.pool.worker.checkpoints import CheckpointFile, attempt_name
from december_plugin.pool.worker.spool import Spool
from december_plugin.schemas.stored_models import stored_state_dict
from december_plugin.storage.base import StoreUnavailableError
from december_plugin.storage.opening import open_store
from helpers import lab_tables, s3_server
from helpers.lab_tables import Lab
from helpers.s3_server import BUCKET, S3Server

DAY = timedelta(days=1)
OTHER = "0123456789abcdef" * 2


class StoredLab:
    """A lab with two trained models of the seeds 1 and 2, and the files of its schema."""

    def __init__(self, lab: Lab, folder: Path):
        self.tables, self.nnfabrik = lab.tables, lab.nnfabrik
        self.lab = lab
        self.schema = lab.tables.schema.database
        self.connection = lab.tables.schema.connection
        self.location, self.folder = folder, folder / self.schema
        self.external = f"`{self.schema}`.`~external_minio`"

    def cleaner(self, older_than: timedelta = DAY) -> Cleaner:
        return Cleaner(self.tables, open_store("minio"), older_than=older_than)

    def found(self) -> Findings:
        return self.cleaner().find()

    def kinds(self) -> dict[str, str]:
        return {leftover.path: leftover.kind for leftover in self.found().leftovers}

    def write(self, path: str, *, hours: float = 48) -> Path:
        """Write a file of this age below the store's location."""
        file = self.location / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"some content")
        aged(file, hours)
        return file

    def orphan(self, content: str = OTHER, *, name: str = "x.pth.tar", hours: float = 48) -> str:
        """Write a file as DataJoint would, and return its path."""
        path = f"{self.schema}/{content[:2]}/{content[2:4]}/{content}.{name}"
        self.write(path, hours=hours)
        return path

    def model_of(self, seed: int) -> Path:
        """Return the file of a model."""
        table = self.tables.TrainedModel.ModelStorage().full_table_name
        row = self.connection.query(f"SELECT model_state FROM {table} WHERE seed = %s", args=(seed,)).fetchone()
        (file,) = self.folder.rglob(f"{row[0].hex()}*")
        return file

    def age_rows(self, hours: float = 48) -> None:
        self.connection.query(f"UPDATE {self.external} SET timestamp = NOW() - INTERVAL {hours} HOUR")

    def files(self) -> set[str]:
        return {path.relative_to(self.location).as_posix() for path in self.folder.rglob("*") if path.is_file()}


def aged(file: Path, hours: float = 48) -> None:
    then = time.time() - 3600 * hours
    os.utime(file, (then, then))


@pytest.fixture
def stored(empty_lab: Lab, store_folder: Path) -> Iterator[StoredLab]:
    """Yield a lab with two models, all of whose files and rows are two days old; the store is emptied afterwards."""
    stored = StoredLab(empty_lab, store_folder)
    empty_lab.train("baseline", [1, 2])
    for path in stored.folder.rglob("*.pth.tar"):
        aged(path)
    stored.age_rows()
    yield stored
    for path in [*stored.folder.rglob("*"), *store_folder.glob(f"december_checkpoints/{stored.schema}/*/*")]:
        if path.is_file():
            path.unlink()


def test_nothing_to_remove(stored: StoredLab) -> None:
    found = stored.found()
    assert (found.leftovers, found.n_used, found.n_young, found.n_unknown) == ([], 2, 0, 0)
    assert (found.suspicious, found.damaged, found.notes) == ([], [], [])


def test_file_without_a_row(stored: StoredLab) -> None:
    before = stored.files()
    path = stored.orphan()
    young = stored.orphan("f" * 32, hours=23.9)
    found = stored.found()
    assert [(leftover.kind, leftover.path, leftover.size) for leftover in found.leftovers] == [("orphan", path, 12)]
    assert (found.n_used, found.n_young) == (2, 1)
    assert stored.cleaner().remove(found.leftovers[0])
    assert stored.files() == {*before, young}


def test_half_written_files(stored: StoredLab) -> None:
    model = stored.model_of(1).relative_to(stored.location).as_posix()
    stored.write(f"{model}.copying")
    stored.orphan("a" * 32, name="y.pth.tar.copying")
    stored.orphan("b" * 32, name="saving")
    stored.write(f"{model}.copying.copying", hours=1)
    kinds = stored.kinds()
    assert sorted(kinds.values()) == ["half-written"] * 3
    cleaner = stored.cleaner()
    assert all(cleaner.remove(leftover) for leftover in cleaner.find().leftovers)
    assert len(stored.files()) == 3
    assert stored_state_dict(stored.tables.TrainedModel, {"seed": 1})


def test_attachment_that_is_named_like_a_half_is_kept(stored: StoredLab) -> None:
    path = stored.orphan(name="model.copying")
    stored.connection.query(
        f"INSERT INTO {stored.external} (hash, size, attachment_name) VALUES (%s, 12, 'model.copying')",
        args=(bytes.fromhex(OTHER),),
    )
    stored.age_rows()
    assert stored.kinds() == {path: "unused"}  # by its row, and not as a half


def test_model_that_was_deleted(stored: StoredLab) -> None:
    file, other = stored.model_of(1), stored.model_of(2)
    (stored.tables.TrainedModel & {"seed": 1}).delete()
    path = file.relative_to(stored.location).as_posix()
    assert stored.kinds() == {path: "unused"}
    (leftover,) = stored.found().leftovers
    assert stored.cleaner().remove(leftover)
    assert not file.exists()
    assert other.exists()
    assert stored.connection.query(f"SELECT COUNT(*) FROM {stored.external}").fetchone()[0] == 1
    assert not stored.cleaner().remove(leftover)
    assert stored.found().leftovers == []


def test_row_without_a_file_or_a_model(stored: StoredLab) -> None:
    stored.connection.query(
        f"INSERT INTO {stored.external} (hash, size, attachment_name) VALUES (%s, 12, 'x')",
        args=(bytes.fromhex(OTHER),),
    )
    (leftover,) = stored.found().leftovers
    assert (leftover.kind, leftover.size) == ("unused", 0)
    assert leftover.path == f"{stored.schema}/01/23/{OTHER}.x"
    assert not stored.cleaner().remove(leftover)  # the row is young
    stored.age_rows()
    assert stored.cleaner().remove(leftover)
    assert stored.found().leftovers == []


def test_deleted_model_with_a_young_row_or_file_is_kept(stored: StoredLab) -> None:
    file = stored.model_of(1)
    (stored.tables.TrainedModel & {"seed": 1}).delete()
    (leftover,) = stored.found().leftovers
    aged(file, 1)
    assert not stored.cleaner().remove(leftover)
    assert stored.found().n_young == 1
    aged(file, 48)
    stored.age_rows(1)  # as when the same content is stored again
    assert not stored.cleaner().remove(leftover)
    assert file.exists()
    assert stored.connection.query(f"SELECT COUNT(*) FROM {stored.external}").fetchone()[0] == 2


def test_model_that_is_referred_to_again_is_kept(stored: StoredLab) -> None:
    part = stored.tables.TrainedModel.ModelStorage
    table, key = part().full_table_name, (part & {"seed": 1}).fetch1("KEY")
    rows = stored.connection.query(f"SELECT model_state FROM {table} WHERE seed = 1").fetchall()
    (part & {"seed": 1}).delete_quick()
    (leftover,) = stored.found().leftovers
    columns = ", ".join(key)
    stored.connection.query(
        f"INSERT INTO {table} ({columns}, model_state) VALUES ({', '.join(['%s'] * len(key))}, %s)",
        args=(*key.values(), rows[0][0]),
    )
    assert not stored.cleaner().remove(leftover)  # the server refuses
    assert stored_state_dict(stored.tables.TrainedModel, {"seed": 1})
    assert stored.found().n_used == 2


def test_file_that_is_uploaded_again_meanwhile_is_kept(stored: StoredLab) -> None:
    path = stored.orphan()
    (leftover,) = stored.found().leftovers
    (stored.location / path).touch()
    assert not stored.cleaner().remove(leftover)
    assert path in stored.files()


def test_cleaning_waits_for_a_transaction_that_is_storing_the_file(stored: StoredLab) -> None:
    path = stored.orphan()
    (leftover,) = stored.found().leftovers
    storing, removed = second_connection(), []
    try:
        storing.start_transaction()
        storing.query(
            f"INSERT INTO {stored.external} (hash, size, attachment_name) VALUES (%s, 12, 'x.pth.tar')",
            args=(bytes.fromhex(OTHER),),
        )
        cleaning = threading.Thread(target=lambda: removed.append(stored.cleaner().remove(leftover)))
        cleaning.start()
        cleaning.join(timeout=1)
        assert cleaning.is_alive()
        storing.commit_transaction()
        cleaning.join(timeout=30)
    finally:
        storing.close()
    assert removed == [False]
    assert path in stored.files()


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        "{schema}/notes.txt",
        "{schema}/01/23/README",
        "{schema}/01/24/0123456789abcdef0123456789abcdef.x",
        "{schema}/0123456789abcdef0123456789abcdef.x",
        "{schema}_other/01/23/0123456789abcdef0123456789abcdef.x",
        "december_checkpoints/{schema}/something_else/0123456789abcdef0123456789abcdef-00000001",
        "december_checkpoints/{schema}_other/__trained_model/0123456789abcdef0123456789abcdef-00000001",
    ],
)
def test_files_of_others_are_left_alone(stored: StoredLab, name: str) -> None:
    file = stored.write(name.format(schema=stored.schema))
    try:
        assert stored.found().leftovers == []
    finally:
        file.unlink()


def test_model_with_another_name_is_left_alone(stored: StoredLab) -> None:
    model = stored.model_of(1).relative_to(stored.location).as_posix()
    stored.write(f"{model}.backup")
    found = stored.found()
    assert (found.leftovers, found.n_used, found.n_unknown) == ([], 2, 1)


def test_files_that_other_schemas_and_stores_refer_to(stored: StoredLab, schema_name: str) -> None:
    path, blob = stored.orphan(), stored.orphan("e" * 32)
    assert stored.kinds() == {path: "orphan", blob: "orphan"}
    other = dj.Schema(schema_name, connection=stored.connection).external["minio"]
    stored.connection.query(
        f"INSERT INTO {other.full_table_name} (hash, size, filepath) VALUES (%s, 12, %s)", args=(b"x" * 16, path)
    )
    renamed = stored.external.replace("~external_minio", "~external_before")
    stored.connection.query(f"CREATE TABLE {renamed} LIKE {stored.external}")
    try:
        stored.connection.query(
            f"INSERT INTO {renamed} (hash, size, attachment_name) VALUES (%s, 12, 'x.pth.tar')",
            args=(bytes.fromhex("e" * 32),),
        )
        assert stored.kinds() == {}
    finally:
        stored.connection.query(f"DROP TABLE {renamed}")


def test_most_files_are_unknown(stored: StoredLab) -> None:
    for number in range(3):
        stored.orphan(f"{number:032x}")
    assert stored.found().suspicious == [stored.schema]
    (stored.folder / "00" / "00" / f"{0:032x}.x.pth.tar").unlink()
    assert stored.found().suspicious == []


def test_damaged_models_are_reported(stored: StoredLab) -> None:
    first, second = stored.model_of(1), stored.model_of(2)
    content = first.read_bytes()
    first.write_bytes(content[:100])
    second.unlink()
    found = stored.found()
    assert found.leftovers == []
    assert found.damaged == [
        f"{first.relative_to(stored.location).as_posix()}: 100 of {len(content)} bytes",
        f"{second.relative_to(stored.location).as_posix()}: missing",
    ]


def test_schema_without_a_list_of_files(stored: StoredLab, monkeypatch: pytest.MonkeyPatch) -> None:
    cleaner = stored.cleaner()
    monkeypatch.setattr(cleaner.rows[stored.schema], "table_name", "~external_other")
    found = cleaner.find()
    assert found.leftovers == []
    assert found.notes == [
        f"the 2 files below {stored.schema}/ are left alone: the database has no list of files for this schema and the "
        "store 'minio'"
    ]


def test_checkpoints(stored: StoredLab) -> None:
    store, table = open_store("minio"), stored.tables.TrainedModel()
    done = table.fetch("KEY")
    trainer = stored.lab.plan("baseline", [3, 4])
    planned = [dict(key) for key in (stored.tables.TrainingPlan & trainer & "seed > 2").fetch("KEY")]
    given_up = {**planned[0], "seed": 5}
    reserved = {**planned[0], "seed": 6}
    assert stored.connection.schemas[table.database].jobs.reserve(table.table_name, table._job_key(reserved))
    paths = {}
    for label, key in (("done", done[0]), ("planned", planned[0]), ("given up", given_up), ("reserved", reserved)):
        name = attempt_name(key_hash(table._job_key(key)), 2)
        file = CheckpointFile(store, stored.schema, "__trained_model", name)
        file.save(b"state")
        aged(stored.location / file.path)
        paths[label] = file.path
    half = stored.write(f"december_checkpoints/{stored.schema}/__trained_model/.{OTHER}-00000001.12ab.writing")
    found = stored.found()
    assert {leftover.path: leftover.kind for leftover in found.leftovers} == {
        paths["done"]: "checkpoint",
        paths["given up"]: "checkpoint",
        half.relative_to(stored.location).as_posix(): "half-written",
    }
    assert found.n_used == 4
    cleaner = stored.cleaner()
    assert all(cleaner.remove(leftover) for leftover in found.leftovers)
    left = {entry.path for entry in store.list(f"december_checkpoints/{stored.schema}")}
    assert left == {paths["planned"], paths["reserved"]}


# --- the command


@dataclass
class Result:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def command(
    stored: StoredLab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Result]:
    """Return a function that runs ``december store`` on this lab, in this process."""
    monkeypatch.setenv("DECEMBER_SPOOL", str(tmp_path / "spool"))

    def run(*words: str) -> Result:
        capsys.readouterr()
        code = main(["store", *words, *(("--schema", stored.schema) if words[0] == "clean" else ())])
        return Result(code, *capsys.readouterr())

    return run


def test_clean_is_a_dry_run_at_first(
    stored: StoredLab, december: Callable[..., Any], command: Callable[..., Result], tmp_path: Path
) -> None:
    path = stored.orphan()
    half = tmp_path / "spool" / "lab" / "__trained_model" / f".{OTHER}.12ab.writing"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    aged(half)
    before = stored.files()
    result = december("store", "clean", "--schema", stored.schema, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == f"the folder {stored.location}"
    assert "       2  files in use" in lines
    assert "       1  files that no row refers to, 12 B" in lines
    assert "       1  half-written files in this machine's spool" in lines
    assert [line for line in lines if line.endswith(f"  {path}")]
    assert lines[-1] == "Nothing was removed. `december store clean --delete` removes 1, 12 B."
    assert stored.files() == before
    assert half.exists()

    result = command("clean", "--delete")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[-1] == "1 removed, 12 B."
    assert stored.files() == before - {path}
    assert not half.exists()
    assert stored_state_dict(stored.tables.TrainedModel, {"seed": 1})
    assert command("clean").stdout.splitlines()[-1] == "There is nothing to remove."


def test_clean_is_careful_with_what_may_be_anothers(stored: StoredLab, command: Callable[..., Result]) -> None:
    paths = {stored.orphan(f"{number:032x}") for number in range(3)}
    result = command("clean", "--delete")
    assert (
        f"Most of the files of {stored.schema} are unknown to this database. If another database server has a\nschema "
        "of the same name in this store, they are its models! Without --even-if-most these 3 are left alone."
    ) in result.stdout
    assert result.stdout.splitlines()[-1] == "0 removed, 0 B."
    assert paths <= stored.files()
    answer = json.loads(command("clean", "--delete", "--even-if-most", "--json").stdout)
    assert set(answer["removed"]) == paths
    assert answer["suspicious_schemas"] == [stored.schema]
    assert (answer["used"], answer["young"], answer["unknown"], answer["problems"]) == (2, 0, 0, [])
    assert not paths & stored.files()


def test_user_who_may_not_delete_rows(
    stored: StoredLab, command: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> bool:
        words = f"DELETE command denied to user 'w'@'gpu1' for table `{stored.schema}`.`~external_minio`"
        raise dj.errors.AccessError("Insufficient privileges.", words, "DELETE ...")

    orphan = stored.orphan()
    (stored.tables.TrainedModel & {"seed": 1}).delete()
    before = stored.files()
    monkeypatch.setattr(ExternalRows, "delete", refused)
    result = command("clean", "--delete")
    assert result.returncode == 3
    assert "Not everything could be removed: User 'w'@'gpu1' may not" in result.stdout
    assert before - stored.files() <= {orphan}


@pytest.mark.parametrize("hours", ["0.9", "-1", "nan", "inf"])
def test_limit_must_be_safe(command: Callable[..., Result], hours: str) -> None:
    result = command("clean", f"--older-than={hours}")
    assert result.returncode == 1
    assert result.stderr == (
        f"december: error: --older-than is {float(hours):g}; it must be a number of hours from 1 to 87600: what a "
        "worker is uploading has no row yet.\n"
    )


def test_status_of_the_store(stored: StoredLab, command: Callable[..., Result], tmp_path: Path) -> None:
    Spool().put("lab", "__trained_model", OTHER, b"result")
    answer = json.loads(command("status", "--json").stdout)
    n_bytes = sum(path.stat().st_size for path in stored.folder.rglob("*.pth.tar"))
    assert answer["folders"][stored.schema] == {"files": 2, "bytes": n_bytes}
    assert answer["place"] == f"the folder {stored.location}"
    assert (answer["usable"], answer["problem"]) == (True, None)
    identity = open_store().read_mark()
    assert answer["identity"] == identity
    assert answer["spool"] == {"folder": str(tmp_path / "spool"), "waiting": 1}
    printed = command("status")
    assert printed.returncode == 0
    assert f"state      can be used\nidentity   {identity or 'none yet (docs/operations.md)'}\n" in printed.stdout
    assert f"spool      {tmp_path / 'spool'}, 1 finished results wait for the database\n" in printed.stdout


# --- in a bucket


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[S3Server]:
    server = S3Server(tmp_path / "s3.log")
    yield server
    server.stop()


@pytest.mark.slow(5)
def test_cleaning_of_a_bucket(s3: S3Server, database: Any, schema_name: str) -> None:
    stores = dj.config["stores"]
    dj.config["stores"] = {**stores, "cloud": s3_server.store_settings(s3.port)}
    try:
        lab = lab_tables.open_lab(schema_name, storage="cloud")
        lab.train("baseline", [1, 2])
        models = s3.names()
        assert len(models) == 2
        store = open_store("cloud")
        orphan = f"{schema_name}/01/23/{OTHER}.x.pth.tar"
        store.put(orphan, b"orphan")
        done = attempt_name(key_hash(lab.tables.TrainedModel()._job_key(lab.tables.TrainedModel.fetch("KEY")[0])), 1)
        checkpoint = CheckpointFile(store, schema_name, "__trained_model", done)
        checkpoint.save(b"state")
        s3.client._create_multipart_upload(BUCKET, f"lab/vision/{schema_name}/ab/cd/x.pth.tar", {})
        assert [found.kind for found in Cleaner(lab.tables, store, older_than=DAY).find().leftovers] == ["upload"]
        cleaner = Cleaner(lab.tables, store, older_than=timedelta(seconds=-60))
        found = cleaner.find()
        assert {leftover.path: leftover.kind for leftover in found.leftovers} == {
            orphan: "orphan",
            checkpoint.path: "checkpoint",
            f"{schema_name}/ab/cd/x.pth.tar": "upload",
        }
        assert (found.n_used, found.damaged, found.notes) == (2, [], [])
        assert all(cleaner.remove(leftover) for leftover in found.leftovers)
        assert s3.names() == models
        assert cleaner.find().leftovers == []
        assert stored_state_dict(lab.tables.TrainedModel, {"seed": 1})
        s3.stop()
        with pytest.raises(StoreUnavailableError, match="no connection \\(Connection refused\\)"):
            cleaner.find()
    finally:
        dj.config["stores"] = stores
