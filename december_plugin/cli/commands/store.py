"""``december store``: inspects the model store and deletes orphaned files."""

from __future__ import annotations

import argparse
import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from december_plugin.cli.commands import Subparsers
from december_plugin.cli.options import add_lab_options, open_lab_of
from december_plugin.errors import DecemberError, SettingsError
from december_plugin.text.formatting import format_size

if TYPE_CHECKING:
    from december_plugin.pool.store_leftovers import Cleaner, Findings, Leftover
    from december_plugin.storage.base import ObjectStore

UNUSABLE = 3
MIN_HOURS, MAX_HOURS = 1.0, 87600.0
MAX_PATHS = 20

DESCRIPTION = """\
Shows and cleans the store: the folder or S3 bucket in which models (as DataJoint's attachments) and the checkpoints of
unfinished trainings are kept. Workers that are killed can leave files behind that nothing refers to.
"""
EPILOG = """\
examples:
  december store status             where it is, whether it can be used, how many files and bytes
  december store clean              what could be removed; removes nothing
  december store clean --delete     removes it
  december store accept             use the configured place as the store from now on, although its mark is not the
                                    known one: after models were lost, or copied back without the mark

Only these are removed: files that the database does not know or whose models were deleted, incomplete files, and
checkpoints of trainings that are done or no longer planned, in the schemas of december's and your nnfabrik tables, and
only if they are older than --older-than.

exit codes: 0, or 3 if the store cannot be used (status) or something could not be removed (clean)
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``december store`` with its actions."""
    parser = subparsers.add_parser(
        "store", help="inspect where models are kept; find and remove leftovers", description=DESCRIPTION, epilog=EPILOG
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    status = actions.add_parser("status", help="show where it is, whether it can be used, how much is in it")
    clean = actions.add_parser("clean", help="find what is no longer needed, and with --delete remove it")
    clean.add_argument("--delete", action="store_true", help="remove what was found; without it nothing is removed")
    clean.add_argument(
        "--older-than",
        type=float,
        default=24.0,
        metavar="HOURS",
        help="keep what is younger, since its row may be about to be written (default: 24, at least 1)",
    )
    clean.add_argument(
        "--even-if-most",
        action="store_true",
        help="remove files that the database does not know even if they are most of a schema's files",
    )
    accept = actions.add_parser("accept", help="use the configured place as the store from now on")
    for action in (status, clean, accept):
        action.add_argument("--store", metavar="NAME", help="DataJoint store (default: the models'; status: minio)")
    for action in (status, clean):
        action.add_argument("--json", action="store_true", help="print JSON")
    for action in (clean, accept):
        add_lab_options(action)


def run(args: argparse.Namespace) -> int:
    """Run one action."""
    return {"status": _status, "clean": _clean, "accept": _accept}[args.action](args)


# ---- status


def _status(args: argparse.Namespace) -> int:
    from december_plugin.pool.worker.spool import Spool
    from december_plugin.storage.opening import open_store
    from december_plugin.storage.settings import DEFAULT_STORE

    store = open_store(args.store or DEFAULT_STORE)
    problem, identity, folders = None, None, {}
    try:
        store.check()
        identity = store.read_mark()
        folders = _folders(store)
    except DecemberError as error:
        problem = str(error)
    spool = Spool()
    n_results = len(spool.waiting())
    if args.json:
        status = {"store": store.name, "place": store.place, "usable": problem is None, "problem": problem}
        status["identity"] = identity
        results = {"folder": str(spool.folder), "waiting": n_results}
        print(json.dumps({**status, "folders": folders, "spool": results}, indent=2))
        return UNUSABLE if problem else 0
    print(f"store      {store.name}, {store.place}")
    print(f"state      {problem or 'can be used'}")
    if problem is None:
        print(f"identity   {identity or 'none yet (docs/operations.md)'}")
    print(f"spool      {spool.folder}, {n_results} finished results wait for the database")
    if folders:
        print(f"\n{'folder':<44}{'files':>10}{'size':>12}")
        for name, counts in sorted(folders.items()):
            print(f"{name:<44}{counts['files']:>10}{format_size(counts['bytes']):>12}")
    return UNUSABLE if problem else 0


def _folders(store: ObjectStore) -> dict[str, dict[str, int]]:
    """Return the numbers of files and bytes by folder: one for each schema, and one for the checkpoints of each."""
    from december_plugin.pool.worker.checkpoints import CHECKPOINTS

    folders: dict[str, dict[str, int]] = {}
    for found in store.list():
        parts = found.path.split("/")
        depth = 2 if parts[0] == CHECKPOINTS and len(parts) > 2 else 1
        name = "/".join(parts[:depth]) if len(parts) > 1 else "."
        counts = folders.setdefault(name, {"files": 0, "bytes": 0})
        counts["files"] += 1
        counts["bytes"] += found.size
    return folders


# ---- accept


def _accept(args: argparse.Namespace) -> int:
    from december_plugin.database.store_identity import accept, store_name_of
    from december_plugin.storage.opening import check_store, open_store

    lab = open_lab_of(args, read_only=True)
    name = args.store or store_name_of(lab.tables.TrainedModel)
    check_store(name)
    store = open_store(name)
    accept(lab.tables.StoreIdentity(), store)
    print(f"{store.place[0].upper()}{store.place[1:]} is the store {name!r} of the schema {lab.schema} from now on.")
    return 0


# ---- clean


def _clean(args: argparse.Namespace) -> int:
    from december_plugin.database.store_identity import store_name_of
    from december_plugin.pool.store_leftovers import Cleaner, old_halves
    from december_plugin.pool.worker.spool import Spool
    from december_plugin.storage.opening import open_store

    if not MIN_HOURS <= args.older_than <= MAX_HOURS:
        raise SettingsError(
            f"--older-than is {args.older_than:g}; it must be a number of hours from {MIN_HOURS:g} to {MAX_HOURS:g}: "
            "what a worker is uploading has no row yet."
        )
    lab = open_lab_of(args)
    name = args.store or store_name_of(lab.tables.TrainedModel)
    store, limit = open_store(name), timedelta(hours=args.older_than)
    cleaner = Cleaner(lab.tables, store, older_than=limit)
    findings = cleaner.find()
    halves = list(old_halves(Spool(), limit))
    chosen = [found for found in findings.leftovers if args.even_if_most or not _is_suspicious(found, findings)]
    kept = len(findings.leftovers) - len(chosen)
    removed, problems = _remove(cleaner, chosen) if args.delete else ([], [])
    if args.delete:
        problems += _unlink(halves)
    if args.json:
        print(json.dumps(_as_json(findings, store, removed, problems, [str(path) for path in halves]), indent=2))
    else:
        _print_findings(findings, store, args.older_than)
        if halves:
            print(f"{len(halves):>8}  half-written files in this machine's spool")
        _print_outcome(args, findings, chosen, kept, removed, problems)
    return UNUSABLE if problems else 0


def _is_suspicious(leftover: Leftover, findings: Findings) -> bool:
    from december_plugin.pool.store_leftovers import ORPHAN

    return leftover.kind == ORPHAN and leftover.schema in findings.suspicious


def _remove(cleaner: Cleaner, leftovers: list[Leftover]) -> tuple[list[Leftover], list[str]]:
    """Remove what can be removed, until something goes wrong; return it, and what went wrong."""
    from december_plugin.database.errors import explain_error

    removed = []
    for leftover in leftovers:
        try:
            if cleaner.remove(leftover):
                removed.append(leftover)
        except Exception as error:
            explained = error if isinstance(error, DecemberError) else explain_error(error)
            if explained is None:
                raise
            return removed, [str(explained)]
    return removed, []


def _unlink(paths: list[Path]) -> list[str]:
    """Remove files of this machine; return what went wrong."""
    problems = []
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            problems.append(f"{path} cannot be removed: {error.strerror or error}")
    return problems


def _as_json(
    findings: Findings, store: ObjectStore, removed: list[Leftover], problems: list[str], halves: list[str]
) -> dict[str, Any]:
    def described(leftover: Leftover) -> dict[str, Any]:
        return {
            "kind": leftover.kind,
            "path": leftover.path,
            "bytes": leftover.size,
            "modified": leftover.modified.isoformat(),
        }

    return {
        "store": store.name,
        "place": store.place,
        "leftovers": [described(leftover) for leftover in findings.leftovers],
        "spool_halves": halves,
        "removed": [leftover.path for leftover in removed],
        "used": findings.n_used,
        "young": findings.n_young,
        "unknown": findings.n_unknown,
        "suspicious_schemas": findings.suspicious,
        "damaged": findings.damaged,
        "notes": findings.notes,
        "problems": problems,
    }


def _print_findings(findings: Findings, store: ObjectStore, hours: float) -> None:
    from december_plugin.pool.store_leftovers import KINDS

    print(f"{store.place}\n")
    print(f"{findings.n_used:>8}  files in use")
    for kind, words in KINDS.items():
        of_kind = [leftover for leftover in findings.leftovers if leftover.kind == kind]
        if of_kind:
            print(f"{len(of_kind):>8}  {words}, {format_size(sum(leftover.size for leftover in of_kind))}")
    if findings.n_young:
        print(f"{findings.n_young:>8}  of these kinds younger than {hours:g} h, left alone")
    if findings.n_unknown:
        print(f"{findings.n_unknown:>8}  files of other programs, left alone")
    for note in findings.notes:
        print(f"note: {note}")
    if findings.damaged:
        print("\nDAMAGED: files that rows refer to")
        _print_some(findings.damaged)
    if findings.leftovers:
        print()
        _print_some([f"{found.modified:%Y-%m-%d %H:%M}  {found.path}" for found in findings.leftovers])


def _print_some(lines: list[str]) -> None:
    for line in lines[:MAX_PATHS]:
        print(f"  {line}")
    if len(lines) > MAX_PATHS:
        print(f"  ... and {len(lines) - MAX_PATHS} more (--json has all)")


def _print_outcome(
    args: argparse.Namespace,
    findings: Findings,
    chosen: list[Leftover],
    n_kept: int,
    removed: list[Leftover],
    problems: list[str],
) -> None:
    if n_kept:
        print(
            f"\nMost of the files of {' and '.join(findings.suspicious)} are unknown to this database. If another "
            "database server has a\nschema of the same name in this store, they are its models! Without --even-if-most "
            f"these {n_kept} are left alone."
        )
    if args.delete:
        print(f"\n{len(removed)} removed, {format_size(sum(found.size for found in removed))}.")
        for problem in problems:
            print(f"Not everything could be removed: {problem}")
    elif chosen:
        total = format_size(sum(found.size for found in chosen))
        print(f"\nNothing was removed. `december store clean --delete` removes {len(chosen)}, {total}.")
    elif not n_kept:
        print("\nThere is nothing to remove.")
