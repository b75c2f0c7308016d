"""Values of tables as JSON and ``.npy`` files, and back: exactly the same values, without pickles.

JSON has the values that it supports. Everything else is an object with the key :data:`TAG`::

    {"$": "array", "file": "arrays/0f3c....npy"}
    {"$": "array", "dtype": "<f8", "shape": [2], "base64": "..."}    small ones
    {"$": "float", "value": "nan"}
    {"$": "tuple", "values": [...]}
    {"$": "map", "items": [[key, value], ...]}                       keys that are not text
"""

from __future__ import annotations

import base64
import binascii
import decimal
import hashlib
import io
import math
import uuid
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from typing import Any

import numpy as np

from december_plugin.bundles.archive import Archive, ArchiveWriter, BundleError

TAG = "$"
ARRAYS = "arrays/"
IN_PLACE = 512  # bytes of an array that is written into the JSON
KINDS = "biufcSUMm"  # of arrays
# Values that text tells exactly: how to read them.
TEXTS: dict[str, tuple[type, Callable[[str], Any]]] = {
    "datetime": (datetime, datetime.fromisoformat),
    "date": (date, date.fromisoformat),
    "time": (time, time.fromisoformat),
    "decimal": (decimal.Decimal, decimal.Decimal),
    "uuid": (uuid.UUID, uuid.UUID),
    "complex": (complex, complex),
}


class Encoder:
    """Turns values into JSON; arrays go into the archive, each once.

    Parameters
    ----------
    archive
        The bundle that takes the arrays.
    """

    def __init__(self, archive: ArchiveWriter):
        self._archive = archive

    def encode(self, value: Any, *, what: str) -> Any:
        """Return a value as JSON.

        Parameters
        ----------
        value
            Of Python's built-in types and arrays.
        what
            Its name in messages.

        Raises
        ------
        BundleError
            If it contains something else.
        """
        if value is None or isinstance(value, (bool, str)) or type(value) is int:
            return value
        if isinstance(value, (np.ndarray, np.generic)):
            return self._array(value, what)
        if isinstance(value, float):
            return value if math.isfinite(value) else {TAG: "float", "value": repr(value)}
        if isinstance(value, (bytes, bytearray)):
            return {TAG: "bytes", "base64": base64.b64encode(value).decode("ascii")}
        if isinstance(value, Mapping):
            if TAG not in value and all(isinstance(name, str) for name in value):
                return {name: self.encode(entry, what=what) for name, entry in value.items()}
            items = [[self.encode(name, what=what), self.encode(entry, what=what)] for name, entry in value.items()]
            return {TAG: "map", "items": items}
        if isinstance(value, list):
            return [self.encode(entry, what=what) for entry in value]
        if isinstance(value, (tuple, set, frozenset)):
            kind = "tuple" if isinstance(value, tuple) else "set"
            return {TAG: kind, "values": [self.encode(entry, what=what) for entry in value]}
        for kind, (own, _) in TEXTS.items():
            if isinstance(value, own):
                text = value.isoformat() if isinstance(value, (date, time)) else str(value)
                return {TAG: kind, "value": text}
        raise BundleError(f"{what} holds a {type(value).__name__}, which a bundle cannot hold.")

    def _array(self, value: np.ndarray | np.generic, what: str) -> dict[str, Any]:
        array = np.asarray(value)
        if array.dtype.kind not in KINDS:
            raise BundleError(f"{what} holds an array of {array.dtype}, which a bundle cannot hold.")
        tag: dict[str, Any] = {TAG: "array" if isinstance(value, np.ndarray) else "scalar"}
        if array.nbytes <= IN_PLACE:
            text = base64.b64encode(array.tobytes()).decode("ascii")
            return {**tag, "dtype": array.dtype.str, "shape": list(array.shape), "base64": text}
        content = npy_content(array)
        name = f"{ARRAYS}{hashlib.sha256(content).hexdigest()[:32]}.npy"
        if name not in self._archive:
            self._archive.add(name, content)
        return {**tag, "file": name}


class Decoder:
    """Restores the values that :class:`Encoder` has written.

    Parameters
    ----------
    archive
        The bundle.
    """

    def __init__(self, archive: Archive):
        self._archive = archive

    def decode(self, written: Any, *, what: str) -> Any:
        """Return the value.

        Raises
        ------
        BundleError
            If it was not written by an :class:`Encoder`.
        DamagedError
            If an array is not what was bundled.
        """
        try:
            return self._value(written)
        except (
            KeyError,
            TypeError,
            ValueError,
            AttributeError,
            ArithmeticError,
            RecursionError,
            binascii.Error,
        ) as error:
            if isinstance(error, BundleError):
                raise
            raise BundleError(f"{what} in the bundle {self._archive.path} cannot be read ({error}).") from None

    def _value(self, written: Any) -> Any:
        if isinstance(written, list):
            return [self._value(entry) for entry in written]
        if not isinstance(written, dict):
            return written
        if TAG not in written:
            return {name: self._value(entry) for name, entry in written.items()}
        kind = written[TAG]
        if kind in ("array", "scalar"):
            array = self._array(written)
            return array if kind == "array" else array[()]
        if kind == "float":
            return float(written["value"])
        if kind == "bytes":
            return base64.b64decode(written["base64"], validate=True)
        if kind == "map":
            return {self._value(name): self._value(entry) for name, entry in written["items"]}
        if kind in ("tuple", "set"):
            return (tuple if kind == "tuple" else set)(self._value(entry) for entry in written["values"])
        if kind in TEXTS:
            return TEXTS[kind][1](written["value"])
        raise BundleError(f"the bundle {self._archive.path} has a value of the unknown kind {kind!r}.")

    def _array(self, written: Mapping[str, Any]) -> np.ndarray:
        if "file" in written:
            return npy_array(self._archive.read(written["file"]), written["file"])
        dtype = np.dtype(written["dtype"])
        if dtype.kind not in KINDS:
            raise ValueError(f"an array of {dtype}")
        content = base64.b64decode(written["base64"], validate=True)
        return np.frombuffer(content, dtype=dtype).reshape(written["shape"]).copy()


def npy_content(array: np.ndarray) -> bytes:
    """Return the content of the ``.npy`` file of an array."""
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    return content.getvalue()


def npy_array(content: bytes, name: str) -> np.ndarray:
    """Return the array in the content of a ``.npy`` file; objects, which need code to be loaded, are refused."""
    try:
        array = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, SyntaxError, TypeError, MemoryError) as error:
        raise BundleError(f"{name} is not a NumPy array: {error}.") from None
    return array
