"""What is known about the neurons of a study apart from their models: types and test correlations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from december_plugin.answer.models import FEWEST_NEURONS, StudiedModels
from december_plugin.clustering.methods import QualityFilter
from december_plugin.datasets.type_labels import COLUMNS, UNKNOWN, read_type_labels
from december_plugin.embeddings.neuron_ids import NeuronIds
from december_plugin.errors import EmbeddingError, SettingsError
from december_plugin.imports.arrays import TABLES, read_array
from december_plugin.imports.units import read_units

CORRELATION_COLUMN = "test_correlation"


@dataclass(frozen=True, eq=False)
class KnownNeurons:
    """What is known about the neurons.

    Attributes
    ----------
    types
        Type of every neuron, (N,) object, None where it is unknown; None without types.
    types_name
        Name of the set of types.
    test_correlations
        Test correlations of the neurons of every model, (models, N); None if not given.
    """

    types: npt.NDArray[np.object_] | None
    types_name: str
    test_correlations: npt.NDArray[np.float64] | None

    @property
    def n_types(self) -> int | None:
        """Number of types; None without types."""
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
    """Return what is known about the neurons, in their order; the arguments are those of ``study_readouts``.

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


def well_predicted(models: StudiedModels, known: KnownNeurons, wanted: QualityFilter) -> StudiedModels:
    """Return the models with the neurons that each of them predicts well enough.

    Raises
    ------
    SettingsError
        If neurons are to be left out, and no test correlations are given.
    EmbeddingError
        If no neuron of a model is left, or fewer than three that all models keep.
    """
    least = wanted.minimum_test_correlation
    if least is None:
        return models
    if known.test_correlations is None:
        raise SettingsError(
            f"minimum_test_correlation is {least:g}, but no test correlations are given; pass them as "
            "`test_correlations` (on the command line `--test-correlations`), or leave it out.",
            setting="minimum_test_correlation",
        )
    correlations = known.test_correlations.astype(np.float32)  # as tables store them
    kept = wanted.keeps(correlations)
    for name, own, values in zip(models.names, kept, correlations, strict=True):
        if not own.any():
            n_known = int((~np.isnan(values)).sum())
            best = f"the best of {n_known:,} has {np.nanmax(values):.3f}" if n_known else "none of them is known"
            raise EmbeddingError(
                f"no neuron of the model {name!r} has a test correlation of at least {least:g}: {best}. Choose a "
                "smaller minimum_test_correlation."
            )
    left = models.keeping(kept)
    if len(left.common) < FEWEST_NEURONS:
        raise EmbeddingError(
            f"the models have {len(left.common)} neurons in common whose test correlation is at least {least:g}; "
            f"{FEWEST_NEURONS} are the least that can be compared. Choose a smaller minimum_test_correlation."
        )
    return left


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
    if _is_table(given):
        given = [given]
    if isinstance(given, (list, tuple)) and given and all(map(_is_table, given)):
        return _correlations_of_tables(given, models)
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


def _is_table(given: Any) -> bool:
    return isinstance(given, (str, Path)) or hasattr(given, "columns")


def _correlations_of_tables(given: Sequence[Any], models: StudiedModels) -> npt.NDArray[np.float64]:
    """Return the correlations in tables of units or files, one for all models or one for each."""
    if len(given) not in (1, len(models)):
        raise SettingsError(
            f"test_correlations has {len(given)} tables for {len(models)} models; give one for all, or one for each.",
            setting="test_correlations",
        )
    found = [_correlations_of_table(table, models) for table in given]
    return np.array(found * (len(models) if len(found) == 1 else 1)).reshape(len(models), models.n_neurons)


def _correlations_of_table(table: Any, models: StudiedModels) -> npt.NDArray[np.float64]:
    if isinstance(table, (str, Path)) and Path(table).suffix not in TABLES:
        values = np.asarray(read_array(table))
        if values.ndim != 1:
            raise SettingsError(
                f"{table} has the shape {values.shape}; test correlations of a model are (neurons,).",
                setting="test_correlations",
            )
        return _correlations(values, models)[0]
    units = read_units(table, test_correlation=CORRELATION_COLUMN)
    at = NeuronIds(units.data_keys, units.unit_ids).index.get_indexer(models.ids.index)
    if (at < 0).all():
        raise SettingsError("test_correlations has no neuron of the models.", setting="test_correlations")
    assert units.test_correlations is not None
    found = units.test_correlations[at]
    found[at < 0] = np.nan
    return found
