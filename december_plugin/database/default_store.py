"""The default store, if DataJoint's settings configure none: the folder ``store`` in december's home.

It is created on first use, but not if the database remembers it and it is gone: models would be missing.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from december_plugin.database.errors import readable_errors
from december_plugin.database.lab_settings import lab_settings
from december_plugin.database.store_identity import was_used
from december_plugin.importing.datajoint import quiet_datajoint
from december_plugin.storage.base import StoreUnavailableError
from december_plugin.storage.home import december_home
from december_plugin.storage.settings import DEFAULT_STORE

logger = logging.getLogger("december_plugin")


def configure_store(name: str = DEFAULT_STORE, *, home: str | os.PathLike[str] | None = None) -> Path | None:
    """Let DataJoint know the folder in december's home as the store, if none of this name is configured.

    Nothing is made. :func:`december_plugin.database.connect` calls this whenever a store is needed; call it where
    you need to know first whether the store exists.

    Parameters
    ----------
    name
        The store's name in ``dj.config['stores']``.
    home
        See :func:`december_plugin.storage.home.december_home`.

    Returns
    -------
    Path or None
        The folder, if it is the store and does not exist; otherwise None.
    """
    dj = quiet_datajoint()
    stores = dj.config.get("stores") or {}
    folder = december_home(home) / "store"
    if name in stores:
        is_default = all(stores[name].get(key) == value for key, value in _default_store(folder).items())
        return folder if is_default and not folder.exists() else None
    dj.config["stores"] = {**stores, name: _default_store(folder)}
    lab = lab_settings(home)
    if lab is not None and not lab.is_local:
        logger.warning(
            "The DataJoint settings (%s) have no store %r: models are kept in %s on this machine, where other machines "
            "cannot read them. Configure dj.config['stores'][%r] to share them.",
            lab.source,
            name,
            folder,
            name,
        )
    return None if folder.exists() else folder


def _default_store(folder: Path) -> dict[str, Any]:
    return {"protocol": "file", "location": str(folder)}


def make_folder(name: str, folder: Path) -> None:
    """Make the folder of the default store.

    Raises
    ------
    StoreUnavailableError
        It cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnavailableError(
            f"The folder {folder} for the store {name!r} cannot be created ({error.strerror or error}). Configure "
            f"dj.config['stores'][{name!r}], or set DECEMBER_HOME to a folder that is writable."
        ) from None


def make_unless_known(connection: Any, name: str, folder: Path, *, is_embedded: bool) -> None:
    """Make the folder of the default store, which does not exist, unless it did before.

    Parameters
    ----------
    connection
        A DataJoint connection: the schemas on its server remember which stores they use.
    name, folder
        DataJoint's name of the store, and its folder.
    is_embedded
        Whether the server is the embedded one.

    Raises
    ------
    StoreUnavailableError
        A schema has used this store before, or the folder cannot be created.
    """
    with readable_errors():
        known = was_used(connection, name, str(folder), by_anybody=is_embedded)
    if known:
        raise StoreUnavailableError(
            f"The folder {folder} of the store {name!r} is gone, with the models that the database refers to. Move it "
            "back, or mount the disk that holds it. A new one is not created, because models stored in it would be "
            "missing later. If the models are lost, make an empty folder there and run `december store accept`."
        )
    make_folder(name, folder)
