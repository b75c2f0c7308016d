"""The file or folder of a backup: its manifest, writing it whole, reading it back, and comparing the two."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Protocol

from december_plugin.errors import DecemberError
from december_plugin.storage.atomic import DamagedError

MANIFEST = "december-backup.json"
FORMAT = 1
PLAIN, COMPRESSED = (".tar",), (".tar.gz", ".tgz")  # ends of the names of files; others are folders
PIECE = 1 << 20  # bytes


class BackupError(DecemberError, RuntimeError):
    """A backup cannot be made or restored."""


@dataclass
class Manifest:
    """The contents of a backup, as in its file :data:`MANIFEST`."""

    made: str = ""  # UTC
    version: str = ""  # of december
    server: str = ""  # version
    tables: dict[str, int] = field(default_factory=dict)  # by schema
    stores: dict[str, int] = field(default_factory=dict)  # files, by store
    files: dict[str, tuple[int, str]] = field(default_factory=dict)  # bytes and SHA-256
    missing: list[str] = field(default_factory=list)  # files that rows refer to
    seconds_stopped: float = 0.0

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(size for size, _ in self.files.values())

    def encode(self) -> bytes:
        """Return the content of the file :data:`MANIFEST`."""
        return json.dumps({"format": FORMAT, **vars(self)}, indent=1).encode()

    @classmethod
    def decode(cls, content: bytes | None, *, source: Path) -> Manifest:
        """Return the manifest of a backup.

        Parameters
        ----------
        content
            Of its file :data:`MANIFEST`; None if it has none.
        source
            The backup, for messages.

        Raises
        ------
        BackupError
            There is no manifest, or it has another format.
        DamagedError
            It cannot be read.
        """
        if content is None:
            raise BackupError(f"{source} is not a complete backup by december: it has no {MANIFEST}.")
        try:
            values = json.loads(content)
            number = values.pop("format")
            values["files"] = {name: (int(size), str(digest)) for name, (size, digest) in values["files"].items()}
            manifest = cls(**values)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DamagedError(f"the file {MANIFEST} of the backup {source} cannot be read ({error}).") from None
        if number != FORMAT:
            raise BackupError(
                f"{source} is a backup of format {number}; this december knows {FORMAT}. Restore it with the version "
                f"of december that made it ({manifest.version})."
            )
        return manifest

    def compare(self, found: dict[str, tuple[int, str]], *, source: Path) -> None:
        """Check that these are the files of the backup.

        Parameters
        ----------
        found
            Bytes and SHA-256 of each file that the backup has, except the manifest.
        source
            The backup, for messages.

        Raises
        ------
        DamagedError
            A file is missing, altered or unknown.
        """
        wrong = sorted(name for name in found.keys() | self.files.keys() if found.get(name) != self.files.get(name))
        if wrong:
            raise DamagedError(
                f"the backup {source} is damaged: {wrong[0]} is not what was backed up ({len(wrong)} of "
                f"{len(self.files)} files are missing, altered or unknown). Take another backup."
            )


class BackupWriter(Protocol):
    """Where a backup is written."""

    def add(self, name: str, content: IO[bytes]) -> tuple[int, str]:
        """Write a file; return its bytes and SHA-256."""


@contextlib.contextmanager
def write_backup(target: Path) -> Iterator[BackupWriter]:
    """Write a backup next to its final place, read it back at the end of the with block, and rename it then.

    Parameters
    ----------
    target
        A file whose name ends in ``.tar``, ``.tar.gz`` or ``.tgz``, or else a folder.

    Raises
    ------
    BackupError
        It cannot be written, or an interrupted backup left files in its place.
    """
    partial = target.with_name(f"{target.name}.partial")
    try:
        if not target.name.endswith(PLAIN + COMPRESSED):
            yield _FolderWriter(partial)
        else:
            with (
                open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file,
                _archive_in(file, target.name) as archive,
            ):
                yield _ArchiveWriter(archive)
        _read_back(partial)
        os.rename(partial, target)
    except BaseException as error:
        exists = isinstance(error, FileExistsError)
        if not exists:
            shutil.rmtree(partial, ignore_errors=True) if partial.is_dir() else partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, DecemberError):
            remedy = (
                "Remove what an interrupted backup left behind."
                if exists
                else "Make room there, or name another place."
            )
            raise BackupError(
                f"the backup {target} cannot be written ({error.strerror or error}: {partial}). {remedy}"
            ) from error
        raise


def _read_back(path: Path) -> None:
    found, manifest = {}, None
    for name, content in files_of(path):
        if name == MANIFEST:
            manifest = content.read()
            continue
        found[name] = copy_with_digest(content, None)
    Manifest.decode(manifest, source=path).compare(found, source=path)


class _FolderWriter:
    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(mode=0o700)

    def add(self, name: str, content: IO[bytes]) -> tuple[int, str]:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            written = copy_with_digest(content, file)
            file.flush()
            os.fsync(file.fileno())
        return written


class _ArchiveWriter:
    def __init__(self, archive: tarfile.TarFile):
        self.archive = archive

    def add(self, name: str, content: IO[bytes]) -> tuple[int, str]:
        size = content.seek(0, os.SEEK_END)
        content.seek(0)
        info = tarfile.TarInfo(name)
        info.size, info.mode = size, 0o600
        info.mtime = int(datetime.now(timezone.utc).timestamp())
        reader = _HashingReader(content)
        self.archive.addfile(info, reader)
        return size, reader.digest.hexdigest()


class _HashingReader:
    """Reads, and takes the checksum of what is read."""

    def __init__(self, content: IO[bytes]):
        self.content, self.digest = content, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        piece = self.content.read(size)
        self.digest.update(piece)
        return piece


def _archive_in(file: IO[bytes], name: str) -> tarfile.TarFile:
    if name.endswith(COMPRESSED):
        return tarfile.open(fileobj=file, mode="w:gz", compresslevel=3)
    return tarfile.open(fileobj=file, mode="w")


def files_of(source: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the files of a backup: only plain files with names that stay inside it."""
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            if path.is_file() and not path.is_symlink():
                with path.open("rb") as file:
                    yield path.relative_to(source).as_posix(), file
        return
    with _damage_of(source), tarfile.open(source, "r:*") as archive:
        while (member := archive.next()) is not None:
            if member.isreg() and (content := archive.extractfile(member)) is not None:
                yield member.name, _ArchiveMember(source, content)  # type: ignore[misc]


def copy_with_digest(source: IO[bytes], target: IO[bytes] | None) -> tuple[int, str]:
    """Copy, or only read, a file; return its bytes and their SHA-256."""
    digest, size = hashlib.sha256(), 0
    while piece := source.read(PIECE):
        digest.update(piece)
        if target is not None:
            target.write(piece)
        size += len(piece)
    return size, digest.hexdigest()


class _ArchiveMember:
    """Reads a file in an archive; any fault of the archive counts as damage."""

    def __init__(self, source: Path, content: IO[bytes]):
        self.source, self.content = source, content

    def read(self, size: int = -1) -> bytes:
        with _damage_of(self.source):
            return self.content.read(size)


@contextlib.contextmanager
def _damage_of(source: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DamagedError(f"the backup {source} cannot be read ({error}).") from None
