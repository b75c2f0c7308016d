"""``december bundle``: a result in one file, for a paper's supplement or another machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from december_plugin.cli.commands import Subparsers
from december_plugin.cli.commands.report import add_selection_options, command_line, say
from december_plugin.cli.options import add_lab_options, open_lab_of

DESCRIPTION = """\
Writes one file with a complete result: trained models, their settings and neurons, readout vectors, clusters, known
types, test performance, agreement, nulls, the report, and where all of it comes from. Use it for a paper's supplement,
or on another machine: `december import FILE` brings it into the tables there, and december_plugin.bundles.read_bundle
reads it in Python without a database.

The file is a ZIP archive of Parquet, NumPy, safetensors and JSON files with a checksum of each. It contains no code and
no pickles. The settings of datasets are included, with the paths of recordings; the recordings are not.
See docs/sharing-results.md.
"""
EPILOG = """\
examples:
  december bundle result.zip
  december bundle result.zip --dataset 3f2a --method december kmeans
  december bundle clusters.zip --no-models         smaller; for reading, not for importing
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``december bundle``."""
    parser = subparsers.add_parser(
        "bundle",
        help="write a result into one file, for a supplement or another machine",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="file to write, e.g. result.zip")
    parser.add_argument("--force", action="store_true", help="replace the file if it exists")
    add_selection_options(parser, clusters="only this number of clusters")
    parser.add_argument("--trainer", default="", metavar="HASH", help="only trainers whose hash begins with this")
    parser.add_argument("--method", nargs="+", default=[], metavar="NAME", help="only clusterings of these methods")
    parser.add_argument("--no-models", action="store_true", help="leave the weights of the models out")
    parser.add_argument("--no-report", action="store_true", help="leave the report out")
    parser.add_argument("--no-tsne", action="store_true", help="leave the t-SNE out of the report")
    add_lab_options(parser)


def run(args: argparse.Namespace) -> int:
    """Write the file."""
    from december_plugin.sharing.write import can_have_report, check_target, write_bundle

    check_target(args.file, force=args.force)
    restriction = _restriction(args)
    lab = open_lab_of(args, read_only=True)
    from december_plugin.results.report import ReportSettings

    settings = ReportSettings(
        command=command_line(),
        types_name=args.types,
        n_clusters=args.clusters,
        dataset=args.dataset,
        model=args.model,
        tsne=not args.no_tsne,
    )
    counts = write_bundle(
        args.file,
        lab.tables,
        settings=settings,
        restriction=restriction,
        models=not args.no_models,
        report=not args.no_report,
        force=args.force,
        log=say,
    )
    if not args.no_report and not can_have_report(settings, restriction):
        print("The report is left out, because it covers all configurations of a dataset and model, not only some.")
    print(f"{counts['configurations']:,} configurations of {counts['trained models']:,} trained models")
    print(f"Written: {args.file} ({counts['bytes'] / 1e6:.1f} MB)")
    return 0


def _restriction(args: argparse.Namespace) -> object:
    """Return the restriction of assignments that the options ask for; True if they ask for none."""
    import datajoint as dj

    from december_plugin.clustering.methods import METHODS
    from december_plugin.errors import SettingsError, did_you_mean

    for name in args.method:
        if name not in METHODS:
            raise SettingsError(f"--method: there is no method {name!r}. {did_you_mean(name, METHODS)}")
    if args.trainer and not args.trainer.isalnum():
        raise SettingsError(f"--trainer is {args.trainer!r}; it must be the beginning of a hash.")
    parts: list[object] = []
    if args.method:
        parts.append([{"method": name} for name in args.method])
    if args.trainer:
        parts.append(f"trainer_hash LIKE '{args.trainer}%%'")
    return dj.AndList(parts) if parts else True
