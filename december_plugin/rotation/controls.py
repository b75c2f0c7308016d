"""Controls: readout vectors whose structure is destroyed, to be aligned and clustered in the same way.

Clusters found in them are not evidence of types (Ustyuzhaninov et al. 2020, appendix A).
"""

from __future__ import annotations

from typing import get_args

import numpy as np
import numpy.typing as npt

from december_plugin.embeddings.alignment_recipe import Control
from december_plugin.rotation.shifts import checked_readouts
from december_plugin.validation.checks import check_choice, check_seed

CONTROLS: tuple[Control, ...] = get_args(Control)


def permuted_readouts(
    readouts: npt.ArrayLike, n_orientations: int, *, control: Control, seed: int = 0
) -> npt.NDArray[np.float64]:
    """Return readout vectors with their features permuted; how a feature is tuned to orientation is kept.

    Parameters
    ----------
    readouts
        (N, O * F), orientation-major.
    n_orientations
        Number of orientations O.
    control
        "features": every neuron's features are permuted, by its own permutation. "neurons": every feature is permuted
        across neurons, by its own permutation, so that each keeps its distribution.
    seed
        Seed of the permutations, 0 to 2**32 - 1.

    Returns
    -------
    ndarray
        (N, O * F) float64.

    Raises
    ------
    SettingsError, EmbeddingError
        For an unknown control, or vectors that are not finite or whose number of entries is not a multiple of O.

    See Also
    --------
    RotationAlignment : Aligns the controls as it aligns the neurons.
    simulated_readouts : Readout vectors with planted types.

    References
    ----------
    Ustyuzhaninov I, Cadena SA, Froudarakis E, Fahey PG, Walker EY, Cobos E, Reimer J, Sinz FH, Tolias AS, Bethge M,
    Ecker AS (2020). Rotation-invariant clustering of neuronal responses in primary visual cortex. *ICLR*.
    https://iclr.cc/virtual/2020/poster/1570

    Examples
    --------
    The three features of a neuron change places, in the same way at both orientations:

    >>> from december_plugin.rotation import permuted_readouts
    >>> permuted_readouts([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]], 2, control="features").tolist()
    [[3.0, 1.0, 2.0, 6.0, 4.0, 5.0]]
    """
    check_choice("control", control, CONTROLS)
    vectors = checked_readouts(readouts, n_orientations)
    rng = np.random.default_rng(check_seed("seed", seed))
    n, _, n_features = vectors.shape
    neurons, features = np.arange(n)[:, None], np.arange(n_features)[None, :]
    if control == "features":
        features = rng.permuted(np.broadcast_to(features, (n, n_features)), axis=1)
    else:
        neurons = rng.permuted(np.broadcast_to(neurons, (n, n_features)), axis=0)
    # Indices around a slice come first in the result: (neurons, features, orientations).
    permuted = vectors[neurons, :, features].transpose(0, 2, 1)
    return np.ascontiguousarray(permuted).reshape(n, -1)
