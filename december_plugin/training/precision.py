"""The precision of a model's convolutions: float32, TF32 or bfloat16; everything after the core stays float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn

from december_plugin.embeddings.batches import forward_replaced
from december_plugin.errors import MisfitError

Precision = Literal["float32", "tf32", "bf16"]


@contextmanager
def core_precision(model: nn.Module, precision: Precision, device: torch.device) -> Iterator[None]:
    """Let the model's convolutions be computed in this precision within the block.

    Parameters
    ----------
    model
        With "bf16" its ``core`` runs under autocast, and its output is converted back to float32.
    precision
        "float32"; "tf32", a float32 of 10 bits for the factors of cuDNN's convolutions; or "bf16". Without a GPU "tf32"
        is float32.
    device
        Device of the training.

    Raises
    ------
    MisfitError
        If "bf16" is asked for and the model has no core.
    """
    core = getattr(model, "core", None)
    if precision == "bf16" and not isinstance(core, nn.Module):
        raise MisfitError(
            f"precision is 'bf16', which applies to the model's core, but {type(model).__name__} has none. Use 'tf32' "
            "or 'float32'.",
            setting="precision",
        )
    with _convolutions(tf32=precision != "float32", device=device):
        if precision != "bf16":
            yield
            return
        assert isinstance(core, nn.Module)
        forward = core.forward

        def in_bfloat16(*arguments: Any, **settings: Any) -> Any:
            # Without the cache, because a recorded graph would keep its stale copies of the weights.
            with torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False):
                output = forward(*arguments, **settings)
            return output.float() if isinstance(output, torch.Tensor) else output

        with forward_replaced(core, in_bfloat16):
            yield


@contextmanager
def _convolutions(*, tf32: bool, device: torch.device) -> Iterator[None]:
    """Set whether cuDNN's convolutions may use TF32, which is torch's default."""
    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    # Since torch 2.9 there is a switch for each operation, which is restored as it was; other code can still read the
    # one for all of cuDNN in between.
    operations = [getattr(cudnn, name) for name in ("conv", "rnn") if hasattr(cudnn, name)]
    before = [operation.fp32_precision for operation in operations]
    allowed = before == ["tf32", "tf32"] if operations else cudnn.allow_tf32
    cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        cudnn.allow_tf32 = allowed
        for operation, value in zip(operations, before, strict=True):
            if operation.fp32_precision != value:
                operation.fp32_precision = value
