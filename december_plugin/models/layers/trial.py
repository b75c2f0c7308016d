"""Kernels of our own have to pass a trial on a device before they are used there."""

from __future__ import annotations

import warnings
from collections.abc import Callable

TOLERANCE = 1e-3  # of what a kernel computes in its trial, compared with torch's operations


def passed(difference: Callable[[], float], *, warning: Callable[[str], str]) -> bool:
    """Return whether a kernel runs and agrees with torch's operations.

    Parameters
    ----------
    difference
        Runs it in a small example, and returns by how much it differs.
    warning
        Says, with the reason, what cannot be used otherwise and what is used instead.

    Warns
    -----
    UserWarning
        If it does not, with the reason.
    """
    try:
        off = difference()
    # A compiler that is missing, a driver too old, a device too small: each raises something of its own, and none of
    # them is a reason to end a training.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
    else:
        if off <= TOLERANCE:
            return True
        reason = f"in a trial its results were off by {off:.2g}"
    warnings.warn(warning(reason), UserWarning, stacklevel=3)
    return False
