"""Where DataJoint keeps attachments in a store: in ``SCHEMA/ab/cd``, in files named by the hash of the content."""

from __future__ import annotations

from december_plugin.storage.settings import store_settings


def subfolding_of(store: str) -> tuple[int, ...]:
    """Return how many characters of the hash name each level of folders in a store."""
    return tuple(store_settings(store)["subfolding"])


def attachment_folder(schema: str, content: bytes, *, subfolding: tuple[int, ...]) -> str:
    """Return the folder of an attachment in a store.

    Parameters
    ----------
    schema
        The schema whose rows refer to it.
    content
        The hash of the content.
    subfolding
        Of the store, see :func:`subfolding_of`.
    """
    from datajoint.external import subfold

    return "/".join((schema, *subfold(content.hex(), subfolding)))


def attachment_path(schema: str, content: bytes, file_name: str, *, subfolding: tuple[int, ...]) -> str:
    """Return the path of an attachment in a store.

    Parameters
    ----------
    schema, content, subfolding
        As for :func:`attachment_folder`.
    file_name
        The name that the file had; empty for a blob.
    """
    name = f"{content.hex()}.{file_name}" if file_name else content.hex()
    return f"{attachment_folder(schema, content, subfolding=subfolding)}/{name}"
