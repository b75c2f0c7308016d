"""Which database server to use: the one that a lab's DataJoint settings name, or the embedded one."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

from december_plugin.database.embedded import EmbeddedServer
from december_plugin.database.server_folder import ServerSettings
from december_plugin.errors import ServerError
from december_plugin.importing.datajoint import quiet_datajoint, settings_source

LOOPBACK = ("localhost", "127.0.0.1", "::1")
OPENED = "dj.conn()"  # the source of the settings of a connection that a program opened with its own arguments

_applied: ServerSettings | None = None  # what use_embedded wrote into dj.config


@dataclass(frozen=True)
class LabSettings:
    """The database server that DataJoint's settings name."""

    host: str
    port: int
    user: str | None
    source: str  # where the settings were found

    @property
    def address(self) -> str:
        """Host and port, as in messages."""
        return self.host if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether the server runs on this machine."""
        return self.host.split(":")[0] in LOOPBACK


def lab_settings(home: str | os.PathLike[str] | None = None) -> LabSettings | None:
    """Return the server that a lab's DataJoint settings name, or None if there are none.

    Parameters
    ----------
    home
        The folder of the embedded server, whose own settings (even if saved to a DataJoint file) are not a lab's.
    """
    dj = quiet_datajoint()
    config, source = dj.config, settings_source()
    host = config["database.host"] or "localhost"
    port, user, password = config["database.port"], config["database.user"], config["database.password"]
    if host == "localhost" and port == 3306 and user is None and password is None:
        if not hasattr(dj.conn, "connection"):
            return None
        info, source = dj.conn.connection.conn_info, OPENED
        host, port, user, password = info["host"], info["port"], info["user"], info["passwd"]
    embedded = [_applied] if _applied else []
    with contextlib.suppress(ServerError):
        embedded.append(EmbeddedServer(home).settings)
    if any(host == known.host and password == known.password for known in embedded):
        return None
    return LabSettings(host, port, user, source)


def use_embedded(settings: ServerSettings) -> bool:
    """Point DataJoint to the embedded server; return whether this changed anything."""
    global _applied
    dj = quiet_datajoint()
    changed = _applied != settings
    _applied = settings
    for name in ("host", "port", "user", "password"):
        dj.config[f"database.{name}"] = getattr(settings, name)
    dj.config["database.use_tls"] = False
    return changed


def has_used_embedded() -> bool:
    """Return whether this process was pointed to the embedded server before."""
    return _applied is not None
