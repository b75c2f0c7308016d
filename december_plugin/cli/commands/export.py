"""``december export``: the numbers of the report as files."""

from __future__ import annotations

import argparse
from pathlib import Path

from december_plugin.cli.commands import Subparsers
from december_plugin.cli.commands.report import add_selection_options, command_line, say
from december_plugin.cli.options import add_lab_options, open_lab_of

DESCRIPTION = """\
Writes the numbers of `december report`, and those behind them neuron by neuron, as CSV and Parquet files: agreement,
null, criteria for the number of clusters, consensus and assignment of every neuron, test correlations, trainings; and
a README.txt that explains every column and its unit, and provenance.json. A read-only account can do this; the store is
needed only with --anndata.
"""
EPILOG = """\
examples:
  december export numbers
  december export numbers --format parquet
  december export numbers --clusters 20 --force    only K = 20; replace an earlier export
  december export numbers --anndata                also neurons.h5ad, for scanpy
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``december export``."""
    parser = subparsers.add_parser(
        "export", help="write the numbers of the report as CSV and Parquet", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where to write; created if it does not exist")
    parser.add_argument("--format", choices=("csv", "parquet", "both"), default="both", help="default: both")
    parser.add_argument("--force", action="store_true", help="replace the files of an earlier export")
    parser.add_argument(
        "--anndata",
        action="store_true",
        help="also the neurons as AnnData, neurons.h5ad: readout vectors, functional embeddings, clusters, known types",
    )
    add_selection_options(parser, clusters="only this number of clusters")
    add_lab_options(parser)


def run(args: argparse.Namespace) -> int:
    """Write the files."""
    from december_plugin.report.columns import FILES
    from december_plugin.report.export import check_target, write_export

    if args.anndata:
        from december_plugin.bundles.annotated import check_installed

        check_installed()
    check_target(args.folder, force=args.force)
    lab = open_lab_of(args, read_only=True)
    from december_plugin.results.report import ReportSettings, server_of

    settings = ReportSettings(
        command=command_line(),
        types_name=args.types,
        n_clusters=args.clusters,
        dataset=args.dataset,
        model=args.model,
        tsne=False,
    )
    from december_plugin.sharing.result import Result

    result = Result(lab.tables, settings)
    tables = [table for name, table in result.exported.items() if name in FILES]
    annotated = result.annotated() if args.anndata else {}
    provenance = {**result.provenance(), "server": server_of(lab.tables.schema.connection)}
    counts = write_export(args.folder, tables, provenance, formats=args.format, annotated=annotated, log=say)
    width = max(map(len, counts))
    for name, n_rows in counts.items():
        print(f"{name:<{width}}  {n_rows:>12,} rows")
    print(f"Written: {args.folder} (README.txt explains the columns)")
    return 0
