"""DataJoint, imported quietly and with the settings that the environment names.

A lab's DataJoint settings (``dj_local_conf.json``, ``~/.datajoint_config.json``, ``DJ_HOST``, ``DJ_USER``, ``DJ_PASS``,
or ``dj.config`` set in a program) are used as they are; ``DECEMBER_SETTINGS_FILE`` names a file that is read instead of
DataJoint's two.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from types import ModuleType

from december_plugin.errors import SettingsError

CONFIG_FILES = ("dj_local_conf.json", "~/.datajoint_config.json")  # DataJoint reads the first that exists
SETTINGS_FILE = "DECEMBER_SETTINGS_FILE"  # the variable that names another one, which is read instead
ENVIRONMENT = ("DJ_HOST", "DJ_USER", "DJ_PASS")

_settings_read: str | None = None  # the file of DECEMBER_SETTINGS_FILE whose settings dj.config has


class _ConnectionNoise(logging.Filter):
    """Drops what DataJoint logs about every connection, and nothing else."""

    BEGINNINGS = ("No config file was found", "DataJoint is configured from", "Overloaded settings")
    verbose = False

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        noise = message.startswith(self.BEGINNINGS) or re.match(r"DataJoint \S+ connected to ", message)
        return self.verbose or record.levelno > logging.INFO or not noise


_noise = _ConnectionNoise()


def quiet_connections(*, verbose: bool = False) -> None:
    """Keep DataJoint from logging its settings files and every connection, or let it (`verbose`), from now on."""
    _noise.verbose = verbose
    logging.getLogger("datajoint").addFilter(_noise)  # adding it again changes nothing


def quiet_datajoint() -> ModuleType:
    """Import DataJoint without the lines that it logs about its settings and every connection, and return it.

    Raises
    ------
    SettingsError
        ``DECEMBER_SETTINGS_FILE`` names a file that does not exist.
    """
    quiet_connections(verbose=_noise.verbose)
    import datajoint

    _read_named_settings(datajoint)
    return datajoint


def _read_named_settings(dj: ModuleType) -> None:
    """Replace what DataJoint has read by the file that the environment names, once.

    DataJoint prefers a file in the folder where a command starts, which in a container is the folder of a project: the
    settings of the container must not be mixed with those that are used there otherwise.
    """
    global _settings_read
    named = os.environ.get(SETTINGS_FILE)
    if not named or _settings_read == named:
        return
    if not Path(named).is_file():
        raise SettingsError(f"{SETTINGS_FILE} is {named}, which does not exist. Write it, or unset the variable.")
    dj.config.clear()
    dj.config.update(dj.settings.default)
    dj.config.load(named)
    dj.config.update(dj.settings.mapping)  # variables such as DJ_HOST take precedence over files
    _settings_read = named


def settings_source() -> str:
    """Return where DataJoint's settings come from, for messages."""
    names = [name for name in ENVIRONMENT if os.environ.get(name)]
    named = os.environ.get(SETTINGS_FILE)
    paths = (Path(name).expanduser() for name in ((named,) if named else CONFIG_FILES))
    files = [str(path.absolute()) for path in paths if path.exists()][:1]
    return " and ".join([*([", ".join(names)] if names else []), *files]) or "dj.config"
