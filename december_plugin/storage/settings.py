"""The stores in DataJoint's settings (``dj.config['stores']``), and the folder used where none is configured."""

from __future__ import annotations

from typing import Any

from december_plugin.errors import ServerError
from december_plugin.importing.datajoint import quiet_datajoint
from december_plugin.storage.home import december_home

DEFAULT_STORE = "minio"  # the name that nnfabrik's templates use


def configured_settings(name: str = DEFAULT_STORE) -> dict[str, Any]:
    """Return the settings of a store that is configured; they hold keys, so never print them.

    Raises
    ------
    ServerError
        The store is not configured, or its settings are wrong.
    """
    dj = quiet_datajoint()
    try:
        return dict(dj.config.get_store_spec(name))
    except (dj.DataJointError, KeyError) as error:
        raise ServerError(
            f"The store {name!r} cannot be used: {error}. Correct dj.config['stores'][{name!r}], e.g. "
            "{'protocol': 'file', 'location': '/path/to/folder'}."
        ) from None


def store_settings(name: str = DEFAULT_STORE) -> dict[str, Any]:
    """Return the settings of a store, which ``minio`` always has; they hold keys, so never print them.

    Raises
    ------
    ServerError
        The store is not configured, or its settings are wrong.
    """
    if name == DEFAULT_STORE and name not in (quiet_datajoint().config.get("stores") or {}):
        return {"protocol": "file", "location": str(december_home() / "store"), "subfolding": (2, 2)}
    return configured_settings(name)
