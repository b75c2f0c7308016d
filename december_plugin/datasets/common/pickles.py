"""Pickle files that contain only plain data: dictionaries, lists, numbers, strings and NumPy arrays.

Opening a pickle runs whatever code it names. Published recordings name only NumPy's own functions for arrays; a file
that names anything else is refused before any of its code runs. Only the person who runs the worker can allow it, in
the environment rather than by an entry in the database: ``DECEMBER_TRUST_PICKLES=1``.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

from december_plugin.errors import RecordingError
from december_plugin.validation.byte_order import in_native_order

NUMPY_MODULES = ("numpy", *(f"numpy.{core}.{part}" for core in ("core", "_core") for part in ("multiarray", "numeric")))
NUMPY_NAMES = frozenset({"ndarray", "dtype", "_reconstruct", "scalar", "_frombuffer"})
# Python 2 and the protocols of its time have another name for the module of the built-in types.
BUILTIN_MODULES = ("builtins", "__builtin__")
BUILTIN_NAMES = frozenset({"bytearray", "bytes", "complex", "frozenset", "range", "set", "slice", "xrange"})
OTHER_NAMES = frozenset({("collections", "OrderedDict"), ("_codecs", "encode")})  # the latter for bytes of Python 2
TRUST = "DECEMBER_TRUST_PICKLES"
# What a damaged file raises (the documentation of pickle names them).
DAMAGED = (EOFError, ValueError, IndexError, KeyError, AttributeError, ImportError, TypeError, MemoryError)


class _NotPlainError(pickle.UnpicklingError):
    """A pickle names something that is not plain data."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        names = NUMPY_NAMES if module in NUMPY_MODULES else BUILTIN_NAMES if module in BUILTIN_MODULES else ()
        if name in names or (module, name) in OTHER_NAMES:
            return super().find_class(module, name)
        raise _NotPlainError(f"{module}.{name}")


def read_plain_pickle(path: Path) -> dict[str, Any]:
    """Return the dictionary of a pickle file.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    RecordingError
        If the file is missing or damaged, is not a dictionary, or names something that is not plain data.
    """
    try:
        with path.open("rb") as file:
            content = pickle.load(file) if os.environ.get(TRUST) == "1" else _PlainUnpickler(file).load()
    except FileNotFoundError:
        raise RecordingError(f"{path} does not exist. See docs/recordings.md for where to get it.") from None
    except OSError as error:
        raise RecordingError(f"{path} cannot be read: {error.strerror or error}.") from error
    except _NotPlainError as error:
        raise RecordingError(
            f"{path} is a pickle that names {error}; a recording needs only NumPy arrays, and opening such a "
            f"file would run code. If you know where it comes from, set {TRUST}=1 in the environment."
        ) from None
    except (pickle.UnpicklingError, *DAMAGED) as error:
        raise RecordingError(
            f"{path} is not a complete pickle ({type(error).__name__}: {error}). Get the file again."
        ) from error
    if not isinstance(content, dict):
        raise RecordingError(f"{path} contains a {type(content).__name__}; a dictionary of arrays is expected.")
    return content


def array_of(content: dict[str, Any], name: str, path: Path, *, kinds: str = "iuf") -> Any:
    """Return an entry of a pickle's dictionary, which must be a NumPy array of numbers, or raise a RecordingError."""
    if name not in content:
        found = ", ".join(sorted(map(str, content))) or "nothing"
        raise RecordingError(f"{path} has no entry {name!r}; it has {found}.")
    value = content[name]
    dtype = getattr(value, "dtype", None)
    if dtype is None or dtype.kind not in kinds:
        raise RecordingError(
            f"the entry {name!r} of {path} is {dtype if dtype is not None else type(value).__name__}; an array of "
            "numbers is expected."
        )
    return in_native_order(value)
