"""Explains why a function that an entry names cannot be imported.

Importing a lab's module runs the lab's code, which may raise anything: a ``SyntaxError``, a ``KeyError`` for a variable
that is not set, a ``RuntimeError`` for a missing driver, or ``SystemExit``.
"""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

ANYTHING = (Exception, SystemExit)  # what importing a lab's module may raise
MOST = 300  # characters of a message that are shown
# The code that looks for the function; what it raises itself is about the name.
_LOOKING = (
    "nnfabrik/builder.py",
    "nnfabrik/utility/nnf_helper.py",
    "importlib/__init__.py",
    "schemas/allowed_functions.py",
)


def reason(error: BaseException) -> str:
    """Return why importing a function failed.

    Parameters
    ----------
    error
        What the import raised.

    Returns
    -------
    str
        The message; if the module's own code raised it, also the kind of error, and the file and line of that code.
    """
    error = _original(error)
    words = " ".join(str(error).split())[:MOST]
    frame = _frame_of_the_module(error)
    if frame is None and not isinstance(error, (SyntaxError, SystemExit)):
        return words or type(error).__name__
    said = f"{type(error).__name__}: {words}" if words else type(error).__name__
    return said if frame is None else f"{said}, in {Path(frame.filename).name}, line {frame.lineno}"


def was_raised_by_the_module(error: BaseException) -> bool:
    """Return whether the module exists, and its own code failed while it was imported."""
    error = _original(error)
    return isinstance(error, (SyntaxError, SystemExit)) or _frame_of_the_module(error) is not None


def _original(error: BaseException) -> BaseException:
    """Return the error of a module that nnfabrik has replaced by its own "Function ... does not exist"."""
    cause = error.__context__
    return cause if isinstance(error, NameError) and cause is not None and _frame_of_the_module(cause) else error


def _frame_of_the_module(error: BaseException) -> traceback.FrameSummary | None:
    """Return the last place in the lab's own code, or else in a package; None if only the search failed."""
    frames = traceback.extract_tb(error.__traceback__)
    looking = [at for at, frame in enumerate(frames) if _is_looking(frame.filename)]
    inside = [frame for frame in frames[looking[0] :] if not _is_looking(frame.filename)] if looking else []
    installed = tuple({sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib")})
    own = [frame for frame in inside if not frame.filename.startswith((*installed, "<"))]
    return (own or inside)[-1] if inside else None


def _is_looking(file: str) -> bool:
    return file == "<string>" or file.startswith("<frozen importlib") or file.replace("\\", "/").endswith(_LOOKING)
