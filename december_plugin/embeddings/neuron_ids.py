"""Identity of neurons across models: session (data key) and unit id, never the position alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from december_plugin.errors import SettingsError
from december_plugin.text.array_repr import ArrayRepr
from december_plugin.validation.byte_order import in_native_order

if TYPE_CHECKING:
    import pandas as pd

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False, repr=False)
class NeuronIds(ArrayRepr):
    """Identities of the neurons of an assignment: session and unit id, in the order of the labels.

    Parameters
    ----------
    data_keys
        Session of every neuron, shape (N,).
    unit_ids
        Unit id within the session, shape (N,).

    Attributes
    ----------
    index
        Session and unit id of every neuron, as a :class:`pandas.MultiIndex` of length N.

    Raises
    ------
    SettingsError
        If the shapes differ or a neuron occurs twice.

    See Also
    --------
    readout_embeddings : Readout vectors with these identities.
    december_plugin.evaluation.compare_partitions : Matches neurons by them.

    Examples
    --------
    >>> import numpy as np
    >>> from december_plugin.embeddings import NeuronIds
    >>> ids = NeuronIds(np.array(["mouse 1", "mouse 1", "mouse 2"]), np.array([7, 9, 7]))
    >>> len(ids)
    3
    """

    data_keys: np.ndarray
    unit_ids: np.ndarray
    index: pd.MultiIndex = field(init=False, repr=False)

    def __post_init__(self) -> None:
        import pandas as pd

        keys, units = (in_native_order(np.asarray(ids)) for ids in (self.data_keys, self.unit_ids))
        if keys.ndim != 1 or keys.shape != units.shape:
            raise SettingsError(
                f"data_keys has shape {keys.shape} and unit_ids {units.shape}; both must be (N,), one entry per neuron."
            )
        index = pd.MultiIndex.from_arrays([keys, units])
        if index.has_duplicates:
            key, unit = index[index.duplicated()][0]
            raise SettingsError(
                f"unit {unit} of session {key!r} occurs more than once ({int(index.duplicated().sum())} neurons do); "
                "neurons are matched by session and unit id, which must be unique."
            )
        for name, value in (("data_keys", keys), ("unit_ids", units), ("index", index)):
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, ids: Any) -> NeuronIds:
        """Return ``ids`` as :class:`NeuronIds`.

        Parameters
        ----------
        ids
            A :class:`NeuronIds`; a mapping of data key to unit ids (n,), in the order in which the sessions are
            stacked; a pair ``(data_keys, unit_ids)``, each (N,); or an object with these two attributes, such as
            :class:`~december_plugin.embeddings.readout_vectors.ReadoutEmbeddings`.

        Raises
        ------
        SettingsError
            If ``ids`` is none of these, has no unit ids, or names a neuron twice.
        """
        if isinstance(ids, cls):
            return ids
        if isinstance(ids, Mapping):
            units = [np.asarray(session) for session in ids.values()]
            keys = np.repeat(np.array(list(ids), dtype=str), [len(session) for session in units])
            return cls(keys, np.concatenate(units) if units else np.empty(0, dtype=np.int64))
        if hasattr(ids, "data_keys") and hasattr(ids, "unit_ids"):
            if ids.unit_ids is None:
                raise SettingsError("these neurons have no unit ids; pass unit_ids where the embeddings are read.")
            return cls(ids.data_keys, ids.unit_ids)
        if isinstance(ids, Sequence) and len(ids) == 2:
            return cls(np.asarray(ids[0]), np.asarray(ids[1]))
        raise SettingsError(
            f"ids is {type(ids).__name__}; it must be a mapping of data key to unit ids, a pair (data_keys, unit_ids), "
            "or an object with these two attributes."
        )

    def take(self, at: npt.NDArray[Any]) -> NeuronIds:
        """Return the identities of the neurons at these positions, an index or mask of the N neurons."""
        return NeuronIds(self.data_keys[at], self.unit_ids[at])

    def __len__(self) -> int:
        return len(self.unit_ids)


def whole_numbers(values: npt.ArrayLike) -> IntArray | None:
    """Return numbers as int64, or None unless each is a whole number that is represented exactly.

    Floating-point numbers are accepted below 2**53 in float64 and 2**24 in float32: above, different unit ids would
    have been rounded to the same number.

    Parameters
    ----------
    values
        Numbers, of any shape.

    Returns
    -------
    ndarray of int64 or None
        The same shape; None for NaN, infinite, fractional and too large numbers, and for anything but numbers.
    """
    array = np.asarray(values)
    if array.dtype.kind == "f":
        largest = 2.0 ** (np.finfo(array.dtype).nmant + 1)
        exact = bool((np.abs(array) < largest).all() and (array == np.floor(array)).all())  # NaN and inf are not
    else:
        exact = array.dtype.kind in "iu" and bool((array <= np.iinfo(np.int64).max).all())
    return array.astype(np.int64) if exact else None


def repeated_ids(ids: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the ids that occur more than once, ascending, each once."""
    values, times = np.unique(ids, return_counts=True)
    return values[times > 1]


def match_neurons(ids_a: Any, ids_b: Any, *, common_only: bool = False) -> tuple[IntArray, IntArray]:
    """Return the positions of the same neurons in two assignments.

    Parameters
    ----------
    ids_a, ids_b
        Identities, in any form that :meth:`NeuronIds.of` takes.
    common_only
        Allow different sets of neurons and return those that both have.

    Returns
    -------
    at_a, at_b
        Positions, each (n,) int64: neuron ``at_a[i]`` of the first is neuron ``at_b[i]`` of the second. The order is
        that of the first.

    Raises
    ------
    SettingsError
        If the sets differ and ``common_only`` is False, or if no neuron is common.
    """
    first, second = NeuronIds.of(ids_a), NeuronIds.of(ids_b)
    same = first is second or (
        np.array_equal(first.unit_ids, second.unit_ids) and np.array_equal(first.data_keys, second.data_keys)
    )
    if same:
        everyone = np.arange(len(first), dtype=np.int64)
        return everyone, everyone
    at_b = second.index.get_indexer(first.index).astype(np.int64)
    at_a = np.flatnonzero(at_b >= 0).astype(np.int64)
    n_common = len(at_a)
    if n_common == 0 or (not common_only and n_common < max(len(first), len(second))):
        remedy = (
            "Set common_only=True to compare the common neurons only, or compare models of the same sessions."
            if n_common
            else "Compare models of the same sessions."
        )
        raise SettingsError(
            f"the two assignments cover different neurons: {len(first)} and {len(second)}, of which {n_common} in "
            f"both, {len(first) - n_common} only in the first and {len(second) - n_common} only in the second. {remedy}"
        )
    return at_a, at_b[at_a]
