"""The ``december`` command: its parser, from :mod:`december_plugin.cli.commands`, and errors as exit codes.

What the codes mean is in :class:`december_plugin.errors.ExitCode`. A command may define further ones; its ``--help``
lists them.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import json
import os
import select
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

from december_plugin import __version__
from december_plugin.cli import commands
from december_plugin.errors import DecemberError, ExitCode, SettingsError
from december_plugin.importing import deferred
from december_plugin.security import redaction
from december_plugin.text import terminal

DESCRIPTION = """\
Clusters the neurons of digital-twin models into functional types with DECEMber and its controls, from several seeds, in
your lab's nnfabrik and DataJoint tables, and shows how well the seeds agree.
"""
EPILOG = """\
the usual sequence:
  december demo                         the whole workflow on simulated recordings, in a few minutes
  december study A.pth B.pth --n-clusters 3-20   from trained models to a report, without a database
  december sweeps list                  the sweeps that come with december: the paper's, and small ones for a laptop
  december register sweep.yaml          write the entries of a sweep: data, models, trainers, seeds
  december import models.yaml           add models that were trained elsewhere, instead of training your own
  december run sweep.yaml               register, train and cluster until nothing is left, and write the report
  december types import labels.csv      store known cell types, to compare the clusters with
  december worker                       train and cluster until nothing is left; start several at once
  december pool                         keep a worker running on each GPU, here or on a Slurm cluster
  december status                       what is done, running or failed, and why
  december jobs show                    jobs one by one; the traceback and log of one; also: retry, ignore
  december forget sweep.yaml            remove from the plan what was never trained, such as a mistyped path
  december relocate OLD NEW             tell all workers where recordings have moved
  december ari                          the agreement between seeds, by method and number of clusters
  december report                       the answer as one HTML file: what the numbers say, with every plot
  december figures figures              the figures of the paper, as SVG, PDF and PNG
  december export numbers               the same numbers as CSV and Parquet files
  december bundle result.zip            models, clusters, numbers and report in one file, for others to import
  december health                       whether the workers of this machine are alive, for health checks
  december store clean                  find what killed workers left in the store; remove it on request
  december clean                        find old logs, pretrainings and rows of pools; remove them on request
  december db backup december.tar.gz    the embedded database and its store in one file; `db restore` reads it
  december db stop                      stop the embedded database (not needed with a lab's server)

`december COMMAND --help` has each command's options and examples. The database is your lab's if DataJoint is configured
(dj_local_conf.json, ~/.datajoint_config.json, DJ_HOST, DJ_USER, DJ_PASS); otherwise december starts its own.

exit codes: 0 done, 1 an error that the message explains, 2 wrong usage, 70 a bug in december, 130 interrupted
"""


class CommandParser(argparse.ArgumentParser):
    """A parser whose help keeps its line breaks and whose errors suggest the command that was meant."""

    def __init__(self, *args: Any, **kwargs: Any):
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)
        self.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks and connection messages"
        )

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            close = difflib.get_close_matches(str(value), choices, n=1)
            suggestion = f"Did you mean {close[0]!r}? " if close else ""
            raise argparse.ArgumentError(action, f"unknown: {value!r}. {suggestion}Allowed: {', '.join(choices)}.")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; unknown arguments are an error of the command that got them, with its usage and a suggestion."""
        namespace, left = super().parse_known_args(args, namespace)
        if left:
            known = [option for action in self._actions for option in action.option_strings]
            meant = (difflib.get_close_matches(word.split("=")[0], known, n=1) for word in left if word.startswith("-"))
            close = [found[0] for found in meant if found]
            suggestion = f". Did you mean {close[0]!r}?" if close else ""
            self.error(f"unrecognized arguments: {' '.join(left)}{suggestion}")
        return namespace, left

    def error(self, message: str) -> NoReturn:
        """Print the usage and the message to stderr and exit with code 2."""
        self.print_usage(sys.stderr)
        self.exit(ExitCode.USAGE, redaction.redacted(f"december: error: {message}\n"))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ``december`` with all commands; ``run`` in its result is the command's function."""
    parser = CommandParser(prog="december", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"december_plugin {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name in commands.names():
        command = commands.load(name)
        command.add_parser(subparsers)
        subparsers.choices[name].set_defaults(run=command.run)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code; raises nothing.

    Parameters
    ----------
    argv
        The words after ``december``; by default those of this process.
    """
    with terminal.safe_output():
        return _main(sys.argv[1:] if argv is None else argv)


def _main(argv: list[str]) -> int:
    redaction.install()
    try:
        code = _run(argv)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("\ndecember: interrupted", file=sys.stderr)
        return ExitCode.INTERRUPTED
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_is_gone():
            return ExitCode.BROKEN_PIPE
        return _report(error, debug="--debug" in argv)


def _run(argv: list[str]) -> int:
    parser = build_parser()
    try:
        args = parser.parse_args(argv)
        if args.command is None:
            parser.print_help(sys.stderr)
            return ExitCode.USAGE
        deferred.install()
        _quiet_connections("--debug" in argv)
        return args.run(args) or 0
    except SystemExit as end:  # --help, --version, wrong usage
        return end.code if isinstance(end.code, int) else 0 if end.code is None else ExitCode.ERROR


def _quiet_connections(debug: bool) -> None:
    from december_plugin.importing.datajoint import quiet_connections

    quiet_connections(verbose=debug)


def _report(error: Exception, *, debug: bool) -> int:
    """Print what went wrong, and return the exit code."""
    explained = error if isinstance(error, DecemberError) else _explain(error)
    if debug:
        print(redaction.redacted_traceback(error), end="", file=sys.stderr)
    if explained is not None:
        print(redaction.redacted(f"december: error: {explained}"), file=sys.stderr)
        return ExitCode.ERROR
    kind = f"{type(error).__name__}: {error}".strip().rstrip(":").splitlines()[0]
    print(redaction.redacted(f"december: error: unexpected {kind}"), file=sys.stderr)
    if not debug:
        print(f"This is a bug in december. The traceback was written to {_write_traceback(error)}", file=sys.stderr)
    return ExitCode.BUG


def _explain(error: Exception) -> DecemberError | None:
    """Return what an error of a server, a store or DataJoint's settings means, if a command let one through."""
    if isinstance(error, (json.JSONDecodeError, UnicodeDecodeError)) and _is_of_datajoints_settings(error):
        from december_plugin.importing.datajoint import settings_source

        source = settings_source()
        if isinstance(error, UnicodeDecodeError):
            return SettingsError(
                f"DataJoint's settings in {source} are not valid JSON: the byte at position {error.start} is not "
                "UTF-8. Save the file as UTF-8."
            )
        return SettingsError(f"DataJoint's settings in {source} are not valid JSON: {error}. Correct the file.")
    if "datajoint" not in sys.modules:
        return None
    from december_plugin.database.errors import explain_error

    return explain_error(error)


def _is_of_datajoints_settings(error: Exception) -> bool:
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    return any(file.endswith(os.path.join("datajoint", "settings.py")) for file in files)


def _write_traceback(error: Exception) -> Path:
    from december_plugin.storage.atomic import write_atomically
    from december_plugin.storage.home import december_home

    text = redaction.redacted(f"december_plugin {__version__}, Python {sys.version}\n{sys.argv}\n\n")
    text += redaction.redacted_traceback(error)
    name = time.strftime(f"december-error-%Y%m%d-%H%M%S-{os.getpid()}.txt")
    with contextlib.suppress(OSError):
        folder = december_home() / "errors"
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / name, text.encode(), mode=0o600)
        return folder / name
    path = Path(tempfile.mkdtemp(prefix="december-")) / name
    write_atomically(path, text.encode(), mode=0o600)
    return path


def _reader_is_gone() -> bool:
    """Return whether the reader of stdout is gone; if so, discard what is left in its buffer."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        gone = any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError, AttributeError):  # captured or closed
        return False
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return gone
