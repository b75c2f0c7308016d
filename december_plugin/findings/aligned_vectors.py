"""Readout vectors of one model before and after their alignment, for the report."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd


@dataclass(frozen=True, eq=False)
class AlignedVectors:
    """Readout vectors of a model with a rotation-equivariant core, their angles and clusters.

    Attributes
    ----------
    title
        Whose clusters they are: method, K and seed.
    readouts
        (N, O * F), orientation-major, as they were before the alignment.
    angles
        Angles by which they are shifted, in radians, (N,); 0 where a vector is zero and has none.
    n_orientations
        Number of orientations O.
    clusters
        (N,), -1 for none.
    coordinates
        t-SNE coordinates ``x`` and ``y`` of aligned vectors with their ``group`` (cluster); empty where none was drawn.
    """

    title: str
    readouts: npt.NDArray[np.float64]
    angles: npt.NDArray[np.float64]
    n_orientations: int
    clusters: npt.NDArray[np.int64]
    coordinates: pd.DataFrame
