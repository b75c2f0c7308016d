"""``december worker``: fills the tables."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings

from december_plugin.commands import Subparsers
from december_plugin.commands._lab import add_lab_options, open_lab_of

SOME_FAILED = 3

DESCRIPTION = """\
Fills the tables until nothing is left: trains the models that are planned, clusters their neurons, compares the seeds.
Start as many as you like, on as many machines; each job is reserved by one of them. A job that fails is recorded with
its reason, the others go on. Ctrl-C ends a worker and frees its job.
"""
EPILOG = """\
examples:
  december worker                               until nothing is left
  CUDA_VISIBLE_DEVICES=1 december worker        on the second GPU
  december worker --poll 60                     never end; look for work every minute
  december worker --retry                       try failed jobs again

exit codes: 0 nothing is left to do here, 3 some jobs failed, now or earlier (`december status` says why),
130 interrupted
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``december worker``."""
    parser = subparsers.add_parser("worker", help="train, cluster, compare", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--poll", type=_seconds, metavar="SECONDS", help="when nothing is left, wait and look again")
    parser.add_argument("--retry", action="store_true", help="try jobs again that failed earlier")
    parser.add_argument("--quiet", action="store_true", help="print failures only")
    add_lab_options(parser)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number of seconds")
    return seconds


def run(args: argparse.Namespace) -> int:
    """Work until nothing is left."""
    logger = logging.getLogger("december_plugin")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logger.addHandler(handler)
    logger.setLevel(logging.ERROR if args.quiet else logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: logger.warning("warning: %s", message)
            return _work(args)
    finally:
        logger.removeHandler(handler)


def _work(args: argparse.Namespace) -> int:
    from december_plugin.pool import Worker, table_statuses

    lab = open_lab_of(args)
    # DataJoint, which sets its level when it is imported, prints the errors of jobs a second time.
    logging.getLogger("datajoint").setLevel(logging.CRITICAL)
    report = Worker(lab.tables, retry=args.retry).run(poll=args.poll)
    n_failed = sum(len(status.failed) for status in table_statuses(lab.tables))
    counts = ", ".join(f"{name} {count}" for name, count in report.computed.items()) or "nothing new"
    if not args.quiet:
        print(f"Done: {counts}.")
    if n_failed:
        print(f"{n_failed} jobs failed; `december status` says why.", file=sys.stderr)
        return SOME_FAILED
    return 0
