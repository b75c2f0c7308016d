"""Finished results as bytes, for the spool: read without running any code out of the file."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import torch
from datajoint import blob

_TENSOR = "__december_tensor__"


def result_to_bytes(result: tuple[Any, ...]) -> bytes:
    """Return what a table's ``make_compute`` returned as bytes.

    Parameters
    ----------
    result
        Made of what a DataJoint blob holds, and of tensors on the CPU.
    """
    tensors: list[torch.Tensor] = []
    values = blob.pack(_without_tensors(tuple(result), tensors), compress=False)
    buffer = io.BytesIO()
    torch.save({"values": values, "tensors": tensors}, buffer)
    return buffer.getvalue()


def result_from_bytes(payload: bytes) -> tuple[Any, ...]:
    """Return what :func:`result_to_bytes` was given."""
    content = torch.load(io.BytesIO(payload), weights_only=True, map_location="cpu")
    return _with_tensors(blob.unpack(content["values"]), content["tensors"])


def _without_tensors(value: Any, tensors: list[torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        tensors.append(value)
        return {_TENSOR: len(tensors) - 1}
    if isinstance(value, Mapping):
        return {name: _without_tensors(entry, tensors) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_without_tensors(entry, tensors) for entry in value)
    return value


def _with_tensors(value: Any, tensors: list[torch.Tensor]) -> Any:
    if isinstance(value, Mapping):
        if value.keys() == {_TENSOR}:
            return tensors[value[_TENSOR]]
        return {name: _with_tensors(entry, tensors) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_with_tensors(entry, tensors) for entry in value)
    return value
