"""``december sweeps``: the sweeps that come with december."""

from __future__ import annotations

import argparse

from december_plugin.cli.commands import Subparsers
from december_plugin.text.formatting import numbered

DESCRIPTION = """\
Lists, shows and copies the sweeps that come with december. Those under paper/ are the experiments of the DECEMber paper
with its settings, and rotation-invariant clustering with those of its own paper, for your lab's recordings and GPUs;
each says which figure it belongs to, what the paper does not specify, and what it costs. Those under laptop/ are small
versions of them on simulated recordings, which run in a few minutes without a GPU.

A laptop sweep in three commands:

  december sweeps data laptop/marmoset-1 trial     writes the sweep, its recordings and the planted types into trial/
  december register trial/marmoset-1.yaml
  december pool --cpu 2 --idle-exit 30
"""
EPILOG = """\
examples:
  december sweeps list
  december sweeps show paper/mouse-v1-strength
  december sweeps copy paper/mouse-v1-strength my-lab       then put your own folders into my-lab/mouse-v1-strength.yaml
  december sweeps data laptop/marmoset-1 trial
  december register paper/mouse-v1-strength --dry-run       how many trainings; how many hours, if some have run
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``december sweeps``."""
    parser = subparsers.add_parser(
        "sweeps", help="list or copy the paper's sweeps, and small ones to try", description=DESCRIPTION, epilog=EPILOG
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", title="actions", required=True)
    actions.add_parser("list", help="list their names, and what each is about")
    for action, text in (
        ("show", "print a sweep"),
        ("copy", "copy a sweep, to put your own folders into it"),
        ("data", "copy a laptop sweep and write the simulated recordings that it needs"),
    ):
        one = actions.add_parser(action, help=text)
        one.add_argument("name", metavar="NAME", help="as in `december sweeps list`, e.g. paper/mouse-v1-strength")
        if action != "show":
            one.add_argument("folder", metavar="FOLDER", help="where to write; created if it does not exist")


def run(args: argparse.Namespace) -> int:
    """List, show, copy, or write data."""
    return {"list": _list, "show": _show, "copy": _copy, "data": _data}[args.action](args)


def _list(args: argparse.Namespace) -> int:
    from december_plugin.sweeps.shipped import names, summary

    width = max(map(len, names()))
    for name in names():
        print(f"{name:<{width}}  {summary(name)}")
    return 0


def _show(args: argparse.Namespace) -> int:
    from december_plugin.sweeps.shipped import shipped_path

    print(shipped_path(args.name).read_text(encoding="utf-8"), end="")
    return 0


def _copy(args: argparse.Namespace) -> int:
    from december_plugin.sweeps.shipped import copy_sweep

    target = copy_sweep(args.name, args.folder)
    print(f"Wrote {target}. Put your own folders into it, then: december register {target}")
    return 0


def _data(args: argparse.Namespace) -> int:
    from december_plugin.sweeps.laptop_recordings import check_laptop, write_laptop_data
    from december_plugin.sweeps.shipped import copy_sweep

    check_laptop(args.name)
    target = copy_sweep(args.name, args.folder)
    written = write_laptop_data(args.name, args.folder)
    print(f"Wrote {target}, and next to it {numbered(len(written.recordings), 'recording')} and the planted types.")
    print("Next:")
    print(f"  december register {target}")
    print(f'  december types import {written.types} --name "{written.types_name}" --source simulated')
    print("  december pool --idle-exit 30      (without a GPU: --cpu 2)")
    print("  december ari")
    return 0
