"""The file of a bundle: a ZIP archive whose manifest has the size and the SHA-256 of everything in it.

Nothing is ever extracted to a path that the archive names, and nothing in it is code.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from december_plugin.errors import DecemberError
from december_plugin.storage.atomic import DamagedError, writing_atomically

MANIFEST = "december-bundle.json"
FORMAT = 1
PIECE = 1 << 20  # bytes
LARGEST_MANIFEST = 1 << 28  # bytes
PACKED = (".json", ".html", ".txt")  # ends of names of files that are worth compressing
EARLIEST = (1980, 1, 1, 0, 0, 0)  # that ZIP knows: the same content is the same file whenever it is written


class BundleError(DecemberError, ValueError):
    """A file is not a bundle that can be used, or a result cannot be put into one."""


@dataclass
class Manifest:
    """What a bundle contains, as in its file :data:`MANIFEST`.

    Attributes
    ----------
    made
        When it was made, UTC.
    version
        Version of december that made it.
    models
        Whether the weights of the models are in it.
    files
        Bytes and SHA-256 of every other file.
    """

    made: str
    version: str
    models: bool
    files: dict[str, tuple[int, str]] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Return the content of the file :data:`MANIFEST`."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1).encode()


class ArchiveWriter:
    """Puts files into a bundle; adding a name twice is an error of the caller."""

    def __init__(self, archive: zipfile.ZipFile, manifest: Manifest):
        self._archive, self._manifest = archive, manifest

    def __contains__(self, name: str) -> bool:
        return name in self._manifest.files

    def add(self, name: str, content: bytes) -> None:
        """Add a file."""
        if name in self:
            raise ValueError(f"{name} is in the bundle already")
        self._archive.writestr(_entry(name), content)
        self._manifest.files[name] = (len(content), hashlib.sha256(content).hexdigest())

    def add_file(self, name: str, path: Path) -> None:
        """Add a file that is on disk, piece by piece."""
        digest, size = hashlib.sha256(), 0
        with path.open("rb") as source, self._archive.open(_entry(name), "w", force_zip64=True) as target:
            while piece := source.read(PIECE):
                digest.update(piece)
                target.write(piece)
                size += len(piece)
        self._manifest.files[name] = (size, digest.hexdigest())


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, EARLIEST)
    entry.compress_type = zipfile.ZIP_DEFLATED if name.endswith(PACKED) else zipfile.ZIP_STORED
    entry.external_attr = 0o644 << 16
    return entry


@contextlib.contextmanager
def write_archive(path: Path, manifest: Manifest) -> Iterator[ArchiveWriter]:
    """Write a bundle; it appears, after it was read back, when the with block ends without an error.

    Raises
    ------
    BundleError
        If it cannot be written; an earlier file is kept.
    """
    try:
        with writing_atomically(path) as file:
            with zipfile.ZipFile(file, "w") as archive:
                yield ArchiveWriter(archive, manifest)
                archive.writestr(_entry(MANIFEST), manifest.encode())
            with Archive(path, file) as written:
                written.verify()
    except OSError as error:
        raise BundleError(
            f"the bundle {path} cannot be written: {error.strerror or error}. Make room there, or name a file in a "
            "folder that you may write to."
        ) from error


class Archive:
    """Reads the files of a bundle, each only if it is what was bundled.

    Parameters
    ----------
    path
        The bundle.
    file
        The same, if it is already open.

    Raises
    ------
    BundleError
        If it is not a bundle, or one of another format.
    DamagedError
        If it is damaged.
    """

    def __init__(self, path: Path, file: IO[bytes] | None = None):
        self.path = path
        try:
            self._archive = zipfile.ZipFile(file or path)
        except FileNotFoundError:
            raise BundleError(f"there is no file {path}.") from None
        except OSError as error:
            raise BundleError(f"the bundle {path} cannot be read: {error.strerror or error}.") from None
        except (zipfile.BadZipFile, ValueError, NotImplementedError):
            raise BundleError(
                f"{path} is not a bundle of december, or only a part of one. `december bundle` writes them; copy the "
                "file again if it is one."
            ) from None
        try:
            self._entries = self._checked_entries()
            self.manifest = self._read_manifest()
            self._compare()
        except BaseException:
            self._archive.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()

    def __contains__(self, name: str) -> bool:
        return name in self.manifest.files

    def names(self, folder: str = "") -> list[str]:
        """Return the names of the files in a folder, in order."""
        return sorted(name for name in self.manifest.files if name.startswith(folder))

    def read(self, name: str) -> bytes:
        """Return the content of a file.

        Raises
        ------
        BundleError
            If there is none of this name.
        DamagedError
            If it is not what was bundled.
        """
        return b"".join(self._pieces(name))

    def read_json(self, name: str) -> Any:
        """Return what a JSON file holds; errors as :meth:`read`."""
        return _json(self.read(name), name, self.path)

    def verify(self) -> None:
        """Read all files; raise a :class:`DamagedError` if one of them is not what was bundled."""
        for name in self.manifest.files:
            for _ in self._pieces(name):
                pass

    def _pieces(self, name: str) -> Iterator[bytes]:
        if name not in self:
            raise BundleError(f"the bundle {self.path} has no {name}.")
        size, wanted = self.manifest.files[name]
        digest, found = hashlib.sha256(), 0
        with self._damage(name), self._archive.open(self._entries[name]) as content:
            while piece := content.read(PIECE):
                digest.update(piece)
                found += len(piece)
                if found > size:  # it may be endless
                    break
                yield piece
        if found != size or digest.hexdigest() != wanted:
            raise _damaged(self.path, f"{name} is not what was bundled")

    @contextlib.contextmanager
    def _damage(self, name: str) -> Iterator[None]:
        try:
            yield
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
            raise _damaged(self.path, f"{name} cannot be read ({error})") from None

    def _checked_entries(self) -> dict[str, zipfile.ZipInfo]:
        entries: dict[str, zipfile.ZipInfo] = {}
        for entry in self._archive.infolist():
            name = entry.orig_filename
            # Nothing is extracted here, but unpacking the file with another program is to be safe, too.
            if name.endswith("/"):
                raise BundleError(f"{self.path} has the folder {name!r}: it was packed again. Take the original file.")
            parts = name.split("/")
            if "" in parts or "." in parts or ".." in parts or set("\\:\0") & set(name):
                raise BundleError(
                    f"{self.path} has a file named {name!r}, which could be written outside of the folder that it is "
                    "unpacked into. It was not made by `december bundle`; nothing of it was used."
                )
            if name in entries or stat.S_ISLNK(entry.external_attr >> 16) or entry.flag_bits & 0x1:
                what = "twice" if name in entries else "as a link or encrypted"
                raise BundleError(f"{self.path} has {name!r} {what}. It was not made by `december bundle`.")
            entries[name] = entry
        return entries

    def _read_manifest(self) -> Manifest:
        entry = self._entries.get(MANIFEST)
        if entry is None:
            raise BundleError(f"{self.path} is not a bundle of december: it has no {MANIFEST}.")
        if entry.file_size > LARGEST_MANIFEST:
            raise BundleError(f"the file {MANIFEST} of {self.path} is larger than that of any bundle.")
        with self._damage(MANIFEST):
            values = _json(self._archive.read(entry), MANIFEST, self.path)
        if not isinstance(values, Mapping) or not isinstance(values.get("format"), int):
            raise _damaged(self.path, f"{MANIFEST} does not say which format it has")
        if values["format"] != FORMAT:
            raise BundleError(
                f"{self.path} is a bundle of format {values['format']}; this december reads format {FORMAT}. It was "
                f"made by december {values.get('version', 'of an unknown version')}: install that version or a newer "
                "one."
            )
        try:
            files = {str(name): (int(size), str(digest)) for name, (size, digest) in values["files"].items()}
            return Manifest(str(values["made"]), str(values["version"]), bool(values["models"]), files)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _damaged(self.path, f"{MANIFEST} is not complete ({error})") from None

    def _compare(self) -> None:
        sizes = {name: entry.file_size for name, entry in self._entries.items() if name != MANIFEST}
        wanted = {name: size for name, (size, _) in self.manifest.files.items()}
        wrong = sorted(name for name in sizes.keys() | wanted.keys() if sizes.get(name) != wanted.get(name))
        if wrong:
            raise _damaged(self.path, f"{wrong[0]} is missing, unknown or of another size")


def _damaged(path: Path, what: str) -> DamagedError:
    return DamagedError(f"the bundle {path} is damaged: {what}. Copy it again from where it comes from.")


def _json(content: bytes, name: str, path: Path) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"{name} is not JSON ({error})") from None
