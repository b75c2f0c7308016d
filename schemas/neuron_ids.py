"""Who the neurons of a trained model are: session and unit id."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from december_plugin.errors import EmbeddingError

FROM_RECORDING = "recording"
FROM_POSITION = "position"


@dataclass(frozen=True)
class SessionNeurons:
    """The neurons of one session: unit ids (n,) int64, and where they come from.

    A dataset that gives no unit ids leaves only the position in the readout, which is right as long as models of the
    same dataset entry are compared.
    """

    data_key: str
    unit_ids: np.ndarray
    unit_ids_from: str


def session_neurons(
    data_keys: np.ndarray, neurons: Mapping[str, Any] | None, build_loaders: Callable[[], Any]
) -> list[SessionNeurons]:
    """Return the identities of a model's neurons, one entry per session, in the order of the readout.

    Parameters
    ----------
    data_keys
        Session of every readout vector (N,), sessions one after the other.
    neurons
        ``output["neurons"]`` of our trainers, data key to ``{"unit_ids": array or None, ...}``; None for others.
    build_loaders
        Called, for other trainers, to ask the data loaders.

    Raises
    ------
    EmbeddingError
        If a session has another number of unit ids than of readout vectors.
    """
    if neurons is not None:
        known = {data_key: session.get("unit_ids") for data_key, session in neurons.items()}
    else:
        from december_plugin.embeddings.readout_vectors import unit_ids_of

        known = dict(unit_ids_of(build_loaders()))
    names, starts, counts = np.unique(data_keys, return_index=True, return_counts=True)
    sessions = []
    for position in np.argsort(starts):
        data_key, count = str(names[position]), int(counts[position])
        unit_ids = known.get(data_key)
        if unit_ids is None:
            sessions.append(SessionNeurons(data_key, np.arange(count, dtype=np.int64), FROM_POSITION))
            continue
        unit_ids = np.ascontiguousarray(unit_ids, dtype=np.int64)
        if len(unit_ids) != count:
            raise EmbeddingError(
                f"session {data_key!r} has {len(unit_ids)} unit ids and {count} readout vectors; the data set has "
                "changed since the model was trained, or its loaders serve a part of the neurons."
            )
        sessions.append(SessionNeurons(data_key, unit_ids, FROM_RECORDING))
    return sessions
