"""Whether clusters with a confidence of 0.8 are right for 8 of 10 neurons, if the true types are known.

A mixture's responsibilities are probabilities under the mixture: they say nothing about whether the mixture is right.
On simulated recordings the truth is planted, so they can be checked. Cluster numbers mean nothing, so clusters are
matched to types one to one first, so that as many neurons as possible are right (Hungarian method).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from december_plugin.errors import SettingsError
from december_plugin.evaluation.matching import match_clusters
from december_plugin.text.array_repr import ArrayRepr
from december_plugin.validation.checks import check_count

N_BINS = 10
BINNINGS = ("width", "count")
COLUMNS = ("low", "high", "confidence", "accuracy", "n_neurons")


@dataclass(frozen=True, eq=False, repr=False)
class Calibration(ArrayRepr):
    """Confidences compared with accuracy.

    Attributes
    ----------
    bins
        One row per bin that holds neurons: its bounds ``low`` and ``high``, mean ``confidence`` and ``accuracy`` (share
        that is right) of its neurons, and their number ``n_neurons``.
    expected_calibration_error
        Mean over neurons of the difference between accuracy and confidence of their bin, in absolute value (0 =
        calibrated; Naeini et al. 2015). With few neurons per bin it is above 0 by chance.
    overconfidence
        Mean confidence minus accuracy, over all neurons.
    accuracy
        Share of the neurons whose cluster is the one that is matched to their type.
    n_neurons
        Neurons with a known type.
    """

    bins: pd.DataFrame
    expected_calibration_error: float
    overconfidence: float
    accuracy: float
    n_neurons: int


def calibration(
    labels: npt.ArrayLike,
    confidences: npt.ArrayLike,
    truth: npt.ArrayLike,
    *,
    n_bins: int = N_BINS,
    binning: str = "width",
) -> Calibration:
    """Compare the confidences of clusters with how often they are right.

    Parameters
    ----------
    labels
        Cluster of every neuron, (N,) integers of at least 0.
    confidences
        The largest responsibility of every neuron, (N,), or a stability across seeds: 0 to 1.
    truth
        True type of every neuron, (N,) integers; below 0 where it is unknown, which is left out.
    n_bins
        Number of bins, at least 1.
    binning
        "width": bins of equal width between 0 and 1. "count": bins of equal numbers of neurons.

    Returns
    -------
    Calibration
        A cluster without its own type, because there are more clusters than types, is never right: a mixture that
        splits a type is penalised for it.

    Raises
    ------
    SettingsError
        If the shapes differ, no type is known, a confidence is not between 0 and 1, or a setting is not allowed.
    """
    clusters, sure, types = (np.asarray(values) for values in (labels, confidences, truth))
    if clusters.ndim != 1 or not clusters.shape == sure.shape == types.shape:
        raise SettingsError(
            f"labels, confidences and truth have the shapes {clusters.shape}, {sure.shape} and {types.shape}; all must "
            "be (N,), of the same neurons."
        )
    known = types >= 0
    if not known.any():
        raise SettingsError("no neuron has a known type (types are integers of at least 0).")
    clusters, types, sure = clusters[known].astype(np.int64), types[known].astype(np.int64), sure[known].astype(float)
    if clusters.min() < 0:
        raise SettingsError("labels must be integers of at least 0, the clusters' numbers.")
    # A responsibility of float32 may exceed 1 by rounding.
    if not ((sure >= 0) & (sure <= 1 + 1e-6)).all():
        raise SettingsError("a confidence is not between 0 and 1.")
    right = match_clusters(types, clusters) == types
    bins = _bins(np.minimum(sure, 1.0), right, _edges(sure, check_count("n_bins", n_bins), binning))
    weights = bins["n_neurons"] / bins["n_neurons"].sum()
    return Calibration(
        bins=bins,
        expected_calibration_error=float((weights * (bins["accuracy"] - bins["confidence"]).abs()).sum()),
        overconfidence=float(sure.mean() - right.mean()),
        accuracy=float(right.mean()),
        n_neurons=len(types),
    )


def _edges(confidences: npt.NDArray[np.float64], n_bins: int, binning: str) -> npt.NDArray[np.float64]:
    if binning not in BINNINGS:
        raise SettingsError(f"binning is {binning!r}; it must be 'width' or 'count'.", setting="binning")
    if binning == "width":
        return np.linspace(0.0, 1.0, n_bins + 1)
    edges = np.unique(np.quantile(confidences, np.linspace(0.0, 1.0, n_bins + 1)))
    return edges if len(edges) > 1 else np.array([edges[0], 1.0 if edges[0] < 1 else np.nextafter(1.0, 2.0)])


def _bins(sure: npt.NDArray[np.float64], right: npt.NDArray[np.bool_], edges: npt.NDArray[np.float64]) -> pd.DataFrame:
    """Return the table of bins; each but the last excludes its upper bound."""
    at = np.clip(np.searchsorted(edges, sure, side="right") - 1, 0, len(edges) - 2)
    rows = [
        (edges[bin_], edges[bin_ + 1], sure[at == bin_].mean(), right[at == bin_].mean(), int((at == bin_).sum()))
        for bin_ in np.unique(at)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))
