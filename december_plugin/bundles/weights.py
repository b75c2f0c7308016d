"""State dicts as safetensors, in their order and with their plain values: no pickle, and readable in any language."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from december_plugin.bundles.archive import BundleError

ORDER, PLAIN = "december.order", "december.plain"  # of the metadata
_HEADER = struct.Struct("<Q")


def weights_content(state_dict: Mapping[str, Any], *, what: str) -> bytes:
    """Return the content of the ``.safetensors`` file of a state dict.

    Parameters
    ----------
    state_dict
        Tensors, and numbers and texts.
    what
        Name of the model in messages.

    Raises
    ------
    BundleError
        If it holds something else.
    """
    import safetensors
    from safetensors.torch import save

    tensors, plain = {}, {}
    for name, value in state_dict.items():
        if isinstance(value, Tensor):
            tensors[name] = value.detach().cpu().contiguous().clone()  # tied weights are allowed
        elif (
            value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value))
        ):
            plain[name] = value
        else:
            raise BundleError(
                f"the state dict of {what} holds a {type(value).__name__} under {name!r}; a bundle takes tensors, "
                "numbers and texts. Leave the models out, with --no-models or models=False."
            )
    try:
        return save(tensors, {ORDER: json.dumps(list(state_dict)), PLAIN: json.dumps(plain)})
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise BundleError(
            f"the state dict of {what} cannot be written as safetensors: {error}. Leave the models out, with "
            "--no-models or models=False."
        ) from error


def weights_of(content: bytes, *, what: str) -> dict[str, Any]:
    """Return the state dict in the content of a ``.safetensors`` file of :func:`weights_content`.

    Raises
    ------
    BundleError
        If it is not such a file.
    """
    import safetensors
    from safetensors.torch import load

    try:
        tensors = load(content)
        (length,) = _HEADER.unpack_from(content)
        about = json.loads(content[_HEADER.size : _HEADER.size + length])["__metadata__"]
        found = {**tensors, **json.loads(about[PLAIN])}
        return {name: found[name] for name in json.loads(about[ORDER])}
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, struct.error) as error:
        raise BundleError(f"{what} is not a state dict of a bundle ({error}).") from None


def same_weights(first: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two state dicts have the same entries, bit by bit."""
    return first.keys() == other.keys() and all(_same(first[name], other[name]) for name in first)


def _same(first: Any, other: Any) -> bool:
    if not isinstance(first, Tensor) or not isinstance(other, Tensor):
        return type(first) is type(other) and bool(first == other)
    if first.dtype != other.dtype or first.shape != other.shape:
        return False
    bits = [each.detach().cpu().contiguous().view(-1).view(torch.uint8) for each in (first, other)]
    return torch.equal(*bits)
