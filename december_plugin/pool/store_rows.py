"""DataJoint's list of the files that a schema has in a store: the rows of its table ``~external_STORE``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

BEGINNING = "~external_"


@dataclass(frozen=True)
class StoredFile:
    """What a row says about a file."""

    name: str  # of the attachment; empty for a blob
    size: int  # bytes
    is_old: bool
    is_used: bool  # some row of another table refers to it


class ExternalRows:
    """The rows of one schema's table of files in one store.

    Parameters
    ----------
    connection
        A DataJoint connection.
    schema, store
        Their names.
    """

    def __init__(self, connection: Any, schema: str, store: str):
        self.connection, self.schema = connection, schema
        self.table_name = f"{BEGINNING}{store}"
        self.table = f"`{schema}`.`{self.table_name}`"

    @property
    def exists(self) -> bool:
        """Whether the schema has such a table that this user may see."""
        return (self.schema, self.table_name) in self._tables

    def files(self, seconds: float) -> dict[bytes, StoredFile]:
        """Return the files by the hash of their content; ``seconds`` is the age from which rows count as old."""
        unused, files = self._unused(), self._elsewhere()
        rows = self.connection.query(
            f"SELECT hash, COALESCE(attachment_name, ''), size, {_IS_OLD} FROM {self.table} WHERE filepath IS NULL",
            args=(seconds,),
        )
        for content, name, size, old in rows.fetchall():
            content = bytes(content)
            is_used = content not in unused or content in files
            files[content] = StoredFile(name, int(size), bool(old), is_used)
        return files

    def _elsewhere(self) -> dict[bytes, StoredFile]:
        """Return the files of this schema's other stores: a store that was renamed has the same place."""
        found = {}
        for schema, table in self._tables:
            if schema == self.schema and table != self.table_name:
                rows = self.connection.query(
                    f"SELECT hash, COALESCE(attachment_name, ''), size FROM `{schema}`.`{table}` WHERE filepath IS NULL"
                )
                for content, name, size in rows.fetchall():
                    found[bytes(content)] = StoredFile(name, int(size), is_old=False, is_used=True)
        return found

    def names_of_files(self) -> set[str]:
        """Return the last parts of the paths of all files that were stored under paths that users chose."""
        found: set[str] = set()
        for schema, table in self._tables:
            rows = self.connection.query(f"SELECT filepath FROM `{schema}`.`{table}` WHERE filepath IS NOT NULL")
            found |= {str(path).rsplit("/", 1)[-1] for (path,) in rows.fetchall()}
        return found

    def _unused(self) -> set[bytes]:
        """Return the hashes of rows that no row of any table refers to."""
        used = "".join(
            f" AND NOT EXISTS (SELECT 1 FROM `{schema}`.`{table}` r WHERE r.`{column}` = e.hash)"
            for schema, table, column in self._references()
        )
        rows = self.connection.query(f"SELECT e.hash FROM {self.table} e WHERE e.filepath IS NULL{used}")
        return {bytes(content) for (content,) in rows.fetchall()}

    def delete(self, content: bytes, seconds: float) -> bool:
        """Delete a row older than this; return whether there was one.

        Raises
        ------
        datajoint.errors.IntegrityError
            A row of some table refers to it, perhaps one that this user may not see.
        """
        cursor = self.connection.query(
            f"DELETE FROM {self.table} WHERE hash = %s AND filepath IS NULL AND {_IS_OLD}",
            args=(content, seconds),
        )
        return cursor.rowcount == 1

    def lock(self, content: bytes) -> bool:
        """Return whether this hash has a row, and keep others from inserting one until the transaction ends."""
        found = self.connection.query(f"SELECT 1 FROM {self.table} WHERE hash = %s FOR UPDATE", args=(content,))
        return found.fetchone() is not None

    @cached_property
    def _tables(self) -> list[tuple[str, str]]:
        rows = self.connection.query(
            "SELECT table_schema, table_name FROM information_schema.tables WHERE LEFT(table_name, %s) = %s",
            args=(len(BEGINNING), BEGINNING),
        )
        return [(str(schema), str(table)) for schema, table in rows.fetchall()]

    def _references(self) -> list[tuple[str, str, str]]:
        return self.connection.query(
            "SELECT table_schema, table_name, column_name FROM information_schema.key_column_usage "
            "WHERE referenced_table_schema = %s AND referenced_table_name = %s",
            args=(self.schema, self.table_name),
        ).fetchall()


# On the server's clock, which wrote the time.
_IS_OLD = "`timestamp` < NOW() - INTERVAL %s SECOND"
