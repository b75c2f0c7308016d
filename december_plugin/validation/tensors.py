"""Arrays as tensors over the same memory, whatever the layout of that memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from december_plugin.validation.byte_order import in_native_order

if TYPE_CHECKING:
    from torch import Tensor


def tensor_of(values: Any) -> Tensor:
    """Return values as a tensor that is read and never written to.

    PyTorch warns about arrays that are not writable, such as those that processes map from one file, and refuses arrays
    that run backwards, that have fields between their numbers, or whose bytes are in the order of another machine.

    Parameters
    ----------
    values
        An array, a tensor, or anything else that ``torch.as_tensor`` takes.

    Returns
    -------
    Tensor
        Over the memory of an array, unless PyTorch refuses it; a tensor itself.
    """
    import torch

    if not isinstance(values, np.ndarray):
        return torch.as_tensor(values)
    array = in_native_order(values)
    if array.itemsize and any(stride < 0 or stride % array.itemsize for stride in array.strides):
        array = array.copy()
    return torch.as_tensor(array if array.flags.writeable else np.asarray(_Writable(array)))


class _Writable:
    """The memory of an array, without the note that it must not be written to."""

    def __init__(self, array: npt.NDArray[Any]):
        self._kept = array  # as long as its memory is in use
        interface = array.__array_interface__
        self.__array_interface__ = {**interface, "data": (interface["data"][0], False)}
