"""Labels and identities of stored assignments, kept in memory while pairs of them are compared."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from december_plugin.embeddings.neuron_ids import NeuronIds
from december_plugin.schemas.neuron_ids import FROM_RECORDING

T = TypeVar("T")


class RecentlyUsed(Generic[T]):
    """The ``size`` entries that were used last.

    Parameters
    ----------
    size
        Number of entries.
    """

    def __init__(self, size: int):
        self.size = size
        self._entries: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, name: Hashable, make: Callable[[], T]) -> T:
        """Return the entry of this name; make it if it is not there."""
        if name not in self._entries:
            self._entries[name] = make()
            if len(self._entries) > self.size:
                self._entries.popitem(last=False)
        self._entries.move_to_end(name)
        return self._entries[name]

    def __len__(self) -> int:
        return len(self._entries)


@dataclass(frozen=True, eq=False)
class AssignedLabels:
    """The labels (N,) of an assignment, and who the neurons are.

    Attributes
    ----------
    labels
        Cluster of every neuron, sessions in alphabetical order.
    ids
        Identities, the same object for assignments of the same neurons.
    from_recording
        Session to whether its unit ids come from the recording.
    """

    labels: np.ndarray
    ids: NeuronIds
    from_recording: dict[str, bool]


# Entries are named by digests of their content, so an assignment that is computed anew is never mistaken for the old.
# 512 assignments of 54,569 neurons are 56 MB of int16 labels, and identities are shared between them.
_labels: RecentlyUsed[AssignedLabels] = RecentlyUsed(512)
_ids: RecentlyUsed[NeuronIds] = RecentlyUsed(16)


def assigned_labels(cluster_assignment: Any, key: Mapping[str, Any]) -> AssignedLabels:
    """Return labels and identities of one stored assignment, from memory if they were read before."""
    digest = (cluster_assignment & key).fetch1("labels_md5")
    return _labels.get(digest, lambda: _read(cluster_assignment, key))


def _read(cluster_assignment: Any, key: Mapping[str, Any]) -> AssignedLabels:
    sessions = (cluster_assignment.Session & key).fetch(
        "data_key", "unit_ids", "unit_ids_from", "labels", as_dict=True, order_by="data_key"
    )
    unit_ids = {session["data_key"]: session["unit_ids"] for session in sessions}
    digest = hashlib.md5(usedforsecurity=False)
    for data_key, units in unit_ids.items():
        digest.update(f"{data_key}\0{len(units)}\0".encode() + units.tobytes())
    return AssignedLabels(
        labels=np.concatenate([session["labels"] for session in sessions]),
        ids=_ids.get(digest.hexdigest(), lambda: NeuronIds.of(unit_ids)),
        from_recording={session["data_key"]: session["unit_ids_from"] == FROM_RECORDING for session in sessions},
    )
