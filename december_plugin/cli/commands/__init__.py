r"""The sub-commands of ``december``, one module each.

A command ``december NAME`` is a module ``december_plugin.cli.commands.NAME`` with two functions::

    def add_parser(subparsers) -> None:
        parser = subparsers.add_parser("NAME", help="one line", description="...", epilog="examples:\n  ...")
        parser.add_argument(...)

    def run(args: argparse.Namespace) -> int:
        ...
        return 0

`run` returns the exit code. It raises :class:`~december_plugin.errors.DecemberError` for what the user can correct, and
leaves interrupts, server errors and bugs to :func:`december_plugin.cli.main`. ``december --help`` imports every
command's module: these import nothing heavy (torch, datajoint, pandas, matplotlib) at module level, but in `run`.
Modules whose names begin with an underscore are not commands; one that ends with an underscore is a command whose name
is a keyword of Python.
"""

from __future__ import annotations

import argparse
import importlib
import keyword
import pkgutil
from typing import Any, Protocol, TypeAlias, cast

# The order of the overview is that of their use. Commands that are not named here follow.
ORDER = (
    "demo",
    "study",
    "sweeps",
    "register",
    "import",
    "run",
    "types",
    "worker",
    "pool",
    "status",
    "jobs",
    "forget",
    "relocate",
    "ari",
    "figures",
    "report",
    "export",
    "bundle",
    "health",
    "store",
    "clean",
    "db",
)


# What argparse.ArgumentParser.add_subparsers returns; argparse has no public name for it.
Subparsers: TypeAlias = "argparse._SubParsersAction[Any]"  # noqa: SLF001


class Command(Protocol):
    """The module of one command."""

    def add_parser(self, subparsers: Subparsers) -> object:
        """Add the command's parser to the parsers of ``december``."""

    def run(self, args: argparse.Namespace) -> int:
        """Run the command and return its exit code."""


def names() -> list[str]:
    """Return the commands' names in the order of the overview."""
    found = {module.name.rstrip("_") for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")}
    return [name for name in ORDER if name in found] + sorted(found - set(ORDER))


def load(name: str) -> Command:
    """Import the module of a command."""
    module = f"{name}_" if keyword.iskeyword(name) else name
    return cast(Command, importlib.import_module(f"{__name__}.{module}"))
