"""The options of ``december pool --slurm``, and what they do."""

from __future__ import annotations

import argparse
import dataclasses
import json
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from december_plugin.errors import SettingsError

if TYPE_CHECKING:
    from december_plugin.pool.slurm.array import ArraySettings

DEFAULT_TIME = "12:00:00"
DEFAULT_IDLE_EXIT = 60.0  # a task without work gives its GPU back (s)

# Options, as in args, that mean nothing without --slurm.
ONLY_SLURM = {
    "workers": "--workers",
    "gpus_per_worker": "--gpus-per-worker",
    "partition": "--partition",
    "time": "--time",
    "account": "--account",
    "qos": "--qos",
    "cpus_per_worker": "--cpus-per-worker",
    "mem": "--mem",
    "constraint": "--constraint",
    "slurm_option": "--slurm-option",
    "folder": "--folder",
}


def add_slurm_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--slurm`` and what is asked of Slurm; those left out are None."""
    group = parser.add_argument_group(
        "on a Slurm cluster",
        "Submits an array whose tasks keep workers running on the GPUs that Slurm gives them. A task that is "
        "preempted, or whose time is over, checkpoints, frees its jobs and goes back into the queue, until nothing is "
        "left to do.",
    )
    group.add_argument("--slurm", action="store_true", help="submit to Slurm instead of starting workers here")
    group.add_argument("--workers", type=int, metavar="N", help="tasks of the array")
    group.add_argument(
        "--gpus-per-worker",
        type=int,
        metavar="N",
        help="GPUs of each task, with a worker on each (default: 1; 0 for a worker on the processor)",
    )
    group.add_argument("--partition", metavar="NAME", help="partition (default: the cluster's)")
    group.add_argument("--time", metavar="LIMIT", help=f"time limit of a task, as for sbatch (default: {DEFAULT_TIME})")
    group.add_argument("--cpus-per-worker", type=int, metavar="N", help="processor cores of each task")
    group.add_argument("--mem", metavar="SIZE", help="memory of each task, such as 32G")
    group.add_argument("--account", metavar="NAME", help="account to charge")
    group.add_argument("--qos", metavar="NAME", help="quality of service")
    group.add_argument("--constraint", metavar="FEATURES", help="features that a node must have")
    group.add_argument(
        "--slurm-option",
        action="append",
        metavar="KEY=VALUE",
        help="any other option of sbatch, such as gres=gpu:a100:1 or exclude=node7; may be given several times",
    )
    group.add_argument(
        "--folder",
        type=Path,
        metavar="FOLDER",
        help="for scripts and logs; all nodes must see it (default: slurm in december's folder)",
    )


def check_without_slurm(args: argparse.Namespace) -> None:
    """Raise a :class:`SettingsError` if options of Slurm are given for a pool on this machine."""
    given = [option for name, option in ONLY_SLURM.items() if getattr(args, name) is not None]
    if given:
        raise SettingsError(
            f"{given[0]} is an option for Slurm. Add --slurm to submit to a cluster, or leave {given[0]} out for a "
            "pool on this machine."
        )


def array_settings(args: argparse.Namespace) -> ArraySettings:
    """Return what the options ask of Slurm.

    Raises
    ------
    SettingsError
        If ``--workers`` is missing, a value is not allowed, or an option is given that only a pool on this machine has.
    """
    from december_plugin.pool.slurm.array import ArraySettings, parse_time

    if args.workers is None:
        raise SettingsError("--slurm needs --workers N, the number of tasks of the array.")
    for name in ("gpus", "cpu"):
        if getattr(args, name, None) is not None:
            instead = "Use --gpus-per-worker N" + (" (0 for the processor)." if name == "cpu" else ".")
            raise SettingsError(
                f"--{name} is for a pool on this machine; Slurm chooses from what you ask for. {instead}"
            )
    return ArraySettings(
        workers=args.workers,
        gpus_per_worker=1 if args.gpus_per_worker is None else args.gpus_per_worker,
        minutes=parse_time(args.time or DEFAULT_TIME),
        partition=args.partition,
        account=args.account,
        qos=args.qos,
        cpus_per_worker=args.cpus_per_worker,
        mem=args.mem,
        constraint=args.constraint,
        options=tuple(_pair(text) for text in args.slurm_option or ()),
        folder=args.folder,
    )


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    key = key.strip().lstrip("-").replace("_", "-")
    if not equals or not key:
        raise SettingsError(f"--slurm-option is {text!r}; it must be KEY=VALUE, such as exclude=node7.")
    return key, value


def submit(args: argparse.Namespace, settings: Any) -> int:
    """Submit the array that the options describe, announce it as a pool, and say where everything is.

    Parameters
    ----------
    args
        With the options of :func:`add_slurm_options`.
    settings
        A ``PoolSettings`` for the supervisor of each task; its tables exist.

    Returns
    -------
    int
        The exit code, 0.

    Raises
    ------
    SettingsError
        An option is missing or not allowed, or the nodes would not reach the database.
    SlurmError
        Slurm or submitit is missing, or sbatch refuses.
    """
    from december_plugin.database.lab_settings import lab_settings
    from december_plugin.pool.slurm.array import array_folder, check_credentials, check_reach, check_slurm, submit_array
    from december_plugin.pool.slurm.task import PoolTask

    array = array_settings(args)
    check_slurm()
    lab = lab_settings()
    if lab is not None:
        check_credentials()
    only_host = check_reach(array, host=None if lab is None else lab.host)
    settings = _settings_on_nodes(settings, array)
    task = PoolTask(settings, only_host, "" if lab is None else lab.address)
    job = submit_array(array, task, pool_id=settings.pool_id)
    _announce(array, settings, job)
    each = f"{array.gpus_per_worker} GPU{'s' * (array.gpus_per_worker > 1)}" if array.gpus_per_worker else "no GPU"
    print(f"Submitted job {job} to Slurm: {array.workers} tasks with {each} each (pool {settings.pool_id[:8]}).")
    print(f"Logs: {array_folder(array, settings.pool_id)}")
    print("See `december pool status`; end it with `december pool stop`.")
    return 0


def _settings_on_nodes(settings: Any, array: ArraySettings) -> Any:
    """Return the settings of the supervisors on the nodes."""
    return dataclasses.replace(
        settings,
        pool_id=uuid.uuid4().hex,
        # By number: fewer GPUs than were asked for are an error, and not a worker on the processor.
        gpus=tuple(range(array.gpus_per_worker)) or None,
        cpu=None if array.gpus_per_worker else 1,
        idle_exit=DEFAULT_IDLE_EXIT if settings.idle_exit is None else settings.idle_exit,
    )


def _announce(array: ArraySettings, settings: Any, job: str) -> None:
    """Write the pool's row; without it nobody could stop the array, so it is cancelled if that fails."""
    from december_plugin.database.connection import connect
    from december_plugin.pool.jobs.records import PoolRecords
    from december_plugin.pool.slurm.array import cancel_all

    try:
        PoolRecords(connect().connection, settings.schema).add_pool(
            settings.pool_id,
            kind="slurm",
            n_workers=array.workers * (array.gpus_per_worker * settings.workers_per_gpu or 1),
            options=json.dumps({"slurm": array.parameters(), **json.loads(settings.options())}),
            slurm_job=job,
        )
    except BaseException:
        cancel_all(job)
        raise
