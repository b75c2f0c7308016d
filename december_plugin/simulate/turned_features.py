"""Features that each simulated neuron sees turned by its own angle, around the centre of its receptive field.

Kernels are drawn at a neuron's place and angle, not interpolated: neurons of one type compute the same thing at any
angle, as far as the pixels allow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import shift

from december_plugin.simulate.gabors import Gabors
from december_plugin.simulate.image_model import WHITENED, FeatureBank, Trials
from december_plugin.simulate.population import MIXED, Population, complex_features

NEURONS_AT_A_TIME = 16


@dataclass(frozen=True)
class TurnedFeatures:
    """Gabor features at any angle and place.

    Attributes
    ----------
    gabors
        The Gabors from which they are made.
    bank
        The same features without turning, for their scale: the statistics of the images do not depend on the angle.
    """

    gabors: Gabors
    bank: FeatureBank

    @classmethod
    def draw(
        cls,
        n_features: int,
        size: int,
        shape: tuple[int, int],
        seed: int,
        *,
        features: str = WHITENED,
        cells: str = MIXED,
    ) -> TurnedFeatures:
        """Draw the features of a seed for images of this shape; as :meth:`FeatureBank.draw`."""
        gabors = Gabors.draw(n_features, size, seed, cells=cells)
        axis = np.arange(1.0 - size, size)  # four standard deviations of the envelope to each side
        even, odd = _kernels(gabors, *np.meshgrid(axis, axis, indexing="ij"))
        is_complex = complex_features(n_features, cells)
        return cls(gabors, FeatureBank.scaled(even, odd, is_complex, shape, seed, features=features))

    def kernels(self, angles: np.ndarray, centers: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Return the even and odd kernels of neurons on the pixels of an image.

        Parameters
        ----------
        angles
            (neurons,) by which features are turned, counterclockwise as images are displayed, in radians.
        centers
            (neurons, 2) row and column.
        shape
            Height and width of the image.

        Returns
        -------
        even, odd
            (features, neurons, height, width); a feature's response is the sum of products of image and kernel.
        """
        rows, columns = np.meshgrid(*(np.arange(float(length)) for length in shape), indexing="ij")
        y = rows - centers[:, 0, None, None]
        x = columns - centers[:, 1, None, None]
        cosine, sine = np.cos(angles)[:, None, None], np.sin(angles)[:, None, None]
        return _kernels(self.gabors, cosine * y + sine * x, cosine * x - sine * y)

    def drive_of(self, trials: Trials, population: Population, eye_movement: float) -> np.ndarray:
        """Return the drive of neurons that see their features turned, as :func:`~.image_model.drive_of` does."""
        images, shown = _seen(trials, eye_movement)
        n_images, *shape = images.shape
        drive = np.empty((n_images, len(population.types)))
        for first in range(0, drive.shape[1], NEURONS_AT_A_TIME):
            some = slice(first, first + NEURONS_AT_A_TIME)
            even, odd = (
                np.einsum("tp,fnp->tnf", images.reshape(n_images, -1), each.reshape(*each.shape[:2], -1), optimize=True)
                for each in self.kernels(population.angles[some], population.centers[some], (shape[0], shape[1]))
            )
            energies = np.where(self.bank.is_complex, np.hypot(even, odd), np.maximum(even, 0))
            features = (energies - self.bank.mean) @ self.bank.whitening.T
            drive[:, some] = np.einsum("tnf,nf->tn", features, population.tuning[some])
        return drive[shown]


def _kernels(gabors: Gabors, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return even and odd kernels (features, *S); even ones have no mean, wherever the pixels are."""
    even, odd = gabors.waves(y, x)
    by_gabor = (slice(None),) + (None,) * y.ndim
    return gabors.by_feature(even - gabors.offsets[by_gabor] * gabors.envelope(y, x), odd)


def _seen(trials: Trials, eye_movement: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the images on the retina (images, height, width), and the image of every trial."""
    if eye_movement == 0 or not trials.gaze.any():
        return trials.images, trials.shown
    moved = [
        shift(trials.images[image], -eye_movement * gaze, order=1, mode="nearest")
        for image, gaze in zip(trials.shown, trials.gaze, strict=True)
    ]
    return np.stack(moved), np.arange(len(trials.shown))
