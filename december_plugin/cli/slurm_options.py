"""The options of ``december pool --slurm``, and what they request from Slurm."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from december_plugin.errors import SettingsError

if TYPE_CHECKING:
    from december_plugin.pool.slurm.array import ArraySettings

DEFAULT_TIME = "12:00:00"

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
    """Add ``--slurm`` and what is requested from Slurm; options that are left out are None."""
    group = parser.add_argument_group(
        "on a Slurm cluster",
        "Submits an array whose tasks keep workers running on the GPUs that Slurm gives them.\nA task that is "
        "preempted or reaches its time limit saves checkpoints, frees its jobs and returns\nto the queue, until "
        "nothing is left to do.",
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
    """Return what the options request from Slurm.

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
