"""Confusion of stored assignments with known types, as a data frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from december_plugin.agreement import compare_partitions
from december_plugin.confusion import ConfusionMatrix, confusion_matrix, matched_order
from december_plugin.errors import SettingsError
from december_plugin.identity import NeuronIds, match_neurons
from december_plugin.matching import NO_PARTNER, match_clusters
from december_plugin.schemas.assigned_labels import AssignedLabels, assigned_labels
from december_plugin.schemas.queries import configuration_key
from december_plugin.schemas.restricting import restricted
from december_plugin.schemas.tables import DecemberTables

UNMATCHED = "unmatched"


def confusion_frame(tables: DecemberTables, restriction: Any, *, types_name: str | None = None) -> pd.DataFrame:
    """Return the numbers of neurons by cluster and known type, matched; of one assignment, or summed over seeds.

    Of several seeds, each one's clusters are first matched with those of the seed that agrees best with the others, by
    all neurons that both have, labelled or not.

    Parameters
    ----------
    tables
        The tables.
    restriction
        Leaves one assignment, or the seeds of one configuration. It may name the primary key, ``method``,
        ``n_clusters``.
    types_name
        Set of known types; None takes the only one there is.

    Returns
    -------
    pandas.DataFrame
        Index ``cluster`` (as the reference seed numbers them; "unmatched" for neurons whose cluster has no partner
        there), columns the types; row ``i`` belongs to column ``i`` as far as both go. ``attrs`` has ``n_seeds``,
        ``reference_seed``, ``types_name``; ``per_type``, a frame with ``cluster``, ``n_neurons``, ``recall`` and
        ``precision`` by type; ``accuracy``; ``n_unlabelled`` and ``n_unassigned``, means over seeds of the neurons
        without a known type, and of the labelled neurons that the assignment does not have.

    Raises
    ------
    SettingsError
        If the restriction leaves no assignment or several configurations, there is no such set of types, or no
        neuron of an assignment has a known type.
    """
    keys = _seeds_of_one_configuration(tables, restriction)
    name = _types_name(tables, types_name)
    types = tables.KnownTypes().frame(name)
    type_ids = NeuronIds(types["data_key"].to_numpy(dtype=str), types["unit_id"].to_numpy())
    assigned = [assigned_labels(tables.ClusterAssignment, key) for key in keys]
    reference = most_typical(assigned)
    matrices = [_confusion(renumbered(assigned[reference], each), each, types, type_ids, name) for each in assigned]
    frame = _summed(matrices)
    frame.attrs |= {
        "n_seeds": len(keys),
        "reference_seed": int(keys[reference]["seed"]),
        "types_name": name,
        "n_unlabelled": float(np.mean([matrix.n_unlabelled for matrix in matrices])),
        "n_unassigned": float(np.mean([matrix.n_unassigned for matrix in matrices])),
    }
    return frame


def most_typical(assigned: list[AssignedLabels]) -> int:
    """Return the position of the assignment whose adjusted Rand index with all others is the largest in the mean."""
    agreement = np.zeros((len(assigned), len(assigned)))
    for a, first in enumerate(assigned):
        for b in range(a + 1, len(assigned)):
            second = assigned[b]
            pair = compare_partitions(first.labels, second.labels, ids_a=first.ids, ids_b=second.ids, common_only=True)
            agreement[a, b] = agreement[b, a] = pair.adjusted_rand_index
    return int(agreement.sum(axis=1).argmax())


def renumbered(reference: AssignedLabels, other: AssignedLabels) -> np.ndarray:
    """Return the labels (N,) of ``other`` in the numbers of ``reference``; -1 for clusters without a partner there."""
    labels = other.labels.astype(np.int64)
    if other is reference:
        return labels
    at_reference, at_other = match_neurons(reference.ids, other.ids, common_only=True)
    matched = match_clusters(reference.labels[at_reference], labels[at_other])
    partner = dict(zip(labels[at_other].tolist(), matched.tolist(), strict=True))
    return np.array([partner.get(label, NO_PARTNER) for label in labels.tolist()], dtype=np.int64)


def _confusion(
    labels: np.ndarray, assigned: AssignedLabels, types: pd.DataFrame, type_ids: NeuronIds, name: str
) -> ConfusionMatrix:
    if not any(assigned.from_recording.get(key) for key in types["data_key"].unique()):
        sessions = ", ".join(sorted(assigned.from_recording))
        raise SettingsError(
            f"the known types {name!r} have no session in common with this assignment, whose sessions are {sessions}; "
            f"theirs are {', '.join(sorted(types['data_key'].unique()))}. Unit ids must come from the recordings."
        )
    try:
        return confusion_matrix(labels, types["type"].to_numpy(), ids=assigned.ids, type_ids=type_ids)
    except SettingsError as error:
        raise SettingsError(
            f"the known types {name!r} have no neuron in common with this assignment: {error}"
        ) from error


def _summed(matrices: list[ConfusionMatrix]) -> pd.DataFrame:
    """Add the counts of all seeds, and match the sums."""
    total: pd.DataFrame | None = None
    for matrix in matrices:
        counts = matrix.frame()
        total = counts if total is None else total.add(counts, fill_value=0)
    assert total is not None
    total = total.astype(np.int64)[sorted(total.columns, key=lambda name: (len(str(name)), str(name)))]
    clusters = total[total.index != NO_PARTNER]
    rows, columns, n_matched = matched_order(clusters.to_numpy())
    ordered = clusters.iloc[rows, columns]
    whole = ConfusionMatrix(
        counts=ordered.to_numpy(),
        clusters=tuple(ordered.index),
        types=tuple(ordered.columns),
        cluster_sizes=ordered.to_numpy().sum(axis=1),
        n_matched=n_matched,
        n_unlabelled=0,
        n_unassigned=0,
    )
    frame, per_type = whole.frame(), whole.per_type()
    if NO_PARTNER in total.index:
        frame.loc[UNMATCHED] = total.loc[NO_PARTNER, list(frame.columns)]
        # Neurons of clusters without a partner are found by nobody, but they are there.
        per_type["recall"] *= per_type["n_neurons"] / frame.sum(axis=0)
        per_type["n_neurons"] = frame.sum(axis=0)
    frame.attrs = {"per_type": per_type, "accuracy": float(np.trace(whole.counts)) / int(frame.to_numpy().sum())}
    return frame


def _seeds_of_one_configuration(tables: DecemberTables, restriction: Any) -> list[dict[str, Any]]:
    joined = tables.ClusterAssignment.proj(n_clusters="n_clusters_used") * tables.Clustering.proj("method")
    keys = restricted(joined, restriction).fetch("KEY", order_by="seed")
    names = configuration_key(tables)
    configurations = {tuple(key[name] for name in names) for key in keys}
    if len(configurations) != 1:
        raise SettingsError(
            f"the restriction leaves {len(keys)} assignments of {len(configurations)} configurations; it must leave "
            "one assignment, or the seeds of one configuration. agreement_table() lists configurations with their keys."
        )
    return keys


def _types_name(tables: DecemberTables, types_name: str | None) -> str:
    known = sorted(tables.KnownTypes.fetch("types_name"))
    if types_name is None and len(known) == 1:
        return str(known[0])
    if types_name is None or types_name not in known:
        asked = "set types_name" if types_name is None else f"there are no known types named {types_name!r}"
        raise SettingsError(f"{asked}. Known: {', '.join(known) or 'none'}.")
    return types_name
