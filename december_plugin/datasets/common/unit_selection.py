"""Selects neurons by session and unit id, with the same setting for every format with many sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from december_plugin.errors import MisfitError, SettingsError, did_you_mean

NeuronIds = Mapping[str, Sequence[int]]


def check_neuron_ids(neuron_ids: Any) -> dict[str, list[int]] | None:
    """Return the setting ``neuron_ids`` with plain types, or raise a :class:`SettingsError`."""
    if neuron_ids is None:
        return None
    if not isinstance(neuron_ids, Mapping) or not neuron_ids:
        raise SettingsError(
            f"neuron_ids is {neuron_ids!r}; session names with a list of unit ids each are expected, e.g. "
            "{'3631896544452': [1, 4, 7]}.",
            setting="neuron_ids",
        )
    chosen = {}
    for data_key, ids in neuron_ids.items():
        plain = isinstance(ids, (list, tuple, np.ndarray))
        if not plain or not len(ids) or not all(hasattr(i, "__index__") and not isinstance(i, bool) for i in ids):
            raise SettingsError(
                f"neuron_ids of session {data_key!r} is {ids!r}; a list of unit ids is expected.", setting="neuron_ids"
            )
        if len({int(i) for i in ids}) != len(ids):
            raise SettingsError(
                f"neuron_ids names a unit id of session {data_key!r} twice. Name each once.", setting="neuron_ids"
            )
        chosen[str(data_key)] = [int(i) for i in ids]
    return chosen


def select_neurons(
    unit_ids: Mapping[str, np.ndarray], neuron_ids: dict[str, list[int]] | None
) -> dict[str, np.ndarray]:
    """Return the positions of the chosen neurons of each session that keeps any.

    Parameters
    ----------
    unit_ids
        Data key to the unit ids of a session, (n,).
    neuron_ids
        What :func:`check_neuron_ids` returned; None keeps all.

    Raises
    ------
    SettingsError
        If a session or a unit id does not exist.
    """
    if neuron_ids is None:
        return {data_key: np.arange(len(ids)) for data_key, ids in unit_ids.items()}
    positions = {}
    for data_key, wanted in neuron_ids.items():
        if data_key not in unit_ids:
            raise MisfitError(
                f"neuron_ids names the session {data_key!r}, which does not exist. {did_you_mean(data_key, unit_ids)}",
                setting="neuron_ids",
            )
        where = {int(unit_id): position for position, unit_id in enumerate(unit_ids[data_key])}
        unknown = [unit_id for unit_id in wanted if unit_id not in where]
        if unknown:
            raise MisfitError(
                f"neuron_ids names {len(unknown)} unit id(s) that session {data_key!r} does not have, e.g. "
                f"{unknown[0]}. It has {len(where)} neurons: {_some(sorted(where))}.",
                setting="neuron_ids",
            )
        positions[data_key] = np.array([where[unit_id] for unit_id in wanted], dtype=np.int64)
    return {data_key: positions[data_key] for data_key in unit_ids if data_key in positions}


def _some(values: Sequence[int], limit: int = 5) -> str:
    return ", ".join(map(str, values[:limit])) + (", ..." if len(values) > limit else "")
