"""Secrets are replaced wherever text leaves the process; everything else stays as it is."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from december_plugin import cli
from december_plugin.errors import ExitCode, ServerError
from december_plugin.security import redaction as secrets
from december_plugin.security.redaction import RedactingFilter, known_secrets, redacted

PASSWORD = "tr0ub4dor & 3"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Know one password, in ``DJ_PASS``, and none of the machine that runs the tests."""
    for name in os.environ:
        if secrets.SECRET_NAME.search(name):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DECEMBER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(secrets, "_of_datajoint", lambda: iter(()))
    monkeypatch.setenv("DJ_PASS", PASSWORD)


# ---- what is replaced


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("refused with tr0ub4dor & 3, twice: tr0ub4dor & 3", "refused with ***, twice: ***"),
        ("a" + PASSWORD + "b", "a***b"),
        ("mysql://lab:tr0ub4dor%20%26%203@host/db", "mysql://lab:***@host/db"),
        ("tr0ub4dor+%26+3", "***"),
        ("Nothing to hide.", "Nothing to hide."),
        ("", ""),
    ],
)
def test_known_password_is_replaced_in_every_spelling(text: str, expected: str) -> None:
    assert redacted(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        'ö\'s "back\\slash"',
        'ö\\\'s "back\\\\slash"',  # Python's quotes
        '\\u00f6\'s \\"back\\\\slash\\"',  # JSON
        "ö''s \"back\\slash\"",  # SQL
        "%C3%B6%27s%20%22back%5Cslash%22",  # URL
    ],
)
def test_escaped_password_is_replaced(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJ_PASS", 'ö\'s "back\\slash"')
    assert redacted(f"before {text} after") == "before *** after"


@pytest.mark.parametrize(
    ("password", "text", "expected"),
    [
        # One letter is replaced only where it must be the password.
        ("a", "a training of a model: 'a'", "a training of a model: 'a'"),
        ("a", "connect(user='lab', password='a')", "connect(user='lab', password='***')"),
        ("a", "DJ_PASS=a december worker --a", "DJ_PASS=*** december worker --a"),
        ("a", "mysql --password a lab", "mysql --password *** lab"),
        ("a", "password=abc", "password=abc"),
        # Four to seven characters also where they are quoted.
        ("lab1", "lab1 is the host, 'lab1' the password", "lab1 is the host, '***' the password"),
        # A word is replaced as a word.
        ("december", "december_plugin: wrong december", "december_plugin: wrong ***"),
        ("hunter2hunter2", "xhunter2hunter2x", "x***x"),
    ],
)
def test_short_and_common_passwords_do_not_spoil_the_text(
    password: str, text: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DJ_PASS", password)
    assert redacted(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://user:pa:ss@w0rd@host:9000/bucket", "https://user:***@host:9000/bucket"),
        ("https://host:9000/bucket?at=a@b", "https://host:9000/bucket?at=a@b"),
        ("{'host': 'db', 'passwd': 'it\\'s me', 'port': 1}", "{'host': 'db', 'passwd': '***', 'port': 1}"),
        ("{'access_key': 'AK', 'secret_key': \"sk\"}", "{'access_key': '***', 'secret_key': \"***\"}"),
        ("Setting database.password to never seen before", "Setting database.password to ***"),
        ("Setting database.port to 3306", "Setting database.port to 3306"),
        ("(using password: YES)", "(using password: YES)"),
        (
            "Set DJ_PASS in the environment, or database.password in",
            "Set DJ_PASS in the environment, or database.password in",
        ),
    ],
)
def test_unknown_passwords_are_replaced_where_they_show_themselves(text: str, expected: str) -> None:
    assert redacted(text) == expected


def test_the_longer_of_two_secrets_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "12345678-90ab")
    monkeypatch.setenv("MYSQL_PWD", "12345678-90abcdef")
    assert redacted("12345678-90abcdef 12345678-90ab") == "*** ***"


# ---- what is known


def test_names_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "MINIO_ROOT_PASSWORD", "MYSQL_PWD", "SLURM_JWT"):
        monkeypatch.setenv(name, f"value of {name}")
    for name in ("SSH_ASKPASS", "TOKENIZERS_PARALLELISM", "DJ_PASS_FILE", "MY_PWD_DIR", "DJ_USER"):
        monkeypatch.setenv(name, f"value of {name}")
    assert known_secrets() == {
        PASSWORD,
        "value of AWS_SECRET_ACCESS_KEY",
        "value of AWS_SESSION_TOKEN",
        "value of MINIO_ROOT_PASSWORD",
        "value of MYSQL_PWD",
        "value of SLURM_JWT",
    }


def test_settings_of_datajoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.delenv("DJ_PASS", raising=False)
    from december_plugin.importing.datajoint import quiet_datajoint

    dj = quiet_datajoint()
    monkeypatch.setitem(dj.config._conf, "database.password", "of the database")
    store = {"protocol": "s3", "bucket": "models", "access_key": "of the access", "secret_key": "of the store"}
    monkeypatch.setitem(dj.config._conf, "stores", {"minio": store})
    monkeypatch.setitem(dj.config._conf, "database.use_tls", {"ca": "/ca.pem", "password": "of the key file"})
    assert {"of the database", "of the access", "of the store", "of the key file"} <= known_secrets()
    assert "models" not in known_secrets()


def test_password_of_an_open_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    from december_plugin.importing.datajoint import quiet_datajoint

    dj = quiet_datajoint()
    opened = type("Connection", (), {"conn_info": {"user": "lab", "passwd": "of the connection"}})()
    monkeypatch.setattr(dj.conn, "connection", opened, raising=False)
    assert "of the connection" in known_secrets()


def test_password_of_the_embedded_server(tmp_path: Path) -> None:
    folder = tmp_path / "home" / "server"
    folder.mkdir(parents=True)
    (folder / "client.cnf").write_text("[client]\nuser=december\npassword=Zm9v-YmFy_embedded\nport=13306\n")
    assert redacted("with Zm9v-YmFy_embedded at port 13306") == "with *** at port 13306"


# ---- logging


def logged(log: logging.Logger, *arguments: object, **options: object) -> str:
    handler = logging.StreamHandler(stream := io.StringIO())
    handler.addFilter(RedactingFilter())
    log.addHandler(handler)
    try:
        log.error(*arguments, **options)  # type: ignore[arg-type]
    finally:
        log.removeHandler(handler)
    return stream.getvalue()


@pytest.fixture
def log() -> logging.Logger:
    log = logging.getLogger("tests.secrets")
    log.propagate = False
    return log


def test_filter_redacts_messages_and_arguments(log: logging.Logger) -> None:
    assert logged(log, "password is %s, try %d", PASSWORD, 2) == "password is ***, try 2\n"
    assert logged(log, PASSWORD) == "***\n"
    assert logged(log, "a %(kind)s", {"kind": "word"}) == "a word\n"


def test_filter_redacts_tracebacks_and_stacks(log: logging.Logger) -> None:
    try:
        try:
            raise ValueError(PASSWORD)
        except ValueError:
            raise KeyError(f"while using {PASSWORD}") from None
    except KeyError:
        text = logged(log, "failed", exc_info=True, stack_info=True)
    assert PASSWORD not in text
    assert "KeyError: 'while using ***'" in text
    assert 'logged(log, "failed"' in text


def test_filter_redacts_what_cannot_be_formatted(log: logging.Logger) -> None:
    record = log.makeRecord("name", logging.INFO, "file", 1, "%d words", (PASSWORD,), None)
    assert RedactingFilter().filter(record)
    assert record.getMessage() == "'%d words' with the arguments ('***',)"


def test_filter_leaves_other_records_alone(log: logging.Logger) -> None:
    record = log.makeRecord("name", logging.INFO, "file", 1, "%s of %s", ("one", "two"), None)
    assert RedactingFilter().filter(record)
    assert (record.msg, record.args) == ("%s of %s", ("one", "two"))


def test_what_is_printed_inside_the_block_is_redacted(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout
    with secrets.redacted_output():
        print("logged in with", PASSWORD)
        print(f"again: {PASSWORD}", file=sys.stderr)
        sys.stdout.writelines([PASSWORD, "\n"])
        assert sys.stdout.isatty() is False
        assert sys.stdout.encoding == before.encoding
    assert sys.stdout is before
    assert capsys.readouterr() == ("logged in with ***\n***\n", "again: ***\n")


# ---- a process of ours


INSTALLED = """\
import logging, sys, threading
from december_plugin.security import redaction as secrets
secrets.install()
secrets.install()
password = "tr0ub4dor & 3"
logging.getLogger("any.library").error("by a library: %s", password)
handler = logging.StreamHandler()
logging.getLogger("later").addHandler(handler)
logging.getLogger("later").warning("by a later handler: " + password)
def fail():
    raise ValueError("in a thread: " + password)
thread = threading.Thread(target=fail, name="heart")
thread.start()
thread.join()
raise RuntimeError("at the end: " + password)
"""


def test_install_covers_all_loggers_and_uncaught_errors() -> None:
    done = subprocess.run([sys.executable, "-c", INSTALLED], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert PASSWORD not in done.stdout + done.stderr
    for line in (
        "by a library: ***\n",
        "by a later handler: ***\n",
        "Exception in thread heart:\n",
        "ValueError: in a thread: ***\n",
        "RuntimeError: at the end: ***\n",
    ):
        assert line in done.stderr


@pytest.mark.parametrize("debug", [False, True])
def test_command_line_redacts_its_messages(
    debug: bool, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["december", "--password", PASSWORD])
    assert cli._report(ServerError(f"refused: {PASSWORD}"), debug=debug) == ExitCode.ERROR
    assert cli._report(TypeError(f"defect: {PASSWORD}"), debug=debug) == ExitCode.BUG
    text = capsys.readouterr().err
    assert PASSWORD not in text
    assert "december: error: refused: ***\n" in text
    assert "december: error: unexpected TypeError: defect: ***\n" in text
    assert ("TypeError: defect: ***\ndecember" in text) == debug
    files = list((tmp_path / "home" / "errors").glob("*.txt"))
    assert len(files) == (0 if debug else 1)
    for file in files:
        assert PASSWORD not in file.read_text()
        assert "TypeError: defect: ***" in file.read_text()
        assert file.stat().st_mode & 0o777 == 0o600


def test_wrong_usage_does_not_repeat_a_password(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", f"--password={PASSWORD}"]) == ExitCode.USAGE
    error = capsys.readouterr().err
    assert "unrecognized arguments: --password=***" in error
    assert PASSWORD not in error
