"""Batches of nnfabrik's data loaders: their fields, and models prepared to be shown them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

INPUT_FIELDS = ("images", "inputs", "videos")
RESPONSE_FIELDS = ("responses", "targets")
NO_RESPONSES = ("behavior", "pupil_center")  # what models take in addition to their inputs


def split_batch(batch: Any) -> tuple[Tensor, Any, dict[str, Any]]:
    """Return inputs, responses and everything else that has a name.

    Parameters
    ----------
    batch
        A named tuple or dict with inputs and responses, or a tuple that begins with them. Responses may be missing.

    Returns
    -------
    inputs, responses, extras
        Responses are None where the batch has none.
    """
    names = field_names(batch)
    if not names:
        inputs, *others = batch
        return inputs, others[0] if others else None, {}
    named = batch if isinstance(batch, Mapping) else batch._asdict()
    first, second = inputs_and_responses(names)
    extras = {name: value for name, value in named.items() if name not in (first, second)}
    return named[first], named.get(second), extras


def field_names(batch: Any) -> list[str]:
    """Return the names of a batch's fields; none of a plain tuple."""
    return list(batch._fields) if hasattr(batch, "_fields") else list(batch) if isinstance(batch, Mapping) else []


def inputs_and_responses(names: list[str]) -> tuple[str, str]:
    """Return which of the fields are inputs and responses: those with a known name, or the first and the second."""
    inputs = next((name for name in INPUT_FIELDS if name in names), names[0])
    second = names[1] if len(names) > 1 and names[1] not in (inputs, *NO_RESPONSES) else RESPONSE_FIELDS[0]
    return inputs, next((name for name in RESPONSE_FIELDS if name in names), second)


@contextmanager
def evaluating(model: nn.Module, device: torch.device | None = None) -> Iterator[None]:
    """Keep a model in evaluation mode, and on a device, within the block; mode and device are restored after it.

    Parameters
    ----------
    model
        Each of its modules gets its own mode back.
    device
        Where the model is within the block; None: where it is.
    """
    modes = [(module, module.training) for module in model.modules()]
    parameter = next(model.parameters(), None)
    before = None if parameter is None or device is None or parameter.device == device else parameter.device
    try:
        model.eval()
        if device is not None:
            model.to(device)
        yield
    finally:
        if before is not None:
            model.to(before)
        for module, training in modes:
            module.training = training


@contextmanager
def forward_replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Replace a module's forward pass within the block; one that it had been given is restored afterwards."""
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


def generators_of(loader: Any) -> list[torch.Generator]:
    """Return the generators that a loader or its samplers have; without one they draw from torch's global generator."""
    import torch

    batch_sampler = getattr(loader, "batch_sampler", None)
    samplers = (getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None))
    owned = (getattr(owner, "generator", None) for owner in (loader, *samplers))
    found: list[torch.Generator] = []
    for generator in owned:
        if isinstance(generator, torch.Generator) and all(generator is not known for known in found):
            found.append(generator)
    return found
