"""A trial that our own kernels must pass on a device before they are used there."""

from __future__ import annotations

import warnings
from collections.abc import Callable

TOLERANCE = 1e-3  # relative, of a kernel's results in its trial compared with torch's operations


def passed(difference: Callable[[], float], *, warning: Callable[[str], str]) -> bool:
    """Return whether a kernel runs and agrees with torch's operations.

    Parameters
    ----------
    difference
        Runs it on a small example, and returns how much it differs.
    warning
        Returns the warning for a reason: what cannot be used, and what is used instead.

    Warns
    -----
    UserWarning
        If it does not, with the reason.
    """
    try:
        off = difference()
    # A missing compiler, an old driver, a small device: each raises a different error, and none of them is a reason to
    # end a training.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
    else:
        if off <= TOLERANCE:
            return True
        reason = f"in a trial its results were off by {off:.2g}"
    warnings.warn(warning(reason), UserWarning, stacklevel=3)
    return False
