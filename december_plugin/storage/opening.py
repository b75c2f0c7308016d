"""Opens and checks a store, whatever its protocol is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from december_plugin.storage.base import ObjectStore
from december_plugin.storage.folder import FolderStore
from december_plugin.storage.settings import DEFAULT_STORE, configured_settings, store_settings


def open_store(name: str = DEFAULT_STORE) -> ObjectStore:
    """Open a store of ``dj.config['stores']``; nothing is written and no server is asked yet.

    Parameters
    ----------
    name
        The store's name. ``minio`` need not be configured: then it is the folder ``store`` in
        :func:`december_plugin.storage.home.december_home`.

    Raises
    ------
    ServerError
        The store is not configured, or its settings are wrong.

    See Also
    --------
    check_store : Checks that a store can be written to.

    Examples
    --------
    >>> from pathlib import Path
    >>> import datajoint as dj
    >>> from december_plugin.storage import open_store
    >>> Path("shared disk").mkdir()
    >>> with dj.config(stores={"shared disk": {"protocol": "file", "location": "shared disk"}}):
    ...     store = open_store("shared disk")
    >>> store.put("notes/lab.txt", b"two-photon rig 3")
    >>> [(file.path, file.size) for file in store.list("notes")]
    [('notes/lab.txt', 16)]
    """
    return _store(name, store_settings(name))


def check_store(name: str = DEFAULT_STORE) -> None:
    """Check that a DataJoint store can be written to; a worker does so before it trains anything.

    Whether it is the right store is another question, see :mod:`december_plugin.database.store_identity`.

    Parameters
    ----------
    name
        The store's name in ``dj.config['stores']``.

    Raises
    ------
    ServerError
        The store is not configured or its settings are wrong.
    StoreUnavailableError
        Its folder is missing or not writable; its bucket cannot be reached. It may come back.

    See Also
    --------
    open_store : Opens a store, to read and write files.
    december_plugin.database.connect : Connects to the database, and checks the store.

    Examples
    --------
    >>> import datajoint as dj
    >>> from december_plugin.storage import check_store
    >>> with dj.config(stores={"shared disk": {"protocol": "file", "location": "/mnt/not mounted"}}):
    ...     check_store("shared disk")
    Traceback (most recent call last):
        ...
    december_plugin.storage.base.StoreUnavailableError: The folder /mnt/not mounted ... does not exist. ...
    """
    _store(name, configured_settings(name)).check()


def _store(name: str, settings: Mapping[str, Any]) -> ObjectStore:
    if settings["protocol"].lower() == "file":
        return FolderStore(name, settings["location"])
    from december_plugin.storage.s3 import S3Store

    return S3Store(name, settings)
