"""Folders for the daemons of MPS: whose they are, and whether that process has ended."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from december_plugin.pool.supervisor import mps_folders
from december_plugin.pool.supervisor.mps_folders import is_left, made_base, own_name
from helpers.driver import needs_proc


@needs_proc
def test_folders_of_others_are_left_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(mps_folders, "LONGEST_PATH", 1000)
    base = made_base()
    namespace, pid, started = own_name().split("-")
    other = f"{namespace}9-{pid}-1"  # of a container, whose processes cannot be seen from here
    for name in (own_name(), other, "something else"):
        (base / name).mkdir()
    assert [each.name for each in sorted(base.iterdir()) if is_left(each)] == []
    own = own_name()
    with monkeypatch.context() as patched:  # a folder of the network, with processes of another machine
        patched.setattr("platform.node", lambda: "another")
        assert own_name().split("-")[1:] == [pid, started]
        assert not is_left(base / own.replace(started, "1"))
    (base / f"{namespace}-{pid}-{int(started) - 1}").mkdir()  # its number was given to this process afterwards
    assert [each.name for each in base.iterdir() if is_left(each)] == [f"{namespace}-{pid}-{int(started) - 1}"]


def test_a_temporary_folder_with_a_long_path_is_not_used(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/tmp/" + 80 * "x")
    base = made_base()
    with suppress(OSError):  # a pool may be running here
        base.rmdir()
    assert base == Path(f"/tmp/december-mps-{os.getuid()}")
