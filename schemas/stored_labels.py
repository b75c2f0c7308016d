"""Labels of stored assignments: one, kept in memory while pairs are compared, or several, neuron by neuron."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from december_plugin.embeddings.neuron_ids import NeuronIds, match_neurons
from december_plugin.errors import SettingsError
from december_plugin.schemas.recently_used import RecentlyUsed
from december_plugin.schemas.stored_models import FROM_RECORDING


@dataclass(frozen=True, eq=False)
class AssignedLabels:
    """The labels (N,) of an assignment, and the identities of its neurons.

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


# Entries are named by digests of their content, so a recomputed assignment is never mistaken for the old one.
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


@dataclass(frozen=True, eq=False)
class CommonNeurons:
    """The neurons that all of several assignments have.

    Attributes
    ----------
    ids
        Their identities.
    labels
        For every assignment, the clusters (N,) int64.
    positions
        For every assignment, their positions among all its neurons, sessions in alphabetical order, (N,).
    """

    ids: NeuronIds
    labels: list[np.ndarray]
    positions: list[np.ndarray]


def common_neurons(cluster_assignment: Any, keys: Sequence[Mapping[str, Any]]) -> CommonNeurons:
    """Read assignments and match their neurons by session and unit id.

    Raises
    ------
    SettingsError
        If they have no neuron in common, or a session has unit ids for only some of them.
    """
    assigned = [assigned_labels(cluster_assignment, key) for key in keys]
    for other in assigned[1:]:
        check_same_source(assigned[0], other)
    ids = assigned[0].ids
    for other in assigned[1:]:
        at, _ = match_neurons(ids, other.ids, common_only=True)
        ids = ids if len(at) == len(ids) else ids.take(at)
    positions = [match_neurons(ids, each.ids, common_only=True)[1] for each in assigned]
    labels = [each.labels[at].astype(np.int64) for each, at in zip(assigned, positions, strict=True)]
    return CommonNeurons(ids, labels, positions)


def check_same_source(first: AssignedLabels, second: AssignedLabels) -> None:
    """Raise a SettingsError if a session has unit ids in one assignment and positions in the other."""
    for data_key in first.from_recording.keys() & second.from_recording.keys():
        if first.from_recording[data_key] != second.from_recording[data_key]:
            raise SettingsError(
                f"session {data_key!r} has unit ids for one seed but not for another, so its neurons cannot be "
                "matched. Train all seeds on the same dataset."
            )


def stored_per_neuron(cluster_assignment: Any, key: Mapping[str, Any], column: str) -> np.ndarray | None:
    """Return ``confidences`` or ``margins`` (N,), sessions in alphabetical order; None if they are not stored."""
    values = (cluster_assignment.Session & key).fetch(column, order_by="data_key")
    return None if any(value is None for value in values) else np.concatenate(list(values))
