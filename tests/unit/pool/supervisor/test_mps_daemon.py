"""The process of a control daemon of MPS; its life is tested with that of the pool, in test_mps.py."""

from __future__ import annotations

import os

from december_plugin.pool.supervisor.mps_daemon import PID_FILE, daemon_pid


def test_the_number_of_a_daemon_may_be_anybodys(tmp_path):
    (tmp_path / PID_FILE).write_text(f"{os.getpid()}\n")  # this process has another folder in its environment
    assert daemon_pid(tmp_path) == 0
    (tmp_path / PID_FILE).write_text("many\n")
    assert daemon_pid(tmp_path) == 0
