"""Trained models of another lab's nnfabrik schema, as entries of an import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import datajoint as dj
import numpy as np
import pandas as pd

from december_plugin.database.schema_names import check_schema_name
from december_plugin.errors import EmbeddingError, SettingsError
from december_plugin.intake.file_format import NAME_LENGTH
from december_plugin.schemas.restrictions import restricted
from december_plugin.schemas.stored_models import neurons_of, stored_state_dict

CONFIGURATION = ("dataset_fn", "dataset_hash", "model_fn", "model_hash", "trainer_fn", "trainer_hash")


def models_of_schema(
    schema: str, restriction: Any = True, *, connection: Any, table: str = "TrainedModel"
) -> list[dict[str, Any]]:
    """Return the trained models of an nnfabrik schema as entries of the section ``models`` of an import.

    Parameters
    ----------
    schema
        A schema on the same server with a table built on nnfabrik's ``TrainedModelBase``. Its state dicts must be in a
        store that DataJoint's settings have under the name that the table uses.
    restriction
        Which models to take.
    connection
        DataJoint's connection, such as ``lab.nnfabrik.Dataset.connection``.
    table
        Name of the table's class.

    Returns
    -------
    list of dict
        One entry for each dataset, model and trainer, with the state dicts and seeds, named by the stored comment, with
        the beginning of the hashes if comments are the same; with unit ids if the trainer stored them. You may change
        the names before you import them.

    Raises
    ------
    SettingsError
        If the table does not exist, or has no such model.
    EmbeddingError
        If a state dict cannot be read, or seeds have their neurons in different orders.

    See Also
    --------
    import_models : Imports them.

    Examples
    --------
    >>> from december_plugin import import_models, open_lab
    >>> from december_plugin.intake import models_of_schema
    >>> lab = open_lab(schema="retina")
    >>> models = models_of_schema("cortex", connection=lab.nnfabrik.Dataset.connection)
    >>> [(model["name"], model["seeds"]) for model in models]
    [('baseline.equivariant.two sessions', [1, 2]), ('linear.small.short session', [1])]
    >>> models[0]["units"].head(2)
      data_key  unit_id
    0    first        5
    1    first        7
    >>> result = import_models({"models": models}, nnfabrik=lab.nnfabrik, tables=lab.tables)
    >>> result.new["TrainedModel"]
    3
    """
    check_schema_name(schema, places="the argument schema")
    known = connection.query("SELECT 1 FROM information_schema.schemata WHERE schema_name = %s", args=(schema,))
    if known.fetchone() is None:
        raise SettingsError(f"the server has no schema {schema!r}, or this account cannot see it.")
    module = dj.VirtualModule("other_lab", schema, connection=connection)
    trained = getattr(module, table, None)
    if trained is None or not hasattr(trained, "ModelStorage"):
        raise SettingsError(
            f"the schema {schema!r} has no table {table!r} with state dicts, built on nnfabrik's TrainedModelBase."
        )
    chosen = restricted(trained, restriction)
    keys = chosen.fetch("KEY", order_by="KEY")
    if not keys:
        raise SettingsError(f"{schema}.{table} has no trained model of that kind.")
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for key in keys:
        groups.setdefault(tuple(key[name] for name in CONFIGURATION), []).append(key)
    entries = [_entry(trained, members) for members in groups.values()]
    names = [entry["name"] for entry in entries]
    for entry, configuration in zip(entries, groups, strict=True):
        if names.count(entry["name"]) > 1 or not entry["name"]:
            hashes = " ".join(str(each)[:6] for each in configuration[1::2])
            entry["name"] = f"{entry['name'][: NAME_LENGTH - len(hashes) - 1]} {hashes}".strip()
    return entries


def _entry(trained: Any, keys: list[dict[str, Any]]) -> dict[str, Any]:
    rows = [(trained & key).fetch1("output", "comment") for key in keys]
    entry: dict[str, Any] = {
        "name": str(rows[0][1])[:NAME_LENGTH],
        "checkpoints": [stored_state_dict(trained, key) for key in keys],
        "seeds": [int(key["seed"]) for key in keys],
        "trained": f"{keys[0]['trainer_fn']} {keys[0]['trainer_hash'][:8]}, {trained.database}",
    }
    units = [_units(neurons_of(output)) for output, _ in rows]
    if units[0] is not None:
        if any(other is None or not units[0].equals(other) for other in units[1:]):
            raise EmbeddingError(
                f"the models {entry['name']!r} of {trained.database} have other neurons, or their neurons in another "
                "order, for some of their seeds. Import each seed as its own entry."
            )
        entry["units"] = units[0]
    return entry


def _units(neurons: Mapping[str, Any] | None) -> pd.DataFrame | None:
    """Return the table of units that a trainer stored; None if it did not store one for every session."""
    if not neurons or any(session.get("unit_ids") is None for session in neurons.values()):
        return None
    ids = [np.asarray(session["unit_ids"]) for session in neurons.values()]
    keys = np.repeat(list(neurons), [len(each) for each in ids])
    return pd.DataFrame({"data_key": keys, "unit_id": np.concatenate(ids)})
