"""Options of every command that works on a lab's tables."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from december_plugin.schemas.lab import Lab


def add_lab_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--schema`` and ``--nnfabrik``."""
    group = parser.add_argument_group("which tables")
    group.add_argument("--schema", metavar="NAME", help="schema of december's tables (default: december)")
    group.add_argument(
        "--nnfabrik",
        metavar="NAME",
        help="schema of your nnfabrik tables, or module:NAME, a Python module with Seed, Fabrikant, Model, Dataset, "
        "Trainer and, if you have one, TrainedModel (default: december's own, in its schema)",
    )


def open_lab_of(args: argparse.Namespace, *, create: bool = False, read_only: bool = False, **options: Any) -> Lab:
    """Open the tables that the options name.

    They are created only with ``create``. ``read_only`` is for commands that need no store, so that they work while it
    is unavailable; most of them change nothing, and an account with the reader's role can run them (docs/security.md).
    """
    from december_plugin.schemas.lab import open_lab

    return open_lab(schema=args.schema, nnfabrik=args.nnfabrik, create=create, read_only=read_only, **options)
