"""What is known of the neurons of a study beside their models: types and test correlations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from december_plugin.answer.models import StudiedModels
from december_plugin.datasets.type_labels import COLUMNS, UNKNOWN, read_type_labels
from december_plugin.embeddings.neuron_ids import NeuronIds
from december_plugin.errors import SettingsError


@dataclass(frozen=True, eq=False)
class KnownNeurons:
    """What is known of the neurons.

    Attributes
    ----------
    types
        Type of every neuron, (N,) object, None where it is unknown; None without types.
    types_name
        What they are called.
    test_correlations
        For every model those of its neurons, (models, N); None if they are not given.
    """

    types: npt.NDArray[np.object_] | None
    types_name: str
    test_correlations: npt.NDArray[np.float64] | None

    @property
    def n_types(self) -> int | None:
        """How many types there are; None without types."""
        return None if self.types is None else len({name for name in self.types if name is not None})

    def model_correlations(self) -> npt.NDArray[np.float64]:
        """Return the mean test correlation of every model of which some are known."""
        if self.test_correlations is None:
            return np.empty(0)
        return pd.DataFrame(self.test_correlations).mean(axis=1).dropna().to_numpy()

    def frame(self, ids: NeuronIds) -> pd.DataFrame:
        """Return ``data_key``, ``unit_id``, and where known ``type`` and ``test_correlation``, a mean over models."""
        frame = pd.DataFrame({"data_key": ids.data_keys, "unit_id": ids.unit_ids})
        if self.test_correlations is not None:
            frame["test_correlation"] = pd.DataFrame(self.test_correlations).mean(axis=0)  # over those that are known
        if self.types is not None:
            frame["type"] = self.types
        return frame


def known_neurons(models: StudiedModels, *, types: Any = None, test_correlations: Any = None) -> KnownNeurons:
    """Return what is known of the neurons, in their order; the arguments are those of ``study_readouts``.

    Raises
    ------
    SettingsError
        If there are not as many types or correlations as neurons, or no neuron has a known type.
    """
    name = Path(types).stem if isinstance(types, (str, Path)) else "types"
    return KnownNeurons(
        types=None if types is None else _types(types, models),
        types_name=name,
        test_correlations=None if test_correlations is None else _correlations(test_correlations, models),
    )


def _types(types: Any, models: StudiedModels) -> npt.NDArray[np.object_]:
    if isinstance(types, (str, Path)):
        types = read_type_labels(types)
    if hasattr(types, "columns"):
        found = _types_of_frame(types, models)
    else:
        given = np.asarray(types, dtype=object)
        if given.shape != (models.n_neurons,):
            raise SettingsError(
                f"types has the shape {given.shape}; it must have one entry for each of the {models.n_neurons} "
                "neurons, None where a type is unknown.",
                setting="types",
            )
        found = given[models.given]
    known = [None if _is_unknown(value) else str(value) for value in found]
    if not any(value is not None for value in known):
        raise SettingsError("types has no neuron of the models whose type is known.", setting="types")
    return np.array(known, dtype=object)


def _types_of_frame(frame: pd.DataFrame, models: StudiedModels) -> npt.NDArray[np.object_]:
    missing = [name for name in COLUMNS if name not in frame]
    if missing:
        raise SettingsError(
            f"types has no column {missing[0]!r}; it needs {', '.join(COLUMNS)}, one row per neuron.", setting="types"
        )
    ids = NeuronIds(frame["data_key"].to_numpy(dtype=str), frame["unit_id"].to_numpy())
    at = ids.index.get_indexer(models.ids.index)
    found: npt.NDArray[np.object_] = frame["type"].to_numpy(dtype=object)[at]
    found[at < 0] = None
    return found


def _is_unknown(value: Any) -> bool:
    return value is None or bool(pd.isna(value)) or str(value).strip().lower() in UNKNOWN


def _correlations(given: Any, models: StudiedModels) -> npt.NDArray[np.float64]:
    if isinstance(given, Mapping):
        unknown = [name for name in models.names if name not in given]
        if unknown:
            raise SettingsError(f"test_correlations has none of the model {unknown[0]!r}.", setting="test_correlations")
        given = [given[name] for name in models.names]
    try:
        values = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.empty(0)
    shape = (len(models), models.n_neurons)
    if values.shape not in (shape, shape[1:]):
        raise SettingsError(
            f"test_correlations has the shape {values.shape}; it must be (neurons,) = {shape[1:]}, the same for all "
            f"models, or (models, neurons) = {shape}.",
            setting="test_correlations",
        )
    if (np.abs(values[~np.isnan(values)]) > 1).any():
        raise SettingsError("test_correlations has values outside of -1 to 1.", setting="test_correlations")
    return np.broadcast_to(values, shape)[:, models.given]
