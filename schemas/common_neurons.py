"""Several assignments of the same neurons, neuron by neuron."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from december_plugin.embeddings.neuron_ids import NeuronIds, match_neurons
from december_plugin.errors import SettingsError
from december_plugin.schemas.assigned_labels import AssignedLabels, assigned_labels


@dataclass(frozen=True, eq=False)
class CommonNeurons:
    """The neurons that all of several assignments have.

    Attributes
    ----------
    ids
        Who they are.
    labels
        For every assignment, the clusters (N,) int64.
    positions
        For every assignment, where they are among all its neurons, sessions in alphabetical order, (N,).
    """

    ids: NeuronIds
    labels: list[np.ndarray]
    positions: list[np.ndarray]


def common_neurons(cluster_assignment: Any, keys: Sequence[Mapping[str, Any]]) -> CommonNeurons:
    """Read assignments and match their neurons by session and unit id.

    Raises
    ------
    SettingsError
        If they have no neuron in common, or a session has unit ids for one and none for another.
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
    """Raise a SettingsError if a session's neurons are unit ids in one assignment and positions in the other."""
    for data_key in first.from_recording.keys() & second.from_recording.keys():
        if first.from_recording[data_key] != second.from_recording[data_key]:
            raise SettingsError(
                f"session {data_key!r} has unit ids for one seed and none for another, so its neurons cannot be "
                "matched. Train all seeds on the same data set."
            )


def stored_per_neuron(cluster_assignment: Any, key: Mapping[str, Any], column: str) -> np.ndarray | None:
    """Return ``confidences`` or ``margins`` (N,), sessions in alphabetical order; None if they are not stored."""
    if column not in cluster_assignment.Session().heading.names:
        return None
    values = (cluster_assignment.Session & key).fetch(column, order_by="data_key")
    return None if any(value is None for value in values) else np.concatenate(list(values))
