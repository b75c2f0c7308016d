"""A private database server, and benches on it: each a schema, a store, a folder to work in, and worker processes.

Workers get the server through DataJoint's settings file, as in a lab: the embedded server of a user without settings
would be started again by the first worker that misses it, and no outage would last.
"""

from __future__ import annotations

import functools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pymysql
import yaml

from chaoslab import journal
from chaoslab.clerk import Clerk
from december_plugin.database.embedded import EmbeddedServer
from december_plugin.database.mariadb import is_free
from december_plugin.simulate import write_recording

PACKAGE = Path(__file__).resolve().parents[1]
QUICK = {"device": "cpu", "lr_init": 0.01, "verbose": False}
MODEL = {
    "hidden_channels": 4,
    "input_kern": 3,
    "hidden_kern": 3,
    "layers": 1,
    "depth_separable": False,
    "pad_input": True,
    "gauss_type": "isotropic",
}
SIZES = {"n_neurons": 12, "n_train": 40, "n_validation": 10, "n_test": 4, "n_repeats": 3}
STOPPED_BY = ("DJ_", "DECEMBER_", "SLURM_")  # no settings of whoever runs the tests


class Laboratory:
    """One server for all scenarios; ends every process that it started.

    Parameters
    ----------
    folder
        Everything is written below it.
    seed
        Of all random choices.
    say
        Called with a line of progress.
    start_process
        Starts a process, as ``subprocess.Popen``.
    """

    def __init__(
        self,
        folder: Path,
        *,
        seed: int,
        say: Callable[[str], None] = lambda line: None,
        start_process: Callable[..., subprocess.Popen] = subprocess.Popen,
    ):
        self.folder, self.seed, self.say, self.start_process = folder, seed, say, start_process
        self.server = EmbeddedServer(folder / "db")
        self.processes: list[subprocess.Popen] = []
        self.clerks: dict[str, Clerk] = {}
        self._own = threading.local()  # a connection for each thread
        self._clerks_lock = threading.Lock()

    def __enter__(self) -> Laboratory:
        choose_port(self.server)
        self.server.start()
        assert self.recordings  # now, not in several threads at once
        self.query("CREATE DATABASE IF NOT EXISTS chaos_audit")
        self.query(
            "CREATE TABLE IF NOT EXISTS chaos_audit.changes (id INT AUTO_INCREMENT PRIMARY KEY, place VARCHAR(64), "
            "changed VARCHAR(64), action VARCHAR(8), trainer_hash VARCHAR(64), seed INT)"
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.end_processes()
        for clerk in self.clerks.values():
            clerk.close()
        self.server.stop()

    def end_processes(self) -> None:
        """End everything that was started, also what a test that failed has left."""
        for process in self.processes:
            end(process)
        self.processes.clear()

    @functools.cached_property
    def recordings(self) -> list[str]:
        """Folders of two tiny simulated recordings."""
        places = [self.folder / "recordings" / f"static{i}-1-1-simulated" for i in (1, 2)]
        return [str(write_recording(place, seed=i, **SIZES)) for i, place in enumerate(places, start=1)]

    def random(self, name: str) -> random.Random:
        """Return the random numbers of one scenario."""
        return random.Random(f"{self.seed}-{name}")

    def clerk(self, name: str) -> Clerk:
        """Return the program of this name, which is started when it is first needed."""
        with self._clerks_lock:
            if name not in self.clerks or self.clerks[name].process.poll() is not None:
                folder = self.folder / f"clerk_{name}"
                folder.mkdir(exist_ok=True)
                write_settings(folder, self.server, {})
                self.clerks[name] = Clerk(folder, environment(folder), start=self.start_process)
            return self.clerks[name]

    def bench(self, name: str, **settings: Any) -> Bench:
        """Return a bench of its own for a scenario."""
        return Bench(self, name, **settings)

    # ---- the server, seen without DataJoint

    def query(self, sql: str, args: Iterable[Any] = (), *, schema: str | None = None) -> list[dict[str, Any]]:
        """Run a statement on a connection of our own, made anew if it was lost; rows as dicts.

        Raises
        ------
        pymysql.err.MySQLError
            If the server does not answer.
        """
        connection = getattr(self._own, "connection", None)
        try:
            if connection is not None:
                connection.ping(reconnect=False)
        except pymysql.err.MySQLError:
            connection = None
        if connection is None:
            own = self.server.settings
            connection = self._own.connection = pymysql.connect(
                host=own.host,
                port=own.port,
                user=own.user,
                password=own.password,
                autocommit=True,
                ssl_disabled=True,
                cursorclass=pymysql.cursors.DictCursor,
            )
        if schema is not None:
            connection.select_db(schema)
        with connection.cursor() as cursor:
            cursor.execute(sql, tuple(args) or None)
            return list(cursor.fetchall())

    def server_pid(self) -> int | None:
        """Return the process id of the server, or None if it does not run."""
        return self.server.status().pid

    def start(self, words: list[str], *, log: Path, **settings: Any) -> subprocess.Popen:
        """Start a program whose output goes to a file."""
        with log.open("ab") as stream:
            process = self.start_process(
                words, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, **settings
            )
        self.processes.append(process)
        return process


def choose_port(server: EmbeddedServer) -> None:
    """Give a new server a port that nobody takes while it is away, as other embedded servers could their first."""
    server.folder.mkdir(parents=True, mode=0o700)
    port = next(port for port in random.SystemRandom().sample(range(21000, 30000), 1000) if is_free(port))
    lines = ("[client]", "user=december", f"password={uuid.uuid4().hex}", "host=127.0.0.1", f"port={port}", "")
    server.credentials.write_text("\n".join(lines))
    server.credentials.chmod(0o600)


def end(process: subprocess.Popen) -> None:
    """End a process that may be suspended."""
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        process.kill()
    process.wait()


class Worker:
    """A ``december worker`` process."""

    def __init__(self, process: subprocess.Popen, worker_id: str, log: Path):
        self.process, self.worker_id, self.log = process, worker_id, log

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    @property
    def code(self) -> int | None:
        """Exit code, or None while it runs."""
        return self.process.poll()

    def said(self) -> str:
        """Return its output so far."""
        return self.log.read_text(errors="replace")

    def signal(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)


class Bench:
    """A schema, a store and a folder of one scenario.

    Parameters
    ----------
    laboratory
        Has the server.
    name
        Of the scenario.
    lease
        Lease of the workers (s).
    checkpoint_every
        Epochs.
    max_attempts
        After how many deaths a job is given up.
    store
        Settings of the DataJoint store; by default a folder of this bench.
    """

    def __init__(
        self,
        laboratory: Laboratory,
        name: str,
        *,
        lease: float = 3.0,
        checkpoint_every: int = 5,
        max_attempts: int = 1000,
        store: Mapping[str, Any] | None = None,
    ):
        self.laboratory, self.name, self.schema = laboratory, name, f"chaos_{name}"
        self.lease, self.checkpoint_every, self.max_attempts = lease, checkpoint_every, max_attempts
        self.folder = laboratory.folder / name
        self.desk, self.logs, self.home = (self.folder / part for part in ("desk", "logs", "home"))
        self.store_folder = self.folder / "store"
        for folder in (self.desk, self.logs, self.home, self.store_folder):
            folder.mkdir(parents=True)
        self.store = dict(store or {"protocol": "file", "location": str(self.store_folder)})
        self.journal = journal.Journal(self.folder / "journal.jsonl")
        self.spool = self.folder / "spool"
        self.random = laboratory.random(name)
        self.workers: list[Worker] = []
        write_settings(self.desk, laboratory.server, {"minio": self.store})

    def environment(self) -> dict[str, str]:
        """Return the environment of this bench's processes."""
        return environment(self.folder) | {journal.VARIABLE: str(self.journal.path)}

    def run(self, *words: str, code: int = 0, module: str = "december_plugin.cli", timeout: float = 300) -> str:
        """Run a command to its end and return its standard output."""
        done = subprocess.run(
            [sys.executable, "-m", module, *words],
            cwd=self.desk,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode != code:
            raise RuntimeError(f"{words} ended with {done.returncode}, not {code}:\n{done.stdout}{done.stderr}")
        return done.stdout

    # ---- the sweep

    @property
    def sweep_file(self) -> Path:
        """Where the sweep is written."""
        return self.desk / "sweep.yaml"

    def trainings(self, trainers: list[dict[str, Any]], *, seeds: Iterable[int], **sections: Any) -> None:
        """Register real trainings: tiny recordings, a tiny model, and these trainers."""
        loaders = {"paths": self.laboratory.recordings, "batch_size": 20}
        self.register(
            {
                "seeds": list(seeds),
                "datasets": [{"fn": "december_plugin.datasets.static_loaders", "config": loaders}],
                "models": [{"fn": "december_plugin.models.stacked_core_gaussian_readout", "config": MODEL}],
                "trainers": trainers,
                **sections,
            }
        )

    def trivial_jobs(self, function: str, *, seeds: Iterable[int], **config: Any) -> None:
        """Register jobs without work."""
        self.register(
            {
                "seeds": list(seeds),
                "datasets": [{"fn": "chaoslab.workloads.no_loaders"}],
                "models": [{"fn": "chaoslab.workloads.one_weight"}],
                "trainers": [{"fn": f"chaoslab.workloads.{function}", "comment": function, "config": config}],
            }
        )

    def register(self, sweep: dict[str, Any]) -> None:
        """Run ``december register``, and let the server count every change of the table of models from then on."""
        self.sweep_file.write_text(yaml.safe_dump(sweep))
        clerk = self.laboratory.clerk("register")
        stores = {"minio": self.store}
        clerk.answer(clerk.send(do="register", schema=self.schema, sweep=str(self.sweep_file), stores=stores))
        for action in ("INSERT", "UPDATE", "DELETE"):
            row = "OLD" if action == "DELETE" else "NEW"
            for table in ("__trained_model", "__trained_model__model_storage"):
                self.query(
                    f"CREATE TRIGGER `{table}_{action}` AFTER {action} ON `{self.schema}`.`{table}` FOR EACH ROW "
                    "INSERT INTO chaos_audit.changes (place, changed, action, trainer_hash, seed) VALUES "
                    f"('{self.schema}', '{table}', '{action}', {row}.trainer_hash, {row}.seed)"
                )

    def query(self, sql: str, args: Iterable[Any] = ()) -> list[dict[str, Any]]:
        """Run a statement in this bench's schema."""
        return self.laboratory.query(sql, args, schema=self.schema)

    def count(self, table: str, restriction: str = "TRUE") -> int:
        """Return the number of rows of a table."""
        return int(self.query(f"SELECT COUNT(*) AS n FROM `{table}` WHERE {restriction}")[0]["n"])

    # ---- workers

    def worker_options(self) -> list[str]:
        """Return the options of ``december worker`` and ``december pool`` that this bench sets."""
        return [
            *("--schema", self.schema, "--lease", str(self.lease), "--checkpoint-every", str(self.checkpoint_every)),
            *("--max-attempts", str(self.max_attempts), "--only", "TrainedModel"),
        ]

    def start_worker(self, *options: str) -> Worker:
        """Start ``december worker``; seeded ids, and it drains by itself if this process is gone."""
        worker_id = uuid.UUID(int=self.random.getrandbits(128), version=4).hex
        log = self.logs / f"worker-{len(self.workers):03}.log"
        words = [sys.executable, "-m", "december_plugin.cli", "worker", *self.worker_options(), *options]
        own = {"DECEMBER_WORKER_ID": worker_id, "DECEMBER_SUPERVISOR": str(os.getpid())}
        environment = self.environment() | own
        process = self.laboratory.start(words, log=log, cwd=self.desk, env=environment, start_new_session=True)
        self.workers.append(Worker(process, worker_id, log))
        return self.workers[-1]

    def said(self) -> str:
        """Return what all workers said."""
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.logs.glob("*.log")))


def write_settings(folder: Path, server: EmbeddedServer, stores: Mapping[str, Any]) -> None:
    """Write DataJoint's settings for programs that run in a folder."""
    own = server.settings
    settings = {
        "database.host": own.host,
        "database.port": own.port,
        "database.user": own.user,
        "database.password": own.password,
        "database.use_tls": False,
        "stores": dict(stores),
    }
    path = folder / "dj_local_conf.json"
    path.write_text(json.dumps(settings))
    path.chmod(0o600)


def environment(folder: Path) -> dict[str, str]:
    """Return an environment in which everything is written below a folder, and which has no settings of anybody."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(STOPPED_BY)}
    home = folder / "home"
    home.mkdir(exist_ok=True)
    return kept | {
        "HOME": str(home),
        "DECEMBER_HOME": str(home / "december"),
        "DECEMBER_PRETRAINING": str(folder / "pretraining"),
        "DECEMBER_SPOOL": str(folder / "spool"),
        "DECEMBER_ALLOW_MODULES": "chaoslab",
        "PYTHONPATH": os.pathsep.join([str(PACKAGE), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "OMP_NUM_THREADS": "1",
    }


def wait_for(condition: Callable[[], Any], what: str, *, seconds: float = 120, pause: float = 0.1) -> Any:
    """Return the condition's first true value.

    Raises
    ------
    TimeoutError
        If it was not true in time.
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {seconds:.0f} s")
        time.sleep(pause)
    return value
