"""How `make gpu` lets several workers share a GPU, with stand-ins for the driver and its MPS."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.gpu import workers
from december_plugin.pool.supervisor import mps_daemon
from december_plugin.pool.supervisor.mps_daemon import PIPES, daemon_pid
from helpers.driver import gpu, needs_proc, write_driver, write_mps
from helpers.pool_stage import are_gone


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make a machine with one GPU and no MPS; the folder is on the path."""
    write_driver(tmp_path, [gpu("NVIDIA H100", uuid="GPU-aaaa")])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv(PIPES, str(tmp_path))
    monkeypatch.setattr(mps_daemon, "refusal_of_cuda", lambda environment: "")
    with tempfile.TemporaryDirectory(prefix="mps") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield tmp_path
        assert not list(Path(folder).glob("december-mps-*/*"))


def test_without_mps_workers_take_turns(machine):
    assert list(workers.ways("cuda", 4)) == [("in turns", {"CUDA_VISIBLE_DEVICES": "GPU-aaaa"})]
    assert list(workers.ways("cpu", 4)) == [("", {})]


@needs_proc
def test_mps_runs_only_as_long_as_it_is_measured(machine):
    write_mps(machine)
    found = workers.ways("cuda", 4)
    assert next(found) == ("in turns", {"CUDA_VISIBLE_DEVICES": "GPU-aaaa"})
    way, environment = next(found)
    daemon = daemon_pid(Path(environment[PIPES]))
    assert (way, environment["CUDA_VISIBLE_DEVICES"]) == ("through MPS", "GPU-aaaa")
    assert daemon
    found.close()  # as after an error of a measurement
    assert are_gone(daemon)


@needs_proc
def test_an_mps_that_runs_already_is_measured_alone(machine, tmp_path):
    write_mps(machine)
    (tmp_path / mps_daemon.PID_FILE).write_text(str(os.getpid()))
    assert [way for way, _ in workers.ways("cuda", 4)] == ["through the MPS that runs already"]
