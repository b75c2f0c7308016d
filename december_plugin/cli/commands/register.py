"""``december register``: writes the entries of a sweep."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from december_plugin.cli.commands import Subparsers
from december_plugin.cli.options import add_lab_options, open_lab_of
from december_plugin.errors import DecemberError, ServerError, SettingsError
from december_plugin.text.formatting import numbered

if TYPE_CHECKING:
    from december_plugin.schemas.lab import Lab
    from december_plugin.sweeps.entries import Comment, Compared, SameComment
    from december_plugin.sweeps.parse import Sweep

DESCRIPTION = """\
Writes the datasets, models, trainers, seeds and clusterings of a sweep into the tables, and plans every dataset x model
x trainer x seed as a training. Nothing is written twice, so run it again after adding a seed or a K. The whole file is
checked first; if there is a mistake, nothing of it is written.

  seeds: [1, 2, 3]
  datasets:
    - fn: december_plugin.datasets.static_loaders
      comment: my two sessions
      config: {paths: [recordings/session1, recordings/session2], batch_size: 128}
  models:
    - fn: december_plugin.models.stacked_core_gaussian_readout
  trainers:
    - fn: december_plugin.trainers.baseline_trainer
      comment: baseline
      config: {pretrain_epochs: 40}
    - fn: december_plugin.trainers.baseline_trainer
      comment: end of pretraining (control)
      config: {pretrain_epochs: 40, stop_after_pretraining: true}
    - fn: december_plugin.trainers.december_trainer
      comment: DECEMber
      config: {pretrain_epochs: 40}
      grid: {n_clusters: [10, 20, 30]}
  clusterings:
    - {method: gmm, n_clusters: [10, 20, 30]}
    - {method: t_mixture, n_clusters: [10, 20, 30]}

An entry with a `grid` becomes one entry for each combination of its values. Functions of your own packages can be
named like ours. Relative recording paths are taken from the file's folder. Give entries that differ only in K the
same comment: results are grouped by it.

The sweeps of the DECEMber paper come with december (`december sweeps list`) and can be registered by name; their
recording paths are taken from the current folder. Copy one to put your own folders into it.

--dry-run also says how many of the trainings are already planned or done, and how long the others, the clusterings and
the null will take, judging by what has run. For that, a database must be configured, or december's own must be running;
it does not start one.
"""
EPILOG = """\
examples:
  december register sweep.yaml
  december register sweep.yaml --dry-run            check the file, count, estimate the hours; writes nothing
  december register paper/mouse-v1-strength --dry-run
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``december register``."""
    parser = subparsers.add_parser(
        "register", help="write the entries of a sweep", description=DESCRIPTION, epilog=EPILOG
    )
    add_register_options(parser)
    parser.add_argument("--dry-run", action="store_true", help="check the file, count, and write nothing")
    add_lab_options(parser)


def add_register_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for the sweep and its owner, for ``register`` and ``run``."""
    parser.add_argument("sweep", metavar="SWEEP", help="a YAML file, or the name of a sweep that comes with december")
    parser.add_argument("--fabrikant", metavar="NAME", help="contributor who owns the entries (default: yourself)")


def run(args: argparse.Namespace) -> int:
    """Register the sweep."""
    sweep = read_sweep(args.sweep, check_recordings=not args.dry_run)
    if args.dry_run:
        lab, reason = _open_without_starting(args)
        moved: dict[str, str] = {}
        found: dict[str, Compared] = {}
        if lab is not None:
            from december_plugin.sweeps.relocate import as_registered

            moved = lab.tables.Relocation().paths()
            sweep = as_registered(sweep, nnfabrik=lab.nnfabrik, tables=lab.tables)
            found = _compare(sweep, lab, args)
        print(f"The sweep is valid. It plans {_trainings(sweep)}.")
        for compared in found.values():
            _print_comments(compared.comments, compared.same_comments, is_done=False)
        _print_advice(sweep, moved)
        _print_outlook(sweep, lab, reason)
        return 0
    lab = open_lab_of(args, create=True)
    write_sweep(sweep, lab, fabrikant=args.fabrikant)
    print("Next: `december worker` trains and clusters; `december status` shows what is left.")
    return 0


def read_sweep(name: str, *, check_recordings: bool) -> Sweep:
    """Return the checked sweep of a file, or of this name.

    With ``check_recordings``, the recordings of a sweep that was given by its name must exist.
    """
    from december_plugin.sweeps.parse import load_sweep
    from december_plugin.sweeps.shipped import FOLDER, find_sweep

    path, folder = find_sweep(name)
    sweep = load_sweep(path, folder=folder)
    if check_recordings and FOLDER in path.parents:
        _check_recordings(sweep, name)
    return sweep


def _trainings(sweep: Sweep) -> str:
    kinds = (("dataset", sweep.datasets), ("model", sweep.models), ("trainer", sweep.trainers), ("seed", sweep.seeds))
    product = " x ".join(numbered(len(entries), kind) for kind, entries in kinds)
    return f"{numbered(sweep.n_trainings, 'training')}: {product}"


def write_sweep(sweep: Sweep, lab: Lab, *, fabrikant: str | None) -> None:
    """Register a sweep, and print what is new."""
    from december_plugin.sweeps.register import register
    from december_plugin.sweeps.relocate import as_registered

    written = register(
        sweep, nnfabrik=lab.nnfabrik, tables=lab.tables, fabrikant=fabrikant, add_fabrikant=lab.is_embedded
    )
    print(f"The sweep has {_trainings(sweep)}.")
    print("\n".join(written.lines()))
    _print_comments(written.comments, written.same_comments, is_done=True)
    sweep = as_registered(sweep, nnfabrik=lab.nnfabrik, tables=lab.tables)
    _print_advice(sweep, lab.tables.Relocation().paths())


def _print_advice(sweep: Sweep, moved: Mapping[str, str]) -> None:
    from december_plugin.sweeps.advice import advice, missing_recordings, refused_functions

    for sentence in itertools.chain(missing_recordings(sweep, moved), refused_functions(sweep), advice(sweep)):
        print(f"Note: {sentence}")


def _print_comments(comments: Sequence[Comment], same: Sequence[SameComment], *, is_done: bool) -> None:
    from december_plugin.cli.views.entries import comment_lines, same_comment_lines

    for line in itertools.chain(comment_lines(comments, is_done=is_done), same_comment_lines(same)):
        print(line)


def _compare(sweep: Sweep, lab: Lab, args: argparse.Namespace) -> dict[str, Compared]:
    """Compare the sweep with the tables, and find mistakes that show only there."""
    from december_plugin.sweeps.register import check

    settings = {"nnfabrik": lab.nnfabrik, "tables": lab.tables, "fabrikant": args.fabrikant}
    try:
        return check(sweep, **settings, may_add=lab.is_embedded)
    except ServerError as error:  # the database user has no entry in Fabrikant, which is not needed to look
        print(f"Note: {error}")
        return check(sweep, **settings, may_add=True)


def _check_recordings(sweep: Sweep, name: str) -> None:
    """Check that the recordings of a sweep that was given by its name exist."""
    for entry in sweep.datasets:
        paths = entry.config.get("paths")
        for path in [paths] if isinstance(paths, str) else paths or []:
            if not Path(path).exists():
                raise SettingsError(
                    f"there is no recording {path}, and {name} was not copied, so its paths begin in the current "
                    f"folder. `december sweeps copy {name} FOLDER`, put your folders into the copy, and register that."
                )


def _print_outlook(sweep: Sweep, lab: Lab | None, reason: str) -> None:
    """Print how much of the sweep exists, and how long the rest will take; or why that is unknown."""
    if lab is None:
        print(f"How many of them are already planned or trained, and how long they take, is unknown: {reason}")
        return
    from december_plugin.cli.views.outlook import outlook_lines
    from december_plugin.sweeps.estimate import estimate_sweep

    print("\n".join(outlook_lines(estimate_sweep(sweep, nnfabrik=lab.nnfabrik, tables=lab.tables), schema=lab.schema)))


def _open_without_starting(args: argparse.Namespace) -> tuple[Lab | None, str]:
    """Open the tables if a database is configured or runs; else say why not."""
    from december_plugin.database.embedded import EmbeddedServer
    from december_plugin.database.lab_settings import lab_settings

    try:
        if lab_settings() is None and not EmbeddedServer().status().running:
            return None, "no database is configured, and december's own is not running (`december db start`)."
        return open_lab_of(args, read_only=True), ""
    except DecemberError as error:
        return None, str(error)
