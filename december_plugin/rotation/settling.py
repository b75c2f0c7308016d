"""The best of all angles of a linear shift towards a given vector, exactly.

Between two whole steps, ``r(alpha) = (1 - g) roll(r, k) + g roll(r, k + 1)``, the squared distance to a vector m is a
parabola in g that is determined by ``b = <r, r> - <r, roll(r, 1)>`` and ``z_k = <m, roll(r, k)>``:

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
BLOCK = 4096  # neurons at a time, whose distances to all targets are held


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
    distances = _SquaredDistances(vectors, target[None])
    steps, squared = (each[:, 0] for each in distances.least_of_every_step())
    rows, per_radian = np.arange(len(vectors)), vectors.shape[1] / (2 * np.pi)
    angles = np.mod(steps / per_radian, 2 * np.pi)
    best = squared.argmin(axis=1)
    chosen, least = angles[rows, best], squared[rows, best]
    # A parabola is largest at an end: after a whole number of steps.
    spread = distances.at(np.arange(vectors.shape[1], dtype=np.float64)[None]).max(axis=1) - least
    apart = np.abs(angles - chosen[:, None])
    far = np.where(np.minimum(apart, 2 * np.pi - apart) > FAR, squared, np.inf)
    nearest_far = distances.at((chosen[:, None] + [-FAR, FAR]) * per_radian)
    rivals = np.minimum(far.min(axis=1), nearest_far.min(axis=1))
    is_flat = spread <= ROUNDING * distances.squares[:, 0, 0]
    return BestAngles(chosen, (rivals - least < AMBIGUOUS * spread) | is_flat)


def nearest_targets(vectors: Floats, targets: Floats) -> tuple[npt.NDArray[np.int64], Floats]:
    """Return the target that every vector comes nearest to when it is linearly shifted, and the angle of that.

    Parameters
    ----------
    vectors
        (N, O, F).
    targets
        (G, O, F).

    Returns
    -------
    targets, angles
        (N,) int64, and (N,) in radians, 0 to 2 pi.
    """
    n_orientations = vectors.shape[1]
    chosen, steps = np.empty(len(vectors), dtype=np.int64), np.empty(len(vectors))
    for start in range(0, len(vectors), BLOCK):
        block = slice(start, start + BLOCK)
        own_steps, squared = (
            each.reshape(len(each), -1) for each in _SquaredDistances(vectors[block], targets).least_of_every_step()
        )
        best = squared.argmin(axis=1)
        chosen[block] = best // n_orientations
        steps[block] = own_steps[np.arange(len(best)), best]
    return chosen, np.mod(steps * (2 * np.pi / n_orientations), 2 * np.pi)


def settled_angles(vectors: Floats, start: Floats) -> Floats:
    """Return angles that no single neuron can improve, given the mean of all linearly shifted vectors.

    Each neuron takes the best of all angles towards the mean, and the mean is taken again, until no angle changes: the
    mean squared distance between shifted vectors never increases (generalised Procrustes analysis, Gower 1975).

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
        _, better = nearest_targets(vectors, mean[None])
        change = np.abs(better - angles)
        angles = better
        if np.minimum(change, 2 * np.pi - change).max() < SETTLED:
            break
    return angles


class _SquaredDistances:
    """Squared distances of linearly shifted vectors (N, O, F) to targets (G, O, F)."""

    def __init__(self, vectors: Floats, targets: Floats) -> None:
        n, n_orientations = vectors.shape[:2]
        back = np.stack([np.roll(targets, -k, axis=1) for k in range(n_orientations)], axis=1)
        self.squares = np.einsum("nof,nof->n", vectors, vectors)[:, None, None]
        self._lengths = np.einsum("gof,gof->g", targets, targets)[:, None]
        products = vectors.reshape(n, -1) @ back.reshape(len(targets) * n_orientations, -1).T
        self._products = products.reshape(n, len(targets), n_orientations)
        self._curvature = self.squares - np.einsum("nof,nof->n", vectors, np.roll(vectors, 1, axis=1))[:, None, None]

    def at(self, steps: Floats) -> Floats:
        """Return them (N, A) to the first target after shifts by steps (N, A), or (1, A), whole or not."""
        whole = np.floor(steps).astype(np.int64)
        part, n = steps - whole, self._products.shape[2]
        rows = np.arange(len(self._products))[:, None]
        here, there = self._products[rows, 0, whole % n], self._products[rows, 0, (whole + 1) % n]
        return self._parabola(here, there - here, part, self.squares[:, 0] + self._lengths[0], self._curvature[:, 0])

    def least_of_every_step(self) -> tuple[Floats, Floats]:
        """Return where between whole numbers of steps they are smallest, 0 to O, and their values there.

        Both are (N, G, O).
        """
        gain = np.roll(self._products, -1, axis=2) - self._products
        # A vector that a shift does not change is equally good everywhere: it stays at the start of the step.
        changes = np.broadcast_to(self._curvature > ROUNDING * self.squares, gain.shape)
        part = np.divide(gain, 2 * self._curvature, out=np.full_like(gain, -0.5), where=changes)
        part = np.clip(0.5 + part, 0.0, 1.0)
        least = self._parabola(self._products, gain, part, self.squares + self._lengths, self._curvature)
        return np.arange(gain.shape[2]) + part, least

    @staticmethod
    def _parabola(here: Floats, gain: Floats, part: Floats, lengths: Floats, curvature: Floats) -> Floats:
        return np.asarray(lengths - 2 * here - 2 * part * (gain + curvature * (1 - part)))
