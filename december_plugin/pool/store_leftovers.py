"""Leftovers in a store: files that no row refers to, incomplete files, and checkpoints of finished jobs.

A worker that dies between the upload of a model and the commit of its row leaves a file; one that dies while writing
leaves an incomplete file. Files that a row refers to are never removed, nor files younger than a limit (another worker
may be about to write the row), nor files that are not named as DataJoint or december name them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from datajoint.errors import IntegrityError

from december_plugin.importing.datajoint_internals import job_hash
from december_plugin.pool.jobs.missing import missing_keys
from december_plugin.pool.jobs.records import PoolRecords
from december_plugin.pool.store_rows import ExternalRows, StoredFile
from december_plugin.pool.transactions import transaction
from december_plugin.pool.worker.checkpoints import CHECKPOINTS, key_hash_of
from december_plugin.pool.worker.spool import Spool
from december_plugin.storage.atomic import UNFINISHED
from december_plugin.storage.attachments import attachment_folder, attachment_path, subfolding_of
from december_plugin.storage.base import ObjectStore, StoredObject, StoreUnavailableError, UnfinishedUpload

ORPHAN, UNUSED, HALF, CHECKPOINT, UPLOAD = "orphan", "unused", "half-written", "checkpoint", "upload"
USED, UNKNOWN = "used", "unknown"
KINDS = {
    ORPHAN: "files that no row refers to",
    UNUSED: "files whose models were deleted",
    HALF: "half-written files",
    CHECKPOINT: "checkpoints of jobs that are done or no longer planned",
    UPLOAD: "uploads that were never completed",
}
# What DataJoint and december add to the name of a file that they are writing.
HALF_NAMES = (".copying", ".saving", UNFINISHED)
_LONG_AGO = datetime(1970, 1, 1, tzinfo=timezone.utc)
_NAME = re.compile(r"([0-9a-f]{32})(?:\.(.+))?")


@dataclass(frozen=True)
class Leftover:
    """A leftover file."""

    kind: str  # a key of KINDS
    path: str  # below the store's location
    size: int  # bytes; 0 if unknown
    modified: datetime
    schema: str
    content: bytes = b""  # DataJoint's hash of the content
    upload: UnfinishedUpload | None = None


@dataclass
class Findings:
    """What a search of a store found."""

    leftovers: list[Leftover] = field(default_factory=list)
    n_used: int = 0  # files that rows refer to, and checkpoints that are needed
    n_young: int = 0  # leftovers that are younger than the limit
    n_unknown: int = 0  # files that are not named as DataJoint and december name them
    suspicious: list[str] = field(default_factory=list)  # schemas most of whose files the database does not know
    damaged: list[str] = field(default_factory=list)  # files that rows refer to, missing or of another size
    notes: list[str] = field(default_factory=list)  # what could not be checked


class Cleaner:
    """Finds and removes leftovers in a store.

    Parameters
    ----------
    tables
        The lab's tables, :class:`december_plugin.schemas.declare.DecemberTables`.
    store
        The store.
    older_than
        Younger files are left alone. A worker's upload has no row until the transaction ends, so this must be
        longer than the longest upload and any difference between clocks.
    """

    def __init__(self, tables: Any, store: ObjectStore, *, older_than: timedelta):
        self.tables, self.store = tables, store
        self.connection = tables.schema.connection
        self.seconds = older_than.total_seconds()
        self.schema = str(tables.schema.database)
        schemas = (self.schema, tables.TrainedModel.database, tables.nnfabrik.Model.database)
        self.schemas = tuple(dict.fromkeys(str(name) for name in schemas))
        self.rows = {name: ExternalRows(self.connection, name, store.name) for name in self.schemas}
        self._subfolding = subfolding_of(store.name)

    # --- finding

    def find(self) -> Findings:
        """Search the store without changing anything.

        Raises
        ------
        StoreUnavailableError
            The store cannot be used.
        """
        found = Findings()
        for schema in self.schemas:
            self._find_attachments(schema, found)
        self._find_checkpoints(found)
        self._find_uploads(found)
        return found

    def _is_young(self, modified: datetime) -> bool:
        return (datetime.now(timezone.utc) - modified).total_seconds() < self.seconds

    def _add(self, found: Findings, leftover: Leftover) -> None:
        if self._is_young(leftover.modified):
            found.n_young += 1
        else:
            found.leftovers.append(leftover)

    def _find_attachments(self, schema: str, found: Findings) -> None:
        stored = list(self.store.list(schema))  # before the rows, so that later uploads are not in it
        rows = self.rows[schema]
        if not rows.exists:
            if stored:
                found.notes.append(
                    f"the {len(stored)} files below {schema}/ are left alone: the database has no list of files for "
                    f"this schema and the store {self.store.name!r}"
                )
            return
        files, foreign = rows.files(self.seconds), rows.names_of_files()
        seen: set[bytes] = set()
        n_orphans = 0
        for entry in stored:
            kind, content = self._kind(entry, schema, files)
            n_orphans += kind == ORPHAN
            if kind in (USED, UNUSED):
                seen.add(content)
            if kind == USED or entry.path.rsplit("/", 1)[-1] in foreign:
                found.n_used += 1
                if kind == USED and entry.size != files[content].size:
                    found.damaged.append(f"{entry.path}: {entry.size} of {files[content].size} bytes")
            elif kind == UNKNOWN:
                found.n_unknown += 1
            else:
                self._add(found, Leftover(kind, entry.path, entry.size, entry.modified, schema, content))
        if n_orphans > len(seen):
            found.suspicious.append(schema)
        for content in files.keys() - seen:
            self._add_missing(found, schema, content, files[content])

    def _add_missing(self, found: Findings, schema: str, content: bytes, file: StoredFile) -> None:
        """Record a row without its file."""
        path = attachment_path(schema, content, file.name, subfolding=self._subfolding)
        if file.is_used and file.is_old:
            found.damaged.append(f"{path}: missing")
        elif not file.is_used:
            self._add(found, Leftover(UNUSED, path, 0, _LONG_AGO, schema, content))

    def _kind(self, entry: StoredObject, schema: str, files: Mapping[bytes, StoredFile]) -> tuple[str, bytes]:
        """Return what a file below a schema's folder is, and the hash in its name."""
        folder, _, name = entry.path.rpartition("/")
        match = _NAME.fullmatch(name)
        if match is None:
            return UNKNOWN, b""
        content, attachment = bytes.fromhex(match[1]), match[2] or ""
        if folder != attachment_folder(schema, content, subfolding=self._subfolding):
            return UNKNOWN, b""
        file = files.get(content)
        if file is not None and file.name == attachment:
            return (USED if file.is_used else UNUSED), content
        if f".{attachment}".endswith(HALF_NAMES):
            return HALF, content
        return (ORPHAN if file is None else UNKNOWN), content

    def _find_checkpoints(self, found: Findings) -> None:
        tables = {table.table_name: table for table in (table_class() for table_class in self.tables.computed)}
        needed: dict[str, set[str]] = {}
        for entry in list(self.store.list(f"{CHECKPOINTS}/{self.schema}")):
            _, _, table_name, *rest = entry.path.split("/")
            if table_name not in tables or len(rest) != 1:
                found.n_unknown += 1
                continue
            if table_name not in needed:
                needed[table_name] = _needed(tables[table_name])
            is_half = rest[0].startswith(".") and rest[0].endswith(UNFINISHED)
            if not is_half and key_hash_of(rest[0]) in needed[table_name]:
                found.n_used += 1
                continue
            kind = HALF if is_half else CHECKPOINT
            self._add(found, Leftover(kind, entry.path, entry.size, entry.modified, self.schema))

    def _find_uploads(self, found: Findings) -> None:
        for schema, prefix in (*((name, name) for name in self.schemas), (self.schema, f"{CHECKPOINTS}/{self.schema}")):
            try:
                for upload in self.store.unfinished_uploads(prefix):
                    self._add(found, Leftover(UPLOAD, upload.path, 0, upload.begun, schema, upload=upload))
            except StoreUnavailableError as error:  # some servers, and some accounts, cannot list them
                found.notes.append(f"uploads that were never completed could not be listed: {error}")
                return

    # --- removing

    def remove(self, leftover: Leftover) -> bool:
        """Remove a leftover unless it is needed by now; return whether it was removed.

        Raises
        ------
        StoreUnavailableError
            The store cannot be used.
        """
        if leftover.upload is not None:
            self.store.abort_upload(leftover.upload)
            return True
        if leftover.kind in (HALF, CHECKPOINT):
            return self._remove_file(leftover)
        rows = self.rows[leftover.schema]
        try:
            # The row, or the place where it would be, is locked: an upload of the same content waits to write its row.
            with transaction(self.connection):
                if leftover.kind == UNUSED and not rows.delete(leftover.content, self.seconds):
                    raise _KeptError
                if leftover.kind == ORPHAN and rows.lock(leftover.content):
                    raise _KeptError
                if not self._remove_file(leftover):
                    raise _KeptError
        except (_KeptError, IntegrityError):
            return False
        return True

    def _remove_file(self, leftover: Leftover) -> bool:
        now = self.store.find(leftover.path)
        if now is not None and self._is_young(now.modified):
            return False
        self.store.remove(leftover.path)
        return True


class _KeptError(Exception):
    """A file is needed by now; the transaction is rolled back."""


def _needed(table: Any) -> set[str]:
    """Return the hashes of the jobs that a worker may still take up or is computing."""
    planned = {job_hash(table, key) for key in missing_keys(table)}
    return planned | set(PoolRecords.queued_hashes(table, status="reserved"))


def old_halves(spool: Spool, older_than: timedelta) -> Iterator[Path]:
    """Yield the files in this machine's spool that were only partly written."""
    limit = datetime.now(timezone.utc).timestamp() - older_than.total_seconds()
    for path in spool.unfinished():
        try:
            if path.stat().st_mtime < limit:
                yield path
        except FileNotFoundError:  # completed meanwhile
            continue
