"""`december pool` as a process on a fresh schema, and a look at what it does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from december_plugin.cli import main
from december_plugin.schemas.lab import Lab, open_lab
from helpers import warm
from helpers.waiting import PATIENCE, wait_until

MODEL = {
    "hidden_channels": 4,
    "input_kern": 3,
    "hidden_kern": 3,
    "layers": 1,
    "depth_separable": False,
    "pad_input": True,
    "gauss_type": "isotropic",
}
TRAINER = "december_plugin.trainers.baseline_trainer"
SETTINGS = {"pretrain_epochs": 0, "device": "cpu", "lr_init": 0.01}
# A lab's own trainer that takes the worker down with it, if its seed says so.
FATAL = """
import os
from december_plugin.trainers import baseline_trainer

def fatal_trainer(model, dataloaders, seed, uid=None, cb=None, fatal_seed=0, **settings):
    if seed == fatal_seed:
        print("out of luck", flush=True)
        os._exit(9)
    return baseline_trainer(model, dataloaders, seed, uid=uid, cb=cb, **settings)
"""


class PoolLab:
    """A fresh schema with a plan, and the pools that are started on it."""

    def __init__(self, schema: str, folder: Path, recordings: list[str], capsys: Any):
        self.schema, self.folder, self.recordings, self.capsys = schema, folder, recordings, capsys
        self.started: list[subprocess.Popen[bytes]] = []
        self._lab: Lab | None = None

    @property
    def lab(self) -> Lab:
        """The tables."""
        if self._lab is None:
            self._lab = open_lab(schema=self.schema, nnfabrik=self.schema, create=True)
        return self._lab

    def register(self, *, seeds: tuple[int, ...] = (1,), trainer: str = TRAINER, **config: Any) -> None:
        """Plan one training for each seed."""
        data = {"paths": self.recordings, "batch_size": 20}
        content = {
            "seeds": list(seeds),
            "datasets": [{"fn": "december_plugin.datasets.static_loaders", "config": data}],
            "models": [{"fn": "december_plugin.models.stacked_core_gaussian_readout", "config": MODEL}],
            "trainers": [{"fn": trainer, "comment": "trainer", "config": {**SETTINGS, **config}}],
        }
        path = self.folder / "sweep.yaml"
        path.write_text(yaml.safe_dump(content))
        self.run("register", str(path))

    def register_endless(self, **options: Any) -> None:
        """Plan trainings that do not end by themselves."""
        self.register(max_iter=100_000, patience=100_000, **options)

    def run(self, *words: str, code: int = 0) -> str:
        """Run a command in this process and return what it prints."""
        self.capsys.readouterr()
        returned = main([*words, "--schema", self.schema])
        printed = self.capsys.readouterr()
        assert returned == code, printed.out + printed.err
        assert "Traceback" not in printed.err
        return printed.out + printed.err

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        """Start a pool with its output in ``pool.txt``; it leads a process group, as a command of a shell does."""
        return self.start_command("pool", *options)

    def start_command(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a command that runs a pool, as :meth:`start`."""
        command = [sys.executable, "-m", "december_plugin.cli", *words, "--schema", self.schema]
        with (self.folder / "pool.txt").open("ab") as file:
            process = warm.Popen(
                [*command, "--log-folder", str(self.folder / "logs")],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                warm_children=True,
            )
        self.started.append(process)
        return process

    @property
    def output(self) -> str:
        """What the pools have printed."""
        return (self.folder / "pool.txt").read_text(errors="replace")

    def ended(self, process: subprocess.Popen[bytes]) -> int:
        """Return the exit code of a pool, when it has ended."""
        try:
            return process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the pool did not end\n{self.output}") from None

    def query(self, sql: str, *args: Any) -> list[tuple[Any, ...]]:
        """Ask the database; ``{}`` stands for the schema."""
        return list(self.lab.tables.schema.connection.query(sql.format(self.schema), args=args).fetchall())

    def worker_in_training(self, *, epochs: int = 1) -> int:
        """Wait for a worker that has done some epochs of a training, and return its process id."""

        def find() -> list[tuple[Any, ...]]:
            return self.query(
                "SELECT worker_pid FROM `{}`.pool_worker WHERE worker_state = 'working' AND "
                "job_table = '__trained_model' AND job_epoch >= %s",
                epochs,
            )

        return int(wait_until(find, f"epoch {epochs} of a training")[0][0])

    def reservations(self) -> list[tuple[Any, ...]]:
        """Return what is left in DataJoint's table of jobs."""
        return self.query("SELECT table_name, key_hash, status FROM `{}`.`~jobs`")

    def end_all(self) -> None:
        """End what a test has left running."""
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        for pid in self.worker_processes():
            os.kill(pid, signal.SIGKILL)

    def worker_processes(self) -> list[int]:
        """Return the processes on this machine that work on this schema."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if b"worker" in words and self.schema.encode() in words:
                found.append(int(path.parent.name))
        return found
