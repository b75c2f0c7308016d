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
    """
    _store(name, configured_settings(name)).check()


def _store(name: str, settings: Mapping[str, Any]) -> ObjectStore:
    if settings["protocol"].lower() == "file":
        return FolderStore(name, settings["location"])
    from december_plugin.storage.s3 import S3Store

    return S3Store(name, settings)
