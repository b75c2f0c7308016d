"""Pools on a cluster: a Slurm array whose tasks run the supervisor of a pool, submitted through submitit.

No file given to Slurm contains a secret: neither the script nor the pickled settings has a password. Workers read
DataJoint's settings on their node, as everywhere: its configuration file, or the environment, which ``sbatch`` passes
on by default.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from december_plugin.errors import DecemberError, SettingsError
from december_plugin.pool.liveness import PoolStatus
from december_plugin.pool.notifications.target import VARIABLE as NOTIFY
from december_plugin.pool.slurm.task import PoolTask
from december_plugin.pool.supervisor.settings import made_log_folder
from december_plugin.storage.home import december_home
from december_plugin.text.formatting import listed

FOREVER = 1_000_000  # requeues: a time limit never ends a sweep
SIGNAL_DELAY = 90  # the workers' notice before the time limit (s); they need 10
COMMAND_TIMEOUT = 60.0  # seconds
# What submitit, or this module, sets.
OWN_OPTIONS = ("array", "error", "job-name", "open-mode", "output", "requeue", "signal", "wrap")
GPU_OPTIONS = ("gpus", "gpus-per-node", "gpus-per-task", "gres")
# [days-]hours:minutes:seconds and its short forms, as sbatch takes them
TIME = re.compile(r"(?:(?P<days>\d+)-(?P<of_day>\d+(?::\d+){0,2})|(?P<plain>\d+(?::\d+){0,2}))")


class SlurmError(DecemberError, RuntimeError):
    """Slurm or submitit is missing, or Slurm refuses."""


@dataclass(frozen=True)
class ArraySettings:
    """What to request from Slurm. None leaves it to the site's defaults.

    Attributes
    ----------
    workers
        Tasks of the array.
    gpus_per_worker
        GPUs of each task, which keeps a worker running on each; 0 for one worker on the processor.
    minutes
        Time limit of a task, after which it is requeued.
    options
        Further options of sbatch, as (name, value).
    folder
        For scripts, pickled settings and logs; all nodes must see it. None uses one in december's folder.
    """

    workers: int
    gpus_per_worker: int = 1
    minutes: int = 720
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    cpus_per_worker: int | None = None
    mem: str | None = None
    constraint: str | None = None
    options: tuple[tuple[str, str], ...] = ()
    folder: Path | None = None

    def __post_init__(self) -> None:
        for name, minimum in (("workers", 1), ("gpus_per_worker", 0), ("minutes", 1)):
            if getattr(self, name) < minimum:
                option = "--time" if name == "minutes" else f"--{name.replace('_', '-')}"
                raise SettingsError(f"{option} is {getattr(self, name)}; it must be at least {minimum}.")
        for key, value in self.options:
            if key in OWN_OPTIONS:
                raise SettingsError(f"--slurm-option {key}: december sets this option of sbatch itself. Leave it out.")
            check_plain(f"--slurm-option {key}", value)
        for name in ("partition", "account", "qos", "mem", "constraint"):
            check_plain(f"--{name}", getattr(self, name) or "")

    def parameters(self) -> dict[str, Any]:
        """Return the parameters of submitit's executor."""
        own_gpus = any(key in GPU_OPTIONS for key, _ in self.options)
        # submitit converts its own mem; sbatch understands the user's.
        further: dict[str, Any] = {"requeue": True, **({"mem": self.mem} if self.mem else {}), **dict(self.options)}
        found = {
            "job_name": "december",
            "time": self.minutes,
            "nodes": 1,
            "ntasks_per_node": 1,
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "cpus_per_task": self.cpus_per_worker,
            "gpus_per_node": self.gpus_per_worker if self.gpus_per_worker and not own_gpus else None,
            "array_parallelism": self.workers,
            # The signal comes up to a minute early; half the limit remains for the work.
            "signal_delay_s": min(SIGNAL_DELAY, 30 * self.minutes),
            "additional_parameters": further,
            # Since Slurm 22.05, srun does not inherit this from sbatch.
            "srun_args": [f"--cpus-per-task={self.cpus_per_worker}"] if self.cpus_per_worker else None,
        }
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class ArrayStatus:
    """How many tasks of an array wait, run, and wait again after a requeue; if all are 0, it has ended."""

    pending: int = 0
    running: int = 0
    requeued: int = 0
    reasons: tuple[str, ...] = ()  # why tasks wait, in Slurm's words

    @property
    def is_over(self) -> bool:
        """Whether no task is left."""
        return not (self.pending or self.running or self.requeued)

    def words(self) -> str:
        """Return the numbers in words, as ``december pool status`` prints them."""
        if self.is_over:
            return "ended"
        parts = [f"{self.running} running"] if self.running else []
        parts += [f"{self.pending} pending"] if self.pending else []
        parts += [f"{self.requeued} requeued"] if self.requeued else []
        return ", ".join(parts) + (f" ({', '.join(self.reasons)})" if self.reasons else "")


# ---- submission


def parse_time(text: str) -> int:
    """Return a time limit as sbatch takes it, such as ``12:00:00``, ``2-12`` or ``90``, in minutes, rounded up.

    Raises
    ------
    SettingsError
        If it is none.
    """
    match = TIME.fullmatch(text)
    if match is None:
        raise SettingsError(
            f"--time is {text!r}; it must be minutes, minutes:seconds, hours:minutes:seconds, days-hours, "
            "days-hours:minutes or days-hours:minutes:seconds."
        )
    if match["days"] is not None:  # hours first
        hours, minutes, seconds = ([int(part) for part in match["of_day"].split(":")] + [0, 0])[:3]
        return math.ceil((int(match["days"]) * 24 + hours) * 60 + minutes + seconds / 60)
    parts = [int(part) for part in match["plain"].split(":")]
    hours, minutes, seconds = parts if len(parts) == 3 else (0, *parts, 0)[:3]
    return math.ceil(hours * 60 + minutes + seconds / 60)


def check_plain(option: str, value: str) -> None:
    """Refuse text that would not fit on one line of the script, and passwords that this process knows."""
    from december_plugin.security.redaction import redacted

    if any(not character.isprintable() for character in value):
        raise SettingsError(f"{option} is {value!r}; it must be printable and on one line.")
    if redacted(value) != value:
        raise SettingsError(
            f"{option} contains a password, which others could read in Slurm's job script. Leave it out: workers read "
            "passwords from DataJoint's settings on their node."
        )


def check_slurm() -> ModuleType:
    """Return submitit, after checking that it and Slurm's commands are available.

    Raises
    ------
    SlurmError
        If one is missing; the message says which.
    """
    missing = [name for name in ("sbatch", "srun", "squeue", "scancel", "scontrol") if shutil.which(name) is None]
    if missing:
        raise SlurmError(
            f"{listed(missing)} cannot be found, so Slurm jobs cannot be submitted from this machine. Log in to "
            "one where they can, or leave --slurm out for a pool on this machine."
        )
    try:
        import submitit
    except ImportError as error:
        raise SlurmError(
            f"submitit, which submits to Slurm, cannot be imported ({error}): pip install 'december-plugin[slurm]'."
        ) from None
    return submitit


def submit_array(settings: ArraySettings, task: PoolTask, *, pool_id: str) -> str:
    """Submit the array and return its job id.

    Parameters
    ----------
    settings
        What is asked of Slurm.
    task
        What each task runs.
    pool_id
        Names the folder of this array.

    Raises
    ------
    SlurmError
        Slurm or submitit is missing, or sbatch refuses; the message quotes it.
    """
    submitit = check_slurm()
    folder = made_log_folder(
        array_folder(settings, pool_id),
        "the folder {folder} for the array's logs cannot be created ({reason}). Name another one, which all nodes see, "
        "with --folder.",
    )
    executor = submitit.SlurmExecutor(folder, max_num_timeout=FOREVER)
    executor.update_parameters(**settings.parameters())
    said = io.StringIO()
    try:
        # submitit prints what sbatch says on top of raising it.
        with contextlib.redirect_stderr(said), executor.batch():
            jobs = [executor.submit(task) for _ in range(settings.workers)]
    except Exception as error:
        words = _words_of(str(error) or said.getvalue())
        raise SlurmError(
            f"sbatch refuses the pool: {words}{_partitions()} Correct the options, and try again."
        ) from None
    return str(jobs[0].job_id).split("_")[0]


def array_folder(settings: ArraySettings, pool_id: str) -> Path:
    """Return the folder for scripts, pickled settings and logs of one array."""
    parent = settings.folder if settings.folder is not None else december_home() / "slurm"
    # submitit replaces %j, %A, %a and %t in paths.
    if "%" in str(parent):
        raise SettingsError(f"--folder is {str(parent)!r}; it must not contain the character %.")
    return parent.expanduser().resolve() / pool_id[:12]


def check_reach(settings: ArraySettings, *, host: str | None) -> str:
    """Return the only host that the database serves; empty if it does not matter.

    Parameters
    ----------
    settings
        What is asked of Slurm.
    host
        Host of a lab's server, None for the embedded one.

    Raises
    ------
    SettingsError
        If the nodes could not reach the database.
    """
    from december_plugin.database.lab_settings import LOOPBACK

    if host is not None and host.split(":")[0] not in LOOPBACK:
        return ""
    here = platform.node()
    words = ["sinfo", "-h", "-N", "-o", "%n", *(["-p", settings.partition] if settings.partition else [])]
    others = sorted({name for name in _ask(words).split() if name.split(".")[0] != here.split(".")[0]})
    if others:
        listed = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        whose = "the embedded database" if host is None else f"the database server {host}"
        raise SettingsError(
            f"{whose} can be reached only on this machine ({here}), but the partition has other nodes ({listed}). "
            "Configure a server that all nodes reach (DJ_HOST, or database.host in DataJoint's settings; see `december "
            "db status`), and a store that they share."
        )
    return here


def check_credentials() -> None:
    """Check that the workers will find user name and password on their nodes, but Slurm's accounting will not.

    Raises
    ------
    SettingsError
        If a user was, or would be, prompted for one, or if Slurm stores the environment with the password.
    """
    stored = _configuration_file()
    for key, variable in (("user", "DJ_USER"), ("password", "DJ_PASS")):
        if not os.environ.get(variable) and not stored.get(f"database.{key}"):
            raise SettingsError(
                f"the workers on the nodes would not find the {key} of the database: put database.{key} into "
                f"~/.datajoint_config.json (readable by you alone: chmod 600), or set {variable} before you submit."
            )
    if os.environ.get("DJ_PASS") and "job_env" in _setting("AccountingStoreFlags"):
        raise SettingsError(
            "the password is in DJ_PASS, and this Slurm stores the environment of all jobs in its accounting database "
            "(AccountingStoreFlags has job_env). Put database.password into ~/.datajoint_config.json (chmod 600), "
            "which the workers read on their nodes, unset DJ_PASS, and try again."
        )
    if os.environ.get(NOTIFY) and "job_env" in _setting("AccountingStoreFlags"):
        raise SettingsError(
            "DECEMBER_NOTIFY may hold a secret, and this Slurm stores the environment of all jobs in its accounting "
            "database (AccountingStoreFlags has job_env). Put december.notify into ~/.datajoint_config.json (chmod "
            "600), unset DECEMBER_NOTIFY, and try again."
        )


def _configuration_file() -> Mapping[str, Any]:
    from december_plugin.importing.datajoint import CONFIG_FILES

    for name in CONFIG_FILES:
        path = Path(name).expanduser()
        if path.exists():
            with contextlib.suppress(OSError, ValueError):
                content = json.loads(path.read_text(encoding="utf-8"))
                return content if isinstance(content, dict) else {}
    return {}


def _setting(name: str) -> str:
    """Return a setting of Slurm's configuration; empty if Slurm does not say."""
    with contextlib.suppress(SlurmError):
        found = re.search(rf"^{name}\s*=\s*(.*)$", _ask(["scontrol", "show", "config"]), re.MULTILINE)
        return found[1] if found else ""
    return ""


def _partitions() -> str:
    """Return a sentence that lists the partitions; empty if Slurm does not say."""
    with contextlib.suppress(SlurmError):
        names = _ask(["sinfo", "-h", "-o", "%R"]).split()
        return f" The partitions are {', '.join(dict.fromkeys(names))}." if names else ""
    return ""


# ---- state of submitted arrays


def slurm_status(pools: Iterable[PoolStatus]) -> dict[str, ArrayStatus]:
    """Return the state of the arrays of these pools.

    Parameters
    ----------
    pools
        Those without a Slurm job are left out.

    Returns
    -------
    dict
        The status by ``pool_id``.

    Raises
    ------
    SlurmError
        Slurm's commands are not on this machine, or its controller does not answer.
    """
    pools = [pool for pool in pools if pool.slurm_job]
    if not pools:
        return {}
    jobs = {pool.slurm_job: pool.pool_id for pool in pools}
    users = ",".join(sorted({pool.user for pool in pools}))
    # All jobs of these users: with --jobs, one that Slurm has forgotten would be an error.
    fields = "ArrayJobID:|,State:|,RestartCnt:|,Reason:"
    lines = _ask(["squeue", "--noheader", "--array", f"--user={users}", f"--Format={fields}"]).splitlines()
    rows: dict[str, list[list[str]]] = {job: [] for job in jobs}
    for line in lines:
        job, state, restarts, reason = [part.strip() for part in line.split("|", 3)]
        if job in rows:
            rows[job].append([state, restarts, reason])
    return {jobs[job]: _status_of(found) for job, found in rows.items()}


def _status_of(rows: list[list[str]]) -> ArrayStatus:
    waiting = [row for row in rows if row[0] in ("PENDING", "CONFIGURING", "REQUEUED", "SUSPENDED")]
    requeued = [row for row in waiting if row[1] not in ("", "0")]
    reasons = dict.fromkeys(row[2] for row in waiting if row[2] not in ("", "None"))
    n_running = len(rows) - len(waiting)
    return ArrayStatus(len(waiting) - len(requeued), n_running, len(requeued), tuple(reasons))


def cancel_pending(slurm_job: str) -> bool:
    """Cancel the waiting tasks of an array, including requeued ones; running ones may finish.

    A task that is being requeued waits only after a moment, so call this again until the array is over.

    Parameters
    ----------
    slurm_job
        The array job; empty if there is none.

    Returns
    -------
    bool
        Whether there was an array that Slurm knows.

    Raises
    ------
    SlurmError
        Slurm's commands are not on this machine, or its controller does not answer.
    """
    return _cancel(slurm_job, "--state=PENDING")


def cancel_all(slurm_job: str) -> bool:
    """Cancel all tasks of an array; running workers get SIGTERM, checkpoint and release. Otherwise as above."""
    return _cancel(slurm_job)


def _cancel(slurm_job: str, *options: str) -> bool:
    if not slurm_job:
        return False
    try:
        _ask(["scancel", *options, slurm_job])
    except SlurmError as error:
        if "Invalid job id" in str(error):  # over, and forgotten
            return False
        raise
    return True


def _ask(words: list[str]) -> str:
    """Run one of Slurm's commands and return what it prints."""
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=COMMAND_TIMEOUT, check=False
        )
    except FileNotFoundError:
        raise SlurmError(
            f"{words[0]} cannot be found here; ask on a machine from which Slurm jobs can be submitted."
        ) from None
    except subprocess.TimeoutExpired:
        raise SlurmError(
            f"{words[0]} does not answer for {COMMAND_TIMEOUT:.0f} s. Try again when Slurm's controller does."
        ) from None
    if done.returncode != 0:
        raise SlurmError(f"{words[0]} says: {_words_of(done.stderr or done.stdout)}")
    return done.stdout


def _words_of(text: str) -> str:
    """Return the complaint of a Slurm command in one line."""
    lines = [re.sub(r"^\w+: (error|fatal): ", "", line).strip() for line in text.strip().splitlines()]
    words = "; ".join(line.rstrip(".") for line in lines if line)
    return f"{words or 'nothing'}."
