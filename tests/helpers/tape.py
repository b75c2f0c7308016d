"""What stands for a CUDA graph on the CPU: the operations of a function, recorded with their memory and done again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: PLC2701
from torch.utils._pytree import tree_leaves, tree_map_only  # noqa: PLC2701

# What a GPU's host would wait for: a value that Python reads, or a shape that depends on values.
WAITING = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "unique_dim", "_unique2", "masked_select"}


def name_of(operation) -> str:
    return operation.overloadpacket.__name__


class Waits(TorchDispatchMode):
    """Notes the operations that would wait for a GPU."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if name_of(operation) in WAITING:
            self.found.append(name_of(operation))
        return operation(*args, **(kwargs or {}))


@contextmanager
def no_waiting() -> Iterator[None]:
    """Fail if anything in the block would wait for a GPU."""
    with Waits() as waits:
        yield
    assert waits.found == []


class _Tape(TorchDispatchMode):
    """Operations with their arguments and results, as long as nothing waits; what they wrote can be undone."""

    def __init__(self):
        super().__init__()
        self.calls = []
        self._own: set[int] = set()
        self._before: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        # Operations such as squeeze_ give the same tensor another shape later on.
        recorded = _same_memory((args, kwargs))
        if name_of(operation) in WAITING:
            raise RuntimeError("operation not permitted when stream is capturing\nmore lines")
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        memory = {leaf.untyped_storage().data_ptr() for leaf in given}
        writes = any(argument.alias_info and argument.alias_info.is_write for argument in operation._schema.arguments)
        if writes or "batch_norm" in name_of(operation):  # whose schema does not say that it writes running means
            for leaf in given:
                pointer = leaf.untyped_storage().data_ptr()
                if pointer not in self._own and pointer not in self._before:
                    whole = torch.empty(0, dtype=torch.uint8).set_(leaf.untyped_storage())
                    self._before[pointer] = whole, whole.clone()
        results = operation(*args, **kwargs)
        made = [leaf for leaf in tree_leaves(results) if isinstance(leaf, torch.Tensor)]
        fresh = [leaf.untyped_storage().data_ptr() not in memory for leaf in made]
        self._own |= {leaf.untyped_storage().data_ptr() for leaf, new in zip(made, fresh, strict=True) if new}
        self.calls.append((operation, *recorded, _same_memory(made), fresh))
        return results

    def undo(self) -> None:
        for whole, content in self._before.values():
            whole.copy_(content)

    @torch.no_grad()
    def replay(self) -> None:
        for operation, recorded_args, recorded_kwargs, made, fresh in self.calls:
            args, kwargs = _same_memory((recorded_args, recorded_kwargs))
            again = [leaf for leaf in tree_leaves(operation(*args, **kwargs)) if isinstance(leaf, torch.Tensor)]
            for result, value, new in zip(made, again, fresh, strict=True):
                if new and result.numel():
                    result.copy_(value)


def _same_memory(values):
    """Return tensors of their own, with the same memory as these."""
    return tree_map_only(torch.Tensor, torch.Tensor.detach, values)


class TapeRecorder:
    """Records on the CPU what :class:`december_plugin.training.launches.CudaRecorder` records on a GPU."""

    def __init__(self):
        self.recorded, self.replays = 0, 0
        self.tapes: list[_Tape] = []

    def warm_up(self, function: Callable[[], None]) -> str | None:
        with Waits() as waits:
            function()
        return f"it waits for the device ({waits.found[0]})" if waits.found else None

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        state = self.random_state()
        tape = _Tape()
        try:
            with tape:
                function()
        finally:
            tape.undo()
            self.set_random_state(state)
        self.recorded += 1
        self.tapes.append(tape)

        def replay() -> None:
            self.replays += 1
            tape.replay()

        return replay

    def random_state(self):
        return torch.get_rng_state()

    def set_random_state(self, state) -> None:
        torch.set_rng_state(state)
