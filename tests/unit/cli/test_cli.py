"""The command line without a database: help, exit codes, and what is said about errors."""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from december_plugin import cli
from december_plugin.cli import commands
from december_plugin.errors import RecordingError, ServerError

HEAVY = ("torch", "datajoint", "nnfabrik", "numpy", "pandas", "matplotlib", "scipy", "sklearn")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DECEMBER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[argparse.Namespace], Any]], None]:
    """Return a function that makes its argument the only command, ``december try``."""

    def add_parser(subparsers: commands.Subparsers) -> None:
        subparsers.add_parser("try", help="tries").add_argument("--number", type=int)

    def set_run(run: Callable[[argparse.Namespace], Any]) -> None:
        monkeypatch.setattr(commands, "names", lambda: ["try"])
        monkeypatch.setattr(commands, "load", lambda name: SimpleNamespace(add_parser=add_parser, run=run))

    return set_run


def raising(error: BaseException) -> Callable[[argparse.Namespace], Any]:
    def run(_: argparse.Namespace) -> None:
        raise error

    return run


# ---- help


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import json, sys; from december_plugin.cli import main; code = main(['--help']); "
        f"print('loaded', json.dumps([code, [name for name in {HEAVY} if name in sys.modules]]))"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert json.loads(done.stdout.split("loaded ")[1]) == [0, []]
    # Processor time, so that a busy machine does not matter.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


def test_help_shows_every_command_and_the_usual_sequence(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    for name in commands.names():
        assert re.search(rf"^    {name} +\w", text, flags=re.MULTILINE), name
        assert f"  december {name}" in text
    assert text.index("december register") < text.index("december worker") < text.index("december ari")


@pytest.mark.parametrize("name", commands.names())
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert "examples:\n" in text
    assert f"  december {name}" in text
    assert callable(commands.load(name).run)


def test_commands_come_in_the_order_of_use() -> None:
    assert commands.names()[-1] == "db"
    assert set(commands.ORDER) <= set(commands.names())
    assert not [name for name in commands.names() if name.startswith("_")]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("december_plugin ")


# ---- wrong usage


def test_no_command_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "the usual sequence:" in captured.err


def test_misspelled_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["statsu"]) == 2
    allowed = ", ".join(commands.names())
    assert capsys.readouterr().err == (
        "usage: december [-h] [--debug] [--version] COMMAND ...\n"
        f"december: error: argument COMMAND: unknown: 'statsu'. Did you mean 'status'? Allowed: {allowed}.\n"
    )


@pytest.mark.parametrize(
    ("words", "usage", "message"),
    [
        ("ari --scheme foo", "december ari", "unrecognized arguments: --scheme foo. Did you mean '--schema'?"),
        ("ari --typs=planted", "december ari", "unrecognized arguments: --typs=planted. Did you mean '--types'?"),
        ("types list --schem x", "december types list", "unrecognized arguments: --schem x. Did you mean '--schema'?"),
        ("status all", "december status", "unrecognized arguments: all"),
        ("--foo status", "december", "unrecognized arguments: --foo"),
    ],
)
def test_unknown_options_are_errors_of_their_command(
    words: str, usage: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words.split()) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"usage: {usage} [-h]")
    assert said.endswith(f"december: error: {message}\n")


def test_unknown_action(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["db", "restart"]) == 2
    allowed = "start, stop, status, backup, restore, migrate"
    assert f"unknown: 'restart'. Did you mean 'start'? Allowed: {allowed}." in capsys.readouterr().err


def test_wrong_option(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    command(lambda args: 0)
    assert cli.main(["try", "--number", "one"]) == 2
    assert capsys.readouterr().err.endswith("december: error: argument --number: invalid int value: 'one'\n")
    assert cli.main(["try", "--num", "1"]) == 2  # no abbreviations: a later option could make them ambiguous


# ---- exit codes


@pytest.mark.parametrize(("returned", "code"), [(0, 0), (None, 0), (3, 3)])
def test_code_of_the_command_is_returned(command: Any, returned: int | None, code: int) -> None:
    command(lambda args: returned)
    assert cli.main(["try"]) == code


def test_arguments_reach_the_command(command: Any) -> None:
    seen = []
    command(lambda args: seen.append(args.number))
    cli.main(["try", "--number", "4"])
    assert seen == [4]


@pytest.mark.parametrize("error", [ServerError("no server"), RecordingError("no recording")])
def test_error_for_the_user_is_one_message(command: Any, error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    command(raising(error))
    assert cli.main(["try"]) == 1
    assert capsys.readouterr().err == f"december: error: {error}\n"


@pytest.mark.parametrize("words", [["--debug", "try"], ["try", "--debug"]])
def test_debug_adds_the_traceback(command: Any, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    command(raising(ServerError("no server")))
    assert cli.main(words) == 1
    text = capsys.readouterr().err
    assert text.startswith("Traceback (most recent call last):\n")
    assert text.endswith("december: error: no server\n")


def test_defect_writes_its_traceback(command: Any, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command(raising(ValueError("a matter of\ntwo lines")))
    assert cli.main(["try"]) == 70
    first, second = capsys.readouterr().err.splitlines()
    assert first == "december: error: unexpected ValueError: a matter of"
    match = re.fullmatch(r"This is a bug in december\. The traceback was written to (.*)", second)
    assert match is not None
    path = Path(match[1])
    assert path.parent == home / "errors"
    text = path.read_text()
    assert text.startswith("december_plugin ")
    assert text.endswith("ValueError: a matter of\ntwo lines\n")


def test_defect_where_nothing_can_be_written_at_home(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DECEMBER_HOME", str(tmp_path / "file"))
    command(raising(ValueError()))
    assert cli.main(["try"]) == 70
    first, second = capsys.readouterr().err.splitlines()
    assert first == "december: error: unexpected ValueError"
    path = Path(second.split(" was written to ")[1])
    assert "ValueError" in path.read_text()
    path.unlink()
    path.parent.rmdir()


def test_defect_with_debug_shows_the_traceback_only(
    command: Any, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command(raising(ZeroDivisionError("none")))
    assert cli.main(["try", "--debug"]) == 70
    assert capsys.readouterr().err.endswith("december: error: unexpected ZeroDivisionError: none\n")
    assert not home.exists()


def test_command_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def load(name: str) -> None:
        raise ImportError("no module of that name")

    monkeypatch.setattr(commands, "load", load)
    assert cli.main(["db", "status"]) == 70
    assert capsys.readouterr().err.startswith("december: error: unexpected ImportError: no module of that name\n")


def test_interrupt(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    command(raising(KeyboardInterrupt()))
    assert cli.main(["try"]) == 130
    assert capsys.readouterr().err == "\ndecember: interrupted\n"


@pytest.mark.parametrize(("status", "code"), [(None, 0), (5, 5), ("a message", 1)])
def test_exit_in_a_command(command: Any, status: object, code: int) -> None:
    command(raising(SystemExit(status)))
    assert cli.main(["try"]) == code


def test_database_error_that_a_command_lets_through(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    import datajoint as dj

    command(raising(dj.errors.LostConnectionError("Server connection lost")))
    assert cli.main(["try"]) == 1
    assert re.fullmatch(
        r"december: error: The connection to the database server \S+ was lost \(Server connection lost\)\. Check that "
        r"the server runs, then run the same command again: what was stored is kept\.\n",
        capsys.readouterr().err,
    )


def test_reader_that_ends_first() -> None:
    code = (
        "import sys; from types import SimpleNamespace; from december_plugin import cli; "
        "from december_plugin.cli import commands; "
        "commands.names = lambda: ['try']; run = lambda args: print('line\\n' * 100_000); "
        "commands.load = lambda name: SimpleNamespace(run=run, add_parser=lambda parsers: parsers.add_parser(name)); "
        "sys.exit(cli.main(['try']))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait() == 141


def test_broken_pipe_elsewhere_is_a_defect(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    command(raising(BrokenPipeError(32, os.strerror(32))))
    assert cli.main(["try"]) == 70
    assert "unexpected BrokenPipeError" in capsys.readouterr().err


def test_installed_command() -> None:
    command = Path(sys.executable).with_name("december")
    if not command.exists():
        pytest.skip("december_plugin is not installed in this environment")
    done = subprocess.run([command, "statsu"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Did you mean 'status'?" in done.stderr


def test_importing_the_package_opens_no_connection() -> None:
    code = "import sys, december_plugin; print('datajoint' in sys.modules, 'pymysql' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--epochs", "3"],
            "--epochs 3 includes the 20 epochs of the pretraining, so none are left for DECEMber. Give more "
            "than 20, or fewer --pretrain-epochs.",
        ),
        (["--epochs", "0"], "--epochs is 0; it must be at least 1."),
        (["--pretrain-epochs", "0"], "--pretrain-epochs is 0; it must be at least 1."),
    ],
)
def test_demo_names_its_own_options(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["demo", "--folder", str(tmp_path / "demo"), *options]) == 1
    assert capsys.readouterr().err == f"december: error: {message}\n"
    assert not (tmp_path / "demo").exists()
