"""`december db backup` and `december db restore`: the embedded database and its store, in another home."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from december_plugin.database.backup_files import MANIFEST
from december_plugin.database.embedded import EmbeddedServer
from december_plugin.storage.base import MARK
from helpers import pages, warm

pytestmark = [pytest.mark.database, pytest.mark.slow(4)]

COMMANDS = pages.claim("docs/operations.md", "bash")
FIRST_COMMANDS = pages.claim("docs/getting-started.md", "bash", starting="december db")

December = Callable[..., subprocess.CompletedProcess[str]]
# A schema as a command makes it, with a file in the store that a row refers to, and a checkpoint.
FILL = """
from pathlib import Path
import datajoint as dj
from december_plugin.schemas.lab import open_lab
from december_plugin.storage.home import december_home
lab = open_lab(schema="lab", nnfabrik="lab", create=True)
Path("model.pth").write_text("weights")
lab.tables.schema.external["minio"].upload_attachment(Path("model.pth"))
(december_home() / "store" / "december_checkpoints").mkdir()
(december_home() / "store" / "december_checkpoints" / "half.writing").write_text("half")
lab.nnfabrik.Seed.insert1((7,))
"""
READ = """
from december_plugin.schemas.lab import open_lab
lab = open_lab(schema="lab")
external = lab.tables.schema.external["minio"]
print(lab.nnfabrik.Seed.fetch("seed"), external.fetch("size"))
"""


class Home:
    """A folder of december's, and the command in it."""

    def __init__(self, folder: Path, december: December, cwd: Path):
        self.folder, self._december, self.cwd = folder, december, cwd
        self.server = EmbeddedServer(folder)

    def run(self, *words: str, code: int = 0) -> str:
        done = self._december(*words, cwd=self.cwd, DECEMBER_HOME=str(self.folder))
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def python(self, program: str) -> str:
        environment = {**os.environ, "DECEMBER_HOME": str(self.folder)}
        words = [sys.executable, "-c", program]
        return warm.run(words, cwd=self.cwd, env=environment, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def filled(december: December, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    home = Home(tmp_path_factory.mktemp("filled") / "home", december, tmp_path_factory.mktemp("work"))
    home.python(FILL)
    yield home
    home.server.stop()


@pytest.fixture(scope="module")
def archive(filled: Home, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a backup, made while the server runs."""
    path = tmp_path_factory.mktemp("backups") / "december.tar.gz"
    pid = filled.server.status().pid
    printed = filled.run("db", "backup", str(path))
    assert "Backed up and read back: " in printed
    assert ", 2 files of the store minio; " in printed  # the model and the mark, and no half of a file
    assert filled.server.status().running
    assert filled.server.status().pid != pid  # it was stopped, and started again
    assert path.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in path.parent.iterdir()] == ["december.tar.gz"]
    return path


@pytest.fixture
def fresh(december: December, tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / "new home", december, tmp_path)
    yield home
    home.server.stop()


def test_a_restored_database_has_the_rows_and_the_files(filled: Home, archive: Path, fresh: Home) -> None:
    printed = fresh.run("db", "restore", str(archive))
    assert "Restored completely: " in printed
    assert f"The database is in {fresh.server.data}; the next command starts it.\n" in printed
    assert not fresh.server.status().running
    assert sorted(path.name for path in fresh.folder.iterdir()) == ["server", "store"]
    assert (fresh.folder / "store" / MARK).read_text() == (filled.folder / "store" / MARK).read_text()
    assert fresh.python(READ) == "[7] [7]\n"  # open_lab knows the store by its mark
    assert fresh.server.settings.password != filled.server.settings.password
    # Nothing is written over.
    refused = fresh.run("db", "restore", str(archive), code=1)
    assert f"{fresh.server.data} already contains a database. A backup needs an empty place: " in refused
    assert f"{archive} exists; a backup overwrites nothing" in filled.run("db", "backup", str(archive), code=1)


def test_a_folder_with_a_model_that_was_missing_before(filled: Home, fresh: Home, tmp_path: Path) -> None:
    (model,) = (path for path in (filled.folder / "store" / "lab").rglob("*") if path.is_file())
    name = model.relative_to(filled.folder / "store").as_posix()
    kept = shutil.move(model, tmp_path / "kept")
    try:
        printed = filled.run("db", "backup", str(tmp_path / "backup"), code=3)
    finally:
        shutil.move(kept, model)
    assert f"MISSING in the store, though rows refer to them (1):\n  minio: {name}\n" in printed
    assert f"  minio: {name}\n" in fresh.run("db", "restore", str(tmp_path / "backup"), code=3)
    status = fresh.run("db", "status", code=3)
    assert "\nsize       data " in status
    assert ", store " in status
    assert status.rstrip().endswith(" free")


def altered(archive: Path, target: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """Copy a backup with the content of files changed, or without those that become None."""
    with tarfile.open(archive) as old, tarfile.open(target, "w") as new:
        for member in old:
            content = change(member.name, old.extractfile(member).read())  # type: ignore[union-attr]
            if content is not None:
                member.size = len(content)
                new.addfile(member, io.BytesIO(content))
    return target


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda name, content: content[:-1] if "model.pth" in name else content, "is damaged: stores/minio/lab/"),
        (lambda name, content: None if name == "data/ibdata1" else content, "is damaged: data/ibdata1 is not what was"),
        (
            lambda name, content: None if name == MANIFEST else content,
            f"is not a complete backup by december: it has no {MANIFEST}.",
        ),
        (
            lambda name, content: (
                json.dumps({"format": 9, "files": {}, "version": "7.0"}).encode() if name == MANIFEST else None
            ),
            "of format 9; this december knows 1. Restore it with the version of december that made it (7.0).",
        ),
    ],
)
def test_a_damaged_backup_restores_nothing(
    archive: Path, fresh: Home, tmp_path: Path, change: Callable[[str, bytes], bytes | None], message: str
) -> None:
    from december_plugin.database.backup import restore
    from december_plugin.errors import DecemberError

    with pytest.raises(DecemberError) as raised:
        restore(altered(archive, tmp_path / "altered.tar", change), fresh.server)
    assert message in str(raised.value)
    assert list(fresh.folder.iterdir()) == []


def test_what_is_no_backup(fresh: Home, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from december_plugin.database.backup import back_up, restore
    from december_plugin.database.backup_files import BackupError
    from december_plugin.storage.atomic import DamagedError

    with pytest.raises(BackupError, match=r"^the backup .*/gone does not exist\.$"):
        restore(tmp_path / "gone", fresh.server)
    (tmp_path / "cut.tar.gz").write_bytes(archive.read_bytes()[:5000])
    with pytest.raises(DamagedError, match=r"cut\.tar\.gz cannot be read \("):
        restore(tmp_path / "cut.tar.gz", fresh.server)
    with pytest.raises(BackupError, match=r" contains no embedded database, so nothing can be backed up"):
        back_up(tmp_path / "target", fresh.server)
    # A store that has files already.
    monkeypatch.setenv("DECEMBER_HOME", str(fresh.folder))
    monkeypatch.setattr(
        "december_plugin.storage.opening.store_settings", lambda name: {"protocol": "file", "location": tmp_path}
    )
    with pytest.raises(BackupError, match=r"^the store 'minio' \(the folder .*\) has files already \("):
        restore(archive, fresh.server)
    assert list(fresh.folder.iterdir()) == []


def test_a_lab_s_own_server_is_its_administrator_s_business(fresh: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJ_HOST", "db.lab.example")
    for action, does in (("backup", "backs it up"), ("restore", "restores it")):
        printed = fresh.run("db", action, "x", code=1)
        assert f"name the database server db.lab.example:3306: its administrator {does} (see docs/" in printed


def test_the_commands_of_the_pages(filled: Home, tmp_path: Path) -> None:
    (tmp_path / "december").write_text(f'#!/bin/sh\nexec {sys.executable} -m december_plugin.cli "$@"\n')
    (tmp_path / "december").chmod(0o755)
    environment = {**os.environ, "HOME": str(tmp_path), "DECEMBER_HOME": str(filled.folder), "DECEMBER_SCHEMA": "lab"}
    environment["PATH"] = f"{tmp_path}:{environment['PATH']}"
    (tmp_path / "first").mkdir()
    for command in (*COMMANDS, *FIRST_COMMANDS):
        folder = tmp_path / ("first" if command in FIRST_COMMANDS else "")
        done = subprocess.run(
            ["sh", "-c", command.text], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    restored = Home(tmp_path / "restored", lambda: None, tmp_path)  # type: ignore[arg-type,return-value]
    assert restored.server.data.is_dir()
