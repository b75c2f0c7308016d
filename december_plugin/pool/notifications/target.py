"""Where notifications go: a webhook, as chat services offer them, or a command.

The first of these that is set counts:

====================  ==========================================================
``--notify``          of ``december pool``, ``run`` and ``worker``
DECEMBER_NOTIFY       in the environment
december.notify       in DataJoint's configuration (``dj_local_conf.json``)
====================  ==========================================================

It is an address that begins with ``http://`` or ``https://``, or a command with its options, or ``file:PATH``: a file
whose first line is one of these. An address is a secret, because anyone who knows it may post there: messages, logs
and tables contain only its host.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import certifi
import urllib3

from december_plugin.errors import DecemberError, SettingsError
from december_plugin.security.redaction import redacted, remember_secret

OPTION, VARIABLE, SETTING = "--notify", "DECEMBER_NOTIFY", "december.notify"
FILE = "file:"
CONNECT_SECONDS, ANSWER_SECONDS = 3.0, 7.0  # of a webhook
COMMAND_SECONDS = 15.0
REFUSED = urllib3.exceptions.NewConnectionError  # in some releases of urllib3 a kind of timeout
MAX_CONTENT = 1900  # characters; Discord takes 2000
ALLOWED = "an address that begins with https:// or http://, a command, or file:PATH of a file that has one of these"


class DeliveryError(DecemberError):
    """A notification could not be delivered; the message says why, without the address."""


@dataclass(frozen=True)
class Message:
    """One notification.

    Attributes
    ----------
    message_id
        The same at every attempt to deliver it.
    event
        ``failed``, ``poisoned``, ``finished`` or ``trouble``.
    text
        For people.
    fields
        For programs, see :meth:`details`.
    """

    message_id: str
    event: str
    text: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    def details(self) -> dict[str, Any]:
        """Return what programs may want to know."""
        return {"id": self.message_id, "event": self.event, **self.fields}


class NotificationTarget(Protocol):
    """Takes notifications."""

    @property
    def name(self) -> str:
        """What logs call it."""

    @property
    def identity(self) -> str:
        """What distinguishes it from others; may be secret."""

    def deliver(self, message: Message) -> None:
        """Deliver a notification within seconds; raise a :class:`DeliveryError` otherwise."""


@dataclass(frozen=True, repr=False)
class Webhook:
    """An address that takes JSON with ``text`` (Slack, Mattermost, Rocket.Chat) or ``content`` (Discord)."""

    address: str

    def __post_init__(self) -> None:
        for secret in (self.address, self._parsed.request_uri, self._parsed.auth):
            if secret and secret != "/":
                remember_secret(secret)

    @property
    def _parsed(self) -> urllib3.util.Url:
        return urllib3.util.parse_url(self.address)

    @property
    def name(self) -> str:
        """The host."""
        return str(self._parsed.host)

    @property
    def identity(self) -> str:
        """The address."""
        return self.address

    def deliver(self, message: Message) -> None:
        """Post a notification."""
        text = _without_mentions(message.text)
        content = {
            "text": text,
            "content": text[:MAX_CONTENT],
            "allowed_mentions": {"parse": []},
            "december": message.details(),
        }
        parsed = self._parsed
        headers = {"Content-Type": "application/json"}
        if parsed.auth:
            headers |= urllib3.util.make_headers(basic_auth=parsed.auth)
        try:
            with self._http() as http:
                answer = http.request(
                    "POST",
                    parsed._replace(auth=None).url,
                    body=json.dumps(content).encode(),
                    headers=headers,
                    retries=False,
                    redirect=False,  # it would take the message to an address that nobody has configured
                    preload_content=False,
                )
                answer.close()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            if isinstance(error, urllib3.exceptions.TimeoutError) and not isinstance(error, REFUSED):
                raise DeliveryError(f"no answer within {CONNECT_SECONDS + ANSWER_SECONDS:g} s") from None
            raise DeliveryError(redacted(f"{type(error).__name__}: {error}")) from None
        if not 200 <= answer.status < 300:
            raise DeliveryError(f"it answers with status {answer.status}")

    def _http(self) -> urllib3.PoolManager:
        settings: dict[str, Any] = {
            "timeout": urllib3.Timeout(connect=CONNECT_SECONDS, read=ANSWER_SECONDS),
            "cert_reqs": "CERT_REQUIRED",
            "ca_certs": os.environ.get("SSL_CERT_FILE") or certifi.where(),
        }
        parsed = self._parsed
        proxy = urllib.request.getproxies().get(str(parsed.scheme))
        if proxy and not urllib.request.proxy_bypass(str(parsed.host)):
            return urllib3.ProxyManager(proxy, **settings)
        return urllib3.PoolManager(**settings)


@dataclass(frozen=True, repr=False)
class Command:
    """A program that gets the text on its standard input, and the fields in its environment."""

    words: tuple[str, ...]

    @property
    def name(self) -> str:
        """The program, without its options."""
        return self.words[0]

    @property
    def identity(self) -> str:
        """The program with its options."""
        return shlex.join(self.words)

    def deliver(self, message: Message) -> None:
        """Run the command."""
        details = message.details()
        variables = {
            f"DECEMBER_EVENT_{name.upper()}": str(value)
            for name, value in details.items()
            if name != "event" and isinstance(value, (str, int))
        }
        variables |= {"DECEMBER_EVENT": message.event, "DECEMBER_EVENT_JSON": json.dumps(details)}
        try:
            process = subprocess.Popen(
                self.words,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **variables},
                start_new_session=True,
            )
        except OSError as error:
            raise DeliveryError(f"it cannot be started: {error.strerror or error}") from None
        try:
            process.communicate(f"{message.text}\n".encode(), timeout=COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            raise DeliveryError(f"it did not end within {COMMAND_SECONDS:g} s") from None
        except OSError:  # it did not read its input; its exit code says whether that matters
            process.wait()
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.returncode:
            raise DeliveryError(f"it ended with code {process.returncode}")


def notification_target(option: str | None = None) -> NotificationTarget | None:
    """Return where notifications go; None if no setting says so.

    Parameters
    ----------
    option
        The value of ``--notify``.

    Raises
    ------
    SettingsError
        The setting is neither an address nor a command that exists; the message does not repeat it.
    """
    from december_plugin.importing.datajoint import quiet_datajoint

    sources = {
        OPTION: option,
        VARIABLE: os.environ.get(VARIABLE),
        SETTING: quiet_datajoint().config.get(SETTING),
    }
    for source, value in sources.items():
        if value is not None and not isinstance(value, str):
            raise SettingsError(f"{source} must be text: {ALLOWED}.")
        if value and value.strip():
            return _target(value.strip(), source)
    return None


def _target(value: str, source: str) -> NotificationTarget:
    if value.startswith(FILE):
        path = Path(value.removeprefix(FILE)).expanduser()
        try:
            lines = path.read_text(encoding="utf-8").strip().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"{source} names the file {path}, which cannot be read ({getattr(error, 'strerror', None) or error})."
            ) from None
        value, source = lines[0].strip() if lines else "", f"the file {path} that {source} names"
    if "://" in value.split(" ")[0]:
        return Webhook(_checked_address(value, source))
    try:
        words = tuple(shlex.split(value))
    except ValueError as error:
        raise SettingsError(f"{source} is not a command ({error}). It must be {ALLOWED}.") from None
    if not words:
        raise SettingsError(f"{source} is empty. It must be {ALLOWED}.")
    if shutil.which(words[0]) is None:
        raise SettingsError(f"{source} begins with {words[0]!r}, which is not a command here. It must be {ALLOWED}.")
    return Command(words)


def _checked_address(value: str, source: str) -> str:
    try:
        parsed = urllib3.util.parse_url(value)
    except urllib3.exceptions.LocationParseError:
        parsed = urllib3.util.Url()
    if parsed.scheme not in ("http", "https") or not parsed.host or " " in value:
        raise SettingsError(f"{source} is not an address of a webhook. It must be {ALLOWED}.")
    return value


def _without_mentions(text: str) -> str:
    """Return a text that alerts no channel, whatever the message of an error has in it."""
    return text.replace("@", "@\u200b").replace("<!", "<\u200b!")
