"""``december worker``: fills the tables."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from december_plugin.cli.commands import Subparsers
from december_plugin.cli.commands.pool import add_notification_option, notification_target_of
from december_plugin.cli.options import add_lab_options, open_lab_of
from december_plugin.cli.worker_options import add_work_options, seconds, tensorboard_folder
from december_plugin.errors import ExitCode
from december_plugin.text.formatting import numbered

if TYPE_CHECKING:
    from december_plugin.cli.views.worker import WorkerConsole
    from december_plugin.pool import Worker, WorkerSettings
    from december_plugin.pool.notifications.target import NotificationTarget

Result = TypeVar("Result")

logger = logging.getLogger(__name__)

DESCRIPTION = """\
Fills the tables until nothing is left: trains the planned models, clusters their neurons, compares the seeds. Start as
many workers as you like, on as many machines; each job is held by one of them. `december pool` starts one for each GPU
and keeps them running. A job that fails is recorded with its reason, and the others continue. Ctrl-C, SIGTERM or
SIGUSR2 ends a worker: it saves the state of its training, and any worker can continue it.
"""
EPILOG = """\
examples:
  december worker                               until nothing is left
  CUDA_VISIBLE_DEVICES=1 december worker        on the second GPU
  december worker --poll 60                     never end; look for work every minute
  december worker --skip gpu                    what needs no GPU: summaries, clusters, agreement
  december worker --retry                       try failed jobs again
  december worker --notify file:webhook.txt     tell a chat what failed, and when all is done

exit codes: 0 nothing is left to do here, or asked to stop; 3 some jobs failed, now or earlier (`december status` says
why); 130, 143, 140 ended by SIGINT, SIGTERM, SIGUSR2; 75 the GPU broke down, 76 MPS did: start it again
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``december worker``."""
    parser = subparsers.add_parser(
        "worker", help="train, cluster and compare until nothing is left", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument("--poll", type=seconds, metavar="SECONDS", help="when nothing is left, wait and look again")
    parser.add_argument("--quiet", action="store_true", help="print failures only")
    add_work_options(parser)
    add_notification_option(parser)
    add_lab_options(parser)


def run(args: argparse.Namespace) -> int:
    """Work until nothing is left."""
    from december_plugin.cli.views.worker import WorkerConsole
    from december_plugin.security.redaction import RedactingFilter, redacted_output

    package = logging.getLogger("december_plugin")
    console = WorkerConsole(sys.stderr, quiet=args.quiet)
    console.addFilter(RedactingFilter())
    package.addHandler(console)
    package.setLevel(logging.ERROR if args.quiet else logging.INFO)
    try:
        with warnings.catch_warnings(), redacted_output():
            warnings.showwarning = lambda message, *_: logger.warning("warning: %s", message)
            return _work(args, console)
    finally:
        package.removeHandler(console)
        console.close()


def _work(args: argparse.Namespace, console: WorkerConsole) -> int:
    import faulthandler

    from december_plugin.database.default_store import configure_store
    from december_plugin.database.errors import readable_errors
    from december_plugin.errors import ServerUnreachableError
    from december_plugin.pool import Worker, WorkerSettings
    from december_plugin.pool.notifications.target import VARIABLE
    from december_plugin.pool.status.overview import read_overview
    from december_plugin.pool.worker.gpu import DeviceBrokenError, MpsLostError
    from december_plugin.security.allowed_modules import AllowedModules, restricted_to

    if not faulthandler.is_enabled():
        faulthandler.enable()  # a crash of native code then says where
    lab = _with_server(lambda: open_lab_of(args, read_only=_has_pool()))
    if _has_pool():  # the worker finds out whether it may wait for the store
        configure_store()
    # DataJoint, which sets its level when it is imported, prints the errors of jobs a second time.
    logging.getLogger("datajoint").setLevel(logging.CRITICAL)
    settings = WorkerSettings(
        lease=args.lease,
        checkpoint_every=args.checkpoint_every,
        max_attempts=args.max_attempts,
        only=args.only,
        skip=args.skip,
        poll=args.poll,
        idle_exit=args.idle_exit,
        max_time=args.max_time,
        retry=args.retry,
        data_cache=args.data_cache,
        tensorboard=tensorboard_folder(args),
    )
    target = None if _has_pool() else notification_target_of(args)  # a pool tells of its workers' jobs
    os.environ.pop(VARIABLE, None)  # what trainers run need not know the address
    with restricted_to(AllowedModules.from_settings(args.allow_modules)):
        try:
            worker = _with_server(lambda: Worker(lab.tables, settings, watch=console))
            if not args.quiet:
                logger.info("started: %s", _with_server(lambda: _work_to_do(lab.tables, settings)))
            with _notified(worker, target):
                report = worker.run()
        except DeviceBrokenError as error:
            print(f"december: {error}", file=sys.stderr)
            return ExitCode.MPS_LOST if isinstance(error, MpsLostError) else ExitCode.DEVICE_BROKEN
    console.unfold()
    counts = ", ".join(f"{name} {count}" for name, count in report.computed.items()) or "nothing new"
    if not args.quiet:
        print(f"Done: {counts}. Ended: {report.ended_by}.")
    if report.signal is not None:
        return 128 + report.signal
    n_failed = report.n_failed
    with suppress(ServerUnreachableError), readable_errors():
        n_failed = sum(table.failed + table.poisoned for table in read_overview(lab.tables).tables)
    if n_failed:
        print(f"{numbered(n_failed, 'job')} failed; `december status` says why.", file=sys.stderr)
        return ExitCode.SOME_FAILED
    return 0


def _notified(worker: Worker, target: NotificationTarget | None) -> AbstractContextManager[None]:
    """Tell a target, if there is one, what happens to the jobs while the worker runs."""
    from december_plugin.pool.notifications.notifier import Notifier
    from december_plugin.pool.supervisor.database import own_connection

    if target is None:
        return nullcontext()
    notifier = Notifier.of_jobs(
        target,
        schema=worker.schema,
        who="worker",
        who_id=worker.identity.worker_id,
        connect=own_connection,
        log=logger.info,
    )
    return notifier.running(ended_idle=lambda: worker.report.ended_idle)


def _work_to_do(tables: Any, settings: WorkerSettings) -> str:
    """Return in words how many jobs could be started now, in the tables that this worker fills."""
    from december_plugin.pool.jobs.description import counted
    from december_plugin.pool.jobs.queue import choose_tables
    from december_plugin.pool.status.overview import read_overview

    chosen = {table.__name__ for table in choose_tables(tables, only=settings.only, skip=settings.skip)}
    left = {
        counts.table: counts.waiting + (counts.failed + counts.poisoned if settings.retry else 0)
        for counts in read_overview(tables).tables
        if counts.table in chosen
    }
    words = [counted(table, number) for table, number in left.items() if number]
    return f"{', '.join(words)} to do" if words else "nothing to do at the moment"


def _has_pool() -> bool:
    return bool(os.environ.get("DECEMBER_POOL_ID"))


def _with_server(step: Callable[[], Result]) -> Result:
    """Return what a step returns; a worker of a pool waits for a server that is unavailable."""
    from december_plugin.database.outages import with_server

    def on_outage(error: BaseException) -> None:
        logger.warning("waiting: %s", error)

    return with_server(step, waits=_has_pool, on_outage=on_outage)
