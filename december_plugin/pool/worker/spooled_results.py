"""Finished results in the spool: converted to bytes that are read without running code, kept, read and removed."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from typing import Any

import torch
from datajoint import blob

from december_plugin.errors import ServerError
from december_plugin.pool.worker.job_settings import JobSettings

logger = logging.getLogger(__name__)

_TENSOR = "__december_tensor__"


def result_to_bytes(result: tuple[Any, ...]) -> bytes:
    """Return what a table's ``make_compute`` returned as bytes.

    Parameters
    ----------
    result
        Made of values that a DataJoint blob can hold, and of tensors on the CPU.
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


def spooled_result(settings: JobSettings, table_name: str, job_hash: str) -> tuple[Any, ...] | None:
    """Return the key and result that are kept for a job, or None; unreadable ones are moved aside, with a warning."""
    try:
        payload = settings.spool.get(settings.schema, table_name, job_hash)
    except ServerError as error:
        logger.warning("the spool cannot be read, so the result is computed even if it was before: %s", error)
        return None
    if payload is None:
        return None
    try:
        return result_from_bytes(payload)
    except Exception as error:  # intact, but of another release, for example
        set_result_aside(settings, table_name, job_hash, reason=f"it cannot be read ({type(error).__name__}: {error})")
        return None


def forget_result(settings: JobSettings, table_name: str, job_hash: str) -> None:
    """Remove a result that is stored from the spool."""
    try:
        settings.spool.remove(settings.schema, table_name, job_hash)
    except ServerError as error:
        logger.warning("a result that is stored could not be removed from the spool: %s", error)


def set_result_aside(settings: JobSettings, table_name: str, job_hash: str, *, reason: str) -> None:
    """Move an unusable result out of the spool, with a warning that says where it is now and why."""
    try:
        aside = settings.spool.set_aside(settings.schema, table_name, job_hash)
    except ServerError as error:
        logger.warning("the finished result of %s %s cannot be used: %s. %s", table_name, job_hash[:8], reason, error)
    else:
        logger.warning("the finished result of %s %s is now %s: %s", table_name, job_hash[:8], aside, reason)
