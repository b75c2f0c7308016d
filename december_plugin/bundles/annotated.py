"""Neurons of a result as AnnData, the format of scanpy and other tools: one row per neuron."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from december_plugin.clustering.result import NO_CLUSTER
from december_plugin.embeddings.readout_vectors import ReadoutEmbeddings
from december_plugin.embeddings.space import EmbeddingSpace, vectors_in_space
from december_plugin.errors import MissingExtraError

if TYPE_CHECKING:
    from anndata import AnnData

NEURON = ["data_key", "unit_id"]
DATASET = ["dataset_fn", "dataset_hash"]
FUNCTIONAL = EmbeddingSpace(space="functional")
INSTALL = 'pip install "december-plugin[anndata]"'


def annotated_neurons(
    frame: Callable[[str], pd.DataFrame],
    *,
    readouts: Callable[[int], ReadoutEmbeddings],
    covariance: Callable[[int], npt.NDArray[Any] | None],
    provenance: Mapping[str, Any],
) -> dict[str, AnnData]:
    """Return the neurons of each dataset, with everything that is known about them.

    Parameters
    ----------
    frame
        Returns a table of the export by its name, and the known types as "types".
    readouts
        Returns the readout vectors of a training, with unit ids, by its number.
    covariance
        Returns the feature covariance (D, D) of a training; None if it was not computed.
    provenance
        Where the numbers come from.

    Returns
    -------
    dict
        Name of the dataset, the beginning of its hash, to its neurons. ``obs`` has ``data_key``, ``unit_id``,
        ``cluster_C`` and ``stability_C`` (consensus of configuration C), ``cluster_C_seedS``, ``type_NAME`` and
        ``test_correlation_T`` (of training T); ``obsm`` has ``readout_T`` and ``functional_T``, NaN where a model does
        not have the neuron; ``uns`` has the tables ``configurations`` and ``trainings``, which explain the numbers C
        and T, and ``provenance`` as JSON. ``X`` is not set.

    Raises
    ------
    MissingExtraError
        If anndata is not installed.

    See Also
    --------
    december_plugin.bundles.Bundle : Its method ``annotated`` returns the same of a file.
    december_plugin.sharing.Result : Its method ``annotated`` returns the same of the tables.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.bundles import annotated_neurons
    >>> from december_plugin.results.report import ReportSettings
    >>> from december_plugin.sharing import Result
    >>> lab = open_lab(schema="retina")
    >>> result = Result(lab.tables, ReportSettings(), {"method": "kmeans", "n_clusters": 3})
    >>> parts = {"readouts": result.readouts, "covariance": result.covariance, "provenance": result.provenance()}
    >>> (neurons,) = annotated_neurons(result.frame, **parts).values()
    >>> neurons.n_obs, sorted(neurons.obsm)
    (70, ['functional_1', 'functional_2', 'functional_3', 'readout_1', 'readout_2', 'readout_3'])
    """
    check_installed()
    from anndata import AnnData

    trainings, configurations = frame("trainings"), frame("agreement")
    known = _Known({name: frame(name) for name in ("assignments", "consensus_neurons", "performance_neurons", "types")})
    found: dict[str, AnnData] = {}
    for (_, digest), own in trainings.groupby(DATASET, sort=False):
        vectors = {int(number): readouts(int(number)) for number in own["training"]}
        neurons = _neurons(vectors)
        chosen = configurations[configurations["dataset_hash"] == digest]
        columns = dict(known.columns(neurons, chosen["configuration"], own["training"]))
        obs = pd.concat([neurons.to_frame(index=False), pd.DataFrame(columns, index=range(len(neurons)))], axis=1)
        obs.index = pd.Index([f"{data_key}:{unit_id}" for data_key, unit_id in neurons], dtype=object)
        obsm = {}
        for number, embeddings in vectors.items():
            at = neurons.get_indexer(_index(embeddings))
            obsm[f"readout_{number}"] = _placed(embeddings.vectors, at, len(neurons))
            sigma = covariance(number)
            if sigma is not None:
                functional = vectors_in_space(embeddings.vectors, FUNCTIONAL, sigma)
                obsm[f"functional_{number}"] = _placed(functional, at, len(neurons))
        uns = {
            "configurations": _plain(chosen),
            "trainings": _plain(own),
            "provenance": json.dumps(provenance, default=str, ensure_ascii=False),
        }
        found[_name(digest, found)] = AnnData(obs=obs, obsm=obsm, uns=uns)
    return found


def check_installed() -> None:
    """Raise a :class:`MissingExtraError` that says what to install if anndata cannot be imported."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import anndata  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"AnnData files need the package anndata, which cannot be imported here ({error}). Install it: {INSTALL}"
        ) from None


def _name(digest: str, taken: Mapping[str, Any]) -> str:
    return next(digest[:length] for length in range(6, len(digest) + 1) if digest[:length] not in taken)


def _index(embeddings: ReadoutEmbeddings) -> pd.MultiIndex:
    assert embeddings.unit_ids is not None
    return pd.MultiIndex.from_arrays([embeddings.data_keys.astype(object), embeddings.unit_ids], names=NEURON)


def _neurons(vectors: Mapping[int, ReadoutEmbeddings]) -> pd.MultiIndex:
    """Return the neurons that any of the models has, in the order of the first, then of the next, ..."""
    indices = [_index(embeddings) for embeddings in vectors.values()]
    neurons = indices[0]
    for index in indices[1:]:
        if not index.equals(neurons):
            neurons = neurons.append(index[~index.isin(neurons)])
    return neurons


def _placed(vectors: npt.NDArray[Any], at: npt.NDArray[np.intp], n: int) -> npt.NDArray[np.floating[Any]]:
    placed = np.full((n, vectors.shape[1]), np.nan, dtype=vectors.dtype)
    placed[at] = vectors
    return placed


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame that HDF5 can hold: numbers, and texts without missing values."""
    plain = {}
    for name in frame:
        column = frame[name]
        kinds = pd.api.types
        is_number = kinds.is_numeric_dtype(column) and not kinds.is_bool_dtype(column)
        values = column.to_numpy(dtype=None if not column.hasnans else float) if is_number else None
        texts = ["" if pd.isna(value) else str(value) for value in column]
        plain[name] = values if values is not None else np.array(texts, dtype=object)
    return pd.DataFrame(plain, index=pd.Index([str(at) for at in range(len(frame))], dtype=object))


class _Known:
    """What the tables of an export know about each neuron."""

    def __init__(self, frames: Mapping[str, pd.DataFrame]):
        self._frames = frames

    def columns(
        self, neurons: pd.MultiIndex, configurations: pd.Series[int], trainings: pd.Series[int]
    ) -> Iterator[tuple[str, Any]]:
        """Yield the columns of ``obs``."""
        wanted = set(configurations)
        for number, rows in self._frames["consensus_neurons"].groupby("configuration"):
            if number in wanted:
                yield f"cluster_{number}", _clusters(neurons, rows)
                yield f"stability_{number}", _values(neurons, rows, "stability")
        for (number, seed), rows in self._frames["assignments"].groupby(["configuration", "seed"]):
            if number in wanted:
                yield f"cluster_{number}_seed{seed}", _clusters(neurons, rows)
        for number, rows in self._frames["performance_neurons"].groupby("training"):
            if number in set(trainings):
                yield f"test_correlation_{number}", _values(neurons, rows, "test_correlation")
        for name, rows in self._frames["types"].groupby("types_name"):
            found = _found(neurons, rows, "type")
            yield f"type_{name}".replace("/", "_"), pd.Categorical([value if known else None for value, known in found])


def _found(neurons: pd.MultiIndex, rows: pd.DataFrame, column: str) -> Iterator[tuple[Any, bool]]:
    index = pd.MultiIndex.from_arrays([rows["data_key"].astype(object), rows["unit_id"]], names=NEURON)
    values = rows[column].to_numpy()
    for at in index.get_indexer(neurons):
        yield values[at], at >= 0


def _values(neurons: pd.MultiIndex, rows: pd.DataFrame, column: str) -> npt.NDArray[np.float64]:
    return np.array([value if known else np.nan for value, known in _found(neurons, rows, column)], dtype=np.float64)


def _clusters(neurons: pd.MultiIndex, rows: pd.DataFrame) -> pd.Categorical:
    """Return clusters as categories, in the order of their numbers; none where a neuron has no cluster."""
    found = [str(value) if known and value != NO_CLUSTER else None for value, known in _found(neurons, rows, "cluster")]
    names = sorted({name for name in found if name is not None}, key=int)
    return pd.Categorical(found, categories=names)
