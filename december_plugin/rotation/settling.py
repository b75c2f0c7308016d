"""The best of all angles of a linear shift towards a given vector, exactly.

Between two whole steps, ``r(alpha) = (1 - g) roll(r, k) + g roll(r, k + 1)``, the squared distance to a vector m is a
parabola in g, of which ``b = <r, r> - <r, roll(r, 1)>`` and ``z_k = <m, roll(r, k)>`` are all that is needed:

    ||r(alpha) - m||^2 = ||m||^2 + <r, r> - 2 z_k + 2 g (z_k - z_{k+1} - b) + 2 b g^2.

Its minimum is at ``g = 1/2 + (z_{k+1} - z_k) / 2 b``, or at an end of the step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from december_plugin.rotation.shifts import shifted

Floats = npt.NDArray[np.float64]

MOST_PASSES = 200
SETTLED = 1e-6  # radians that an angle may still change by
FAR = np.pi / 4  # radians between angles that are different answers, not one that is uncertain
AMBIGUOUS = 0.1  # of the range of the squared distance over angles
ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class BestAngles:
    """The angles at which linearly shifted vectors are nearest to a given one.

    Attributes
    ----------
    angles
        (N,) in radians, 0 to 2 pi.
    ambiguous
        (N,) bool: whether an angle more than 45 degrees away is nearly as good. The squared distance there is larger by
        less than a tenth of its range over all angles.
    """

    angles: Floats
    ambiguous: npt.NDArray[np.bool_]


def best_angles(vectors: Floats, target: Floats) -> BestAngles:
    """Return the angles at which vectors, linearly shifted, are nearest to a target.

    Parameters
    ----------
    vectors
        (N, O, F).
    target
        (O, F).
    """
    products, squares = _products(vectors, target), np.einsum("nof,nof->n", vectors, vectors)
    steps, squared = _best_of_every_step(vectors, products, squares)
    rows, n = np.arange(len(vectors)), vectors.shape[1]
    best = squared.argmin(axis=1)
    angles = np.mod(steps * (2 * np.pi / n), 2 * np.pi)
    chosen, least = angles[rows, best], squared[rows, best]
    # A parabola is largest at an end: after a whole number of steps.
    spread = squares - 2 * products.min(axis=1) - least
    apart = np.abs(angles - chosen[:, None])
    is_far = np.minimum(apart, 2 * np.pi - apart) > FAR + ROUNDING
    rivals = np.where(is_far, squared, np.inf).min(axis=1)
    return BestAngles(chosen, (rivals - least < AMBIGUOUS * spread) | (spread <= ROUNDING * squares))


def settled_angles(vectors: Floats, start: Floats) -> Floats:
    """Return angles that no neuron can improve on by itself, given the mean of all linearly shifted vectors.

    Each neuron takes the best of all angles towards the mean, and the mean is taken again, until no angle changes: the
    mean squared distance between shifted vectors never rises (generalised Procrustes analysis, Gower 1975).

    Parameters
    ----------
    vectors
        (N, O, F).
    start
        (N,) in radians.
    """
    flat, angles = vectors.reshape(len(vectors), -1), start
    for _ in range(MOST_PASSES):
        mean = shifted(flat, angles, vectors.shape[1]).mean(axis=0).reshape(vectors.shape[1:])
        better = best_angles(vectors, mean).angles
        change = np.abs(better - angles)
        angles = better
        if np.minimum(change, 2 * np.pi - change).max() < SETTLED:
            break
    return angles



def _best_of_every_step(vectors: Floats, products: Floats, squares: Floats) -> tuple[Floats, Floats]:
    """Return where in each of O steps a vector is nearest to the target, and the squared distance there.

    (N, O), in steps from 0 to O, and (N, O), less the squared length of the target.
    """
    here, there = products, np.roll(products, -1, axis=1)
    curvature = (squares - (vectors * np.roll(vectors, 1, axis=1)).sum(axis=(1, 2)))[:, None]
    # A vector that a shift does not change is as good everywhere: it stays at the start of the step.
    changes = np.broadcast_to(curvature > ROUNDING * squares[:, None], here.shape)
    part = np.divide(there - here, 2 * curvature, out=np.full_like(here, -0.5), where=changes)
    part = np.clip(0.5 + part, 0.0, 1.0)
    squared = squares[:, None] - 2 * here + 2 * part * (here - there - curvature) + 2 * curvature * part**2
    return np.arange(vectors.shape[1]) + part, squared


def _products(vectors: Floats, target: Floats) -> Floats:
    """Return the inner products (N, O) of the target with the vectors, shifted by every whole number of steps."""
    back = np.stack([np.roll(target, -k, axis=0).ravel() for k in range(len(target))], axis=1)
    return np.asarray(vectors.reshape(len(vectors), -1) @ back)
