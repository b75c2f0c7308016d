"""All private names of DataJoint that december uses, to be checked with every new release of DataJoint.

All exist in DataJoint 0.13 and 0.14. DataJoint 2 has only ``_in_transaction`` and ``_execute_query``: its jobs have
their own tables, and its stores other classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import PurePosixPath
    from uuid import UUID


# ---- jobs (datajoint.autopopulate.AutoPopulate)


def job_key(table: Any, key: Mapping[str, Any]) -> dict[str, Any]:
    """Return what DataJoint stores as the key of a job, and what a table may overwrite to make its jobs larger.

    ``AutoPopulate._job_key``: 0.13, 0.14; not 2.
    """
    return dict(table._job_key(dict(key)))  # noqa: SLF001


def job_hash(table: Any, key: Mapping[str, Any]) -> str:
    """Return the hash by which ``~jobs`` names the job that computes this entry of a table."""
    from datajoint.hash import key_hash

    return str(key_hash(job_key(table, key)))


def user_of_queue(queue: Any) -> str:
    """Return what DataJoint writes as the user of a reservation in this ``~jobs``.

    ``JobTable._user``: 0.13, 0.14; not 2.
    """
    return str(queue._user)  # noqa: SLF001


# ---- connections (datajoint.connection.Connection)


def has_transaction(connection: Any) -> bool:
    """Return whether a transaction is open as far as the connection knows; unlike ``in_transaction``, without a query.

    ``Connection._in_transaction``: 0.13, 0.14, 2.
    """
    return bool(connection._in_transaction)  # noqa: SLF001


def forget_transaction(connection: Any) -> None:
    """Let the connection know that its transaction is over: the server ends it when the connection is lost."""
    connection._in_transaction = False  # noqa: SLF001


def execute_queries_with(connection: Any, execute: Callable[[Any, str, Any, bool], None]) -> None:
    """Let a connection execute its queries with a function of ours: cursor, query, arguments, suppress warnings or not.

    ``Connection._execute_query``, a static method: 0.13, 0.14, 2.
    """
    connection._execute_query = execute  # noqa: SLF001


# ---- stores (datajoint.external.ExternalTable)


def location_in_bucket(spec: Mapping[str, Any]) -> str:
    """Return what DataJoint puts before the paths of a store in its bucket: empty, or ending in a slash.

    ``ExternalTable._make_external_filepath``: 0.13, 0.14; not 2.
    """
    from datajoint.external import ExternalTable

    path = ExternalTable._make_external_filepath(SimpleNamespace(spec=spec), "x")  # noqa: SLF001
    return str(path)[: -len("x")]


def set_bucket(external: Any, folder: Any) -> None:
    """Let a table of external files use this ``datajoint.s3.Folder`` instead of making its own.

    ``ExternalTable._s3``: 0.13, 0.14; not 2.
    """
    external._s3 = folder  # noqa: SLF001


def attachment_path(external: Any, content: UUID, file_name: str) -> PurePosixPath:
    """Return where an attachment with this content and name is kept in a store.

    ``ExternalTable._make_uuid_path``: 0.13, 0.14; not 2.
    """
    return external._make_uuid_path(content, "." + file_name)  # noqa: SLF001


def remove_stored_file(external: Any, path: PurePosixPath) -> None:
    """Remove a file from a store, whether or not an entry refers to it.

    ``ExternalTable._remove_external_file``: 0.13, 0.14; not 2.
    """
    external._remove_external_file(path)  # noqa: SLF001
