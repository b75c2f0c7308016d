"""``december register``: writes the entries of a sweep."""

from __future__ import annotations

import argparse

from december_plugin.commands import Subparsers
from december_plugin.commands._lab import add_lab_options, open_lab_of

DESCRIPTION = """\
Writes the datasets, models, trainers, seeds and clusterings of a sweep into the tables, and plans every
dataset x model x trainer x seed as a training. Nothing is written twice; run it again after adding a seed or a K.
The whole file is checked first, and after a mistake nothing of it is written.

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
"""
EPILOG = """\
examples:
  december register sweep.yaml
  december register sweep.yaml --dry-run      check the file and say what it would plan; needs no database
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``december register``."""
    parser = subparsers.add_parser(
        "register", help="write the entries of a sweep", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument("sweep", metavar="SWEEP.YAML", help="the sweep")
    parser.add_argument("--dry-run", action="store_true", help="check the file and write nothing")
    parser.add_argument("--fabrikant", metavar="NAME", help="whose entries they are (default: by the database user)")
    add_lab_options(parser)


def run(args: argparse.Namespace) -> int:
    """Register the sweep."""
    from december_plugin.sweep import load_sweep

    sweep = load_sweep(args.sweep)
    trainings = (
        f"{sweep.n_trainings} trainings: {len(sweep.datasets)} datasets x {len(sweep.models)} models x "
        f"{len(sweep.trainers)} trainers x {len(sweep.seeds)} seeds"
    )
    if args.dry_run:
        print(f"The sweep is valid. It plans {trainings}.")
        return 0
    from december_plugin.schemas.registration import register

    lab = open_lab_of(args, create=True)
    written = register(
        sweep, nnfabrik=lab.nnfabrik, tables=lab.tables, fabrikant=args.fabrikant, add_fabrikant=lab.is_embedded
    )
    print(f"The sweep has {trainings}.")
    for table in written.new:
        print(f"  {table:<14}{written.new[table]:>5} new{written.existing[table]:>6} there already")
    print("Next: `december worker` trains and clusters; `december status` shows what is left.")
    return 0
