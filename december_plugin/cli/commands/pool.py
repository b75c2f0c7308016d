"""``december pool``: keeps workers running, on this machine or on a cluster."""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from december_plugin.cli.commands import Subparsers
from december_plugin.cli.options import add_lab_options, open_lab_of
from december_plugin.cli.slurm_options import add_slurm_options, check_without_slurm
from december_plugin.cli.worker_options import add_work_options, positive, tensorboard_folder
from december_plugin.errors import SettingsError
from december_plugin.text.formatting import numbered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from december_plugin.pool.liveness import PoolStatus, WorkerStatus
    from december_plugin.pool.notifications.target import NotificationTarget
    from december_plugin.pool.supervisor.supervisor import PoolSettings
    from december_plugin.schemas.lab import Lab

ALL = "all"
OVER = "ended"  # of an array
ACTIONS = ("start", "status", "stop")
# Options, as in args, that mean nothing for the other actions.
OF_ACTION = {"pool": ("stop",), "now": ("stop",), "json": ("status",), "dry_run": ("start",), "slurm": ("start",)}
OF_ACTION |= {"notify": ("start",)}

DESCRIPTION = """\
Keeps workers running: one on each GPU of this machine, or as many as you ask Slurm for. A worker that dies is started
again and its job is free at once; a job that keeps killing its workers is given up. The pool runs until you stop it,
even while there is nothing to do, so you can register more at any time. Press Ctrl-C (or send SIGTERM) once, and the
workers save their states, give their jobs back and end; twice, and they are killed.

`december pool stop` stops all pools of these tables on any machine, `december pool status` shows them.
"""
EPILOG = """\
examples:
  december pool                                 a worker on each GPU
  december pool --dry-run                       what would run, and where
  december pool --gpus 0,2 --workers-per-gpu 2  two workers on each of these
  december pool --gpus GPU-5f2c,GPU-91d0        these cards, whatever their numbers are
  december pool --cpu 4                         four workers on the processor
  december pool --gpus all --cpu 2              two more, for everything that needs no GPU
  december pool --idle-exit 600                 end after ten minutes with nothing to do
  december pool --notify file:webhook.txt       tell a chat what failed, and when all is done
  december pool --slurm --workers 8 --partition gpu --time 12:00:00
  december pool status
  december pool stop

exit codes: 0 done, or asked to stop; 1 the workers cannot work with these settings; 3 as 0, but some jobs failed or are
poisoned (`december status` says why); 130, 143, 140, 129 ended by SIGINT (Ctrl-C), SIGTERM, SIGUSR2, SIGHUP
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``december pool``."""
    parser = subparsers.add_parser(
        "pool", help="keep workers running on each GPU, or on a cluster", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument(
        "action", nargs="?", choices=ACTIONS, default="start", metavar="ACTION", help="start (default), status, stop"
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would run, and start nothing")
    parser.add_argument("--json", action="store_true", help="status: print JSON")
    parser.add_argument("--pool", metavar="ID", help="stop: only the pool whose id begins with this (default: all)")
    parser.add_argument(
        "--now", action="store_true", help="stop: kill the workers; jobs continue from their checkpoints"
    )
    add_place_options(parser)
    add_work_options(parser)
    add_notification_option(parser)
    add_slurm_options(parser)
    add_lab_options(parser)


def add_place_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for the places of workers on this machine, for ``pool`` and ``run``."""
    group = parser.add_argument_group("on this machine")
    group.add_argument(
        "--gpus",
        type=_gpus,
        metavar="LIST",
        help="which GPUs, such as 0,2, counted within CUDA_VISIBLE_DEVICES if that is set, or the beginnings of their "
        "UUIDs, as --dry-run shows them (default: all)",
    )
    group.add_argument(
        "--workers-per-gpu",
        type=positive,
        default=1,
        metavar="N",
        help="workers per GPU, each with an equal share of its memory (default: 1)",
    )
    group.add_argument(
        "--mps",
        choices=("auto", "on", "off"),
        default="auto",
        help="let the workers of one GPU compute in parallel, through NVIDIA's MPS, rather than in turns: auto (the "
        "default) if MPS is available; on, which does not start without it; off",
    )
    group.add_argument(
        "--cpu",
        type=_number,
        metavar="N",
        help="workers on the processor, instead of GPUs; with --gpus, in addition to GPUs, for jobs that need none",
    )
    group.add_argument(
        "--log-folder", type=Path, metavar="FOLDER", help="where to write logs (default: december's folder)"
    )


def add_notification_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--notify``, for ``pool``, ``run`` and ``worker``."""
    group = parser.add_argument_group("notifications")
    group.add_argument(
        "--notify",
        metavar="URL|COMMAND",
        help="notify a webhook (Slack, Mattermost, Discord, ...) or a command when jobs failed or are poisoned, when "
        "nothing is left to do, and when workers need attention. Others on this machine can see an address that is "
        "given here: file:PATH reads it from a file (default: DECEMBER_NOTIFY, or december.notify in DataJoint's "
        "configuration, or none)",
    )


def notification_target_of(args: argparse.Namespace) -> NotificationTarget | None:
    """Return whom to notify, according to the option or a setting."""
    from december_plugin.pool.notifications.target import notification_target

    return notification_target(args.notify)


def _gpus(text: str) -> tuple[int | str, ...] | str:
    if text == ALL:
        return ALL
    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        if not word.isdecimal() and not word.startswith(("GPU-", "MIG-")):
            raise argparse.ArgumentTypeError(
                f"{word!r} is neither the number of a GPU nor a UUID. Give numbers such as 0,2, UUIDs (GPU-..., "
                "MIG-...), or all"
            )
    if not words:
        raise argparse.ArgumentTypeError("the list is empty. Give numbers such as 0,2, or all")
    return tuple(int(word) if word.isdecimal() else word for word in words)


def _number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Start, show or stop pools."""
    for name, actions in OF_ACTION.items():
        if getattr(args, name) and args.action not in actions:
            option = f"--{name.replace('_', '-')}"
            raise SettingsError(f"{option} is for `december pool {actions[0]}`; leave it out of {args.action!r}.")
    if args.action == "status":
        return _status(args)
    if args.action == "stop":
        from december_plugin.pool.stopping import stop_pools

        lab = open_lab_of(args, read_only=True)
        return stop_pools(lab.tables.schema.connection, lab.schema, beginning=args.pool, now=args.now)
    if not args.slurm:
        check_without_slurm(args)
    if args.dry_run:
        return _dry_run(args)
    return _submit(args) if args.slurm else _start(args)


# ---- start


def settings_of(args: argparse.Namespace, schema: str) -> PoolSettings:
    """Return the settings of the pool that the options describe.

    Parameters
    ----------
    args
        The options.
    schema
        Name of the schema of december's tables.
    """
    from december_plugin.pool.supervisor.gpus import visible_gpus
    from december_plugin.pool.supervisor.mps import check_mps
    from december_plugin.pool.supervisor.supervisor import PoolSettings

    check_mps(args.mps, args.workers_per_gpu)
    gpus = args.gpus
    if gpus == ALL:
        gpus = tuple(range(max(1, visible_gpus().n_groups)))  # without any, the error says so
    return PoolSettings(
        schema=schema,
        nnfabrik=args.nnfabrik,
        gpus=gpus,
        workers_per_gpu=args.workers_per_gpu,
        mps=args.mps,
        cpu=args.cpu,
        only=args.only,
        skip=args.skip,
        lease=args.lease,
        checkpoint_every=args.checkpoint_every,
        data_cache=args.data_cache,
        max_attempts=args.max_attempts,
        idle_exit=args.idle_exit,
        max_time=args.max_time,
        retry=args.retry,
        allow_modules=args.allow_modules,
        log_folder=args.log_folder,
        tensorboard=tensorboard_folder(args),
    )


def _start(args: argparse.Namespace) -> int:
    from december_plugin.database.connection import has_connected
    from december_plugin.database.outages import with_server
    from december_plugin.pool.supervisor.supervisor import print_event, run_pool

    def on_outage(error: BaseException) -> None:
        print_event("pool", f"waiting: {error}")

    environment, lab = with_server(lambda: open_for_workers(args), waits=has_connected, on_outage=on_outage)
    settings = settings_of(args, lab.schema)
    chosen_tables(lab, settings)
    return run_pool(settings, environment=environment, notify=notification_target_of(args))


def _submit(args: argparse.Namespace) -> int:
    from december_plugin.cli.slurm_options import array_settings
    from december_plugin.pool.slurm.submission import submit

    if args.notify is not None:
        raise SettingsError(
            "--notify is for a pool on this machine: its value would be in files that Slurm keeps. Set december.notify "
            "in DataJoint's configuration, which the nodes read, or DECEMBER_NOTIFY in the environment."
        )
    notification_target_of(args)  # a mistake in the settings is found now and not on the nodes
    lab = open_lab_of(args)
    settings = settings_of(args, lab.schema)
    chosen_tables(lab, settings)
    return submit(array_settings(args), settings)


def chosen_tables(lab: Lab, settings: PoolSettings) -> list[str]:
    """Return the names of the tables to fill; names that no worker could use are errors before anything starts."""
    from december_plugin.pool.jobs.queue import choose_tables
    from december_plugin.security.allowed_modules import AllowedModules

    AllowedModules.from_settings(settings.allow_modules)
    return [table.__name__ for table in choose_tables(lab.tables, only=settings.only, skip=settings.skip)]


def open_for_workers(args: argparse.Namespace, *, create: bool = False) -> tuple[dict[str, str], Lab]:
    """Open the tables; return with them the workers' environment: no password can be typed there."""
    from december_plugin.importing.datajoint import quiet_datajoint

    dj = quiet_datajoint()
    names = {"database.user": "DJ_USER", "database.password": "DJ_PASS"}
    missing = [name for name in names if dj.config[name] is None]
    lab = open_lab_of(args, create=create)
    typed = {names[name]: dj.config[name] for name in missing if dj.config[name] is not None and not lab.is_embedded}
    return {**os.environ, **typed}, lab


# ---- dry run


def _dry_run(args: argparse.Namespace) -> int:
    from december_plugin.database.connection import database_session
    from december_plugin.pool.status.overview import read_overview

    with database_session():
        lab = open_lab_of(args)
        settings = settings_of(args, lab.schema)
        chosen = chosen_tables(lab, settings)
        counts = {table.table: table for table in read_overview(lab.tables).tables}
        n_planned = len(lab.tables.TrainingPlan())
    print(f"schema {lab.schema}, {numbered(n_planned, 'training')} planned\n")
    print(f"{'table':<20}{'to do':>8}{'running':>9}{'done':>8}{'failed':>8}")
    n_failed = {name: counts[name].failed + counts[name].poisoned for name in chosen}
    for name in chosen:
        table = counts[name]
        print(f"{name:<20}{table.waiting:>8}{table.running:>9}{table.done:>8}{n_failed[name]:>8}")
    if left_out := [name for name in counts if name not in chosen]:
        print(f"left out: {', '.join(left_out)}")
    if "TrainedModel" in chosen and counts["TrainedModel"].waiting:
        print("The tables after TrainedModel get more to do as models are trained.")
    if n := sum(n_failed.values()):
        print(f"{n} failed jobs are " + ("tried again." if settings.retry else "left alone; --retry tries again."))
    if args.slurm:
        _print_array(args)
    else:
        _print_places(settings)
    if (target := notification_target_of(args)) is not None:
        print(f"\nNotifications go to {target.name}.")
    print("\nNothing was started.")
    return 0


def _print_array(args: argparse.Namespace) -> None:
    from december_plugin.cli.slurm_options import array_settings

    array = array_settings(args)
    print(f"\nA Slurm array of {array.workers} tasks, each of which requests:")
    for name, value in array.parameters().items():
        print(f"  {name:<22}{value}")


def _print_places(settings: PoolSettings) -> None:
    from december_plugin.pool.supervisor.gpus import visible_gpus
    from december_plugin.pool.supervisor.mps import plan_mps
    from december_plugin.pool.supervisor.settings import log_folder_of, notice, sharing_in_words, slots_of

    visible = visible_gpus()
    places = slots_of(settings, visible)
    surprises = (notice(settings, visible, places), sharing_in_words(places), plan_mps(settings.mps, places).words)
    print(f"\n{'; '.join([numbered(len(places), 'worker'), *filter(None, surprises)])}")
    folder = log_folder_of(settings, "ID")
    rows = [
        (
            slot.name,
            slot.gpu.description if slot.gpu is not None else "",
            f"CUDA_VISIBLE_DEVICES={slot.environment()['CUDA_VISIBLE_DEVICES']}",
        )
        for slot in places
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for slot, row in zip(places, rows, strict=True):
        cells = (f"{cell:<{width}}  " if width else "" for cell, width in zip(row, widths, strict=True))
        print(f"  {''.join(cells)}log {folder / slot.file_name}.log")


# ---- status


def _status(args: argparse.Namespace) -> int:
    from december_plugin.pool.jobs.records import PoolRecords
    from december_plugin.text.formatting import format_age

    lab = open_lab_of(args, read_only=True)
    records = PoolRecords(lab.tables.schema.connection, lab.schema)
    found = records.pools()
    arrays, problem = slurm_words(found)
    for pool in found:
        if _is_over(pool, arrays.get(pool.pool_id)):  # no task of an array knows that it was the last one
            with suppress(Exception):  # an account that may only read cannot note it
                records.end_pool(pool.pool_id)
    if args.json:
        print(json.dumps([_as_json(pool, arrays.get(pool.pool_id)) for pool in found], indent=2))
        return 0
    if not found:
        print(f"No pool is running in the schema {lab.schema}.")
    for pool in found:
        line = f"pool {pool.pool_id[:8]}: {pool.description}; {len(pool.alive)} of {pool.n_workers} workers alive"
        if pool.pool_id in arrays:
            line += f"; Slurm: {arrays[pool.pool_id]}"
        if pool.stop_requested:
            line += "; asked to stop"
        if pool.supervisor_is_gone:
            line += "; its supervisor is gone; `december pool stop` ends what is left"
        print(line)
        for worker in pool.workers:
            if not worker.has_ended:
                gpu = f"; {worker.gpu_description}" if worker.gpu_description else ""
                print(f"  {worker.name}: {worker.activity}; heartbeat {format_age(worker.heartbeat_age)} ago{gpu}")
    if problem:
        print(problem, file=sys.stderr)
    return 0


def slurm_words(pools: Sequence[PoolStatus]) -> tuple[dict[str, str], str]:
    """Return the state of the Slurm arrays among these pools by pool, in words, and why there may be none."""
    if not any(pool.slurm_job for pool in pools):
        return {}, ""
    from december_plugin.pool.slurm.array import SlurmError, slurm_status

    try:
        return {pool_id: status.words() for pool_id, status in slurm_status(pools).items()}, ""
    except SlurmError as error:
        return {}, f"Slurm: {error}"


def _is_over(pool: PoolStatus, array: str | None) -> bool:
    from december_plugin.pool.jobs.records import user_name

    # Slurm was asked only about the user's own jobs.
    return array == OVER and not pool.alive and pool.user == user_name()


def _as_json(pool: PoolStatus, array: str | None) -> dict[str, Any]:
    return {
        "pool_id": pool.pool_id,
        "pool_kind": pool.kind,
        "pool_host": pool.host,
        "pool_pid": pool.pid,
        "pool_user": pool.user,
        "slurm_job": pool.slurm_job,
        "n_workers": pool.n_workers,
        "pool_options": pool.options,
        "stop_requested": pool.stop_requested,
        "age": round(pool.age, 1),
        "supervisor_is_gone": pool.supervisor_is_gone,
        "slurm": array,
        "workers": [_worker_as_json(worker) for worker in pool.workers],
    }


def _worker_as_json(worker: WorkerStatus) -> dict[str, Any]:
    return {
        "worker_id": worker.worker_id,
        "pool_id": worker.pool_id,
        "worker_host": worker.host,
        "worker_pid": worker.pid,
        "worker_gpu": worker.gpu,
        "gpu_name": worker.gpu_name,
        "gpu_memory": worker.gpu_memory,
        "gpu_workers": worker.gpu_workers,
        "worker_state": worker.state,
        "worker_detail": worker.detail,
        "lease": worker.lease,
        "job_table": worker.job_table,
        "job_hash": worker.job_hash,
        "job_epoch": worker.epoch,
        "job_n_epochs": worker.n_epochs,
        "job_seconds_left": worker.seconds_left,
        "heartbeat_age": round(worker.heartbeat_age, 1),
        "alive": worker.alive,
    }
