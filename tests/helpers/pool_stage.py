"""A pool without a database: a stand-in for the worker program, and for what the supervisor asks of the database."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from december_plugin.pool.supervisor.mps import PoolMps
from december_plugin.pool.supervisor.slots import Slot
from december_plugin.pool.supervisor.supervisor import LocalPool, PoolSettings

HAS_PROC = Path("/proc/self").exists()  # macOS has none

# Writes a line of what it was given; then does what the file `next` says, or works until SIGTERM.
STAND_IN = """
import json, os, signal, subprocess, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
def on_term(*_):
    print("saved", flush=True)
    time.sleep(float(os.environ.get("GOODBYE", 0)))
    sys.exit(143)
if "--deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, on_term)
names = ("CUDA_VISIBLE_DEVICES", "CUDA_MPS_PIPE_DIRECTORY", "DECEMBER_GPU", "DECEMBER_WORKER_ID", "DECEMBER_POOL_ID",
         "DECEMBER_POOL_WORKERS", "DECEMBER_SUPERVISOR", "OMP_NUM_THREADS")
helper = subprocess.Popen(["sleep", "300"]) if "--helper" in sys.argv else None
row = {"argv": sys.argv[2:], "pid": os.getpid(), "ppid": os.getppid(), "sid": os.getsid(0), "time": time.time(),
       "helper": helper and helper.pid, **{name: os.environ.get(name) for name in names}}
with open(folder / "started", "a") as file:
    file.write(json.dumps(row) + "\\n")
print("working", flush=True)
try:
    (folder / "next").rename(folder / f"taken-{os.getpid()}")
    exec((folder / f"taken-{os.getpid()}").read_text())
except FileNotFoundError:
    pass
while True:
    time.sleep(0.05)
    if os.getppid() != int(os.environ["DECEMBER_SUPERVISOR"]):
        sys.exit(0)
"""


class StandInDatabase:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.stop_requested = 0
        self.has_answered = True
        self.failures: dict[str, int] | None = {"failed": 0, "poisoned": 0}
        self.is_reachable = True
        self.dead: list[tuple[str, str]] = []
        self.given_back: list[str] = []
        self.watched: tuple[str, ...] = ()
        self.idle = 0.0
        self.finished = 0

    def start(self) -> None:
        pass

    def watch(self, worker_ids: tuple[str, ...]) -> None:
        self.watched = worker_ids

    def idle_for(self) -> float:
        return self.idle

    def mark_dead(self, worker_id: str, message: str) -> None:
        self.dead.append((worker_id, message))

    def give_back(self, worker_id: str, message: str) -> None:
        self.given_back.append(worker_id)

    def finish(self, *, timeout: float) -> bool:
        self.finished += 1
        return self.is_reachable


class Stage:
    """A pool of stand-ins in a folder; ``on`` acts at every look of the supervisor until it returns True."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        n_workers: int = 1,
        slots: Sequence[Slot] = (),
        mps: Callable[[Callable[[str], None]], PoolMps] | None = None,
        **settings: Any,
    ):
        program = folder / "worker.py"
        program.write_text(STAND_IN)
        self.folder, self.database = folder, StandInDatabase()
        self.lines: list[tuple[str, str]] = []
        self.pool = LocalPool(
            PoolSettings(schema="lab", **settings),
            slots or [Slot(f"cpu {number}") for number in range(1, n_workers + 1)],
            database=self.database,
            pool_id="0" * 32,
            log_folder=folder,
            program=[sys.executable, str(program), str(folder), *options],
            on_event=lambda source, text: self.lines.append((source, text)),
            mps=mps(lambda text: self.lines.append(("pool", text))) if mps is not None else None,
        )

    def run(self, *acts: Callable[[], object], seconds: float = 60) -> int:
        """Run the pool; each act is tried at every look, in turn, until it returns something true."""
        left, until = list(acts), time.monotonic() + seconds
        tick = self.pool._tick

        def act() -> None:
            tick()
            assert time.monotonic() < until, f"the pool did not come to an end; {self.lines}"
            if left and left[0]():
                left.pop(0)

        self.pool._tick = act  # type: ignore[method-assign]
        return self.pool.run()

    def do_next(self, code: str) -> None:
        """Let the next worker do this after it has started."""
        (self.folder / "being-written").write_text(code)
        (self.folder / "being-written").rename(self.folder / "next")  # a worker never finds a half of it

    def started(self) -> list[dict]:
        """Return what each worker found."""
        path = self.folder / "started"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []  # the last is empty, or not yet complete
        return [json.loads(line) for line in lines]

    def have_started(self, number: int) -> Callable[[], bool]:
        return lambda: len(self.started()) >= number

    def said(self, words: str) -> bool:
        return any(words in text for _, text in self.lines)


def send_self(number: int) -> Callable[[], bool]:
    """Return an act that sends this process a signal."""

    def act() -> bool:
        os.kill(os.getpid(), number)
        return True

    return act


def is_alive(pid: int) -> bool:
    """Whether a process exists and is not only waiting for its parent to notice its end."""
    if not HAS_PROC:
        return any(found == pid and state[0] != "Z" for found, _, state in _listed())
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def are_gone(*pids: int) -> bool:
    """Whether all these processes end within some seconds."""
    until = time.monotonic() + 15
    while any(is_alive(pid) for pid in pids):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


@contextmanager
def no_children_left() -> Iterator[None]:
    """Check that no child of this process is left, neither running nor unreaped."""
    before = children()
    yield
    until = time.monotonic() + 5
    while children() - before and time.monotonic() < until:
        time.sleep(0.05)
    assert children() - before == set()


def children() -> set[int]:
    """Return this process's children, the unreaped included."""
    if not HAS_PROC:
        return {pid for pid, parent, _ in _listed() if parent == os.getpid()}
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == os.getpid():
            found.add(int(path.parent.name))
    return found


def _listed() -> list[tuple[int, int, str]]:
    """Return number, parent and state of all processes but the one that lists them, on systems such as macOS."""
    with subprocess.Popen(["ps", "-axo", "pid=,ppid=,stat="], stdout=subprocess.PIPE, text=True) as listing:
        lines = [line.split() for line in listing.communicate()[0].splitlines()]
    return [(int(pid), int(parent), state) for pid, parent, state in lines if int(pid) != listing.pid]
