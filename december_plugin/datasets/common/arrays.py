"""Reads .npy files from anywhere: the result is a plain array or a clear error; and digests of arrays."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from december_plugin.datasets.common.files import entries_of
from december_plugin.errors import RecordingError
from december_plugin.validation.byte_order import in_native_order

NPY_MAGIC = b"\x93NUMPY"
MOST_CHANNELS = 4
PICKLE_MAGIC = b"\x80"


def read_array(path: Path, *, mapped: bool = False) -> np.ndarray:
    """Read one .npy file; pickled objects are never loaded.

    Parameters
    ----------
    path
        The file.
    mapped
        Leave the values on disk: pages are read when they are accessed, and cannot be written.

    Returns
    -------
    numpy.ndarray
        The array as stored, of any shape and dtype except object, with its bytes in this machine's order unless it is
        mapped.

    Raises
    ------
    RecordingError
        If the file is missing, unreadable, truncated, not an .npy file, or contains pickled Python objects.
    """
    try:
        array = np.load(path, allow_pickle=False, mmap_mode="r" if mapped else None)
    except FileNotFoundError:
        raise RecordingError(f"{path} is missing. Copy the recording again, or export it with this file.") from None
    except (ValueError, EOFError, OSError) as cause:
        raise RecordingError(_what_is_wrong(path, cause)) from cause
    if not isinstance(array, np.ndarray):
        raise RecordingError(f"{path} is an .npz archive; a single array saved with numpy.save is expected.")
    return array if mapped else in_native_order(array)


def channels_come_last(shape: tuple[int, ...]) -> bool:
    """Return whether a shape that should be (..., channels, height, width) looks like one with the channels last."""
    return shape[-1] <= MOST_CHANNELS < shape[-3]


def _what_is_wrong(path: Path, cause: Exception) -> str:
    try:
        with path.open("rb") as file:
            start = file.read(len(NPY_MAGIC))
            if start.startswith(PICKLE_MAGIC):
                return _pickled(path)
            if start != NPY_MAGIC:
                found = "it is empty" if not start else f"it begins with {start!r}"
                return f"{path} is not an .npy file: {found}. Copy the recording again."
            file.seek(0)
            shape, dtype = _header(file)
            held = os.fstat(file.fileno()).st_size - file.tell()
    except OSError as error:
        return f"{path} cannot be read: {error.strerror or error}. Check the file's permissions and the disk."
    except (ValueError, EOFError):
        return f"{path} has a damaged header ({cause}). Copy the recording again."
    if dtype.hasobject:
        return _pickled(path)
    announced = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if held < announced:
        return f"{path} is truncated: it announces {announced} bytes of data and has {held}. Copy the recording again."
    return f"{path} cannot be read as an array ({cause}). Copy the recording again."


def _pickled(path: Path) -> str:
    return (
        f"{path} contains pickled Python objects, which are never loaded because loading them can run any code. "
        "Save it again as an array of numbers or text (numpy.save with allow_pickle=False)."
    )


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


class ArrayFolder:
    """The .npy files of a folder as attributes and items, read when first asked for and then kept.

    Behaves like neuralpredictors' ``neurons``, ``trial_info`` and ``statistics``: ``folder.unit_ids`` is the content of
    ``unit_ids.npy``, a sub-folder is another :class:`ArrayFolder`, a name that does not exist is an
    ``AttributeError``. Arrays are read-only.

    Parameters
    ----------
    path
        The folder.
    selection
        Integer positions along the first axis to which every array is restricted; None leaves arrays whole.
    links
        Other names for entries of the folder (the ``links`` of a recording's config.json).
    """

    def __init__(self, path: Path, *, selection: np.ndarray | None = None, links: dict[str, str] | None = None):
        self._path = path
        self._selection = selection
        self._links = links or {}
        self._arrays: dict[str, np.ndarray] = {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in self._arrays:
            return self._arrays[name]
        entry = self._path / self._links.get(name, name)
        if entry.is_dir():
            return ArrayFolder(entry, links=self._links)
        file = entry.with_name(f"{entry.name}.npy")
        if not file.is_file():
            raise AttributeError(f"{self._path} has no {name}.npy. It has: {', '.join(self.keys()) or 'nothing'}.")
        array = read_array(file)
        if self._selection is not None:
            array = array[self._selection]
        array.setflags(write=False)
        self._arrays[name] = array
        return array

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    def __contains__(self, name: object) -> bool:
        return name in self.keys()

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.keys()]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._path)!r}: {', '.join(self.keys())})"

    def keys(self) -> list[str]:
        """Return the names of the arrays and sub-folders, sorted."""
        if not self._path.is_dir():
            return []
        names = {entry.stem for entry in entries_of(self._path) if entry.suffix == ".npy" or entry.is_dir()}
        return sorted(names | {name for name, target in self._links.items() if target in names})

    def restricted_to(self, selection: np.ndarray) -> ArrayFolder:
        """Return the same folder with every array restricted to ``selection`` along its first axis."""
        return ArrayFolder(self._path, selection=selection, links=self._links)


def update_digest(digest: Any, name: str, array: np.ndarray) -> None:
    """Update a hashlib object with an array, its type and shape."""
    digest.update(f"{name} {array.dtype.str} {array.shape};".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
