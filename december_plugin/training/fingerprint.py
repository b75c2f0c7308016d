"""Digests of what a pretraining depends on: the model's structure and weights, and the data it is shown."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import types
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from december_plugin.embeddings.readout_vectors import unit_ids_of
from december_plugin.training.random_state import loader_generators

# Bookkeeping of torch itself; parameters and buffers are digested with the weights.
_IGNORED_ATTRIBUTES = frozenset(vars(nn.Module())) | {"training"}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_MAX_DEPTH = 4


def _digestible(value: Any, depth: int = 0) -> Any:
    """Return a form of ``value`` that has the same JSON in every process.

    Functions count by their code and what they close over, other objects by their class and attributes.
    """
    if isinstance(value, (str, int, float, bool, type(None))):
        return repr(value)
    if isinstance(value, (torch.Tensor, np.ndarray)):
        array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
        return [str(array.dtype), list(array.shape), hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()]
    if isinstance(value, Mapping):
        return sorted((str(key), json.dumps(_digestible(item, depth))) for key, item in value.items())
    if isinstance(value, (set, frozenset)):
        return sorted(json.dumps(_digestible(item, depth)) for item in value)
    if isinstance(value, (list, tuple, range)):
        return [_digestible(item, depth) for item in value]
    return _digestible_object(value, depth)


def _digestible_object(value: Any, depth: int) -> Any:
    if isinstance(value, functools.partial):
        return ["partial", _digestible([value.func, value.args, value.keywords], depth)]
    if isinstance(value, types.MethodType):
        return [value.__func__.__qualname__, _digestible(value.__func__, depth)]
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if cell != types.CellType()]
        inside = [value.__defaults__, value.__kwdefaults__, cells] if depth < _MAX_DEPTH else []
        return [value.__module__, value.__qualname__, _code(value.__code__), _digestible(inside, depth + 1)]
    named = value if hasattr(value, "__qualname__") else type(value)
    name = f"{named.__module__}.{named.__qualname__}"
    if named is value or depth >= _MAX_DEPTH or not hasattr(value, "__dict__") or isinstance(value, types.ModuleType):
        return name
    attributes = {key: item for key, item in vars(value).items() if key not in _IGNORED_ATTRIBUTES}
    return [name, _digestible(attributes, depth + 1)]


def _code(code: types.CodeType) -> list[Any]:
    constants = [_code(item) if isinstance(item, types.CodeType) else repr(item) for item in code.co_consts]
    return [hashlib.sha256(code.co_code).hexdigest(), list(code.co_names), constants]


def _source(kind: type) -> str:
    """Return the source of a class, so that an edited model is another model; releases of packages have versions."""
    if kind.__module__.split(".")[0] in ("torch", "neuralpredictors"):
        return ""
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return ""


def structure_digest(model: nn.Module) -> str:
    """Return a digest of the model's modules, their code and attributes, and of which parameters are trained.

    Two models with equal weights but, say, different regularization or a frozen core train differently.
    """
    description = [
        (
            name,
            f"{type(module).__module__}.{type(module).__qualname__}",
            _source(type(module)),
            [(key, _digestible(v)) for key, v in sorted(vars(module).items()) if key not in _IGNORED_ATTRIBUTES],
            [_digestible(list(getattr(module, hooks).values())) for hooks in _HOOKS],
        )
        for name, module in model.named_modules()
    ]
    trained = [(name, parameter.requires_grad) for name, parameter in model.named_parameters()]
    return hashlib.sha256(json.dumps([description, trained]).encode()).hexdigest()


def content_digest(items: Mapping[str, Any]) -> str:
    """Return a digest of a state dict or a description: names, shapes, types and values, in their order."""
    digest = hashlib.sha256()
    for name, value in items.items():
        digest.update(json.dumps([name, _digestible(value)]).encode())
    return digest.hexdigest()


def data_digest(dataloaders: Mapping[str, Mapping[str, Any]], tiers: tuple[str, ...], *, read: bool = True) -> str:
    """Return a digest of the batches of these tiers.

    Datasets with a ``fingerprint()`` method, such as ours, count by what it returns. Any other loader is read once, in
    an order fixed by a seed, without disturbing the random state; without ``read`` it counts by its sizes and, if its
    dataset knows them, its unit ids.
    """
    digest = hashlib.sha256()
    for tier in tiers:
        for data_key, loader in dataloaders[tier].items():
            fingerprint = getattr(getattr(loader, "dataset", None), "fingerprint", None)
            if fingerprint is not None or read:
                content = fingerprint() if fingerprint is not None else _batches_digest(loader)
            else:
                unit_ids = unit_ids_of({data_key: loader}).get(data_key)
                content = None if unit_ids is None else _digestible(unit_ids)
            sampler = getattr(loader, "sampler", None)
            sampling = {
                "sampler": type(sampler).__qualname__,
                "trials": getattr(sampler, "indices", None),
                "batch_size": getattr(loader, "batch_size", None),
                "drop_last": getattr(loader, "drop_last", None),
                "n_batches": len(loader),
            }
            digest.update(json.dumps([tier, data_key, content, _digestible(sampling)]).encode())
    return digest.hexdigest()


def _batches_digest(loader: Any) -> str:
    digest = hashlib.sha256()
    generators = loader_generators({"": {"": loader}})
    states = [generator.get_state() for generator in generators]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for generator in generators:
            generator.manual_seed(0)
        for batch in loader:
            items = batch._asdict() if hasattr(batch, "_asdict") else batch
            digest.update(json.dumps(_digestible(items)).encode())
    for generator, state in zip(generators, states, strict=True):
        generator.set_state(state)
    return digest.hexdigest()
