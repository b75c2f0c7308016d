"""Servers and connections: the lab's server or the embedded one, outages, TLS, backups, which store a schema uses."""

from typing import TYPE_CHECKING

import lazy_loader as _lazy

if TYPE_CHECKING:
    from december_plugin.database.connection import connect as connect
    from december_plugin.database.connection import database_session as database_session

_NAMES = {
    "connection": ["connect", "database_session"],
}
__getattr__, __dir__, __all__ = _lazy.attach(__name__, submod_attrs=_NAMES)
