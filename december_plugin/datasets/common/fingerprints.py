"""Digests of everything that a dataset serves: equal ones mean equal data for a model and a trainer."""

from __future__ import annotations

from typing import Any

import numpy as np


def update_digest(digest: Any, name: str, array: np.ndarray) -> None:
    """Feed a hashlib object with an array, its type and shape."""
    digest.update(f"{name} {array.dtype.str} {array.shape};".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
