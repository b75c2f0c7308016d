"""How angles and temperature are found: by a ramp of temperatures, or as in the paper.

Both start at random angles. At a low temperature the relaxed shift is smooth, and there are few local minima; at a high
one angles are distinguishable. The ramp holds the temperature at one value after another, and releases it only when the
angles have settled. In the paper's schedule angles and temperature are learned together from the start, and the weight
of the reconstruction decides where the temperature ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from december_plugin.rotation.objective import AlignmentObjective
from december_plugin.rotation.settling import settled_angles
from december_plugin.rotation.shifts import relaxed_weights

RAMP = (0.5, 1.0, 2.0, 4.0, 8.0)
RAMP_PASSES = 20  # at each temperature, at most
N_ANGLES = 64  # of a turn, that neurons choose from
RAMP_STEPS = 60  # with power 1, at each temperature
LAST_STEPS = 100  # with the temperature learned: 400 in all
RAMP_RATE = 0.1  # radians per step, about
TEMPERATURES = (1e-2, 1e3)  # of which one is learned
RAMP_BETA = 10.0

PAPER_BETAS = tuple(float(beta) for beta in np.logspace(-3, 1, 20))
PAPER_START = 1.0  # initial temperature; the paper does not give one
PAPER_RATE = 0.01
PAPER_DECREASES = 3  # of the learning rate, by sqrt(10) as in the published code
PAPER_PATIENCE = 20  # steps without a gain after which the rate is decreased, in the end the last one
PAPER_GAIN = 1e-5  # of the objective, relative
MOST_STEPS = 2000  # at one learning rate


@dataclass(frozen=True, eq=False)
class FittedAngles:
    """Angles (N,) in radians, 0 to 2 pi, and the temperature that was reached."""

    angles: npt.NDArray[np.float64]
    temperature: float


def fit_by_ramp(objective: AlignmentObjective, *, start: npt.NDArray[np.float64], beta: float) -> FittedAngles:
    """Minimise the objective at fixed temperatures that rise, and then with a learned one.

    With power 2, every neuron takes at each temperature the best of 64 angles given the mean of all, and the mean is
    taken again (no step can raise the objective); in the end it takes the best of all angles of the linear shift, until
    none changes, and the temperature is learned for these. With power 1 there is no such mean: gradient steps.

    Parameters
    ----------
    objective
        The objective of the readout vectors.
    start
        Angles (N,) to start at.
    beta
        Weight of the reconstruction while the temperature is learned.
    """
    if objective.power == 1:
        return _descended(objective, start, beta)
    with torch.no_grad():
        angles = ramped_angles(objective, start)
        found = minimize_scalar(
            lambda log_t: float(objective(torch.from_numpy(angles), float(np.exp(log_t)), beta)),
            bounds=np.log(TEMPERATURES),
            method="bounded",
        )
    return FittedAngles(angles, float(np.exp(found.x)))


@torch.no_grad()
def ramped_angles(objective: AlignmentObjective, start: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the angles (N,) that minimise the objective of power 2, from the ramp and the passes that follow it.

    Parameters
    ----------
    objective, start
        As for :func:`fit_by_ramp`.
    """
    return settled_angles(objective.vectors.numpy(), _alternated(objective, start))


def _alternated(objective: AlignmentObjective, start: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return angles (N,) after passes in which every neuron takes the best angle given the mean of all."""
    vectors, n_orientations = objective.vectors, objective.vectors.shape[1]
    flat, angles = vectors.flatten(1), torch.from_numpy(start)
    grid = torch.arange(N_ANGLES, dtype=angles.dtype) * (2 * math.pi / N_ANGLES)
    for temperature in RAMP:
        shifts = relaxed_weights(grid, temperature, n_orientations)
        squared = objective.squared_lengths_of_all(shifts)
        before = None
        for _ in range(RAMP_PASSES):
            mean = objective.sum_of_shifts(relaxed_weights(angles, temperature, n_orientations)) / len(vectors)
            back = torch.stack([mean.roll(-k, dims=0).flatten() for k in range(n_orientations)], dim=1)
            best = torch.addmm(squared, flat @ back, shifts.mT, alpha=-2).argmin(dim=1)
            angles = grid[best]
            if before is not None and torch.equal(best, before):
                break
            before = best
    return angles.numpy()


def _descended(objective: AlignmentObjective, start: npt.NDArray[np.float64], beta: float) -> FittedAngles:
    angles = torch.tensor(start, requires_grad=True)
    for temperature in RAMP:
        optimizer = torch.optim.Adam([angles], lr=RAMP_RATE)
        for _ in range(RAMP_STEPS):
            _step(optimizer, objective, angles, torch.tensor(temperature, dtype=angles.dtype), 0.0)
    learned = torch.tensor(RAMP[-1], dtype=angles.dtype, requires_grad=True)
    optimizer = torch.optim.Adam([angles, learned], lr=RAMP_RATE)
    for _ in range(LAST_STEPS):
        _step(optimizer, objective, angles, learned, beta)
    return _fitted(angles, learned)


def fit_as_in_the_paper(objective: AlignmentObjective, *, start: npt.NDArray[np.float64], beta: float) -> FittedAngles:
    """Minimise the objective over angles and temperature together (Ustyuzhaninov et al. 2020, section 4).

    Adam with a learning rate of 0.01, decreased three times when the objective no longer falls.

    Parameters
    ----------
    objective, start, beta
        As for :func:`fit_by_ramp`.
    """
    angles = torch.tensor(start, requires_grad=True)
    temperature = torch.tensor(PAPER_START, dtype=angles.dtype, requires_grad=True)
    optimizer = torch.optim.Adam([angles, temperature], lr=PAPER_RATE)
    best = math.inf
    for stage in range(PAPER_DECREASES + 1):
        for group in optimizer.param_groups:
            group["lr"] = PAPER_RATE / math.sqrt(10) ** stage
        since = 0
        for _ in range(MOST_STEPS):
            value = _step(optimizer, objective, angles, temperature, beta)
            since = 0 if value < best * (1 - PAPER_GAIN) else since + 1
            best = min(best, value)
            if since == PAPER_PATIENCE:
                break
    return _fitted(angles, temperature)


def _step(
    optimizer: torch.optim.Optimizer, objective: AlignmentObjective, angles: Tensor, temperature: Tensor, beta: float
) -> float:
    optimizer.zero_grad()
    value = objective(angles, temperature, beta)
    value.backward()
    optimizer.step()
    if temperature.requires_grad:
        temperature.data.clamp_(min=0.0)
    return float(value.detach())


def _fitted(angles: Tensor, temperature: Tensor) -> FittedAngles:
    return FittedAngles(np.mod(angles.detach().numpy(), 2 * np.pi), float(temperature.detach()))
