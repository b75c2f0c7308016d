"""Whether two files can be of the same neurons."""

import hashlib

import numpy as np
import pytest
import torch

from december_plugin.errors import EmbeddingError
from december_plugin.imports import check_same_neurons, read_readouts
from december_plugin.imports.identity import check_same_grid, neurons_digest

NAMES = ("one.npy", "two.npy")


def readouts(units=None):
    n = 5 if units is None else sum(map(len, units.values()))
    return read_readouts(np.ones((n, 2)), units=units)


def test_the_same_neurons_in_any_order() -> None:
    check_same_neurons(readouts({"a": [1, 2], "b": [7]}), readouts({"b": [7], "a": [2, 1]}), names=NAMES)
    check_same_neurons(readouts(), readouts(), names=NAMES)


def test_neurons_that_cannot_be_the_same() -> None:
    first = readouts({"a": [1, 2], "b": [7]})
    begin = r"two.npy cannot be of the same neurons as one.npy: "
    with pytest.raises(EmbeddingError, match=begin + r"only one.npy has the session 'b'"):
        check_same_neurons(first, readouts({"a": [1, 2]}), names=NAMES)
    with pytest.raises(EmbeddingError, match=begin + r"only two.npy has the session 'c'"):
        check_same_neurons(first, readouts({"a": [1, 2], "b": [7], "c": [1]}), names=NAMES)
    with pytest.raises(EmbeddingError, match=begin + r"session 'a' has 2 neurons there and 3 here"):
        check_same_neurons(first, readouts({"a": [1, 2, 3], "b": [7]}), names=NAMES)
    with pytest.raises(
        EmbeddingError, match=begin + r"1 of the 2 neurons of session 'a' are missing here \(unit ids 2\)"
    ):
        check_same_neurons(first, readouts({"a": [1, 9], "b": [7]}), names=NAMES)
    with pytest.raises(EmbeddingError, match=r"only one.npy has unit ids, so its neurons cannot be matched"):
        check_same_neurons(readouts({"imported": range(5)}), readouts(), names=NAMES)


def test_other_cortical_positions() -> None:
    grid = {"readout.a.source_grid": torch.arange(6.0).reshape(3, 2), "readout.a.features": torch.ones(1, 2, 1, 3)}
    check_same_grid(grid, {**grid, "readout.a.features": torch.zeros(1, 2, 1, 3)}, names=NAMES)
    check_same_grid(grid, {"readout.a.features": grid["readout.a.features"]}, names=NAMES)
    with pytest.raises(
        EmbeddingError, match=r"or has them in another order: they have other cortical positions \(readout"
    ):
        check_same_grid(grid, {**grid, "readout.a.source_grid": grid["readout.a.source_grid"].flip(0)}, names=NAMES)


def test_the_digest_is_of_the_neurons_and_not_of_their_order() -> None:
    expected = {"a": [2, hashlib.md5(np.array([1, 2], dtype="<i8").tobytes()).hexdigest()], "b": [1, ""]}
    expected["b"][1] = hashlib.md5(np.array([7], dtype="<i8").tobytes()).hexdigest()
    assert neurons_digest(readouts({"b": [7], "a": [2, 1]})) == expected
    assert neurons_digest(readouts()) == {"imported": [5, ""]}
