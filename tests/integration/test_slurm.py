"""Pools on a real Slurm of one node with two pretend GPUs: submitted, preempted, timed out, requeued, stopped."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from december_plugin.cli import main
from december_plugin.pool.jobs.records import PoolRecords
from december_plugin.pool.slurm.array import slurm_status
from december_plugin.schemas.lab import open_lab
from helpers.slurm_host import SlurmHost, running_slurm
from helpers.waiting import wait_until

pytestmark = pytest.mark.slow(15)

LAB_PASSWORD = "a password for nobody's eyes"
MODEL = {"hidden_channels": 4, "input_kern": 3, "hidden_kern": 3, "layers": 1, "depth_separable": False}
SETTINGS = {"pretrain_epochs": 2, "device": "cpu", "lr_init": 0.01}
PATIENCE = 120.0  # seconds: starts of processes on busy machines


@pytest.fixture(scope="module")
def slurm() -> Iterator[SlurmHost]:
    with running_slurm() as host:
        yield host


class Cluster:
    """`december` on a fresh schema, beside a Slurm."""

    def __init__(self, slurm: SlurmHost, schema: str, folder: Path, *, december: Any, capsys: Any, recordings: Any):
        self.slurm, self.schema, self.folder = slurm, schema, folder
        self.december, self.capsys, self.recordings = december, capsys, recordings
        self.environment: dict[str, str] = {}

    def run(self, *words: str, code: int = 0) -> SimpleNamespace:
        """Run `december` within this process, or in one of its own after :meth:`use`."""
        words = (*words, "--schema", self.schema)
        if self.environment:
            done = self.december(*words, cwd=self.folder, **self.environment)
            printed = SimpleNamespace(out=done.stdout, err=done.stderr, code=done.returncode)
        else:
            self.capsys.readouterr()
            returned = main([*words])
            printed = SimpleNamespace(**self.capsys.readouterr()._asdict(), code=returned)
        assert printed.code == code, printed.out + printed.err
        return printed

    def register(self, **settings: Any) -> None:
        function = "december_plugin.datasets.static_loaders"
        content = {
            "seeds": [1, 2],
            "datasets": [{"fn": function, "config": {"paths": self.recordings, "batch_size": 20}}],
            "models": [{"fn": "december_plugin.models.stacked_core_gaussian_readout", "config": MODEL}],
            "trainers": [{"fn": "december_plugin.trainers.baseline_trainer", "config": {**SETTINGS, **settings}}],
        }
        (self.folder / "sweep.yaml").write_text(yaml.safe_dump(content))
        self.run("register", str(self.folder / "sweep.yaml"))
        self.lab = open_lab(schema=self.schema, nnfabrik=self.schema)

    def use(self, settings: dict[str, Any], environment: dict[str, str]) -> None:
        """Run `december` in processes of its own with these from now on."""
        (self.folder / "dj_local_conf.json").write_text(json.dumps(settings))
        self.environment = environment

    def submit(self, *words: str) -> str:
        """Submit a pool and return the array's job id."""
        options = ["--partition", "gpu", "--time", "10", "--folder", str(self.folder / "arrays")]
        said = self.run("pool", "--slurm", *options, "--lease", "10", "--idle-exit", "2", *words)
        match = re.match(r"Submitted job (\d+) to Slurm", said.out)
        assert match, said.out
        return match[1]

    def working(self) -> dict[str, int]:
        """Return the epochs of the jobs that live workers have in work, by Slurm's name of the task."""
        rows = (self.lab.tables.PoolWorker & "worker_state = 'working'" & "job_epoch > 0").fetch(as_dict=True)
        return {row["worker_slurm_job"]: row["job_epoch"] for row in rows}

    def wait(self, condition: Any, what: str) -> None:
        wait_until(condition, lambda: f"{what}: {self.slurm.queue()}\n{self.last_words()}", seconds=PATIENCE)

    def last_words(self) -> str:
        """Return the ends of all logs, for a test that fails."""
        files = sorted((self.folder / "arrays").rglob("*log.*")) + sorted(self.folder.rglob("*.log"))
        return "\n".join(f"--- {file}\n{file.read_text()[-1500:]}" for file in files)

    def nothing_is_left(self) -> None:
        """Check that there is neither a reservation nor a failure."""
        assert self.lab.tables.schema.jobs.fetch("status", "error_message", as_dict=True) == []


@pytest.fixture
def cluster(slurm, december, database, schema_name, tmp_path, monkeypatch, capsys, recordings):
    """Yield `december` on a fresh schema; no job of Slurm is left afterwards."""
    monkeypatch.setenv("DECEMBER_PRETRAINING", str(tmp_path / "pretraining"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    yield Cluster(slurm, schema_name, tmp_path, december=december, capsys=capsys, recordings=recordings)
    slurm.run("scancel", "--partition=gpu")
    wait_until(lambda: not slurm.queue(), lambda: f"the end of {slurm.queue()}", seconds=PATIENCE)


@pytest.fixture
def lab_account(admin, server):
    """Yield a lab's settings, as in a configuration file, and the environment that alone has user and password."""
    admin.execute(f"CREATE OR REPLACE USER 'cluster'@'127.0.0.1' IDENTIFIED BY \"{LAB_PASSWORD}\"")
    admin.execute("GRANT ALL PRIVILEGES ON *.* TO 'cluster'@'127.0.0.1'")
    settings = {"database.host": "127.0.0.1", "database.port": server.settings.port}
    yield settings, {"DJ_USER": "cluster", "DJ_PASS": LAB_PASSWORD}
    admin.execute("DROP USER 'cluster'@'127.0.0.1'")


def test_an_array_fills_the_tables_and_keeps_the_password_to_itself(cluster, lab_account):
    cluster.register(max_iter=3)
    cluster.use(*lab_account)
    job = cluster.submit("--workers", "2", "--gpus-per-worker", "1", "--cpus-per-worker", "1", "--mem", "200M")
    cluster.wait(lambda: cluster.working() or len(cluster.lab.tables.TrainedModel()), "no worker has begun")
    shown = (
        cluster.slurm.run("scontrol", "show", "job", "-dd").stdout + cluster.slurm.run("squeue", "-o", "%all").stdout
    )
    assert f"ArrayJobId={job}" in shown
    cluster.wait(lambda: not cluster.slurm.queue(), "the array does not end")
    assert len(cluster.lab.tables.TrainedModel()) == 2
    assert len(cluster.lab.tables.SeedAgreement()) + len(cluster.lab.tables.TestPerformance()) >= 2
    cluster.nothing_is_left()
    workers = cluster.lab.tables.PoolWorker.fetch("worker_slurm_job", "worker_gpu", "pool_id", as_dict=True)
    assert {row["worker_slurm_job"] for row in workers} == {f"{job}_0", f"{job}_1"}
    assert {row["worker_gpu"] for row in workers} == {"0", "1"}
    pool = cluster.lab.tables.Pool.fetch1()
    assert (pool["pool_kind"], pool["slurm_job"], pool["n_workers"]) == ("slurm", job, 2)
    assert {row["pool_id"] for row in workers} == {pool["pool_id"]}
    records = PoolRecords(cluster.lab.tables.schema.connection, cluster.lab.tables.schema.database)
    assert slurm_status(records.pools(running=False))[pool["pool_id"]].is_over

    files = [path for path in (cluster.folder / "arrays").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} >= {".sh", ".pkl", ".out", ".err"}
    assert LAB_PASSWORD not in shown
    for path in files:
        assert LAB_PASSWORD.encode() not in path.read_bytes(), path
    rows = str(pool) + str(cluster.lab.tables.PoolWorker.fetch(as_dict=True))
    assert LAB_PASSWORD not in rows + str(cluster.lab.tables.PoolJob.fetch(as_dict=True))


def test_preempted_and_timed_out_tasks_come_back_and_go_on_where_they_were(cluster):
    cluster.register(max_iter=100_000, patience=100_000)
    job = cluster.submit("--workers", "2", "--checkpoint-every", "1000000")  # only what an interruption saves
    tasks = {f"{job}_0", f"{job}_1"}
    cluster.wait(lambda: set(cluster.working()) == tasks, "two trainings do not begin")
    assert "Slurm: 2 running" in cluster.run("pool", "status").out

    # An urgent job takes a GPU away: Slurm sends SIGTERM and puts the task back into the queue by itself.
    cluster.slurm.run("sbatch", "-p", "urgent", "--gpus=1", "--output=/dev/null", "--wrap", "sleep 1")
    cluster.wait(lambda: restarts(cluster, tasks) == [0, 1], "no task is preempted")
    # What Slurm sends before the time limit: the task requeues itself when its worker is done.
    (other,) = (task for task in tasks if restarts(cluster, [task]) == [0])
    cluster.slurm.run("scancel", "--signal=USR2", other)
    cluster.wait(lambda: restarts(cluster, tasks) == [1, 1], "the task does not requeue itself")
    cluster.wait(lambda: set(cluster.working()) == tasks, "the trainings do not go on")
    begun = cluster.lab.tables.PoolJob.fetch("n_starts", "n_deaths", "log_file", as_dict=True)
    assert [(row["n_starts"], row["n_deaths"]) for row in begun] == [(2, 0), (2, 0)]
    went_on = set()
    for row in begun:
        log = Path(row["log_file"].partition(":")[2]).read_text()
        went_on |= set(re.findall(r"continued after epoch (\d+) of an interrupted training", log))
    said = "".join(file.read_text() for file in (cluster.folder / "arrays").rglob("*.err"))
    assert went_on
    assert went_on == set(re.findall(r"free again; saved after epoch (\d+), from which the next", said))

    # Those who are asked to stop save and release as well, and do not come back.
    assert "has ended" in cluster.run("pool", "stop").out
    cluster.wait(lambda: not cluster.slurm.queue(), "the array does not end")
    assert restarts(cluster, tasks) == [1, 1]
    assert len(cluster.lab.tables.PoolJob & "worker_id <> ''") == 0
    assert cluster.lab.tables.Pool.fetch1("pool_ended") is not None
    cluster.nothing_is_left()


def restarts(cluster: Cluster, tasks: Iterable[str]) -> list[int]:
    """Return how often Slurm has started these tasks again, sorted."""
    shown = [cluster.slurm.run("scontrol", "show", "job", task).stdout for task in tasks]
    return sorted(int(re.search(r"Restarts=(\d+)", text)[1]) for text in shown)


def test_a_pool_that_waits_is_shown_and_stopped(cluster):
    cluster.register(max_iter=3)
    cluster.submit("--workers", "3", "--slurm-option", "begin=now+1hour")
    # The reason is known when Slurm has tried to start them.
    cluster.wait(lambda: "Slurm: 3 pending (BeginTime)" in cluster.run("pool", "status").out, "no reason is shown")
    assert "has ended" in cluster.run("pool", "stop").out
    assert cluster.slurm.queue() == {}
    assert "No pool is running" in cluster.run("pool", "status").out


def test_what_slurm_refuses_is_said_in_its_words(cluster, monkeypatch):
    cluster.register(max_iter=3)
    words = ["pool", "--slurm", "--folder", str(cluster.folder / "arrays")]
    refused = cluster.run(*words, "--workers", "2", "--partition", "nope", code=1).err
    assert "sbatch refuses the pool: invalid partition specified: nope; " in refused
    assert "The partitions are gpu, urgent. Correct the options, and try again." in refused
    assert "--slurm needs --workers N, the number of tasks of the array." in cluster.run(*words, code=1).err
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "/nowhere")
        missing = cluster.run(*words, "--workers", "2", code=1).err
    assert "sbatch, srun, squeue, scancel and scontrol cannot be found, so Slurm jobs cannot be submitted" in missing
    assert len(cluster.lab.tables.Pool()) == 0
    assert cluster.slurm.queue() == {}
