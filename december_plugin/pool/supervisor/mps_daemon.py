"""One control daemon of NVIDIA's MPS: starts it, queries it, and ends it with its server.

The commands, the variables and the files of the daemon are those of NVIDIA's documentation of MPS
(https://docs.nvidia.com/deploy/mps), sections on its interface and environment variables.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from december_plugin.errors import DecemberError
from december_plugin.pool.supervisor.gpus import Gpu, refusal_of_cuda
from december_plugin.pool.supervisor.process_table import all_processes, children_of, environment_of, is_running

PROGRAM = "nvidia-cuda-mps-control"
PIPES, LOGS = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"
PID_FILE = f"{PROGRAM}.pid"

START_TIMEOUT = 20.0  # of a daemon (s)
ANSWER_TIMEOUT = 10.0  # of one command (s)
END_TIMEOUT = 10.0  # of a daemon after the command to quit, before it is killed (s)
PAUSE = 0.05


class MpsError(DecemberError, RuntimeError):
    """MPS was requested, or is needed, and does not work."""


class MpsDaemon:
    """The control daemon of one GPU.

    Parameters
    ----------
    gpu
        Which one.
    pipes, logs
        Its folders; both are created, and ``pipes`` is removed at the end.
    environment
        Of this process, on which the daemon's is based.
    """

    def __init__(self, gpu: Gpu, *, pipes: Path, logs: Path, environment: Mapping[str, str]):
        self.gpu, self.pipes, self.logs = gpu, pipes, logs
        self._environment = {**environment, "CUDA_VISIBLE_DEVICES": gpu.device, PIPES: str(pipes), LOGS: str(logs)}

    def start(self) -> None:
        """Start it, and wait until it answers.

        Raises
        ------
        MpsError
            It does not start; the message quotes it.
        """
        try:
            shutil.rmtree(self.pipes, ignore_errors=True)  # the sockets of one that has died
            self.pipes.mkdir(parents=True, mode=0o700)
            self.logs.mkdir(parents=True, exist_ok=True, mode=0o700)
            said = self.logs / "start.log"
            with said.open("wb") as file:
                # Its own session: Ctrl-C is for the pool, and the workers need the daemon until they have saved.
                done = subprocess.run(
                    [PROGRAM, "-d"],
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    timeout=START_TIMEOUT,
                    check=False,
                )
            until = time.monotonic() + START_TIMEOUT
            while done.returncode == 0 and time.monotonic() < until:
                if self.is_alive() and ask("get_server_list", self._environment) is not None:
                    return self._check()
                time.sleep(PAUSE)
        except (OSError, subprocess.SubprocessError) as error:
            raise MpsError(f"the MPS of the GPU {self.gpu.label} cannot be started: {error}") from None
        words = " | ".join(line for line in said.read_text(errors="replace").splitlines() if line.strip())
        raise MpsError(
            f"the MPS of the GPU {self.gpu.label} does not start: {words[-500:] or f'code {done.returncode}'} "
            f"(its logs: {self.logs})"
        )

    def _check(self) -> None:
        """Let CUDA use it once, because the server of a daemon that answers may still not start."""
        if problem := refusal_of_cuda(self._environment):
            self.stop()
            raise MpsError(f"the MPS of the GPU {self.gpu.label} does not work: {problem} (its logs: {self.logs})")

    def is_alive(self) -> bool:
        """Whether its process exists."""
        return daemon_pid(self.pipes) != 0

    def stop(self) -> None:
        """End it and its server, and remove its folder of pipes."""
        end_daemon(self.pipes, self._environment)


def ask(command: str, environment: Mapping[str, str]) -> str | None:
    """Return the answer of an environment's daemon; None if it does not answer."""
    try:
        done = subprocess.run(
            [PROGRAM],
            env=dict(environment),
            input=f"{command}\n",
            capture_output=True,
            text=True,
            start_new_session=True,
            timeout=ANSWER_TIMEOUT,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def end_daemon(pipes: Path, environment: Mapping[str, str]) -> None:
    """End the daemon and the server that use a folder, by its command if it answers, else by signals; remove it.

    Parameters
    ----------
    pipes
        The folder.
    environment
        Of this process.
    """
    daemon = daemon_pid(pipes)
    left = {pid for pid in users_of(pipes) if not is_worker(pid)} | ({daemon} if daemon else set())
    left |= children_of(daemon) if daemon else set()  # the server
    if daemon:
        ask("quit", {**environment, PIPES: str(pipes)})
        left = _still_there(left)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        left = _still_there(left)
    shutil.rmtree(pipes, ignore_errors=True)


def _still_there(pids: set[int]) -> set[int]:
    """Give these processes time to end; return those that have not ended."""
    until = time.monotonic() + END_TIMEOUT
    while (pids := {pid for pid in pids if is_running(pid)}) and time.monotonic() < until:
        time.sleep(PAUSE)
    return pids


def daemon_pid(pipes: Path) -> int:
    """Return the process of the daemon that uses a folder; 0 if there is none."""
    pid = noted_pid(pipes)
    # After a restart of the machine, for example, the number may be that of any process.
    return pid if pid and is_running(pid) and _uses(pid, pipes) else 0


def noted_pid(pipes: Path) -> int:
    """Return the process number that a daemon has written into its folder; 0 if there is none."""
    try:
        return int((pipes / PID_FILE).read_text().strip())
    except (OSError, ValueError):
        return 0


def users_of(pipes: Path) -> set[int]:
    """Return the processes of this user that have this folder in their environment."""
    return {pid for pid in all_processes() if pid != os.getpid() and _uses(pid, pipes) and is_running(pid)}


def is_worker(pid: int) -> bool:
    """Return whether a process is a worker, or was started by one."""
    return any(each.startswith("DECEMBER_WORKER_ID=") for each in environment_of(pid))


def _uses(pid: int, pipes: Path) -> bool:
    return f"{PIPES}={pipes}" in environment_of(pid)
