"""Reads readout vectors and the identities of their neurons from checkpoints, arrays and tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from december_plugin.embeddings.readout_vectors import ReadoutEmbeddings, readout_embeddings
from december_plugin.errors import EmbeddingError
from december_plugin.imports import arrays, checkpoints
from december_plugin.imports.units import SESSION_COLUMNS, UNIT_COLUMN, Units, read_units, units_of_mapping

if TYPE_CHECKING:
    import pandas as pd

NAMING = (*dict.fromkeys(column for usual in SESSION_COLUMNS for column in usual), UNIT_COLUMN)
DEFAULT_SESSION = "imported"  # of neurons without a known session


def read_readouts(
    source: Any,
    *,
    units: Units | Mapping[str, Any] | str | Path | None = None,
    session: str = DEFAULT_SESSION,
    name: str | None = None,
    prefix: str | None = None,
) -> ReadoutEmbeddings:
    """Return readout vectors and the identities of their neurons.

    Parameters
    ----------
    source
        A checkpoint (see :func:`~december_plugin.imports.checkpoints.read_checkpoint`) or its state dict; a matrix
        (N, D), one row per neuron, as an array or tensor, or in a ``.npy`` or ``.npz`` file; or a table, one row per
        neuron, as a frame or in a ``.csv`` or ``.parquet`` file, whose columns for session and unit identify the neuron
        and whose other columns are weights.
    units
        The neurons: a table of units (see :func:`~december_plugin.imports.units.read_units`), with the rows of a
        matrix, or in the order of each session's readout for a checkpoint; or a mapping of data key to unit ids.
        None: those of the source, else positions.
    session
        Name of the session of a matrix without units.
    name
        Which array of a ``.npz`` file.
    prefix
        Prefix of the entries of a checkpoint.

    Returns
    -------
    ReadoutEmbeddings
        Session after session, in the order in which they first appear; ``unit_ids`` is None if neurons are known only
        by position.

    Raises
    ------
    EmbeddingError
        If the source cannot be read, has no readout vectors, or the units are not those of its neurons.

    See Also
    --------
    read_units : Reads who the neurons are.
    check_same_neurons : Compares the neurons of two models.
    december_plugin.answer.study_readouts : Compares the models.

    Examples
    --------
    >>> import numpy as np
    >>> from december_plugin.imports import read_readouts
    >>> np.save("seed1.npy", np.zeros((10, 4)))
    >>> read_readouts("seed1.npy").vectors.shape
    (10, 4)
    """
    if isinstance(units, (str, Path)):
        units = read_units(units)
    elif isinstance(units, Mapping):
        units = units_of_mapping(units)
    what = str(source) if isinstance(source, (str, Path)) else "the source"
    if isinstance(source, (str, Path)) and Path(source).suffix in checkpoints.SUFFIXES:
        source = checkpoints.read_checkpoint(source, prefix=prefix)
    elif isinstance(source, Mapping):
        source = checkpoints.checked_state_dict(source, "the state dict", prefix=prefix)
    if isinstance(source, Mapping):
        return of_state_dict(source, what, units)
    if isinstance(source, (str, Path)) and Path(source).suffix in arrays.TABLES:
        source = arrays.read_table(source)
    if hasattr(source, "columns"):
        return _of_table(source, what, units, session)
    if isinstance(source, (str, Path)):
        return of_matrix(arrays.read_matrix(source, name=name), what, units, session)
    if isinstance(source, Tensor):
        source = source.detach().cpu()
        source = (source.float() if source.dtype == torch.bfloat16 else source).numpy()
    return of_matrix(arrays.checked_matrix(np.asarray(source), "the array"), "the array", units, session)


def of_state_dict(state_dict: Mapping[str, Any], name: str, units: Units | None = None) -> ReadoutEmbeddings:
    """Return the readout vectors in a state dict; ``units`` are in the order of each session's readout.

    Raises
    ------
    EmbeddingError
        If there are none, or the units have other sessions or numbers of neurons.
    """
    try:
        found = readout_embeddings(state_dict)
    except EmbeddingError as error:
        raise EmbeddingError(f"{name}: {error}") from None
    if units is None:
        return found
    known = units.by_session()
    counts = {data_key: own.stop - own.start for data_key, own in found.sessions.items()}
    for data_key in sorted(counts.keys() | known.keys()):
        n_units = len(known.get(data_key, ()))
        if counts.get(data_key, 0) != n_units:
            raise EmbeddingError(
                f"session {data_key!r} has {counts.get(data_key, 0)} neurons in {name} and {n_units} in the table of "
                "units, so they cannot be the same neurons."
            )
    return readout_embeddings(state_dict, unit_ids=known)


def of_matrix(
    matrix: npt.NDArray[Any], name: str, units: Units | None = None, session: str = DEFAULT_SESSION
) -> ReadoutEmbeddings:
    """Return the rows of a matrix (N, D) as readout vectors, session after session.

    Raises
    ------
    EmbeddingError
        If there are not as many units as rows.
    """
    if units is None:
        n = len(matrix)
        return ReadoutEmbeddings(np.asarray(matrix), np.full(n, session), np.arange(n, dtype=np.int64), None)
    if len(units) != len(matrix):
        raise EmbeddingError(
            f"{name} has {len(matrix)} rows and the table of units has {len(units)}, so they cannot be of the same "
            "neurons; both must have one row per neuron, in the same order."
        )
    order = session_order(units.data_keys)
    in_order = bool(np.array_equal(order, np.arange(len(order))))
    _, starts, counts = np.unique(units.data_keys[order], return_index=True, return_counts=True)
    by_start = np.argsort(starts)
    positions = np.concatenate([np.arange(count, dtype=np.int64) for count in counts[by_start]])
    vectors = np.asarray(matrix) if in_order else np.asarray(matrix)[order]
    return ReadoutEmbeddings(vectors, units.data_keys[order], positions, units.unit_ids[order])


def session_order(data_keys: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return the order of rows (N,) that groups them by session, in the order in which sessions first appear."""
    _, first, inverse = np.unique(data_keys, return_index=True, return_inverse=True)
    return np.argsort(first[inverse.ravel()], kind="stable").astype(np.int64)


def units_of_rows(source: Any, units: Units | None = None) -> Units | None:
    """Return the neurons of a source of :func:`read_readouts`, in the order of its rows.

    Returns
    -------
    Units or None
        ``units`` if they are given, else those that a table names itself; None if the source names none.
    """
    if units is not None or not (
        hasattr(source, "columns") or (isinstance(source, (str, Path)) and Path(source).suffix in arrays.TABLES)
    ):
        return units
    frame = source if hasattr(source, "columns") else arrays.read_table(source)
    return _units_and_weights(frame, str(source) if isinstance(source, (str, Path)) else "the source")[0]


def _units_and_weights(frame: pd.DataFrame, name: str) -> tuple[Units | None, pd.DataFrame]:
    """Return the neurons of the rows of a table, None if it does not name them, and its other columns."""
    frame = frame.set_axis([str(column) for column in frame.columns], axis=1)
    naming = next((usual for usual in SESSION_COLUMNS if {*usual, UNIT_COLUMN} <= set(frame.columns)), ())
    own = [*naming, UNIT_COLUMN] if naming else []
    left = [column for column in NAMING if column in frame.columns and column not in own]
    if left:
        with_what = f"sessions are named by {' and '.join(naming)}" if naming else "session and unit are not both named"
        raise EmbeddingError(
            f"{name} has the column {left[0]!r}, which would be taken for weights: {with_what}. Leave it out, or name "
            f"the neurons by data_key (or session, with scan_idx or scan if there are several) and {UNIT_COLUMN}."
        )
    return (read_units(frame[own]) if own else None), frame.drop(columns=own)


def _of_table(frame: pd.DataFrame, name: str, units: Units | None, session: str) -> ReadoutEmbeddings:
    own, frame = _units_and_weights(frame, name)
    if own is not None:
        if units is not None and len(units) != len(own):
            raise EmbeddingError(f"{name} has {len(own)} rows and the table of units has {len(units)}.")
        if units is not None and not (
            np.array_equal(own.data_keys, units.data_keys) and np.array_equal(own.unit_ids, units.unit_ids)
        ):
            raise EmbeddingError(
                f"{name} names sessions and units itself, and not those of the table of units, row by row. Leave out "
                "one of them, or bring the rows into the same order."
            )
        units = own if units is None else units
    return of_matrix(arrays.table_matrix(frame, name), name, units, session)
