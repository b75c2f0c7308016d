"""Gabor features of simulated neurons: orientations, spatial frequencies, and which cells have which phases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from december_plugin.simulate.population import BANK, MIXED, N_KINDS, SEPARATE, SINGLE, random_stream

FINE, COARSE = WAVELENGTHS = (0.6, 1.0)  # of the features, as a fraction of their size
ENVELOPE = 0.25  # SD of the Gabor envelope, as a fraction of the features' size


@dataclass(frozen=True)
class Gabors:
    """The Gabors from which features are made; one for each feature, or for several with different phases.

    Attributes
    ----------
    angles
        (gabors,) radians.
    wavelengths
        (gabors,) pixels.
    size
        Size of the features, in pixels.
    n_features
        Number of features made from them.
    cells
        Their kinds, one of ``CELLS``.
    """

    angles: np.ndarray
    wavelengths: np.ndarray
    size: int
    n_features: int
    cells: str

    @classmethod
    def draw(cls, n_features: int, size: int, seed: int, *, cells: str = MIXED) -> Gabors:
        """Draw the Gabors of a seed: orientations in two spatial frequencies, or a frequency for each single Gabor."""
        n_gabors = -(-n_features // N_KINDS.get(cells, 1))
        n_angles = (n_gabors + 1) // 2
        fine = np.arange(n_gabors) >= n_angles
        # The orientations of the two frequencies alternate.
        start = random_stream(seed, BANK).uniform()
        angles = np.pi / n_angles * (np.arange(n_gabors) % n_angles + 0.5 * fine + start)
        relative = np.geomspace(COARSE, FINE, n_gabors) if cells == SINGLE else np.where(fine, FINE, COARSE)
        return cls(angles, size * relative, size, n_features, cells)

    def waves(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the even and the odd wave of every Gabor, (gabors, *S), at places (*S) in pixels from the middle."""
        by_gabor = (slice(None),) + (None,) * y.ndim
        along = np.cos(self.angles)[by_gabor] * x + np.sin(self.angles)[by_gabor] * y
        envelope = self.envelope(y, x)
        carrier = 2 * np.pi * along / self.wavelengths[by_gabor]
        return envelope * np.cos(carrier), envelope * np.sin(carrier)

    def envelope(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return the Gaussian that all Gabors have, (*S), at places (*S) in pixels from the middle."""
        return np.asarray(np.exp(-(x**2 + y**2) / (2 * (ENVELOPE * self.size) ** 2)))

    @property
    def offsets(self) -> np.ndarray:
        """Mean of each even wave relative to that of its envelope, (gabors,)."""
        return np.exp(-2 * (np.pi * ENVELOPE * self.size / self.wavelengths) ** 2)

    def by_feature(self, even: np.ndarray, odd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the even and odd kernels of every feature, (features, *S), from those of every Gabor, (gabors, *S).

        If simple and complex cells are separate, several features share a Gabor. Simple features have only their even
        kernel.
        """
        if self.cells not in N_KINDS:
            return even, odd
        phases = [even, odd, -even, even] if self.cells == SEPARATE else [even, odd, even]
        shape = even.shape[1:]
        even = np.stack(phases, axis=1).reshape(-1, *shape)[: self.n_features]
        return even, np.repeat(odd, N_KINDS[self.cells], axis=0)[: self.n_features]
