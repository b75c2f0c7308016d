"""The baseline to report with every alignment: amplitudes of the Fourier transform along the orientations.

A shift changes only the phases, so amplitudes need no alignment. The orientation of features relative to each other,
and to their own harmonics, is lost with the phases.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from december_plugin.rotation.shifts import checked_readouts, frequency_counts


def fourier_amplitudes(readouts: npt.ArrayLike, n_orientations: int) -> npt.NDArray[np.float64]:
    """Return the amplitudes of readout vectors at every frequency along the orientations.

    Parameters
    ----------
    readouts
        (N, O * F), orientation-major.
    n_orientations
        Number of orientations O.

    Returns
    -------
    ndarray
        (N, (O // 2 + 1) * F) float64, frequency-major, with the length of the readout vectors: a shift by whole steps
        changes nothing.

    Raises
    ------
    EmbeddingError, MisfitError
        If the vectors are not finite, or the number of their entries is not a multiple of O.

    See Also
    --------
    RotationAlignment : Keeps how features are oriented relative to each other.

    Examples
    --------
    >>> import numpy as np
    >>> from december_plugin.rotation import fourier_amplitudes
    >>> tuning = np.array([3.0, 2.0, 1.0, 0.0])  # one feature at four orientations
    >>> one, other = fourier_amplitudes([tuning, np.roll(tuning, 1)], n_orientations=4)
    >>> bool(np.allclose(one, other))
    True
    """
    vectors = checked_readouts(readouts, n_orientations)
    amplitudes = np.abs(np.fft.rfft(vectors, axis=1, norm="ortho"))
    found = amplitudes * np.sqrt(frequency_counts(n_orientations))[:, None]
    return np.asarray(found.reshape(len(vectors), -1))
