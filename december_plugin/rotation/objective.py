"""The objective of alignment: distances between shifted readout vectors, and their change by a relaxed shift of 0."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from december_plugin.rotation.pair_distances import mean_distance, mean_squared_distance
from december_plugin.rotation.shifts import power_spectra, relaxed_weights, shifted, weighted_shifts


class AlignmentObjective:
    """The relaxed objective of Ustyuzhaninov et al. 2020, equation 5, as means.

    ``mean_{i<j} ||r~_i(alpha_i) - r~_j(alpha_j)||^power + beta * mean_i ||r~_i(0) - r_i||^power``: the paper uses power
    1, its published code power 2, for which the first term is linear in the number of neurons.

    Parameters
    ----------
    vectors
        (N, O, F) float64, N at least 2.
    power
        1 or 2.
    """

    def __init__(self, vectors: Tensor, power: int) -> None:
        self.vectors, self.power = vectors, power
        self._flat = vectors.flatten(1)
        self._spectra = power_spectra(vectors)

    def __call__(self, angles: Tensor, temperature: Tensor | float, beta: float) -> Tensor:
        """Return the objective at angles (N,) and a temperature; ``beta`` weighs the reconstruction."""
        pairs = self.distances(relaxed_weights(angles, temperature, self.vectors.shape[1]))
        return pairs + beta * self.reconstruction(temperature) if beta else pairs

    def distances(self, weights: Tensor) -> Tensor:
        """Return the mean over pairs of the distance, to the power, between the means of shifts with weights (N, O)."""
        if self.power == 1:
            return mean_distance(weighted_shifts(self.vectors, weights).flatten(1))
        return mean_squared_distance(self._squared_lengths(weights), self.sum_of_shifts(weights))

    def sum_of_shifts(self, weights: Tensor) -> Tensor:
        """Return the sum (O, F) over neurons of the means of shifts, without a shifted vector of any neuron."""
        by_step = (weights.mT @ self._flat).unflatten(1, self.vectors.shape[1:])
        return torch.stack([each.roll(k, dims=0) for k, each in enumerate(by_step)]).sum(dim=0)

    def reconstruction(self, temperature: Tensor | float) -> Tensor:
        """Return the mean over neurons of the distance, to the power, between the relaxed shift by 0 and none."""
        n_orientations = self.vectors.shape[1]
        weights = relaxed_weights(self.vectors.new_zeros(1), temperature, n_orientations)
        difference = torch.cat([weights[:, :1] - 1, weights[:, 1:]], dim=1)
        squared = self._squared_lengths(difference)
        return (squared if self.power == 2 else squared.clamp_min(torch.finfo(squared.dtype).tiny).sqrt()).mean()

    def squared_lengths_of_all(self, weights: Tensor) -> Tensor:
        """Return the squared lengths (N, A) of the means of every vector's shifts, for A rows of weights (A, O)."""
        transformed = torch.fft.rfft(weights, dim=1)
        return self._spectra @ (transformed.real.square() + transformed.imag.square()).mT

    def _squared_lengths(self, weights: Tensor) -> Tensor:
        transformed = torch.fft.rfft(weights, dim=1)
        return ((transformed.real.square() + transformed.imag.square()) * self._spectra).sum(dim=1)


def alignment_loss(readouts: npt.ArrayLike, angles: npt.ArrayLike, n_orientations: int) -> float:
    """Return the mean over pairs of the distance between linearly shifted readout vectors: the paper's equation 3.

    Parameters
    ----------
    readouts
        (N, O * F), orientation-major, N at least 2.
    angles
        (N,) in radians.
    n_orientations
        Number of orientations O.
    """
    with torch.no_grad():
        return float(mean_distance(torch.from_numpy(np.asarray(shifted(readouts, angles, n_orientations)))))
