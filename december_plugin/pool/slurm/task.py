"""One task of a Slurm array on its node: the supervisor of a pool, with the GPUs that Slurm gave it.

submitit starts it, and submitit's reaction to USR2 (save the task again, ``scontrol requeue``, exit) puts it back into
the queue. The order matters: while the pool runs, the supervisor handles the signals, so that the workers checkpoint
and release their jobs first; the task is requeued when they are done.

==============================  ============================================================================
what Slurm does                 what the task does after its workers have checkpointed and released
==============================  ============================================================================
USR2 before the time limit      it is still running: it requeues itself
SIGTERM with a grace time       the same
SIGTERM: preempted, requeued    nothing: Slurm has put it back into the queue already, and ends it
SIGTERM: cancelled (scancel)    nothing: it is not supposed to come back
==============================  ============================================================================
"""

from __future__ import annotations

import dataclasses
import logging
import os
import platform
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

from december_plugin.errors import DecemberError, SettingsError

logger = logging.getLogger(__name__)

INTERRUPTED = (128 + signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGUSR2)  # exit codes: 130, 143, 140
REQUEUE_ATTEMPTS = 12  # a busy controller does not answer at once
REQUEUE_PAUSE = 5.0  # seconds
COMMAND_TIMEOUT = 30.0  # seconds


@dataclass(frozen=True)
class PoolTask:
    """A callable for submitit: one task of the array.

    Parameters
    ----------
    settings
        A :class:`december_plugin.pool.supervisor.supervisor.PoolSettings`; it contains no secrets, because it is
        written to a file.
    only_host
        The only host on which the database can be reached, if it is one that listens on the loopback interface.
    server
        The lab's database server; empty for the embedded one.
    """

    settings: Any
    only_host: str = ""
    server: str = ""

    def __call__(self) -> int:
        """Run the pool until nothing is left; if Slurm ends it earlier, make sure that the task comes back."""
        from december_plugin.pool.notifications.target import notification_target
        from december_plugin.pool.supervisor.supervisor import run_pool

        on_usr2 = signal.getsignal(signal.SIGUSR2)  # submitit's; the supervisor sets its own
        try:
            self._check_node()
            code = int(run_pool(self._settings_of_start(), notify=notification_target()))
        except DecemberError as error:
            sys.exit(f"error: {error}")
        if code in INTERRUPTED and is_still_running():
            requeue(on_usr2)
        if code:
            sys.exit(code)  # so that Slurm's accounting shows failures, too
        return code

    def checkpoint(self) -> Any:
        """Return what submitit starts after the requeue: the same task. The workers keep their own checkpoints."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)

    def _check_node(self) -> None:
        from december_plugin.database.lab_settings import lab_settings

        if self.only_host and platform.node() != self.only_host:
            raise SettingsError(
                f"this task runs on {platform.node()}, but the database listens only on {self.only_host}. Configure a "
                "server that all nodes reach (DJ_HOST, or database.host in DataJoint's settings), then submit again."
            )
        if self.server and lab_settings() is None:  # otherwise an embedded database would be started here
            raise SettingsError(
                f"no settings for the database server {self.server} are found on {platform.node()}. Put them into "
                "~/.datajoint_config.json in a home folder that all nodes see, or let sbatch pass the environment on "
                "(no --export=NONE, no SBATCH_EXPORT=NONE), then submit again."
            )

    def _settings_of_start(self) -> Any:
        """Return the settings of this start: of all starts of all tasks, only the first tries failed jobs again."""
        is_first = os.environ.get("SLURM_ARRAY_TASK_ID", "0") == os.environ.get("SLURM_RESTART_COUNT", "0") == "0"
        return self.settings if is_first else dataclasses.replace(self.settings, retry=False)


def job_state() -> str:
    """Return what Slurm says about the job of this process: RUNNING, COMPLETING, ...; empty if it does not answer."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    # One task of an array has the number of the whole array.
    job = f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"]
    words = ["scontrol", "show", "job", "--oneliner", job]
    try:
        answer = subprocess.run(words, capture_output=True, text=True, timeout=COMMAND_TIMEOUT, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        logger.warning("Slurm does not report the state of this task (%s)", error)
        return ""
    fields = dict(field.split("=", 1) for field in answer.split() if "=" in field)
    return fields.get("JobState", "")


def is_still_running() -> bool:
    """Return whether Slurm leaves this task alone, so that it has to requeue itself in order to come back."""
    for _ in range(REQUEUE_ATTEMPTS):
        state = job_state()
        if state:
            return state == "RUNNING"
        time.sleep(REQUEUE_PAUSE)
    return True


def requeue(on_usr2: Any) -> None:
    """Let submitit requeue this task, which ends the process.

    Parameters
    ----------
    on_usr2
        The handler that submitit had set for the signal.

    Raises
    ------
    subprocess.SubprocessError, OSError
        Slurm's controller did not answer for a minute.
    """
    # Slurm ends the task with SIGTERM while the requeue is still in progress.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for attempt in range(1, REQUEUE_ATTEMPTS + 1):
        try:
            on_usr2(signal.SIGUSR2, None)
            return
        except (OSError, subprocess.SubprocessError) as error:
            if attempt == REQUEUE_ATTEMPTS:
                raise
            logger.warning("the task could not be requeued (%s); trying again in %g s", error, REQUEUE_PAUSE)
            time.sleep(REQUEUE_PAUSE)
