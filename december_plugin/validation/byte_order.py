"""Arrays of other machines: PyTorch and pandas refuse numbers and text whose bytes are in another order."""

from __future__ import annotations

from typing import Any

import numpy as np


def in_native_order(values: Any) -> Any:
    """Return an array with its bytes in the order of this machine, its values and shape unchanged.

    Parameters
    ----------
    values
        An array of any dtype; what is not a NumPy array (a tensor, a list) comes back as it is.

    Returns
    -------
    ndarray or the values
        ``values`` itself where the order is this machine's, else a copy.
    """
    if not isinstance(values, np.ndarray) or values.dtype.isnative:
        return values
    return values.astype(values.dtype.newbyteorder("="))
