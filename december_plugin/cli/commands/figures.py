"""``december figures``: every figure that the tables allow."""

from __future__ import annotations

import argparse
from pathlib import Path

from december_plugin.cli.commands import Subparsers
from december_plugin.cli.options import add_lab_options, open_lab_of

DESCRIPTION = """\
Draws every figure of the DECEMber paper that the tables allow, and further ones, as SVG, PDF and PNG, and says which
are left out, and why. docs/figures.md lists the figures and the frames they are drawn from.
"""
EPILOG = """\
examples:
  december figures figures
  december figures figures --types planted     compare with the known types of this name
  december figures figures --no-tsne           without embeddings, which need the store and take minutes
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``december figures``."""
    parser = subparsers.add_parser(
        "figures", help="draw every figure that the tables allow", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where to write; created if it does not exist")
    parser.add_argument("--types", metavar="NAME", help="known types to compare with (default: the only ones)")
    parser.add_argument("--no-tsne", action="store_true", help="leave the embeddings out of the figure of strengths")
    add_lab_options(parser)


def run(args: argparse.Namespace) -> int:
    """Draw the figures."""
    lab = open_lab_of(args, read_only=args.no_tsne)
    from december_plugin.results.figures import (
        draw_all,  # takes seconds to import, so quick checks come first
    )

    left_out = []
    for name, paths, reason in draw_all(lab, args.folder, types_name=args.types, with_tsne=not args.no_tsne):
        if paths:
            print(f"figure  {paths[0].with_suffix('')}.{{{','.join(path.suffix[1:] for path in paths)}}}", flush=True)
        else:
            left_out.append((name, reason))
    width = max((len(name) for name, _ in left_out), default=0)
    if left_out:
        print("\nleft out")
    for name, reason in left_out:
        print(f"  {name:<{width}}  {reason}")
    return 0
