"""Maximally exciting images of stored models, and how their neurons respond to each other's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from december_plugin.errors import SettingsError
from december_plugin.results.queries import configuration_key, frame_of, selected_assignments
from december_plugin.schemas.declare import DecemberTables
from december_plugin.schemas.exciting_images import COMPARED, stored_images
from december_plugin.schemas.restrictions import restricted
from december_plugin.text.array_repr import ArrayRepr

NEURON = {
    "data_key": "data_key",
    "unit_id": "mei_unit_id",
    "cluster": "mei_cluster",
    "rank": "mei_rank",
    "test_correlation": "mei_test_correlation",
    "response": "mei_response",
    "ending": "mei_ending",
}


@dataclass(frozen=True, eq=False, repr=False)
class StoredExcitingImages(ArrayRepr):
    """The images of one assignment.

    Attributes
    ----------
    key
        Of the row in ``Mei``.
    frame
        One row per neuron, by cluster, the best predicted first: ``data_key``, ``unit_id``, ``cluster``,
        ``test_correlation``, ``response`` to its image, and ``ending`` ("converged", "max_steps" or "dead").
    images
        In the same order, (N, channels, height, width) float32, without channels of behaviour; of movies (N, channels,
        frames, height, width).
    grey, norm
        The value of an empty pixel, and the L2 norm of the images about it.
    seeds
        Seeds of the models whose mean response was maximized; one for a single model.
    """

    key: dict[str, Any]
    frame: pd.DataFrame
    images: npt.NDArray[np.float32]
    grey: float
    norm: float
    seeds: tuple[int, ...]


def exciting_images(tables: DecemberTables, restriction: Any = True) -> StoredExcitingImages:
    """Return the maximally exciting images of the best-predicted neurons of each cluster of one assignment.

    Parameters
    ----------
    tables
        The tables.
    restriction
        Leaves one row of ``Mei``: it may name the key of the assignment, ``method``, ``n_clusters``, and columns of
        ``MeiSettings``, e.g. ``mei_models``.

    Raises
    ------
    SettingsError
        If it leaves none or several.

    See Also
    --------
    exciting_neurons : The neurons of all assignments that have images.
    mei_confusion : How neurons respond to each other's images.
    december_plugin.plots.exciting_images_figure : Draws the images.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.results import exciting_images
    >>> lab = open_lab(schema="retina")
    >>> found = exciting_images(lab.tables, {"method": "kmeans", "seed": 1})
    >>> found.images.shape
    (6, 1, 2, 3)
    >>> found.frame[["data_key", "unit_id", "cluster", "response", "ending"]].round(1)
      data_key  unit_id  cluster  response     ending
    0   second       73        0       2.6  converged
    1   second       91        0       2.6  converged
    2    first       43        1       2.6  converged
    3   second       16        1       2.6  converged
    4   second       49        2       2.6  converged
    5   second       13        2       2.6  converged
    """
    key = _one(tables, restriction)
    row = (tables.Mei & key).fetch1()
    found, neurons = stored_images(tables.Mei, key)
    frame = pd.DataFrame(
        {
            "data_key": found.neuron_ids.data_keys,
            "unit_id": found.neuron_ids.unit_ids,
            **neurons,
            "response": found.activities,
            "ending": found.endings,
        }
    )
    seeds = tuple(int(seed) for seed in row["mei_seeds"])
    return StoredExcitingImages(key, frame, found.images, float(row["mei_grey"]), float(row["mei_norm"]), seeds)


def exciting_neurons(tables: DecemberTables, restriction: Any = True) -> pd.DataFrame:
    """Return all neurons that have a maximally exciting image, without the images.

    Parameters
    ----------
    tables
        The tables.
    restriction
        Which assignments and settings; as for :func:`exciting_images`.

    Returns
    -------
    pandas.DataFrame
        One row per neuron and row of ``Mei``: the key of the configuration, ``seed``, ``mei_hash``, ``mei_models``,
        ``data_key``, ``unit_id``, ``cluster``, ``rank`` in its cluster, ``test_correlation``, ``response`` and
        ``ending``.

    See Also
    --------
    exciting_images : The images of one assignment.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.results import exciting_neurons
    >>> lab = open_lab(schema="retina")
    >>> neurons = exciting_neurons(lab.tables, {"method": "kmeans", "seed": 1})
    >>> neurons[["data_key", "unit_id", "cluster", "rank", "test_correlation"]].round(2)
      data_key  unit_id  cluster  rank  test_correlation
    0   second       73        0     0              0.99
    1   second       91        0     1              0.99
    2    first       43        1     0              0.99
    3   second       16        1     1              0.99
    4   second       49        2     0              0.99
    5   second       13        2     1              0.99
    """
    key = [*configuration_key(tables), "seed", "mei_hash"]
    neurons = (tables.Mei.Neuron & _selected(tables, restriction).proj()).proj(
        **{name: column for name, column in NEURON.items() if name != "data_key"}
    )
    frame = frame_of(neurons * tables.MeiSettings.proj("mei_models"), *key, "mei_models", *NEURON)
    return frame.sort_values([*key, "cluster", "rank"], ignore_index=True)


@dataclass(frozen=True, eq=False, repr=False)
class StoredMeiConfusion(ArrayRepr):
    """How strongly the neurons of one assignment respond to each other's maximally exciting images.

    Attributes
    ----------
    key
        Of the row in ``MeiConfusion``.
    outcome
        "compared"; "too few neurons" if fewer than two could be compared, or "clips", which are not turned: the rest is
        then empty.
    frame
        One row per neuron, by cluster: ``data_key``, ``unit_id``, ``cluster``, ``test_correlation``.
    values
        (n, n) float32: row ``i``, column ``j`` is the response of neuron ``j`` to the image of ``i``, relative to its
        response to its own image.
    angles
        Angle by which the image was turned, (n, n) float32, degrees counterclockwise.
    shifts
        Shift before it was turned, (n, n, 2) int16, pixels down and to the right.
    left_out
        Number of neurons that were left out, by reason: "badly predicted", "unresponsive", "unturnable".
    """

    key: dict[str, Any]
    outcome: str
    frame: pd.DataFrame
    values: npt.NDArray[np.float32]
    angles: npt.NDArray[np.float32]
    shifts: npt.NDArray[np.int16]
    left_out: dict[str, int]


def mei_confusion(tables: DecemberTables, restriction: Any = True) -> StoredMeiConfusion:
    """Return how strongly the neurons of one assignment respond to each other's maximally exciting images.

    Parameters
    ----------
    tables, restriction
        As for :func:`exciting_images`; the restriction leaves one row of ``MeiConfusion``.

    Raises
    ------
    SettingsError
        If it leaves none or several.

    See Also
    --------
    exciting_images : The images themselves.
    december_plugin.plots.mei_confusion_figure : Draws the responses.
    december_plugin.insilico.mei_confusion : Computes them.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.results import mei_confusion
    >>> lab = open_lab(schema="retina")
    >>> found = mei_confusion(lab.tables, {"method": "kmeans", "seed": 1})
    >>> found.outcome
    'compared'
    >>> found.frame["cluster"].tolist()
    [0, 0, 1, 1, 2, 2]
    >>> found.values.round(1)
    array([[1. , 1. , 0.9, 0.9, 0.9, 0.9],
           [1. , 1. , 0.9, 0.9, 0.9, 0.9],
           [0.9, 0.9, 0.9, 0.9, 0.8, 0.8],
           [0.9, 0.9, 0.9, 0.9, 0.8, 0.8],
           [0.9, 0.9, 0.8, 0.8, 0.9, 0.9],
           [0.9, 0.9, 0.8, 0.8, 0.9, 0.9]], dtype=float32)
    """
    key = _one(tables, restriction, of=tables.MeiConfusion)
    row = (tables.MeiConfusion & key).fetch1()
    is_there = row["mei_outcome"] == COMPARED
    empty: dict[str, list[Any]] = {"data_key": [], "unit_id": [], "cluster": [], "test_correlation": []}
    return StoredMeiConfusion(
        key=key,
        outcome=str(row["mei_outcome"]),
        frame=pd.DataFrame(row["compared_neurons"] if is_there else empty),
        values=row["relative_responses"] if is_there else np.empty((0, 0), dtype=np.float32),
        angles=row["mei_angles"] if is_there else np.empty((0, 0), dtype=np.float32),
        shifts=row["mei_shifts"] if is_there else np.empty((0, 0, 2), dtype=np.int16),
        left_out={
            reason.replace("_", " "): int(row[f"n_{reason}"])
            for reason in ("badly_predicted", "unresponsive", "unturnable")
        },
    )


def _selected(tables: DecemberTables, restriction: Any) -> Any:
    """Return the rows of ``Mei`` that a restriction leaves, as a query with what it may name."""
    settings = tables.MeiSettings.proj("mei_per_cluster", "mei_models", "mei_least_correlation")
    return restricted(tables.Mei * settings * selected_assignments(tables, True), restriction)


def _one(tables: DecemberTables, restriction: Any, *, of: Any = None) -> dict[str, Any]:
    found = _selected(tables, restriction).proj()
    keys = (found if of is None else of.proj() & found).fetch("KEY", limit=2)
    if len(keys) != 1:
        name = "Mei" if of is None else of.__name__
        what = f"no row of {name}" if not keys else f"more than one row of {name}"
        raise SettingsError(
            f"the restriction leaves {what}; it must leave exactly one. Add the seed and the clustering, or, of "
            "several settings, mei_hash; workers compute what the section exciting_images of a sweep asks for."
        )
    return keys[0]
