"""Arrays as tensors: no copy and no warning where PyTorch can look at their memory, a copy where it cannot."""

from __future__ import annotations

import gc
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from december_plugin.validation.tensors import tensor_of

VALUES = np.arange(12.0).reshape(4, 3)


def read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.fixture(autouse=True)
def every_warning() -> None:
    """PyTorch warns of a read-only array once in a process, unless it is asked to do so always."""
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(False)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i4"])
def test_a_read_only_array_is_neither_copied_nor_warned_of(dtype: str) -> None:
    array = read_only(VALUES.astype(dtype))
    with pytest.warns(UserWarning, match="not writable"):
        torch.as_tensor(array)  # what there would be
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = tensor_of(array)
    assert found.data_ptr() == array.ctypes.data
    assert not array.flags.writeable
    del array
    gc.collect()
    np.testing.assert_array_equal(found.numpy(), VALUES.astype(dtype))


def test_a_mapped_array_stays_mapped(tmp_path: Path) -> None:
    np.save(tmp_path / "values.npy", VALUES)
    mapped = np.load(tmp_path / "values.npy", mmap_mode="r")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = tensor_of(mapped[:, 1:])
    assert found.data_ptr() == mapped[:, 1:].ctypes.data
    np.testing.assert_array_equal(found.numpy(), VALUES[:, 1:])


@pytest.mark.parametrize(
    "array",
    [VALUES[::-1], VALUES[:, ::-1], np.array([(1.5, 1), (2.5, 2)], dtype="f8,i1")["f0"], VALUES.astype(">f8")],
)
def test_what_pytorch_refuses_is_copied(array: np.ndarray) -> None:
    with pytest.raises((ValueError, TypeError)):
        torch.as_tensor(array)
    np.testing.assert_array_equal(tensor_of(array).numpy(), array)


def test_other_values_are_taken_as_pytorch_takes_them() -> None:
    tensor = torch.ones(2, requires_grad=True)
    assert tensor_of(tensor) is tensor
    assert tensor_of([1, 2]).tolist() == [1, 2]
    assert tensor_of(VALUES[:0]).shape == (0, 3)
