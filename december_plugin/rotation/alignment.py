"""Alignment of the readout vectors of a rotation-equivariant model, as a scikit-learn estimator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from december_plugin.embeddings.alignment_recipe import Schedule
from december_plugin.embeddings.space import checked_covariance, covariance_root
from december_plugin.errors import AlignmentError, EmbeddingError, SettingsError
from december_plugin.rotation.fitting import (
    PAPER_BETAS,
    RAMP_BETA,
    FittedAngles,
    fit_as_in_the_paper,
    fit_by_ramp,
)
from december_plugin.rotation.group_means import aligned_to_groups
from december_plugin.rotation.objective import AlignmentObjective, alignment_loss
from december_plugin.rotation.settling import best_angles, nearest_targets
from december_plugin.rotation.shifts import cyclic_mean, shape_of, shifted
from december_plugin.validation.checks import check_bool, check_choice, check_count, check_number

Floats = npt.NDArray[np.float64]

LEAST_TEMPERATURE = 5.0  # of a fit of the paper's schedule that counts
N_MEANS = 20  # of the defaults
BETAS: Mapping[str, tuple[float, ...]] = MappingProxyType({"ramp": (RAMP_BETA,), "paper": PAPER_BETAS})
_FITS: Mapping[str, Callable[..., FittedAngles]] = MappingProxyType({"ramp": fit_by_ramp, "paper": fit_as_in_the_paper})


@dataclass(frozen=True)
class AlignmentRun:
    """One of the fits to a common mean, the best of which counts.

    Attributes
    ----------
    restart
        Which of the random starts, from 0.
    beta
        Weight of the reconstruction.
    temperature
        The temperature T that was reached.
    alignment_loss
        Mean over pairs of the distance between linearly shifted vectors.
    """

    restart: int
    beta: float
    temperature: float
    alignment_loss: float


class RotationAlignment(TransformerMixin, BaseEstimator):
    """Turns the readout vectors of a rotation-equivariant model to a common orientation.

    Neurons that compute the same thing at different orientations have readout vectors that are cyclic shifts of each
    other along the orientations of the core. Each vector gets an angle, so that distances between all shifted vectors
    are as small as possible; clusters of the result do not depend on preferred orientations.

    As in the published code, every vector is first divided by its length. Whatever was minimised, the paper's loss, the
    mean distance between linearly shifted vectors, is reported and decides between restarts.

    By default a second stage, which is not in the paper, begins at the best of the restarts: neurons are aligned to the
    means of groups of similar neurons (:mod:`december_plugin.rotation.group_means`). A single mean is a blend of all
    types, which noise resembles as well as a type does. ``n_means=1`` omits this stage.

    Parameters
    ----------
    n_orientations
        Orientations ``O`` of the core. Vectors are orientation-major: entry ``o F + f`` belongs to feature f at
        orientation o.
    schedule
        ``"ramp"``: temperatures 0.5, 1, 2, 4 and 8 of the relaxed shift, one after another, then a learned one. With
        ``power=2`` all neurons repeatedly take the best angle given the mean of all, finally that of the linear shift;
        with ``power=1`` there are 400 gradient steps. ``"paper"``: angles and temperature together, for 20 weights of
        the reconstruction from 0.001 to 10, of which those count that reach a temperature above 5. It takes many times
        longer.
    power
        Power of the distances that are minimised: 2, as in the published code, in time linear in the number of neurons,
        or 1, as in the paper, for which every step compares all pairs of neurons.
    n_restarts
        Random starts (for each weight of the reconstruction), of which the one with the lowest loss counts.
    metric
        Feature covariance (D, D) of the model, of
        :func:`~december_plugin.embeddings.functional.feature_covariance`. Averaged over cyclic shifts, so that it
        commutes with them; vectors are then multiplied with its root first, and aligned by what neurons compute. None:
        the readout vectors as they are.
    beta
        Weight of the reconstruction while the temperature is learned, a positive number. None: 10 for the ramp, the
        paper's 20 for the paper's schedule.
    n_means
        Groups of neurons that are aligned to their own means, at least 1. There may be more or fewer of them than
        types; there are fewer than requested if there are fewer than 10 neurons for each. 1: one mean of all. None:
        20 for the ramp with ``power=2``, otherwise 1, as in the paper.
    normalize
        Whether the result is divided by its length, too. False: vectors keep their lengths, and angles are nevertheless
        those of their directions.
    random_state
        Seed of the starts: an integer from 0 to 2**32 - 1, a :class:`numpy.random.RandomState`, or None. The same
        integer gives the same angles on the same machine with the same number of threads.

    Attributes
    ----------
    angles_
        (N,) float64, in radians, 0 to 2 pi: by how much each fitted vector is shifted.
    temperature_
        The temperature T that was reached, with one mean. Above 5 the relaxed shift is close to the linear one.
    beta_
        Weight of the reconstruction of the fit that counts.
    loss_before_, alignment_loss_
        Mean distance between vectors of length 1, before and after their shift.
    ambiguous_
        (N,) bool: whether an angle more than 45 degrees away would have been nearly as good, by the distance to the
        neuron's mean; and ``ambiguous_share_``, their share of all neurons. Vectors that hardly change along the
        orientations, or repeat themselves, have no meaningful angle.
    means_
        (G, D): the means to the nearest of which vectors are aligned, in the coordinates of the metric's root; the mean
        of the shifted vectors if there is only one.
    runs_
        Every fit, as tuple of :class:`AlignmentRun`.
    n_features_in_
        Number of entries D of a vector; ``feature_names_in_`` their names, if they came as a data frame.

    Raises
    ------
    SettingsError, EmbeddingError
        Both a :class:`ValueError`: a setting that is not allowed, entries that are not a multiple of the orientations,
        or vectors of zeros, which have no direction.
    AlignmentError
        By ``fit`` with the paper's schedule, if no fit reaches a temperature above 5.

    See Also
    --------
    fourier_amplitudes : Needs no alignment; the baseline to compare with.
    shifted : Turns readout vectors by given angles.
    permuted_readouts : Controls without types, to align and cluster in the same way.
    december_plugin.clustering.cluster_readouts : Clusters the aligned vectors.

    References
    ----------
    Ustyuzhaninov I, Cadena SA, Froudarakis E, Fahey PG, Walker EY, Cobos E, Reimer J, Sinz FH, Tolias AS, Bethge M,
    Ecker AS (2020). Rotation-invariant clustering of neuronal responses in primary visual cortex. *ICLR*.
    https://iclr.cc/virtual/2020/poster/1570

    Gower JC (1975). Generalized Procrustes analysis. *Psychometrika* 40, 33-51. https://doi.org/10.1007/BF02291478

    Frey BJ, Jojic N (2002). Fast, large-scale transformation-invariant clustering. *NIPS* 14.

    Examples
    --------
    >>> import numpy as np
    >>> from december_plugin.rotation import RotationAlignment
    >>> tuning = np.array([3.0, 2.0, 1.0, 0.0])  # one feature at four orientations
    >>> readouts = np.stack([np.roll(tuning, k) for k in (0, 1, 3, 2)])
    >>> alignment = RotationAlignment(4, random_state=0)
    >>> aligned = alignment.fit_transform(readouts)
    >>> bool(np.allclose(aligned, aligned[0]))
    True
    >>> round(alignment.loss_before_, 3), round(abs(alignment.alignment_loss_), 3)
    (0.974, 0.0)
    """

    def __init__(
        self,
        n_orientations: int,
        *,
        schedule: Schedule = "ramp",
        power: int = 2,
        n_restarts: int = 3,
        metric: npt.ArrayLike | None = None,
        beta: float | None = None,
        n_means: int | None = None,
        normalize: bool = True,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_orientations = n_orientations
        self.schedule = schedule
        self.power = power
        self.n_restarts = n_restarts
        self.metric = metric
        self.beta = beta
        self.n_means = n_means
        self.normalize = normalize
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> RotationAlignment:
        """Align readout vectors (N, O * F), N at least 2; ``y`` is ignored."""
        X = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        self._check_settings()
        self._root = metric_root(self.metric, X.shape[1], self.n_orientations)
        directions, _ = self._directions(X)
        vectors = self._by_orientation(directions)
        random = check_random_state(self.random_state)
        fits = self._fits(AlignmentObjective(torch.from_numpy(vectors), self.power), directions, random)
        best = min(self._that_count(list(fits)), key=lambda run: run.alignment_loss)
        self.runs_, self.temperature_, self.beta_ = tuple(fits), best.temperature, best.beta
        seed = int(random.randint(2**31))
        found = aligned_to_groups(vectors, fits[best].angles, n_means=self._number_of_means(), seed=seed)
        self.angles_, self.means_ = found.angles, found.means.reshape(len(found.means), -1)
        self.loss_before_ = alignment_loss(directions, np.zeros(len(directions)), self.n_orientations)
        self.alignment_loss_ = alignment_loss(directions, self.angles_, self.n_orientations)
        self.ambiguous_ = np.empty(len(vectors), dtype=bool)
        for group, mean in enumerate(found.means):
            own = found.groups == group
            self.ambiguous_[own] = best_angles(vectors[own], mean).ambiguous
        return self

    def fit_transform(self, X: Any, y: Any = None) -> Floats:
        """Align readout vectors (N, O * F), and return them shifted by their angles, (N, O * F) float64."""
        self.fit(X)
        return self._shifted(validate_data(self, X, dtype=np.float64, reset=False), self.angles_)

    def transform(self, X: Any) -> Floats:
        """Return readout vectors (N, O * F), each shifted to where it is nearest to one of the fitted means.

        For the fitted vectors this is what ``fit_transform`` returned, unless the angles were not found in this way:
        with one mean and the paper's schedule or ``power=1``.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        directions, _ = self._directions(X)
        means = self.means_.reshape(len(self.means_), *shape_of(X.shape[1], self.n_orientations))
        _, angles = nearest_targets(self._by_orientation(directions), means)
        return self._shifted(X, angles)

    @property
    def ambiguous_share_(self) -> float:
        """Share of the fitted neurons whose angle is ambiguous, 0 to 1."""
        if not hasattr(self, "ambiguous_"):
            raise AttributeError("ambiguous_share_ exists only after the alignment is fitted.")
        return float(self.ambiguous_.mean())

    def _check_settings(self) -> None:
        check_choice("schedule", self.schedule, tuple(_FITS))
        if self.power not in (1, 2):
            raise SettingsError(f"power is {self.power!r}, but must be 1 or 2.", setting="power")
        check_count("n_restarts", self.n_restarts)
        check_bool("normalize", self.normalize)
        if self.beta is not None:
            check_number("beta", self.beta, above=0)
        if self.n_means is not None:
            check_count("n_means", self.n_means)

    def _number_of_means(self) -> int:
        if self.n_means is not None:
            return self.n_means
        return N_MEANS if self.schedule == "ramp" and self.power == 2 else 1

    def _by_orientation(self, vectors: Floats) -> Floats:
        return vectors.reshape(len(vectors), *shape_of(vectors.shape[1], self.n_orientations))

    def _directions(self, X: Floats) -> tuple[Floats, Floats]:
        """Return the vectors in the coordinates of the alignment, with length 1, and their lengths (N, 1)."""
        vectors, lengths, is_zero = in_metric(X, self._root)
        if is_zero.any():
            what = "readout vectors are" if self._root is None else "functional embeddings, the drives of neurons, are"
            raise EmbeddingError(
                f"{is_zero.sum()} of {len(X)} {what} zero, the first that of row {int(is_zero.argmax())}: they have no "
                "direction that could be aligned. Leave these neurons out."
            )
        return vectors / lengths, lengths

    def _fits(
        self, objective: AlignmentObjective, directions: Floats, random: np.random.RandomState
    ) -> dict[AlignmentRun, FittedAngles]:
        betas = BETAS[self.schedule] if self.beta is None else (float(self.beta),)
        starts = [random.uniform(0, 2 * np.pi, len(directions)) for _ in range(self.n_restarts)]
        found = {}
        for restart, start in enumerate(starts):
            for beta in betas:
                fitted = _FITS[self.schedule](objective, start=start, beta=beta)
                loss = alignment_loss(directions, fitted.angles, self.n_orientations)
                found[AlignmentRun(restart, beta, fitted.temperature, loss)] = fitted
        return found

    def _that_count(self, runs: list[AlignmentRun]) -> list[AlignmentRun]:
        if self.schedule != "paper":
            return runs
        counted = [run for run in runs if run.temperature > LEAST_TEMPERATURE]
        if not counted:
            warmest = max(runs, key=lambda run: run.temperature)
            raise AlignmentError(
                f"none of {len(runs)} fits reached a temperature above {LEAST_TEMPERATURE:g}, from which on the "
                f"relaxed shift is one: the largest was {warmest.temperature:.3g}, with beta {warmest.beta:.3g}. Use "
                'schedule="ramp", or a larger beta.'
            )
        return counted

    def _shifted(self, X: Floats, angles: Floats) -> Floats:
        directions, lengths = self._directions(X)
        found = shifted(directions, angles, self.n_orientations)
        return found if self.normalize else found * lengths


def metric_root(metric: npt.ArrayLike | None, n_features: int, n_orientations: int) -> Floats | None:
    """Return the symmetric root (D, D) of a feature covariance that was averaged over cyclic shifts; None without one.

    Raises
    ------
    EmbeddingError, MisfitError
        If it is not a covariance of this many features, or their number is not a multiple of the orientations.
    """
    shape_of(n_features, n_orientations)
    if metric is None:
        return None
    return covariance_root(cyclic_mean(checked_covariance(metric, n_features=n_features), n_orientations))


def in_metric(vectors: Floats, root: Floats | None) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """Return vectors (N, D) in the coordinates of an alignment, their lengths (N, 1), and which of them (N,) are zero.

    Parameters
    ----------
    vectors
        Readout vectors.
    root
        The root from :func:`metric_root`; None: the vectors as they are.
    """
    found = vectors if root is None else vectors @ root
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    rounding = np.finfo(np.float64).eps
    if root is not None:  # eigenvalues of a covariance are exact to rounding, those of its root to the root of that
        rounding = np.sqrt(rounding) * np.linalg.norm(root, 2)
    return found, lengths, lengths[:, 0] <= rounding * np.linalg.norm(vectors, axis=1)
