"""``december forget``: removes trainings from the plan that were never done."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from december_plugin.cli.commands import Subparsers
from december_plugin.cli.options import add_lab_options, open_lab_of
from december_plugin.errors import SettingsError
from december_plugin.text.formatting import numbered

if TYPE_CHECKING:
    from december_plugin.schemas.lab import Lab
    from december_plugin.sweeps.forget import Forgettable, Planned

REFUSED = 1
MOST = 5  # entries that are shown by name

DESCRIPTION = """\
Removes trainings that were never done from the plan: those of a sweep's file, of a recording's path (for example, a
mistyped one), or of named jobs. Trainings that meet all conditions are shown, and removed after you confirm.

Trained models and everything computed from them are always kept. With a planned training, its failure and its records
are removed, and so are the entries of datasets, models and trainers that are no longer used, if december has its own
nnfabrik tables. What a living worker is training at the moment is kept.
"""
EPILOG = """\
examples:
  december forget sweep.yaml                        what this file planned and no worker has trained
  december forget --dataset recordings/static3-4    what was planned for this recording
  december forget --job 1a2b3c4d --job 5e6f7a8b     trainings by the names of their jobs
  december forget sweep.yaml --yes                  without asking

exit codes: 0, or 1 if something was kept because a worker is training it
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``december forget``."""
    parser = subparsers.add_parser(
        "forget", help="remove trainings from the plan", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument("sweep", nargs="?", metavar="SWEEP", help="trainings that this file, or shipped sweep, planned")
    parser.add_argument(
        "--dataset", action="append", default=[], metavar="PATH", help="trainings on a recording at or below this path"
    )
    parser.add_argument("--job", action="append", default=[], metavar="JOB", help="the training with this job")
    parser.add_argument("--yes", action="store_true", help="remove without asking")
    add_lab_options(parser)


def run(args: argparse.Namespace) -> int:
    """Show what would be removed, ask, and remove it."""
    from december_plugin.sweeps.forget import Planned

    sweep = _sweep_of(args)
    lab = open_lab_of(args, read_only=True)
    planned = Planned(nnfabrik=lab.nnfabrik, tables=lab.tables)
    found = planned.select(sweep=sweep, paths=args.dataset, jobs=args.job)
    if found.trained:
        print(f"Kept, because they are done: {numbered(found.trained, 'training')}.")
    if not found.untrained:
        print("Nothing that matches is planned and untrained. Nothing was removed.")
        return 0
    print("\n".join(_lines(found, lab)))
    if not args.yes and not _agreed():
        print("Nothing was removed.")
        return 0
    return _forget(planned, found)


def _sweep_of(args: argparse.Namespace) -> Any:
    if args.sweep is None:
        return None
    from december_plugin.sweeps.parse import load_sweep
    from december_plugin.sweeps.shipped import find_sweep

    path, folder = find_sweep(args.sweep)
    return load_sweep(path, folder=folder)


def _lines(found: Forgettable, lab: Lab) -> list[str]:
    """Return what is to be removed, in words."""
    states = ", ".join(f"{count:,} {state}" for state, count in found.states.items())
    lines = [
        f"{numbered(len(found.untrained), 'training')} planned and never trained{f' ({states})' if states else ''}:"
    ]
    for kind in ("dataset", "model", "trainer"):
        keys = {(key[f"{kind}_fn"], key[f"{kind}_hash"]) for key in found.untrained}
        lines.append(f"  {numbered(len(keys), kind):<12}{_names(lab, kind, keys)}")
    seeds = sorted({int(key["seed"]) for key in found.untrained})
    lines.append(f"  {numbered(len(seeds), 'seed'):<12}{', '.join(map(str, seeds[:20]))}{', ...' * (len(seeds) > 20)}")
    return lines


def _names(lab: Lab, kind: str, keys: set[tuple[str, str]]) -> str:
    from december_plugin.schemas.relocation import paths_in

    table = getattr(lab.nnfabrik, kind.capitalize())
    shown = []
    for fn, each in sorted(keys)[:MOST]:
        row = (table & {f"{kind}_fn": fn, f"{kind}_hash": each}).fetch1()
        name = row[f"{kind}_comment"] or f"{fn.rpartition('.')[2]} {each[:8]}"
        paths = list(paths_in(row[f"{kind}_config"])) if kind == "dataset" else []
        shown.append(f"{name} ({', '.join(paths)})" if paths else str(name))
    return "; ".join(dict.fromkeys(shown)) + ("; ..." if len(keys) > MOST else "")


def _agreed() -> bool:
    if sys.stdin is None or not sys.stdin.isatty():
        raise SettingsError("there is no terminal for the question. Add --yes to remove them. Nothing was removed.")
    return input("Remove them from the plan? [y/N] ").strip().lower() in ("y", "yes")


def _forget(planned: Planned, found: Forgettable) -> int:
    done = planned.forget(found.untrained)
    entries = ", ".join(f"{count} of {table}" for table, count in done.entries.items())
    removed = f"; entries that are no longer used: {entries}" if entries else ""
    print(f"Removed {numbered(done.n_trainings, 'planned training')}{removed}.")
    _print_refusals(done.refused)
    return REFUSED if done.refused else 0


def _print_refusals(refused: Sequence[tuple[Any, str]]) -> None:
    for ref, reason in refused[:MOST]:
        print(f"december: {ref} {reason}", file=sys.stderr)
    if len(refused) > MOST:
        print(f"december: and {len(refused) - MOST:,} more", file=sys.stderr)
