"""Converts what a trainer returns into values that a DataJoint blob and a state dict file can hold."""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping, Sequence, Set
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
from datajoint import blob

logger = logging.getLogger(__name__)

STORABLE = (bool, int, float, complex, str, bytes, datetime, date, time, Decimal, UUID, type(None))


def to_storable(value: Any) -> Any:
    """Return ``value`` converted to Python's own types and NumPy arrays, which a DataJoint blob can hold.

    NumPy scalars become Python's, tensors become arrays, mappings become dicts and sequences become lists. What a blob
    cannot hold becomes its ``repr``, with a warning in the log: a finished training is worth more than a stray object
    in its output.
    """
    import torch

    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        return to_storable(value.float().numpy() if value.dtype == torch.bfloat16 else value.numpy())
    if isinstance(value, np.generic):
        return _plain_scalar(value)
    if isinstance(value, np.ndarray):
        return _plain_array(value)
    if isinstance(value, STORABLE):
        return value
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, Mapping):
        return {_plain_name(name): to_storable(entry) for name, entry in value.items()}
    if isinstance(value, (Sequence, Set)):
        return [to_storable(entry) for entry in value]
    logger.warning("the trainer's output holds a %s, which a blob cannot store; its repr is stored", type(value))
    return repr(value)


def _plain_scalar(value: np.generic) -> Any:
    # item() leaves the long types unchanged.
    if isinstance(value, np.floating):
        return float(value)
    if isinstance(value, np.complexfloating):
        return complex(value)
    return to_storable(value.item())


def _plain_array(array: np.ndarray) -> Any:
    if array.ndim == 0:
        return to_storable(array[()])
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "f" and size not in (4, 8):
        return array.astype(np.float32 if size == 2 else np.float64)
    if kind == "c" and size > 16:
        return array.astype(np.complex128)
    if kind in "biufc":
        # A blob supports only the machine's own byte order.
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    return to_storable(array.tolist())


def _plain_name(name: Any) -> Any:
    name = _plain_scalar(name) if isinstance(name, np.generic) else name
    return name if isinstance(name, STORABLE) else repr(name)


def drop_oversized(output: Any, largest: int) -> Any:
    """Return a trainer's output, without its largest entries if the server would refuse it.

    A finished training is worth more than a matrix in its output. Omitted entries are named in their place and in the
    log.

    Parameters
    ----------
    output
        As of :func:`to_storable`.
    largest
        The server's ``max_allowed_packet`` (bytes).
    """
    allowed = allowed_in(largest)
    if len(blob.pack(output)) <= allowed:
        return output
    if not isinstance(output, dict):
        output = {"output": output}
    sizes = {name: len(blob.pack(entry)) for name, entry in output.items()}
    while len(blob.pack(output)) > allowed and sizes:
        name = max(sizes, key=sizes.__getitem__)
        left_out = f"left out: {sizes.pop(name) / 1e6:.1f} MB, and the server takes {largest / 1e6:.1f} MB in all"
        logger.warning("output[%r] of the trainer is %s (max_allowed_packet)", name, left_out)
        output = {**output, name: left_out}
    return output


def allowed_in(largest: int) -> int:
    """Return the bytes of a blob that a statement of at most ``largest`` bytes can hold."""
    # A statement holds the blob escaped, which makes it a little longer, and the rest of the row.
    return int(0.9 * largest) - 10_000


def portable_state_dict(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state dict with tensors on the CPU and Python numbers, which loads with ``weights_only=True``."""
    return {str(name): _portable(value) for name, value in state_dict.items()}


def _portable(value: Any) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.array(value))
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {name: _portable(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_portable(entry) for entry in value)
    return value


def encode_blob(value: Any) -> str:
    """Return ``value`` as text.

    DataJoint hashes what ``make_fetch`` returns, element by element: 8 MB of numbers take it 48 s, one long text of the
    same content a fraction of a second.
    """
    return base64.b64encode(blob.pack(value)).decode("ascii")


def decode_blob(text: str) -> Any:
    """Return a new copy of what :func:`encode_blob` packed."""
    return blob.unpack(base64.b64decode(text))
