"""``december import``: brings models that were trained elsewhere, or a bundle, into the tables."""

from __future__ import annotations

import argparse
import zipfile
from typing import TYPE_CHECKING

from december_plugin.cli.commands import Subparsers
from december_plugin.cli.options import add_lab_options, open_lab_of
from december_plugin.text.formatting import numbered

if TYPE_CHECKING:
    from december_plugin.intake.parse import Import

DESCRIPTION = """\
Imports models that were trained elsewhere into the tables, as if they had been trained here: clusterings, agreement
between seeds, null, consensus, figures and report work as they do for your own. The file says where the models are:

  units: units.csv                       # identifies the neurons: columns data_key, unit_id (or session, scan, unit_id)
  models:
    - name: nonlinear core
      checkpoints: models/nonlinear-*.pth  # one file for each seed: .pth, .pt, .ckpt or .safetensors
    - name: linear core
      readouts: [linear-1.npy, linear-2.npy]  # or readout vectors: .npy, .npz, .csv or .parquet
  clusterings:
    - {method: kmeans, n_clusters: [5, 10, 20]}

Everything is read and checked before anything is written, no code from the files is run, and importing the same file
again adds nothing. docs/importing-models.md has recipes: published models, an nnfabrik schema, openretina, arrays.

FILE may also be a bundle written by `december bundle`: a whole result from another machine, with its clusters and
agreement (docs/sharing-results.md).
"""
EPILOG = """\
examples:
  december import models.yaml
  december import models.yaml --dry-run     read and check the files, and write nothing
  december import result.zip                a result that `december bundle` wrote
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``december import``."""
    parser = subparsers.add_parser(
        "import", help="add models that were trained elsewhere", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument("file", metavar="FILE", help="YAML: which models, and where their files are; or a bundle")
    parser.add_argument("--dry-run", action="store_true", help="read and check the files, and write nothing")
    parser.add_argument("--fabrikant", metavar="NAME", help="contributor who owns the entries (default: yourself)")
    add_lab_options(parser)


def run(args: argparse.Namespace) -> int:
    """Read the file and its models, and write them."""
    if zipfile.is_zipfile(args.file):
        return _run_bundle(args)
    from december_plugin.intake.parse import load_import

    found = load_import(args.file)
    for line in _lines(found):
        print(line)
    if args.dry_run:
        print("The import is valid. Nothing was written.")
        return 0
    from december_plugin.intake.write import write_import

    lab = open_lab_of(args, create=True)
    written = write_import(
        found, nnfabrik=lab.nnfabrik, tables=lab.tables, fabrikant=args.fabrikant, add_fabrikant=lab.is_embedded
    )
    print("\n".join(written.lines()))
    if not len(lab.tables.Clustering & "method <> 'december'"):
        print("Note: no clusterings are registered; add the section clusterings to the file, and import it again.")
    print("Next: `december pool` or `december worker` clusters them; `december ari` shows the agreement.")
    return 0


def _run_bundle(args: argparse.Namespace) -> int:
    """Check a bundle, and write what is in it."""
    from december_plugin.bundles.bundle import read_bundle
    from december_plugin.intake.bundles import check_importable, import_bundle

    with read_bundle(args.file) as bundle:
        print(f"{bundle.path}: {bundle.about}")
        check_importable(bundle)  # before any tables are made
        if args.dry_run:
            print("The bundle is complete. Nothing was written.")
            return 0
    lab = open_lab_of(args, create=True)
    written = import_bundle(
        args.file,
        nnfabrik=lab.nnfabrik,
        tables=lab.tables,
        fabrikant=args.fabrikant,
        add_fabrikant=lab.is_embedded,
    )
    print("\n".join(written.lines()))
    print("Next: `december ari` shows the agreement; `december worker` computes what else is planned here.")
    return 0


def _lines(found: Import) -> list[str]:
    """Return what was read, one line for each name."""
    lines = []
    for name in dict.fromkeys(model.model.comment for model in found.models):
        models = [model for model in found.models if model.model.comment == name]
        first = models[0].embeddings
        known = "positions, no unit ids" if first.unit_ids is None else "unit ids"
        covariance = "" if models[0].covariance is None else ", with feature covariance"
        sessions, features = numbered(len(first.sessions), "session"), first.vectors.shape[1]
        lines.append(
            f"{name}: {numbered(len(models), 'seed')}, {len(first):,} neurons of {sessions} (known by {known}), "
            f"{features} features{covariance}"
        )
        lines += [f"  from {model.probes}." for model in models[:1] if model.probes]
    return lines
