"""Where the control daemons of MPS have their sockets: a folder for each process that has started daemons.

It is named after that process, so that another one can tell whether it has ended. The path must be short: the name of a
socket has at most 107 characters.
"""

from __future__ import annotations

import os
import platform
import re
import stat
import tempfile
import zlib
from contextlib import suppress
from pathlib import Path

from december_plugin.pool.supervisor.process_table import start_of

LONGEST_PATH = 90  # of a daemon's folder; the names of its sockets in it have up to 17 more


def own_name() -> str:
    """Return the name of this process's folder, which no other process ever has until the system is rebooted."""
    return f"{_place()}-{os.getpid()}-{start_of(os.getpid())}"


def _place() -> str:
    """Return digits that identify where process numbers are valid.

    Hosts and containers may share a folder, and do not see each other's processes. The namespace alone would not
    distinguish hosts: outside containers, it has the same number everywhere.
    """
    namespace = ""
    with suppress(OSError):
        namespace = re.sub(r"\D", "", os.readlink("/proc/self/ns/pid"))
    return f"{zlib.crc32(platform.node().encode())}{namespace}"


def is_left(folder: Path) -> bool:
    """Return whether the process that a folder belongs to has ended."""
    match = re.fullmatch(r"(\d+)-(\d+)-(\d+)", folder.name)
    return match is not None and match[1] == _place() and start_of(int(match[2])) != match[3]


def made_base() -> Path:
    """Create the folder for the folders of all pools of this user, which no other user may enter.

    Raises
    ------
    OSError
        If it cannot be created, or belongs to another user.
    """
    name = f"december-mps-{os.getuid()}"
    base = Path(tempfile.gettempdir()) / name
    if len(str(base / own_name() / "00")) > LONGEST_PATH:
        base = Path("/tmp") / name
    base.mkdir(mode=0o700, exist_ok=True)
    found = base.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise OSError(f"{base} is not a folder that only you can use. Remove it, or set TMPDIR to another place")
    return base
