"""Several processes fill the tables; the server goes away in between."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

import helpers
from december_plugin.database import outages
from helpers import warm
from helpers.lab_tables import open_lab

pytestmark = pytest.mark.slow(4)

WORKER = """
import os, sys, time
from pathlib import Path
from december_plugin.database.connection import connect
from helpers.lab_tables import open_lab

connect()
lab = open_lab(sys.argv[1])
ready = Path(sys.argv[2])
(ready / str(os.getpid())).touch()
while len(os.listdir(ready)) < 2:
    time.sleep(0.01)
for table in lab.tables.computed:
    table.populate(reserve_jobs=True, suppress_errors=True)
"""


def start_worker(schema: str, ready: Path) -> subprocess.Popen:
    paths = os.pathsep.join([helpers.FOLDER, os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    return warm.Popen(
        [sys.executable, "-c", WORKER, schema, str(ready)], env=environment, stderr=subprocess.PIPE, text=True
    )


def test_two_workers_share_the_jobs(schema_name, tmp_path):
    lab = open_lab(schema_name)
    written, ready = tmp_path / "written", tmp_path / "ready"
    written.mkdir()
    ready.mkdir()
    lab.plan("writes_down", list(range(6)), folder=str(written))
    lab.plan("fails_for_seed", [1, 2])
    lab.tables.Clustering().add_entry("kmeans", 3)
    workers = [start_worker(schema_name, ready) for _ in range(2)]
    for worker in workers:
        _, errors = worker.communicate(timeout=120)
        assert worker.returncode == 0, errors
    trainings = [name.split("-") for name in os.listdir(written)]
    assert Counter(seed for seed, _ in trainings) == Counter(str(seed) for seed in range(6))
    assert {int(pid) for _, pid in trainings} == {worker.pid for worker in workers}
    assert len(lab.tables.TrainedModel()) == 7
    assert len(lab.tables.TrainedModel.ModelStorage()) == 7
    # The last models of one worker may end after the other has gone on: a second round finds the rest.
    for table in lab.tables.computed[1:]:
        table.populate(reserve_jobs=True)
    assert len(lab.tables.ClusterAssignment()) == 7
    assert len(lab.tables.SeedAgreement()) == 6 * 5 // 2
    jobs = lab.tables.schema.jobs
    assert jobs.fetch1("status", "error_message") == ("error", "ValueError: seed 2 is not to my liking")


def test_a_training_outlives_a_restart_of_the_server(schema_name, server, monkeypatch):
    lab = open_lab(schema_name)
    lab.plan("december", [1])
    restarts = []

    def restart(self, **_):
        server.stop()
        restarts.append(threading.Timer(1.5, server.start))
        restarts[0].start()

    monkeypatch.setattr(lab.tables.TrainedModel, "call_back", restart)
    monkeypatch.setattr(outages, "FIRST_DELAY", 0.3)
    try:
        lab.tables.TrainedModel.populate(reserve_jobs=True)
    finally:
        restarts[0].join()
    assert len(lab.tables.TrainedModel()) == len(lab.tables.TrainedModel.ModelStorage()) == 1
    assert len(lab.tables.schema.jobs) == 0
