"""What a GPU would make the host wait for, and how much of its memory would be taken, seen without one."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: PLC2701 (no public path)

# They hand a number, or a shape that depends on numbers, to the host, which waits for a GPU to compute it.
WAITING = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "unique", "bincount")


class NoWaiting(TorchDispatchMode):
    """Fails at an operation for which the host would wait, were the tensors on a GPU."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        by_mask = name.startswith("index") and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in args[1]
        )
        assert not name.startswith(WAITING), f"the host would wait for {function}"
        assert not by_mask, f"the host would wait for {function} with a mask"
        return function(*args, **(kwargs or {}))


class MetaDevice(TorchDispatchMode):
    """Fails if a tensor is made that is not on the device "meta", whose tensors hold no numbers, as if on a GPU.

    Attributes
    ----------
    peak
        The largest number of bytes that the tensors which were made took at a time.
    """

    def __init__(self) -> None:
        super().__init__()
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()
        self.peak = self._now = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor):
                assert tensor.device.type == "meta", f"{function} makes a tensor on {tensor.device}"
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage not in self._known:
            self._known.add(storage)
            self._now += storage.nbytes()
            self.peak = max(self.peak, self._now)
            weakref.finalize(storage, self._free, storage.nbytes())

    def _free(self, n_bytes: int) -> None:
        self._now -= n_bytes


class LargestTensor(TorchDispatchMode):
    """Notes the size of the largest tensor that is made.

    Attributes
    ----------
    numbers
        How many numbers it has; of one that is a view, as many float64 numbers as the memory behind it holds, if those
        are more.
    """

    numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor):
                behind = tensor.untyped_storage().nbytes() // 8 if tensor.layout is torch.strided else 0
                self.numbers = max(self.numbers, tensor.numel(), behind)
        return out
