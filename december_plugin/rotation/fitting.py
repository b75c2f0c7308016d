"""How angles and temperature are found: by a ramp of temperatures, or as the paper says.

Both start at random angles. At a low temperature the relaxed shift is smooth, and few minima are there to be caught in;
a high one tells the angles apart. The ramp holds the temperature at one value after the other, and lets it go only when
the angles have found their places. In the paper's schedule angles and temperature are learned together from the start,
and the weight of the reconstruction decides where the temperature ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from december_plugin.rotation.objective import AlignmentObjective
from december_plugin.rotation.settling import settled_angles

RAMP = (0.5, 1.0, 2.0, 4.0, 8.0)
RAMP_STEPS = 60  # at each temperature
LAST_STEPS = 100  # with the temperature learned: 400 in all
RAMP_RATE = 0.1  # radians per step, about
RAMP_BETA = 10.0

PAPER_BETAS = tuple(float(beta) for beta in np.logspace(-3, 1, 20))
PAPER_START = 1.0  # temperature; the paper does not say which
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

    With power 2 every neuron takes in the end the best of all angles given the mean of all, until none changes: angles
    of the linear shift that no neuron can improve on by itself.

    Parameters
    ----------
    objective
        Of the readout vectors.
    start
        Angles (N,) to start at.
    beta
        Weight of the reconstruction while the temperature is learned.
    """
    angles = torch.tensor(start, requires_grad=True)
    for temperature in RAMP:
        optimizer = torch.optim.Adam([angles], lr=RAMP_RATE)
        for _ in range(RAMP_STEPS):
            _step(optimizer, objective, angles, torch.tensor(temperature, dtype=angles.dtype), 0.0)
    learned = torch.tensor(RAMP[-1], dtype=angles.dtype, requires_grad=True)
    optimizer = torch.optim.Adam([angles, learned], lr=RAMP_RATE)
    for _ in range(LAST_STEPS):
        _step(optimizer, objective, angles, learned, beta)
    found = _fitted(angles, learned)
    if objective.power == 1:
        return found
    return FittedAngles(settled_angles(objective.vectors.numpy(), found.angles), found.temperature)


def fit_as_in_the_paper(objective: AlignmentObjective, *, start: npt.NDArray[np.float64], beta: float) -> FittedAngles:
    """Minimise the objective over angles and temperature together (Ustyuzhaninov et al. 2020, section 4).

    Adam with a learning rate of 0.01, decreased three times when the objective no longer falls.

    Parameters
    ----------
    objective, start, beta
        As of :func:`fit_by_ramp`.
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
