"""The models of a study: their vectors in one space, of the same neurons in the same order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from december_plugin.embeddings.neuron_ids import NeuronIds, match_neurons, whole_numbers
from december_plugin.embeddings.readout_vectors import ReadoutEmbeddings, readout_embeddings, unit_ids_of
from december_plugin.embeddings.space import EmbeddingSpace, vectors_in_space
from december_plugin.errors import DecemberError, EmbeddingError, SettingsError
from december_plugin.imports.arrays import checked_matrix, read_matrix
from december_plugin.imports.identity import check_same_neurons
from december_plugin.imports.readouts import of_matrix, read_readouts, units_of_rows
from december_plugin.imports.units import Units, read_units, units_of_mapping
from december_plugin.text.array_repr import ArrayRepr

SESSION = "all"  # of neurons without a session
FEWEST_NEURONS = 3  # a null cannot be drawn of fewer


@dataclass(frozen=True, eq=False, repr=False)
class StudiedModels(ArrayRepr):
    """Models of the same neurons.

    Attributes
    ----------
    names
        Of the models.
    vectors
        For each model its neurons in the space of the study, (n, D) float64; D may differ.
    rows
        For each model, which of the N neurons these are, (n,), ascending: all, unless some are left out.
    ids
        Identities of the N neurons.
    given
        Position of every neuron among the rows of arrays that were given with the models, such as known types, (N,).
    from_recording
        Whether unit ids are known, and not only positions.
    sources
        Where each model comes from, in words.
    """

    names: tuple[str, ...]
    vectors: tuple[npt.NDArray[np.float64], ...]
    rows: tuple[npt.NDArray[np.int64], ...]
    ids: NeuronIds
    given: npt.NDArray[np.int64]
    from_recording: bool
    sources: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def n_neurons(self) -> int:
        """Number of neurons N."""
        return len(self.ids)

    @property
    def n_left_out(self) -> npt.NDArray[np.int64]:
        """How many neurons of each model are left out, (models,)."""
        return np.array([self.n_neurons - len(rows) for rows in self.rows], dtype=np.int64)

    @property
    def common(self) -> npt.NDArray[np.int64]:
        """Positions, ascending, of the N neurons that no model leaves out."""
        return self.shared(*range(len(self)))

    def shared(self, *models: int) -> npt.NDArray[np.int64]:
        """Return the N neurons' positions, ascending, that none of these models (by position) leaves out."""
        return reduce(np.intersect1d, [self.rows[at] for at in models])

    def places(self, model: int, neurons: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return where some of the N neurons are among those of a model, which must have them."""
        return np.searchsorted(self.rows[model], neurons)

    def vectors_of(self, neurons: npt.NDArray[np.int64]) -> list[npt.NDArray[np.float64]]:
        """Return the vectors of neurons that no model leaves out, of every model."""
        return [own[self.places(at, neurons)] for at, own in enumerate(self.vectors)]

    def keeping(self, kept: npt.NDArray[np.bool_]) -> StudiedModels:
        """Return the models with some of their neurons, (models, N)."""
        vectors = tuple(own[mask] for own, mask in zip(self.vectors, kept, strict=True))
        return replace(self, vectors=vectors, rows=tuple(np.flatnonzero(mask) for mask in kept))

    def frame(self) -> pd.DataFrame:
        """Return one row per model: ``name``, ``source``, ``n_neurons``, ``n_left_out``, ``n_features``."""
        return pd.DataFrame(
            {
                "name": self.names,
                "source": self.sources,
                "n_neurons": self.n_neurons - self.n_left_out,
                "n_left_out": self.n_left_out,
                "n_features": [vectors.shape[1] for vectors in self.vectors],
            }
        )


def read_models(
    models: Any,
    *,
    space: EmbeddingSpace,
    covariances: Any = None,
    batches: Any = None,
    names: Any = None,
    sessions: Any = None,
    unit_ids: Any = None,
    seed: int = 0,
) -> StudiedModels:
    """Read the models of a study; the arguments are those of :func:`december_plugin.answer.study_readouts`.

    Raises
    ------
    SettingsError
        If there are no models, names are not distinct or not one per model, or units are ambiguous.
    EmbeddingError
        If a model cannot be read, models cannot be of the same neurons, or a covariance is missing or does not fit.
    """
    given = listed_models(models)
    _check_distinct(given)
    labels = model_names(given, names)
    units = read_given_units(sessions, unit_ids)
    named_units = unit_ids if isinstance(unit_ids, Mapping) else None
    if isinstance(batches, (list, tuple)) and len(batches) != len(given):
        raise SettingsError(
            f"batches has {len(batches)} entries for {len(given)} models; a list has those of each model.",
            setting="batches",
        )
    read = [
        _read(model, name, units=units if units is not None else named_units, batches=_own(batches, at))
        for at, (name, model) in enumerate(zip(labels, given.values(), strict=True))
    ]
    first = read[0]
    for name, other in zip(labels[1:], read[1:], strict=True):
        check_same_neurons(first, other, names=(f"the model {labels[0]!r}", f"the model {name!r}"))
    ids = _identities(first)
    if len(ids) < FEWEST_NEURONS:
        raise EmbeddingError(
            f"the models have {len(ids)} neuron{'s' if len(ids) != 1 else ''}; types of neurons are a question for "
            f"many, and {FEWEST_NEURONS} are the least that can be clustered and compared."
        )
    found = [None] * len(given)
    if space.is_functional:
        found = _found_covariances(given, labels, covariances=covariances, batches=batches, seed=seed)
    vectors = []
    for name, own, covariance in zip(labels, read, found, strict=True):
        at = match_neurons(ids, _identities(own))[1]
        try:
            embedded = vectors_in_space(np.asarray(own.vectors, dtype=np.float64)[at], space, covariance)
        except EmbeddingError as error:
            raise EmbeddingError(f"the model {name!r}: {error}") from None
        vectors.append(np.asarray(embedded, dtype=np.float64))
    return StudiedModels(
        names=labels,
        vectors=tuple(vectors),
        rows=(np.arange(len(ids), dtype=np.int64),) * len(vectors),
        ids=ids,
        given=_positions(ids, units_of_rows(next(iter(given.values())), units)),
        from_recording=first.unit_ids is not None and (sessions is None or unit_ids is not None),
        sources=tuple(_source(model) for model in given.values()),
    )


def listed_models(models: Any) -> dict[Any, Any]:
    """Return models by name, or by position if they have none; a single model needs no list."""
    if _is_one(models):
        models = [models]
    found = dict(models) if isinstance(models, Mapping) else dict(enumerate(models if _is_many(models) else ()))
    if not found:
        raise SettingsError(
            f"models is {type(models).__name__}{' without entries' if _is_many(models) else ''}; give at least one "
            "model: an array (neurons, features), a path, a state dict, readout embeddings or a model.",
            setting="models",
        )
    return found


def _check_distinct(models: Mapping[Any, Any]) -> None:
    """Raise a :class:`SettingsError` if a file is given twice: a model always agrees with itself."""
    files = [Path(model).resolve() for model in models.values() if isinstance(model, (str, Path))]
    repeated = [path for path in files if files.count(path) > 1]
    if repeated:
        raise SettingsError(
            f"the file {repeated[0]} is given twice; a model agrees with itself, so leave one of them out.",
            setting="models",
        )


def _is_many(models: Any) -> bool:
    return isinstance(models, Iterable) and not isinstance(models, (str, bytes))


def _is_one(models: Any) -> bool:
    if (
        isinstance(models, (str, Path, ReadoutEmbeddings))
        or hasattr(models, "state_dict")
        or hasattr(models, "columns")
    ):
        return True
    if isinstance(models, Mapping):  # a state dict, and not models by name
        return any(isinstance(name, str) and ("readout." in name or name == "state_dict") for name in models)
    return getattr(models, "ndim", 0) == 2


def model_names(models: Mapping[Any, Any], names: Any = None) -> tuple[str, ...]:
    """Return the names of models: those given, else their keys, else those of their files, else "model 1", ..."""
    if names is not None:
        if isinstance(names, str) or not isinstance(names, Sequence) or len(names) != len(models):
            raise SettingsError(
                f"names is {names!r}; it must have one name for each of the {len(models)} models.", setting="names"
            )
        found = [str(name) for name in names]
    else:
        found = [key if isinstance(key, str) else "" for key in models]
        if not any(found):
            found = _file_names(list(models.values()))
    repeated = sorted({name for name in found if found.count(name) > 1})
    if repeated:
        raise SettingsError(
            f"the name {repeated[0]!r} is given to several models; give each its own with names.", setting="names"
        )
    return tuple(found)


def _file_names(models: Sequence[Any]) -> list[str]:
    """Return the names of the models' files, with enough folders to make them distinct."""
    paths = [Path(model) if isinstance(model, (str, Path)) else None for model in models]
    for depth in range(1, max((len(path.parts) for path in paths if path), default=0) + 1):
        found = [
            f"model {at}" if path is None else "/".join([*path.parts[-depth:-1], path.stem])
            for at, path in enumerate(paths, 1)
        ]
        if len(set(found)) == len(found):
            return found
    return [f"model {at}" for at in range(1, len(models) + 1)]


def read_given_units(sessions: Any, unit_ids: Any) -> Units | None:
    """Return the neurons of the rows of arrays if they were given, or by session; else None."""
    if isinstance(unit_ids, Mapping):
        if sessions is not None:
            raise SettingsError("unit_ids names the sessions itself; leave sessions out.", setting="sessions")
        return None
    if isinstance(unit_ids, (str, Path)) or hasattr(unit_ids, "columns"):
        if sessions is not None:
            raise SettingsError("unit_ids is a table with its own sessions; leave sessions out.", setting="sessions")
        return read_units(unit_ids)
    if isinstance(unit_ids, Units) or (sessions is None and unit_ids is None):
        return unit_ids
    if unit_ids is None:
        keys = _vector("sessions", sessions).astype(str)
        counted = pd.Series(keys).groupby(keys).cumcount().to_numpy(dtype=np.int64)
        return Units(keys, counted)
    ids = _vector("unit_ids", unit_ids)
    numbers = whole_numbers(ids)
    if numbers is None:
        raise SettingsError("unit_ids must be integers, one per neuron.", setting="unit_ids")
    keys = np.full(len(ids), SESSION) if sessions is None else _vector("sessions", sessions).astype(str)
    NeuronIds(keys, numbers)
    return Units(keys, numbers)


def _vector(name: str, values: Any) -> npt.NDArray[Any]:
    array = np.asarray(values)
    if array.ndim != 1 or not len(array):
        raise SettingsError(f"{name} has the shape {array.shape}; it must be (N,), one entry per neuron.", setting=name)
    return array


def _read(model: Any, name: str, *, units: Any, batches: Any) -> ReadoutEmbeddings:
    if isinstance(model, ReadoutEmbeddings):
        checked_matrix(model.vectors, f"the model {name!r}")
        if model.unit_ids is not None or units is None:
            return model
        if isinstance(units, Mapping):
            units = _in_sessions_of(model, units_of_mapping(units).by_session(), name)
        return of_matrix(model.vectors, f"the model {name!r}", units)
    try:
        if hasattr(model, "state_dict"):
            known = units.by_session() if isinstance(units, Units) else units
            if known is None and isinstance(batches, Mapping):
                known = unit_ids_of(batches)
            found = readout_embeddings(model, unit_ids=known or None)
            checked_matrix(found.vectors, "its readout")
            return found
        return read_readouts(model, units=units, session=SESSION)
    except DecemberError as error:
        raise EmbeddingError(f"the model {name!r}: {error}") from None


def _in_sessions_of(model: ReadoutEmbeddings, unit_ids: Mapping[str, Any], name: str) -> Units:
    """Return unit ids by session as those of the rows of embeddings that know their sessions."""
    counts = {data_key: own.stop - own.start for data_key, own in model.sessions.items()}
    for data_key in sorted(counts.keys() | unit_ids.keys()):
        given = len(unit_ids.get(data_key, ()))
        if given != counts.get(data_key, 0):
            raise EmbeddingError(
                f"the model {name!r} has {counts.get(data_key, 0)} neurons of session {data_key!r}, of which {given} "
                "unit ids are given, so they cannot be the same neurons."
            )
    return Units(np.asarray(model.data_keys), np.concatenate([unit_ids[data_key] for data_key in counts]))


def _identities(embeddings: ReadoutEmbeddings) -> NeuronIds:
    if embeddings.unit_ids is not None:
        return embeddings.neuron_ids
    return NeuronIds(embeddings.data_keys, embeddings.unit_positions)


def _positions(ids: NeuronIds, units: Units | None) -> npt.NDArray[np.int64]:
    if units is None:
        return np.arange(len(ids), dtype=np.int64)
    return match_neurons(ids, NeuronIds(units.data_keys, units.unit_ids))[1]


def _own(values: Any, at: int) -> Any:
    """Return what belongs to one model: its entry of a sequence; anything else is for all models."""
    return values[at] if isinstance(values, (list, tuple)) else values


def _found_covariances(
    models: Mapping[Any, Any], names: Sequence[str], *, covariances: Any, batches: Any, seed: int
) -> list[Any]:
    """Return the feature covariance of every model: the given one, or one computed from stimuli."""
    if covariances is not None:
        return _listed_covariances(covariances, models, names)
    if batches is None:
        raise EmbeddingError(
            "functional embeddings need the feature covariance of every model: pass `covariances`, or models with "
            "`batches` of stimuli. The readout vectors themselves are compared with space='readout'."
        )
    from december_plugin.embeddings.functional import feature_covariance

    missing = [name for name, model in zip(names, models.values(), strict=True) if not hasattr(model, "state_dict")]
    if missing:
        raise EmbeddingError(
            f"the model {missing[0]!r} is not a model but its weights, from which no features can be computed; pass "
            "the model itself, or `covariances`."
        )
    return [feature_covariance(model, _own(batches, at), seed=seed) for at, model in enumerate(models.values())]


def _listed_covariances(covariances: Any, models: Mapping[Any, Any], names: Sequence[str]) -> list[Any]:
    if isinstance(covariances, (str, Path)) or getattr(covariances, "ndim", 0) == 2:
        covariances = [covariances]
    if isinstance(covariances, Mapping):
        unknown = [name for name in names if name not in covariances]
        if unknown:
            raise SettingsError(f"covariances has none of the model {unknown[0]!r}.", setting="covariances")
        covariances = [covariances[name] for name in names]
    found = list(covariances)
    if len(found) != len(models):
        raise SettingsError(
            f"there are {len(found)} covariances and {len(models)} models; give one for each model, in the same order.",
            setting="covariances",
        )
    return [read_matrix(each) if isinstance(each, (str, Path)) else each for each in found]


def _source(model: Any) -> str:
    if isinstance(model, (str, Path)):
        return str(model)
    if isinstance(model, ReadoutEmbeddings):
        return "readout embeddings"
    if hasattr(model, "state_dict"):
        return f"a {type(model).__name__}"
    if isinstance(model, Mapping):
        return "a state dict"
    return "a table" if hasattr(model, "columns") else "an array"
