"""Keeps passwords out of logs, job tables, tracebacks and messages.

Secrets are what this process knows to be secret: passwords and keys in DataJoint's configuration (the database's, the
stores'), those of an open connection, of the embedded server and of the environment (``DJ_PASS``,
``AWS_SECRET_ACCESS_KEY``, ...), and what :func:`remember_secret` was told. Passwords in URLs and after a name such as
``password=`` are replaced whether known or not.

===================  ============================================================================
length of a secret   replaced
===================  ============================================================================
8 and more           everywhere (one made of letters and digits alone: as a whole word)
4 to 7               in quotes, in URLs, and after a name such as ``password=``
1 to 3               in URLs, and after such a name: elsewhere an ``a`` is an accident
===================  ============================================================================
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import re
import sys
import threading
import traceback
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

MASK = "***"
LONG, QUOTED = 8, 4  # characters, see above

# Names, of settings and of environment variables, whose values are secrets; SSH_ASKPASS is a program.
SECRET_NAME = re.compile(
    r"(?<!ask)pass(word|wd|phrase)?$|_pwd$|secret(_?key|_?access_?key)?$|access_?key(_?id)?$|token$|_jwt$"
    r"|^december[._]notify$",  # the address of a webhook
    re.I,
)
NAME = r"(?i:\b\w*(?:password|passwd|passphrase|_pass|_pwd|secret|secret_?key|access_?key|access_?key_?id|token))"
IN_URL = re.compile(r"(?P<before>\b[a-z][a-z0-9+.-]*://[^\s:/@'\"]*:)[^\s/'\"]+(?=@)", re.I)
# 'passwd': 'x', password='x', "secret_key": "x"
IN_QUOTES = re.compile(rf"(?P<before>{NAME}[\"']?\s*[=:]\s*b?)(?P<quote>[\"'])(?:\\.|(?!(?P=quote)).)*(?P=quote)")
# What DataJoint logs at the level DEBUG.
NEW_SETTING = re.compile(r"(?P<before>\bSetting \S*(?:password|key) to ).*")


def redacted(text: str, *, secrets: frozenset[str] | None = None) -> str:
    """Return ``text`` with every secret that this process knows replaced by ``***``.

    Parameters
    ----------
    text
        A message, a traceback, anything that others may read.
    secrets
        What :func:`known_secrets` returned, where thousands of texts are redacted at once; None asks it.
    """
    pattern = _pattern(frozenset(known_secrets()) if secrets is None else secrets)
    if pattern is not None:
        text = pattern.sub(lambda match: (match["name"] or "") + MASK, text)
    text = IN_URL.sub(rf"\g<before>{MASK}", text)
    text = NEW_SETTING.sub(rf"\g<before>{MASK}", text)
    return IN_QUOTES.sub(rf"\g<before>\g<quote>{MASK}\g<quote>", text)


@functools.lru_cache(maxsize=32)
def _pattern(secrets: frozenset[str]) -> re.Pattern[str] | None:
    """Return what finds these secrets, however they are escaped; the longest first, as one may contain another."""
    forms = sorted({form for secret in secrets for form in _forms(secret)}, key=lambda form: (-len(form), form))
    if not forms:
        return None
    found = []
    for form in forms:
        literal = re.escape(form)
        if len(form) >= LONG:
            found.append(rf"(?<!\w){literal}(?!\w)" if _is_a_word(form) else literal)
        elif len(form) >= QUOTED:
            found.append(rf"(?<=[\"'`]){literal}(?=[\"'`])")
    values = "|".join(map(re.escape, forms))
    # Without quotes: password=a, DJ_PASS=a, --password a
    named = rf"(?P<name>(?:{NAME}\s*[=:]|--{NAME})\s*)(?:{values})(?![^\s,;)\]}}\"'])"
    return re.compile("|".join([*found, named]))


def _is_a_word(secret: str) -> bool:
    """Return whether it could be part of a longer word, as the password "december" is of "december_plugin"."""
    return secret.isalpha() or secret.isdigit() or (secret.isalnum() and len(secret) < 12)


def _forms(secret: str) -> set[str]:
    """Return a secret as it may be written: as it is, in Python's or JSON's quotes, in a URL, in SQL."""
    return {
        secret,
        repr(secret)[1:-1],
        json.dumps(secret)[1:-1],
        urllib.parse.quote(secret, safe=""),
        urllib.parse.quote_plus(secret),
        secret.replace("\\", "\\\\").replace("'", "\\'"),
        secret.replace("'", "''"),
    }


# ---- known secrets


def known_secrets() -> set[str]:
    """Return the secrets that this process knows; nothing is imported or connected to find them."""
    found = {value for name, value in os.environ.items() if value and SECRET_NAME.search(name)}
    found.update(_remembered)
    found.update(_of_datajoint())
    found.update(_of_embedded_server())
    return {secret for secret in found if secret.strip()}


_remembered: set[str] = set()


def remember_secret(secret: str) -> None:
    """Treat a text as a secret from now on that this process could not recognise, such as a webhook's address."""
    _remembered.add(secret)


def _of_datajoint() -> Iterator[str]:
    datajoint = sys.modules.get("datajoint")
    config = getattr(datajoint, "config", None)
    if datajoint is None or config is None:  # it is being imported
        return
    # Another thread may change a setting meanwhile.
    with contextlib.suppress(RuntimeError):
        yield from _in_settings(dict(config.items()))
    connection = getattr(getattr(datajoint, "conn", None), "connection", None)
    if connection is not None:
        yield from _in_settings(connection.conn_info)


def _in_settings(settings: Mapping[Any, Any]) -> Iterator[str]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _in_settings(value)
        elif isinstance(value, str) and SECRET_NAME.search(str(name)):
            yield value


def _of_embedded_server() -> Iterator[str]:
    # Nothing here may fail: text is redacted in the middle of imports, and without a home folder.
    with contextlib.suppress(ImportError, OSError, RuntimeError):
        from december_plugin.database.server_folder import ServerFolder

        path = ServerFolder().credentials
        yield from _passwords_in(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _passwords_in(path: Path, modified: int) -> tuple[str, ...]:
    with contextlib.suppress(OSError):
        return tuple(re.findall(r"^password=(.+)$", path.read_text(encoding="utf-8", errors="replace"), re.M))
    return ()


# ---- where text leaves the process


def redacted_traceback(error: BaseException) -> str:
    """Return the traceback of an error, with the errors that led to it and without secrets."""
    return redacted("".join(traceback.format_exception(error)))


class RedactingFilter(logging.Filter):
    """Replaces secrets in what a handler writes: messages, arguments, tracebacks and stacks. It drops nothing.

    Add it to a handler: a logger's filters do not see the records of the loggers below it.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact the record in place and return True."""
        redact_record(record)
        return True


def redact_record(record: logging.LogRecord) -> None:
    """Replace the secrets of a log record in place."""
    try:
        message = record.getMessage()
    except Exception:  # logging itself would print the arguments of a wrong format as they are
        message = f"{record.msg!r} with the arguments {record.args!r}"
        record.msg, record.args = message, ()
    clean = redacted(message)
    if clean != message:
        record.msg, record.args = clean, ()
    trace = record.exc_text or ""
    if isinstance(record.exc_info, tuple) and record.exc_info[1] is not None:
        trace = trace or logging.Formatter().formatException(record.exc_info)
    clean = redacted(trace)
    if clean != trace:
        record.exc_text, record.exc_info = clean, None  # formatters that make their own would show it again
    if record.stack_info:
        record.stack_info = redacted(record.stack_info)


_installed = False


def install() -> None:
    """Redact all that this process logs from now on, and the tracebacks that end it or its threads.

    For processes of our own, such as a worker; a notebook decides for itself. Calling it again changes nothing.
    """
    global _installed
    if _installed:
        return
    _installed = True
    make_record = logging.getLogRecordFactory()

    def make_redacted(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make_record(*args, **kwargs)
        redact_record(record)
        return record

    logging.setLogRecordFactory(make_redacted)
    sys.excepthook = _print_uncaught
    threading.excepthook = _print_uncaught_in_thread


def _print_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    print(redacted("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)


def _print_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is SystemExit:
        return
    name = args.thread.name if args.thread is not None else "unknown"
    text = "".join(traceback.format_exception(args.exc_type, args.exc_value, args.exc_traceback))
    print(redacted(f"Exception in thread {name}:\n{text}"), end="", file=sys.stderr)


class _RedactedStream:
    """A text stream that replaces secrets in what is written to it; everything else is the stream's."""

    def __init__(self, stream: Any):
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(redacted(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def redacted_output() -> Iterator[None]:
    """Replace secrets in what Python code inside a with block prints: a lab's trainer may print its settings."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _RedactedStream(before[0]), _RedactedStream(before[1])
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
