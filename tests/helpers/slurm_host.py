"""A real Slurm on this host, for the tests: munged, slurmctld and slurmd of their own, without systemd and cgroups.

Everything lies in one private folder: configuration, key, sockets, state and logs. The daemons listen on the loopback
interface, on ports that are free when they start. Two pretend GPUs are links to character devices, which Slurm gives
out by their numbers in ``CUDA_VISIBLE_DEVICES``. A job of the partition ``urgent`` preempts those of ``gpu``.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers.waiting import wait_until

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo")
SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/sbin")
N_GPUS = 2
START_TIMEOUT = 60.0  # seconds
STOP_TIMEOUT = 20.0  # seconds
KILL_WAIT = 12  # seconds between SIGTERM and SIGKILL; workers must be done within 10

# cred_expire: a job that was requeued starts again only after the credential of its last start has expired.
CONFIGURATION = """\
ClusterName=december
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller_port}
SlurmdPort={node_port}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_interval=1
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
KillWait={kill_wait}
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 Boards=1 SocketsPerBoard=1 CoresPerSocket=8 ThreadsPerCore=1 \
RealMemory=1000 Gres=gpu:{n_gpus} State=UNKNOWN
PartitionName=gpu Nodes={host} Default=YES MaxTime=1-00:00:00 State=UP PriorityTier=1
PartitionName=urgent Nodes={host} MaxTime=1-00:00:00 State=UP PriorityTier=2
"""


def missing_programs() -> list[str]:
    """Return the programs of munge and Slurm that are not installed."""
    return [name for name in PROGRAMS if find_program(name) is None]


def find_program(name: str) -> str | None:
    """Return the path of a program; an ordinary user's PATH has no /usr/sbin on Debian."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *SYSTEM_FOLDERS]))


class SlurmHost:
    """The daemons of a Slurm with one node, this host.

    Parameters
    ----------
    folder
        An empty folder; its path must be short enough for a socket.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.configuration = folder / "slurm.conf"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def environment(self) -> dict[str, str]:
        """What Slurm's commands need in the environment."""
        return {"SLURM_CONF": str(self.configuration)}

    def start(self) -> None:
        """Start the daemons and wait until the node takes jobs."""
        self._write()
        munge = self.folder / "munge"
        words = [f"--socket={munge}/socket", f"--key-file={munge}/key", f"--pid-file={munge}/pid"]
        words += [f"--seed-file={munge}/seed", f"--log-file={munge}/log"]
        self._spawn("munged", "--foreground", "--force", *words)  # --force: whoever owns the folders above
        self._wait(lambda: (munge / "socket").exists())
        self._spawn("slurmctld", "-D", "-c", "-f", str(self.configuration))
        self._wait(lambda: self.run("scontrol", "ping", check=False).returncode == 0)
        self._spawn("slurmd", "-D", "-f", str(self.configuration))
        self._wait(lambda: "idle" in self.run("sinfo", "-h", "-p", "gpu", "-o", "%T", check=False).stdout)

    def stop(self) -> None:
        """End all jobs and the daemons, and whatever the jobs have left."""
        if "slurmd" in self.processes:
            self.run("scancel", "--user", getpass.getuser(), check=False)
            with contextlib.suppress(AssertionError):
                wait_until(lambda: not self.queue(), "the end of all jobs", seconds=STOP_TIMEOUT)
        for process in reversed(self.processes.values()):
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pid in self.leftovers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not self.leftovers(), lambda: f"the end of {self.leftovers()}", seconds=STOP_TIMEOUT)

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one of Slurm's commands."""
        done = subprocess.run(
            words,
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def queue(self) -> dict[str, str]:
        """Return the state of each job and array task that waits, runs or ends."""
        lines = self.run("squeue", "-h", "-r", "-o", "%i %T", check=False).stdout.splitlines()
        return dict(line.split() for line in lines)

    def leftovers(self) -> list[int]:
        """Return the processes of this Slurm's jobs, told by their environment."""
        mark = f"SLURM_CONF={self.configuration}".encode()
        found = []
        for path in Path("/proc").iterdir():
            if path.name.isdigit() and int(path.name) != os.getpid():
                with contextlib.suppress(OSError):
                    if mark in (path / "environ").read_bytes().split(b"\0"):
                        found.append(int(path.name))
        return found

    def logs(self) -> str:
        """Return what the daemons have said last."""
        parts = []
        for path in sorted(self.folder.glob("*.out")):
            parts += [f"--- {path.name}", *path.read_text(errors="replace").splitlines()[-15:]]
        return "\n".join(parts)

    def _write(self) -> None:
        for name in ("munge", "state", "spool"):
            (self.folder / name).mkdir()
        (self.folder / "munge").chmod(0o755)
        key = self.folder / "munge" / "key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        controller_port, node_port = free_ports(2)
        for number, device in zip(range(N_GPUS), ("/dev/null", "/dev/zero"), strict=True):
            (self.folder / f"gpu{number}").symlink_to(device)
        (self.folder / "gres.conf").write_text(f"Name=gpu File={self.folder}/gpu[0-{N_GPUS - 1}]\n")
        self.configuration.write_text(
            CONFIGURATION.format(
                host=socket.gethostname().split(".")[0],
                user=getpass.getuser(),
                controller_port=controller_port,
                node_port=node_port,
                folder=self.folder,
                kill_wait=KILL_WAIT,
                n_gpus=N_GPUS,
            )
        )

    def _spawn(self, name: str, *words: str) -> None:
        program = find_program(name)
        assert program is not None
        with (self.folder / f"{name}.out").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [program, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for pytest, which stops the daemons in its order
            )

    def _wait(self, ready: Callable[[], bool]) -> None:
        def ready_or_dead() -> bool:
            dead = [name for name, process in self.processes.items() if process.poll() is not None]
            assert not dead, f"{', '.join(dead)} ended.\n{self.logs()}"
            return ready()

        wait_until(ready_or_dead, lambda: f"the start of Slurm\n{self.logs()}", seconds=START_TIMEOUT)


def free_ports(number: int) -> list[int]:
    """Return ports of the loopback interface that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def running_slurm() -> Iterator[SlurmHost]:
    """Yield a running Slurm, named by SLURM_CONF in this process's environment; nothing of it is left at the end.

    For a fixture: the tests are skipped where munge or Slurm is not installed.
    """
    if missing := missing_programs():
        pytest.skip(f"no {', '.join(missing)}: apt-get install slurm-wlm munge")
    with tempfile.TemporaryDirectory(prefix="slurm-") as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        folder.chmod(0o755)  # munge's clients must be able to enter it
        host = SlurmHost(folder)
        for key, value in host.environment.items():
            patch.setenv(key, value)
        patch.setenv("PATH", os.pathsep.join([os.environ["PATH"], *SYSTEM_FOLDERS]))
        try:
            host.start()
            yield host
        finally:
            host.stop()
