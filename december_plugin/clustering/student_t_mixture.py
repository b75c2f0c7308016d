"""Mixture of multivariate Student-t distributions with diagonal scales, fitted by expectation maximisation."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from scipy.special import betaln, gammaln
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn

from december_plugin.clustering.distances import (
    DiagonalDistances,
    ShiftedVectors,
    as_vectors,
    squared_distances,
    working_dtype,
)
from december_plugin.clustering.kmeans import kmeans_start, spawn_seeds
from december_plugin.clustering.methods import KMEANS_RESTARTS, Weights
from december_plugin.clustering.moments import EMPTY_MASS, Moments, Weighted
from december_plugin.clustering.result import ClusteringResult
from december_plugin.errors import EmbeddingError, SettingsError, did_you_mean
from december_plugin.validation.checks import check_bounds, check_choice, check_count, is_number

# Responsibilities too small to matter are held above these bounds: the squares that a target distribution needs stay
# ordinary numbers, and arithmetic on the tiny numbers below those is ten times slower.
SMALLEST_Q = {torch.float32: 1e-16, torch.float64: 1e-150}
ScaleCenters = Literal["new", "old"]
EmptyClusters = Literal["keep", "reseed"]
StartScales = Literal["clamped", "unclamped"]
WEIGHTS: tuple[str, ...] = get_args(Weights)
SCALE_CENTERS: tuple[str, ...] = get_args(ScaleCenters)
EMPTY_CLUSTERS: tuple[str, ...] = get_args(EmptyClusters)
START_SCALES: tuple[str, ...] = get_args(StartScales)
PUBLISHED_FLOOR = 1e-8  # lower bound of responsibilities in the published code, which empty clusters then have


class _Posterior(NamedTuple):
    """The E-step of one block of ``B`` neurons."""

    rows: slice
    features: Tensor  # (B, 2 D): [x^2, x], float64
    log_q: Tensor  # (K, B)
    q: Tensor  # (K, B)
    u: Tensor  # (K, B)
    log_likelihoods: Callable[[], Tensor]  # computes those of the neurons (B,), float64


@functools.cache
def _log_gammas(dof: float, n_features: int) -> float:
    """Return ``lgamma((nu + D) / 2) - lgamma(nu / 2)`` without the cancellation at large ``nu``."""
    return float(gammaln(n_features / 2) - betaln(n_features / 2, dof / 2))


class StudentTMixture(nn.Module):
    """Mixture of ``K`` multivariate Student-t distributions with diagonal scales.

    The density of cluster ``k`` at a readout vector ``w_i`` with ``D`` features is, in logarithms ::

        delta_ik = sum_d (w_id - mu_kd)^2 / s2_kd
        log t_ik = lgamma((nu + D) / 2) - lgamma(nu / 2) - (D / 2) log(nu pi) - 1/2 sum_d log s2_kd
                   - ((nu + D) / 2) log(1 + delta_ik / nu)

    Heavy tails keep unreliable neurons from dragging the centres; ``nu -> inf`` is the Gaussian mixture with
    diagonal covariances. All parameters are float64 buffers, and so part of ``state_dict``; they are NaN until the
    mixture is fitted, initialised, or loaded. Distances are computed in float64 whatever the precision of the vectors,
    and all work goes in blocks of neurons: no (N, K, D) tensor is ever built.

    Parameters
    ----------
    n_clusters
        Number of clusters ``K``, at least 1.
    n_features
        Number of features ``D`` of a readout vector, at least 1.
    dof
        Degrees of freedom ``nu``, positive and finite. The default 2.1 is just above 2, where the variance begins to
        exist (paper, section 4).
    weights
        ``"uniform"``: all clusters weigh ``1 / K`` (the published experiments). ``"learned"``: a cluster's weight is
        its share of the neurons.
    scale_bounds
        Smallest and largest squared scale ``s2``. The bounds are absolute, in squared units of the readout weights, so
        what they do depends on the scale of the responses: a model of z-scored responses has small readout weights,
        and features whose spread within a cluster is below ``sqrt(scale_bounds[0])`` (0.01 by default) no longer
        shape the clusters by their own spread. Lower the first bound for such models.

    Attributes
    ----------
    centers
        Buffer (K, D), float64: ``mu``, in units of the readout weights.
    scales
        Buffer (K, D), float64: ``s2``, the diagonals of the scale matrices, in squared units of the readout weights.
        A cluster's variance is ``s2 nu / (nu - 2)`` where ``nu > 2``.
    mixing_weights
        Buffer (K,), float64: ``pi``, sums to 1.
    converged_, n_iter_, log_likelihood_, log_likelihoods_
        Set by :meth:`fit`: whether the best run met ``tol``; its number of M-steps; its mean log likelihood per neuron
        (nats); and that of every iteration, the start included, a list that never decreases.

    Raises
    ------
    SettingsError
        If a setting has a value that is not allowed.

    See Also
    --------
    cluster_readouts : This mixture and other methods in one call, on arrays.
    DECEMber : The same mixture, fitted while a model trains.
    december_plugin.sklearn.StudentTMixture : The same mixture as a scikit-learn estimator.

    References
    ----------
    Nellen NS, Turishcheva P, Vystrčilová M, Sridhar S, Gollisch T, Tolias AS, Ecker AS (2025). Learning to cluster
    neuronal function. *NeurIPS*. https://doi.org/10.48550/arXiv.2506.03293

    Peel D, McLachlan GJ (2000). Robust mixture modelling using the t distribution. *Statistics and Computing* 10,
    339-348. https://doi.org/10.1023/A:1008981510081

    Examples
    --------
    >>> import torch
    >>> from december_plugin.clustering import StudentTMixture
    >>> _ = torch.manual_seed(0)
    >>> vectors = torch.cat([torch.randn(50, 3), torch.randn(50, 3) + 8])
    >>> mixture = StudentTMixture(2, 3).fit(vectors, seed=0)
    >>> mixture.centers.mean(dim=1).sort().values.round().tolist()
    [0.0, 8.0]
    >>> mixture.predict(vectors).bincount().tolist()
    [50, 50]
    """

    centers: Tensor
    scales: Tensor
    mixing_weights: Tensor

    def __init__(
        self,
        n_clusters: int,
        n_features: int,
        *,
        dof: float = 2.1,
        weights: str = "uniform",
        scale_bounds: tuple[float, float] = (1e-4, 1e4),
    ) -> None:
        super().__init__()
        self.n_clusters = check_count("n_clusters", n_clusters)
        self.n_features = check_count("n_features", n_features)
        if not is_number(dof) or not 0 < dof < math.inf:
            raise SettingsError(
                f"dof is {dof!r}, but the degrees of freedom must be a positive, finite number.", setting="dof"
            )
        if weights not in WEIGHTS:
            raise SettingsError(
                f"weights is {weights!r}, which is unknown. {did_you_mean(str(weights), WEIGHTS)}", setting="weights"
            )
        self.dof = float(dof)
        self.weights = weights
        self.scale_bounds = check_bounds("scale_bounds", scale_bounds)
        shape = (self.n_clusters, self.n_features)
        self.register_buffer("centers", torch.full(shape, math.nan, dtype=torch.float64))
        self.register_buffer("scales", torch.full(shape, math.nan, dtype=torch.float64))
        uniform = torch.full((self.n_clusters,), 1 / self.n_clusters, dtype=torch.float64)
        self.register_buffer("mixing_weights", uniform)

    def extra_repr(self) -> str:
        """Return the settings, for ``repr``."""
        settings = f"dof={self.dof}, weights={self.weights!r}, scale_bounds={self.scale_bounds}"
        return f"{self.n_clusters}, {self.n_features}, {settings}"

    # Densities and assignments

    def log_prob(self, w: Tensor) -> Tensor:
        """Log density of every cluster at every neuron, without the mixing weights.

        Parameters
        ----------
        w
            Readout vectors (N, D).

        Returns
        -------
        Tensor
            ``log t_ik`` (N, K) in nats, float64 for float64 vectors, else float32. Differentiable once in ``w``.

        Raises
        ------
        EmbeddingError
            If the vectors are not finite, are not (N, ``n_features``), or the mixture was never fitted.
        """
        w = self.check(w)
        return self._densities(w)[0].t().to(working_dtype(w))

    def e_step(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """Responsibilities and latent precisions of every neuron (paper, equations 8 and 9).

        ``q_ik = pi_k t_ik / sum_j pi_j t_ij`` and ``u_ik = (nu + D) / (nu + delta_ik)``.

        Parameters
        ----------
        w
            Readout vectors (N, D).

        Returns
        -------
        q, u
            Responsibilities (N, K), each row of which sums to 1, and precisions (N, K); float64 for float64 vectors,
            else float32. Responsibilities below 1e-150 count as that much. Differentiable once in ``w``.

        Raises
        ------
        EmbeddingError
            As :meth:`log_prob`.
        """
        w = self.check(w)
        dtype = working_dtype(w)
        if w.requires_grad and torch.is_grad_enabled():
            log_densities, u = self._densities(w)
            return (log_densities + self._log_weights()).softmax(dim=0).t().to(dtype), u.t().to(dtype)
        q, u = (w.new_empty((self.n_clusters, len(w)), dtype=dtype) for _ in range(2))
        for block in self.posterior_blocks(DiagonalDistances(w, self.centers, self.scales)):
            q[:, block.rows] = block.q
            u[:, block.rows] = block.u
        return q.t(), u.t()

    @torch.no_grad()
    def assign(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """Most probable cluster of every neuron, and its responsibility.

        Parameters
        ----------
        w
            Readout vectors (N, D).

        Returns
        -------
        labels, confidences
            ``argmax_k q_ik`` (N,), int64, and ``max_k q_ik`` (N,), float64 for float64 vectors, else float32.

        Raises
        ------
        EmbeddingError
            As :meth:`log_prob`.
        """
        return self.assign_with_margins(w)[:2]

    @torch.no_grad()
    def assign_with_margins(self, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Labels and confidences as :meth:`assign`, and margins (N,): the largest minus the second largest ``q_ik``."""
        w = self.check(w)
        labels = w.new_empty(len(w), dtype=torch.int64)
        confidences, margins = (w.new_empty(len(w), dtype=working_dtype(w)) for _ in range(2))
        for block in self.posterior_blocks(DiagonalDistances(w, self.centers, self.scales)):
            confidences[block.rows], labels[block.rows] = block.q.max(dim=0)
            others = block.q.scatter(0, labels[block.rows][None], 0.0)
            margins[block.rows] = confidences[block.rows] - others.amax(dim=0)
        return labels, confidences, margins

    def result(self, w: Tensor) -> ClusteringResult:
        """Return the clusters of the rows of ``w`` (N, D), as arrays. Errors as :meth:`log_prob`."""
        labels, confidences, margins = (values.cpu().numpy() for values in self.assign_with_margins(w))
        return ClusteringResult(
            labels=labels,
            confidences=confidences.astype(np.float64),
            margins=margins.astype(np.float64),
            n_clusters=self.n_clusters,
            log_likelihood=self.score(w),
            converged=getattr(self, "converged_", None),
        )

    def predict(self, w: Tensor) -> Tensor:
        """Most probable cluster (N,), int64, of every row of ``w`` (N, D). Errors as :meth:`log_prob`."""
        return self.assign(w)[0]

    @torch.no_grad()
    def predict_proba(self, w: Tensor) -> Tensor:
        """Responsibilities ``q`` (N, K) of the rows of ``w`` (N, D). Errors as :meth:`log_prob`."""
        return self.e_step(w)[0]

    @torch.no_grad()
    def score_samples(self, w: Tensor) -> Tensor:
        """Log likelihood (N,) of every row of ``w`` (N, D), nats, float64. Errors as :meth:`log_prob`."""
        w = self.check(w)
        distances = DiagonalDistances(w, self.centers, self.scales)
        return torch.cat([block.log_likelihoods() for block in self.posterior_blocks(distances)])

    def score(self, w: Tensor) -> float:
        """Mean log likelihood per neuron of ``w`` (N, D), nats. Errors as :meth:`log_prob`."""
        return float(self.score_samples(w).mean())

    # Fitting

    @torch.no_grad()
    def m_step(
        self,
        w: Tensor,
        q: Tensor,
        u: Tensor,
        *,
        scale_centers: str = "new",
        empty_clusters: str = "keep",
        asynchronous: bool = False,
        kernels: ModuleType | None = None,
    ) -> None:
        """Set centres, scales and weights to those that the responsibilities imply (paper, equations 11 and 12).

        ``mu_k = sum_i q_ik u_ik w_i / sum_i q_ik u_ik``,
        ``s2_kd = sum_i q_ik u_ik (w_id - mu_kd)^2 / sum_i q_ik`` with the new centre, clamped to ``scale_bounds``, and
        with learned weights ``pi_k = sum_i q_ik / N``. A cluster of less than 1e-6 neurons keeps its centre and scales.

        Parameters
        ----------
        w
            Readout vectors (N, D).
        q, u
            Responsibilities and precisions (N, K) of :meth:`e_step`.
        scale_centers
            "new": scales are about the new centres, which is exact EM. "old": about those of the E-step, which makes
            them larger by ``(mu_new - mu_old)^2 sum_i q_ik u_ik / sum_i q_ik``, as in the published code.
        empty_clusters
            "keep": as above. "reseed": a cluster of less than 1e-8 times the number of neurons moves to the mean of
            all neurons, weighted with ``u``, with the scales that they have about it. In the published code
            responsibilities are held above 1e-8, which has this effect.
        asynchronous
            Whether the host never waits for the device: vectors, float32 or less precise, are not checked for NaN, and
            scales of a cluster that is narrower than the float32 numbers at its place are only as precise as those.
        kernels
            The module :mod:`~december_plugin.clustering.step_kernels`, to compute the sums; only if asynchronous.

        Raises
        ------
        EmbeddingError
            If the vectors are not finite or not (N, ``n_features``), or ``q`` and ``u`` do not belong to them.
        SettingsError
            If a setting has a value that is not allowed.
        """
        check_choice("scale_centers", scale_centers, SCALE_CENTERS)
        if check_choice("empty_clusters", empty_clusters, EMPTY_CLUSTERS) == "reseed":
            # Of few neurons, enough of each for the cluster not to count as empty below.
            floor = max(PUBLISHED_FLOOR, 2 * EMPTY_MASS / len(q))
            empty = q.sum(dim=0, dtype=torch.float64) < floor * len(q)
            q = torch.where(empty, floor, q) if asynchronous or empty.any() else q
        w = as_vectors(w, n_features=self.n_features)
        expected = (len(w), self.n_clusters)
        if tuple(q.shape) != expected or tuple(u.shape) != expected:
            raise EmbeddingError(
                f"q and u must have the shape {expected} (neurons, clusters), but have {tuple(q.shape)} and "
                f"{tuple(u.shape)}. Pass the e_step of the same neurons."
            )
        vectors = ShiftedVectors(w, self.n_clusters, asynchronous=asynchronous)
        if kernels is not None:
            moments = kernels.kernel_moments(vectors, q.t(), u.t())
            self._update(moments, moments.solve(), about_old_centers=scale_centers == "old")
            return
        dtype = torch.float64 if asynchronous or w.device.type != "cpu" else working_dtype(w)
        moments = self._moments(vectors, q, u, dtype)
        solved = moments.solve()
        may_cancel = not asynchronous
        if dtype != torch.float64:
            # A scale is the small difference of squares where a cluster is far from the mean and narrow. What float32
            # resolves, float64 does as well.
            may_cancel = bool(moments.cancel(solved, self.scale_bounds[0], dtype).any())
            if may_cancel:
                moments = self._moments(vectors, q, u, torch.float64)
                solved = moments.solve()
        self._update(
            moments,
            solved,
            (lambda: ((q[rows].t(), u[rows].t(), x) for rows, x in vectors.blocks())) if may_cancel else None,
            about_old_centers=scale_centers == "old",
        )

    @staticmethod
    def _moments(vectors: ShiftedVectors, q: Tensor, u: Tensor, dtype: torch.dtype) -> Moments:
        moments = Moments(vectors)
        with torch.autocast(vectors.w.device.type, enabled=False):
            for rows, features in vectors.blocks(dtype):
                moments.add(q[rows].t(), u[rows].t(), features)
        return moments

    def _update(
        self,
        moments: Moments,
        solved: tuple[Tensor, Tensor],
        again: Callable[[], Iterator[Weighted]] | None = None,
        *,
        about_old_centers: bool = False,
    ) -> None:
        """Set the parameters to those of ``moments.solve()``.

        ``again`` yields the blocks once more, for clusters whose scales cancel, if any may.
        """
        full = moments.masses >= EMPTY_MASS
        centers, scales = solved
        if again is not None:
            cancelled = moments.cancel((centers, scales), self.scale_bounds[0], torch.float64)
            for k in torch.nonzero(cancelled).flatten().tolist():
                scales[k] = moments.scales_about(centers, k, again())
        if about_old_centers:
            moved = centers + moments.shift - self.centers
            scales = scales + moved.square() * moments.weights / moments.masses.clamp_min(EMPTY_MASS)
        self.centers.copy_(torch.where(full, centers + moments.shift, self.centers.double()))
        self.scales.copy_(torch.where(full, scales.clamp(*self.scale_bounds), self.scales.double()))
        if self.weights == "learned":
            self.mixing_weights.copy_((moments.masses / moments.masses.sum()).flatten())

    @torch.no_grad()
    def initialize(
        self,
        w: Tensor,
        *,
        seed: int,
        n_init: int = KMEANS_RESTARTS,
        kmeans_seeds: str = "spawned",
        start_scales: str = "clamped",
    ) -> None:
        """Start from k-means: see :func:`kmeans_start`. Weights are uniform.

        Parameters
        ----------
        w
            Readout vectors (N, D).
        seed
            Seed of the k-means restarts, 0 to 2**32 - 1.
        n_init
            Number of k-means restarts, the best of which counts.
        kmeans_seeds
            The ``seeds`` of :func:`kmeans_start`.
        start_scales
            "clamped": scales are the variances of the clusters, within ``scale_bounds``. "unclamped": the unbiased
            variances, whatever the bounds, as in the published code.

        Raises
        ------
        EmbeddingError, SettingsError
            As :func:`kmeans_start`, or if the vectors do not have ``n_features`` columns.
        """
        w = as_vectors(w, n_features=self.n_features)
        published = check_choice("start_scales", start_scales, START_SCALES) == "unclamped"
        centers, variances = kmeans_start(
            w, self.n_clusters, seed=seed, n_init=n_init, seeds=kmeans_seeds, unbiased=published
        )
        self.centers.copy_(centers)
        # Within the bounds from the start on, or the first M-step could lower the likelihood.
        self.scales.copy_(variances if published else variances.clamp(*self.scale_bounds))
        self.mixing_weights.fill_(1 / self.n_clusters)

    @torch.no_grad()
    def fit(self, w: Tensor, *, seed: int, n_init: int = 5, max_iter: int = 500, tol: float = 1e-4) -> StudentTMixture:
        """Fit the mixture by expectation maximisation, several times, and keep the most likely fit.

        The first run starts where DECEMber starts, at the best of 20 k-means restarts with this seed; every other run
        starts at its own single k-means.

        Parameters
        ----------
        w
            Readout vectors (N, D), at least ``n_clusters`` different ones.
        seed
            Seed of all starts, 0 to 2**32 - 1. The same seed gives the same fit on the same machine.
        n_init
            Number of runs, at least 1.
        max_iter
            Largest number of M-steps of a run, at least 1.
        tol
            A run has converged when an M-step adds less than this to the mean log likelihood per neuron (nats).

        Returns
        -------
        StudentTMixture
            The mixture itself.

        Raises
        ------
        SettingsError
            If a setting is not allowed, or there are more clusters than neurons.
        EmbeddingError
            If the vectors are not finite, are not (N, ``n_features``), or fewer than ``n_clusters`` differ.

        Warns
        -----
        ConvergenceWarning
            If the best run has not converged after ``max_iter`` M-steps.
        """
        w = as_vectors(w, n_features=self.n_features)
        n_init, max_iter = check_count("n_init", n_init), check_count("max_iter", max_iter)
        if not is_number(tol) or not 0 <= tol < math.inf:
            raise SettingsError(f"tol is {tol!r}, but must be a finite number of nats, 0 or more.", setting="tol")
        best: tuple[list[float], bool, dict[str, Tensor]] | None = None
        for run, run_seed in enumerate([seed, *spawn_seeds(seed, n_init - 1)]):
            self.initialize(w, seed=run_seed, n_init=KMEANS_RESTARTS if run == 0 else 1)
            history, converged = self._climb(w, max_iter=max_iter, tol=tol)
            if best is None or history[-1] > best[0][-1]:
                best = history, converged, {name: value.clone() for name, value in self.named_buffers()}
        assert best is not None
        self.log_likelihoods_, self.converged_, parameters = best
        self.load_state_dict(parameters)
        self.n_iter_ = len(self.log_likelihoods_) - 1
        self.log_likelihood_ = self.log_likelihoods_[-1]
        if not self.converged_:
            warnings.warn(
                f"The most likely of {n_init} runs has not converged after {max_iter} M-steps. Raise max_iter or tol.",
                ConvergenceWarning,
                stacklevel=3,
            )
        return self

    def _climb(self, w: Tensor, *, max_iter: int, tol: float) -> tuple[list[float], bool]:
        """Alternate E- and M-steps; return the mean log likelihood before each M-step and at the end."""
        history: list[float] = []
        distances = DiagonalDistances(w, self.centers, self.scales, keep_features=True)
        while True:
            moments, total = Moments(distances), distances.shift.new_zeros(())
            for block in self.posterior_blocks(distances):
                moments.add(block.q, block.u, block.features)
                total += block.log_likelihoods().sum()
            history.append(float(total) / len(w))
            converged = len(history) > 1 and history[-1] - history[-2] < tol
            if converged or len(history) > max_iter:
                return history, converged
            self._update(
                moments,
                moments.solve(),
                lambda: ((b.q, b.u, b.features) for b in self.posterior_blocks(distances)),
            )
            distances.move_to(self.centers, self.scales)

    # Shared by everything above

    def check(self, w: Tensor) -> Tensor:
        """Return ``w`` (N, D) as a tensor, or raise an EmbeddingError as :meth:`log_prob`."""
        if torch.isnan(self.centers).any():
            raise EmbeddingError(
                "The mixture has no clusters yet: call fit or initialize, or load a state_dict with fitted clusters."
            )
        return as_vectors(w, n_features=self.n_features)

    def _densities(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """Log densities and precisions (K, N), float64, on the graph of ``w``."""
        nu, d = self.dof, self.n_features
        delta = squared_distances(w, self.centers, self.scales).t()
        log_densities = self._log_constants() - (nu + d) / 2 * torch.log1p(delta / nu)
        return log_densities, (nu + d) / (nu + delta)

    def log_constants(self) -> Tensor:
        """Return what mixing weights and scales add to the log densities of the clusters (K, 1), float64."""
        return self._log_constants() + self._log_weights()

    def _log_constants(self) -> Tensor:
        """Return the part of the log densities that does not depend on the vectors (K, 1), float64."""
        nu, d = self.dof, self.n_features
        log_scales = self.scales.double().log().sum(dim=1, keepdim=True)
        return _log_gammas(nu, d) - d / 2 * math.log(nu * math.pi) - log_scales / 2

    def _log_weights(self) -> Tensor:
        """Log mixing weights (K, 1), finite even where a cluster has lost all its mass."""
        weights = self.mixing_weights.double()
        return weights.clamp_min(torch.finfo(torch.float64).tiny).log()[:, None]

    def posterior_blocks(
        self, distances: DiagonalDistances, out: tuple[Tensor, Tensor, Tensor] | None = None
    ) -> Iterator[_Posterior]:
        """Yield the E-step of every block of ``distances``, float64; what it holds may be overwritten in place.

        ``out`` may give tensors (K, N) of one precision, to which ``log q``, ``q`` and ``u`` are then written. The log
        densities are taken relative to one at the neuron's smallest distance,
        ``log(1 + delta / nu) = log(1 + delta_min / nu) + log(1 + (delta - delta_min) / (nu + delta_min))``,
        so that clusters that are nearly equally likely remain distinguishable in float32, too. Responsibilities below
        ``SMALLEST_Q`` count as that much.
        """
        dtype = torch.float64 if out is None else out[0].dtype
        slope = -(self.dof + self.n_features) / 2
        constants = self.log_constants()
        largest = constants.max()
        constants = (constants - largest).to(dtype)
        for rows, features in distances.blocks():
            log_q, q, u = (None, None, None) if out is None else (x[:, rows] for x in out)
            delta = distances.evaluate(features)
            nearest = delta.amin(dim=0).clamp_min_(0)
            reach = nearest + self.dof
            excess = delta.sub_(nearest).to(dtype).div_(reach.to(dtype))
            u = torch.div((-2 * slope / reach).to(dtype), excess + 1, out=u)
            logits = torch.add(constants, excess.log1p_(), alpha=slope)
            most = logits.amax(dim=0)
            q = torch.exp(logits.sub_(most).clamp_min_(math.log(SMALLEST_Q[dtype])), out=q)
            sums = q.sum(dim=0)
            log_sums = sums.log()
            log_q = torch.sub(logits, log_sums, out=log_q)
            log_likelihoods = functools.partial(self._log_likelihoods, nearest, largest, most, log_sums)
            yield _Posterior(rows, features, log_q, q.div_(sums), u, log_likelihoods)

    def _log_likelihoods(self, nearest: Tensor, largest: Tensor, most: Tensor, log_sums: Tensor) -> Tensor:
        """Return that of the reference, whose distance is ``nearest``, and what is relative to it, all (B,)."""
        slope = -(self.dof + self.n_features) / 2
        return torch.log1p(nearest / self.dof).mul_(slope).add_(largest) + most + log_sums
