"""``december relocate``: tells all workers where recordings have moved."""

from __future__ import annotations

import argparse

from december_plugin.cli.commands import Subparsers
from december_plugin.cli.options import add_lab_options, open_lab_of
from december_plugin.errors import SettingsError

DESCRIPTION = """\
Records where recordings have moved. A dataset is identified by its settings, including the recordings' paths, so a
folder that moved would be trained again. With this command, entries, hashes and results stay unchanged, and workers on
every machine read the recordings from the new place. A machine that has them only at the old place continues to use
them.

OLD is a recording, or a folder above several, as the dataset's entry names it. The recordings at NEW must be the same:
they are opened here and compared with those at OLD, if these still exist, and with the sessions, unit ids and numbers
of test trials of the models that were trained on them. Most sessions are named after their folders, so keep these
names. A sweep's file may have the old paths or the new ones; it is the same dataset.
"""
EPILOG = """\
examples:
  december relocate /data/recordings /mnt/lab/recordings     everything in it
  december relocate /mnt/lab/recordings /data/recordings     undo it
  december relocate --list                                   what has moved
  december jobs retry --reason "does not exist"              start again what failed in the meantime
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``december relocate``."""
    parser = subparsers.add_parser(
        "relocate", help="record where recordings have moved", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument("old", nargs="?", metavar="OLD", help="where the recordings were")
    parser.add_argument("new", nargs="?", metavar="NEW", help="where they are now")
    parser.add_argument("--list", action="store_true", help="list what has moved, and change nothing")
    parser.add_argument("--dry-run", action="store_true", help="compare, say what would change, and change nothing")
    parser.add_argument("--allow-modules", metavar="NAMES", help="your packages whose loaders may be run here")
    add_lab_options(parser)


def run(args: argparse.Namespace) -> int:
    """Compare the recordings, and record where they are."""
    if args.list:
        return _list(args)
    if args.old is None or args.new is None:
        raise SettingsError(
            "give both places: december relocate OLD NEW. `december relocate --list` shows what has moved."
        )
    from december_plugin.security.allowed_modules import AllowedModules, restricted_to
    from december_plugin.sweeps.relocate import carry_out, plan_move

    lab = open_lab_of(args, read_only=True)
    # The recordings are opened by the functions that the database names.
    with restricted_to(AllowedModules.from_settings(args.allow_modules)):
        move = plan_move(args.old, args.new, nnfabrik=lab.nnfabrik, tables=lab.tables)
    for dataset in move.datasets:
        name = dataset.comment or dataset.key["dataset_hash"]
        print(f"Dataset {name}: compared with {dataset.compared_with}; {_trained(dataset.n_trained)}.")
    if args.dry_run:
        print("Nothing was changed (--dry-run).")
        return 0
    carry_out(move, tables=lab.tables)
    for old, new in move.rules.items():
        print(f"{old} is no longer relocated." if old == new else f"Every worker now reads {old} from {new}.")
    print(f"To undo this: december relocate {args.new} {args.old}")
    print('To retry what failed in the meantime: december jobs retry --reason "does not exist"')
    return 0


def _trained(count: int) -> str:
    if count == 0:
        return "no trained models"
    return "1 trained model keeps its results" if count == 1 else f"{count:,} trained models keep their results"


def _list(args: argparse.Namespace) -> int:
    lab = open_lab_of(args, read_only=True)
    rows = lab.tables.Relocation().fetch(as_dict=True, order_by="old_path")
    if not rows:
        print("Nothing has moved.")
    for row in rows:
        print(f"{row['old_path']} has been read from {row['new_path']} since {row['relocated_ts']}")
        print(f"  compared with {row['relocated_checked']}")
    return 0
