"""`december clean`: which files are old, and that no others go."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from december_plugin.cli import main
from december_plugin.pool import old_files
from december_plugin.training.pretraining import PretrainingCache

DAY = 86400.0
KEY = "0123456789abcdef" * 4  # of a pretraining


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DECEMBER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DECEMBER_PRETRAINING", str(tmp_path / "pretraining"))
    monkeypatch.delenv("DECEMBER_SPOOL", raising=False)
    return tmp_path / "home"


@pytest.fixture
def make() -> Callable[..., Path]:
    def make(path: Path, *, days: float) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 100)
        written = time.time() - days * DAY
        os.utime(path, (written, written))
        return path

    return make


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    capsys.readouterr()
    assert main(["clean", "--only", "logs,pretrainings", *words]) == code
    printed = capsys.readouterr()
    return printed.out + printed.err


def test_old_files_are_listed_and_on_request_removed(home, make, tmp_path, capsys):
    old = [
        make(home / "logs" / "lab" / "jobs" / "trained_model-0123.log", days=31),
        make(home / "logs" / "lab" / "pool-1" / "cpu-1.log", days=40),
        make(home / "errors" / "december-error-1.txt", days=40),
        make(home / "spool" / "damaged" / "lab.table.hash.1", days=40),
        make(tmp_path / "pretraining" / f"{KEY}.pt", days=40),
        make(tmp_path / "pretraining" / f"{KEY}.lock", days=40),
        make(tmp_path / "pretraining" / f".{KEY}.pt.{'2' * 32}.writing", days=40),
    ]
    kept = [
        make(home / "logs" / "lab" / "jobs" / "trained_model-4567.log", days=29),
        make(home / "spool" / "lab" / "table" / "hash", days=400),  # a result that is not stored yet
        make(home / "store" / "lab" / "model", days=400),
        make(home / "server" / "error.log", days=400),
        make(tmp_path / "pretraining" / f"{KEY[::-1]}.pt", days=1),
        make(tmp_path / "pretraining" / "my-model.pt", days=400),  # somebody's own, in a folder that is used for both
        make(tmp_path / "pretraining" / "poetry.lock", days=400),
        make(tmp_path / "pretraining" / "notes.txt", days=400),
    ]
    listed = run(capsys)
    assert f"       4  logs of workers and jobs, error reports, and damaged results, 400 B, in {home}\n" in listed
    assert f", 300 B, in {tmp_path / 'pretraining'}\n" in listed
    assert "Nothing was removed. `december clean --delete` removes what is older than 30 days." in listed
    assert all(path.exists() for path in old + kept)
    described = json.loads(run(capsys, "--json"))
    assert {row["path"] for rows in (described["logs"], described["pretrainings"]) for row in rows} == set(
        map(str, old)
    )
    assert "7 removed, 700 B." in run(capsys, "--delete")
    assert [path for path in old if path.exists()] == []
    assert [path for path in kept if not path.exists()] == []
    assert not (home / "logs" / "lab" / "pool-1").exists()  # the folder of a pool that has ended
    assert "Nothing is older than 30 days." in run(capsys)


def test_a_file_that_is_written_meanwhile_stays(home, make):
    path = make(home / "logs" / "lab" / "jobs" / "a.log", days=40)
    (file,) = old_files.old_files(old_files.LOGS, 30 * DAY)
    os.utime(path)
    assert not old_files.remove(file, 30 * DAY)
    assert path.exists()
    path.unlink()
    assert not old_files.remove(file, 30 * DAY)


def test_a_pretraining_that_is_used_is_young_again(home, make, tmp_path):
    cache = PretrainingCache(tmp_path / "pretraining")
    cache.get_or_compute(KEY, lambda: {"epoch": 1})
    long_ago = time.time() - 40 * DAY
    os.utime(tmp_path / "pretraining" / f"{KEY}.pt", (long_ago, long_ago))
    assert [file.path.name for file in old_files.old_files(old_files.PRETRAININGS, 30 * DAY)] == [f"{KEY}.pt"]
    assert cache.get_or_compute(KEY, lambda: {"epoch": 2}) == ({"epoch": 1}, True)
    assert old_files.old_files(old_files.PRETRAININGS, 30 * DAY) == []


def test_what_cannot_be_removed_is_said(home, make, capsys, monkeypatch):
    path = make(home / "logs" / "lab" / "jobs" / "a.log", days=40)

    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    said = run(capsys, "--delete", code=3)
    assert f"Not everything could be removed: {path} cannot be removed: Permission denied" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--older-than", "0.5"), "--older-than is 0.5; it must be a number of days from 1 to 36500."),
        (("--only", "logs,models"), "--only names 'models'; allowed are logs, pretrainings, pools."),
    ],
)
def test_settings_are_checked(home, capsys, words, message):
    assert message in run(capsys, *words, code=1)
