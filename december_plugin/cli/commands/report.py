"""``december report``: the answer as one HTML file."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from december_plugin.cli.commands import Subparsers
from december_plugin.cli.options import add_lab_options, open_lab_of

if TYPE_CHECKING:
    from december_plugin.findings.data import ReportData
    from december_plugin.schemas.lab import Lab

DESCRIPTION = """\
Writes one HTML file that shows whether the neurons fall into types, as far as the numbers tell, and which evidence is
missing; agreement between seeds against the number of clusters, with DECEMber next to its controls and to surrogates
without clusters; performance against strength; a t-SNE that can be zoomed, filtered and searched; confusion with known
types; every cluster; methods, settings and where every number comes from.

The file is self-contained: it opens offline, on a phone, and prints. A read-only account can create it; the t-SNE needs
the store, and is left out if the store cannot be reached.
"""
EPILOG = """\
examples:
  december report -o report.html
  december report --clusters 20 --types "V4 types"     the clusters and the known types to show
  december report --dataset 3f2a --model 91            only these, by the beginnings of their hashes
  december report --no-tsne                            faster, and without the store
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``december report``."""
    parser = subparsers.add_parser(
        "report", help="write the answer as one HTML file", description=DESCRIPTION, epilog=EPILOG
    )
    add_report_options(parser)
    add_lab_options(parser)


def add_report_options(parser: argparse._ActionsContainer) -> None:
    """Add the options for the report's file and content, for ``report`` and ``run``."""
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("report.html"),
        metavar="FILE",
        help="file to write (default: %(default)s)",
    )
    parser.add_argument("--force", action="store_true", help="replace the file even if it is not a december report")
    parser.add_argument("--title", default="", metavar="TEXT", help="heading of the page")
    add_selection_options(parser, clusters="number of clusters to show one by one")
    parser.add_argument("--no-tsne", action="store_true", help="leave the t-SNE out")
    parser.add_argument(
        "--max-neurons", type=int, default=2000, metavar="N", help="most neurons of a session in the t-SNE (2000)"
    )


def add_selection_options(parser: argparse._ActionsContainer, *, clusters: str) -> None:
    """Add the options that select configurations, for ``report`` and ``export``."""
    parser.add_argument("--types", metavar="NAME", help="known types to compare with (default: the only ones)")
    parser.add_argument("--clusters", type=int, metavar="K", help=clusters)
    parser.add_argument("--dataset", default="", metavar="HASH", help="only datasets whose hash begins with this")
    parser.add_argument("--model", default="", metavar="HASH", help="only models whose hash begins with this")


def check_options(args: argparse.Namespace) -> None:
    """Raise a SettingsError for an option that is wrong regardless of the tables."""
    from december_plugin.report.writing import check_replaceable
    from december_plugin.validation.checks import check_integer

    check_integer("--max-neurons", args.max_neurons, minimum=1)
    check_replaceable(args.output, force=args.force)


def run(args: argparse.Namespace) -> int:
    """Write the report."""
    check_options(args)
    write(args, open_lab_of(args, read_only=True))
    return 0


def write(args: argparse.Namespace, lab: Lab) -> ReportData:
    """Write the report of an open lab, and return its data."""
    # The plots take seconds to import, so quick checks come first.
    from december_plugin.report.render import render_report
    from december_plugin.report.writing import write_report
    from december_plugin.results.report import ReportSettings, collect_report

    settings = ReportSettings(
        title=args.title,
        command=command_line(),
        types_name=args.types,
        n_clusters=args.clusters,
        dataset=args.dataset,
        model=args.model,
        tsne=not args.no_tsne,
        max_neurons_per_session=args.max_neurons,
    )
    data = collect_report(lab.tables, settings=settings, log=say)
    say("writing the page")
    size = write_report(args.output, render_report(data))
    print(f"Written: {args.output} ({size / 1e6:.1f} MB)")
    for analysis in data.analyses:
        for item in analysis.missing:
            print(f"Not in it ({analysis.name}): {item.what}. {item.remedy}")
    return data


def say(text: str) -> None:
    """Say on the terminal what is taking long."""
    print(f"december: {text} ...", file=sys.stderr, flush=True)


def command_line() -> str:
    """Return the running command, for the record."""
    return shlex.join(["december", *sys.argv[1:]])
