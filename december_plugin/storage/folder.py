"""A store in a folder, e.g. on a file system that all workers share."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from december_plugin.storage.atomic import write_atomically
from december_plugin.storage.base import MARK, ObjectStore, StoredObject, StoreUnavailableError, checked_path


class FolderStore(ObjectStore):
    """A folder, e.g. on a file system that all workers share."""

    def __init__(self, name: str, location: str | os.PathLike[str]):
        self.name = name
        self.location = Path(location)

    @property
    def place(self) -> str:
        """The folder."""
        return f"the folder {self.location}"

    def check(self) -> None:
        """Check that the folder exists and can be written."""
        place = f"The folder {self.location} of the store {self.name!r}"
        remedy = f"or correct dj.config['stores'][{self.name!r}]['location']."
        if not self.location.exists():
            raise StoreUnavailableError(f"{place} does not exist. Create it, mount the disk that holds it, {remedy}")
        if not self.location.is_dir():
            raise StoreUnavailableError(f"{place} is not a folder. Move the file away, {remedy}")
        with self._errors():
            self._require_location()
        try:
            with tempfile.TemporaryFile(dir=self.location):
                pass
        except OSError as error:
            raise StoreUnavailableError(
                f"{place} is not writable for user id {os.geteuid()} ({error.strerror or error}). Allow writing there, "
                + remedy
            ) from None

    def put(self, path: str, payload: bytes) -> None:
        """Write a complete file; if this fails, its earlier content is unchanged."""
        target = self._path(path)
        with self._errors():
            self._require_location()
            self._make_folders(target.parent)
            write_atomically(target, payload)

    def get(self, path: str) -> bytes:
        """Return a file's content; raise FileNotFoundError if there is none."""
        target = self._path(path)
        with self._errors():
            try:
                return target.read_bytes()
            except FileNotFoundError:
                self._require_location()  # a disk that is not mounted has no checkpoint either
                raise _MissingError(str(target)) from None

    def remove(self, path: str) -> None:
        """Remove a file; nothing happens if there is none."""
        target = self._path(path)
        with self._errors():
            self._require_location()
            target.unlink(missing_ok=True)

    def find(self, path: str) -> StoredObject | None:
        """Return size and time of a file, or None if there is none."""
        target = self._path(path)
        with self._errors():
            self._require_location()
            return self._describe(target)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Yield the files below a folder, in any order; none if there is no such folder."""
        top = self._path(prefix) if prefix else self.location
        with self._errors():
            self._require_location()
            for folder, _, names in os.walk(top, onerror=_raise_unless_missing):
                for name in names:
                    found = self._describe(Path(folder, name))
                    if found is not None:
                        yield found

    def _describe(self, path: Path) -> StoredObject | None:
        try:
            status = path.lstat()
        except (FileNotFoundError, NotADirectoryError):  # removed meanwhile
            return None
        modified = datetime.fromtimestamp(status.st_mtime, tz=timezone.utc)
        return StoredObject(path.relative_to(self.location).as_posix(), status.st_size, modified)

    def _path(self, path: str) -> Path:
        return self.location / checked_path(path)

    def _make_folders(self, folder: Path) -> None:
        """Make a folder inside the store, but never the store's own folder, which may disappear after the check."""
        made = self.location
        for part in folder.relative_to(self.location).parts:
            made /= part
            made.mkdir(exist_ok=True)

    def _require_location(self) -> None:
        if not self.location.is_dir():
            raise self.unavailable("it does not exist or is not a folder")
        if self.identity:
            # Not left to the caller: a folder can be unmounted, or moved and created again, at any moment.
            try:
                mark = (self.location / MARK).read_bytes()
            except FileNotFoundError:
                mark = None
            self.check_mark(mark)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            if isinstance(error, _MissingError):
                raise
            raise self.unavailable(error.strerror or str(error)) from error
        except OSError as error:
            raise self.unavailable(error.strerror or str(error)) from error


class _MissingError(FileNotFoundError):
    """The store is there, but the requested file is not."""


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        raise error
