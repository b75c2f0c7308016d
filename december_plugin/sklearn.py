"""The Student-t mixture as a scikit-learn estimator, for arrays, pipelines and grid searches."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from december_plugin.clustering import student_t_mixture
from december_plugin.errors import MisfitError
from december_plugin.evaluation.model_selection import bayesian_information_criterion, n_parameters
from december_plugin.validation.checks import check_count

FloatArray = npt.NDArray[np.float64]


class StudentTMixture(DensityMixin, BaseEstimator):
    """Mixture of Student-t distributions with diagonal scales, fitted by expectation maximisation.

    The mixture of DECEMber, :class:`december_plugin.clustering.student_t_mixture.StudentTMixture`, with the interface
    of :class:`sklearn.mixture.GaussianMixture`: heavy tails keep outlying samples from dragging the centres. With ``dof
    -> inf`` it is the Gaussian mixture with diagonal covariances.

    Parameters
    ----------
    n_components
        Number of clusters ``K``, at least 1.
    dof
        Degrees of freedom ``nu`` of every cluster, positive and finite; given, not fitted. Just above 2 by default,
        where the variance begins to exist.
    weights
        ``"uniform"``: all clusters weigh ``1 / K``. ``"learned"``: a cluster's weight is its share of the samples.
    scale_bounds
        Smallest and largest squared scale, in squared units of the features. Standardize the features, or choose
        bounds that fit their units.
    n_init
        Number of runs, the most likely of which counts.
    max_iter
        Largest number of M-steps of a run.
    tol
        A run has converged when an M-step adds less than this to the mean log likelihood per sample (nats).
    random_state
        Seed of the k-means starts: an integer from 0 to 2**32 - 1, a :class:`numpy.random.RandomState`, or None. The
        same integer gives the same fit on the same machine, and the fit that ``seed`` gives elsewhere in this package.

    Attributes
    ----------
    means_
        Centres ``mu``, (K, D) float64.
    scales_
        Squared scales ``s2``, the diagonals of the scale matrices, (K, D) float64.
    covariances_
        Variances of the clusters, ``s2 nu / (nu - 2)``, (K, D) float64; infinite where ``nu <= 2``.
    weights_
        Mixing weights, (K,) float64.
    labels_
        Cluster of every fitted sample, (N,) int64.
    converged_
        Whether the most likely run met ``tol``.
    n_iter_
        Its number of M-steps.
    lower_bound_
        Its mean log likelihood per sample (nats), and ``lower_bounds_`` that of every iteration.
    n_features_in_
        Number of features ``D``; ``feature_names_in_`` their names, if the samples came as a data frame.

    Raises
    ------
    SettingsError, EmbeddingError
        By ``fit``, both a :class:`ValueError`: a setting that is not allowed, more clusters than samples, or fewer
        different samples than clusters.

    See Also
    --------
    december_plugin.clustering.StudentTMixture : The same mixture on tensors.
    december_plugin.clustering.cluster_readouts : The post hoc clusterings that the tables store.
    december_plugin.clustering.DECEMber : The same mixture, fitted while a model trains.

    References
    ----------
    Peel D, McLachlan GJ (2000). Robust mixture modelling using the t distribution. *Statistics and Computing* 10,
    339-348. https://doi.org/10.1023/A:1008981510081

    Examples
    --------
    >>> import numpy as np
    >>> from december_plugin.sklearn import StudentTMixture
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.standard_t(3, (50, 2)), 20 + rng.standard_t(3, (50, 2))])
    >>> fitted = StudentTMixture(2, random_state=0).fit(X)
    >>> np.bincount(fitted.labels_).tolist()
    [50, 50]
    """

    def __init__(
        self,
        n_components: int = 1,
        *,
        dof: float = 2.1,
        weights: str = "uniform",
        scale_bounds: tuple[float, float] = (1e-4, 1e4),
        n_init: int = 5,
        max_iter: int = 500,
        tol: float = 1e-4,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_components = n_components
        self.dof = dof
        self.weights = weights
        self.scale_bounds = scale_bounds
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> StudentTMixture:
        """Fit the mixture to samples (N, D), at least as many as clusters; ``y`` is ignored.

        Warns
        -----
        ConvergenceWarning
            If the most likely run has not converged after ``max_iter`` M-steps.
        """
        X = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        if check_count("n_components", self.n_components) > len(X):
            raise MisfitError(
                f"n_components is {self.n_components}, but there are only {len(X)} samples. Choose n_components "
                f"between 1 and {len(X)}.",
                setting="n_components",
            )
        fitted = self._empty(X.shape[1])
        settings = {name: getattr(self, name) for name in ("n_init", "max_iter", "tol")}
        samples = torch.tensor(X)
        fitted.fit(samples, seed=self._seed(), **settings)
        self.means_, self.scales_, self.weights_ = (
            getattr(fitted, name).numpy().copy() for name in ("centers", "scales", "mixing_weights")
        )
        self.labels_ = fitted.predict(samples).numpy()
        self.converged_, self.n_iter_ = fitted.converged_, fitted.n_iter_
        self.lower_bound_, self.lower_bounds_ = fitted.log_likelihood_, list(fitted.log_likelihoods_)
        return self

    def fit_predict(self, X: Any, y: Any = None) -> npt.NDArray[np.int64]:
        """Fit the mixture to samples (N, D), and return the cluster of each, (N,) int64."""
        return self.fit(X, y).labels_

    def predict(self, X: Any) -> npt.NDArray[np.int64]:
        """Return the most probable cluster, (N,) int64, of samples (N, D)."""
        fitted, samples = self._fitted(X)
        return np.asarray(fitted.predict(samples).numpy())

    def predict_proba(self, X: Any) -> FloatArray:
        """Return the responsibilities of the clusters, (N, K), for samples (N, D); every row sums to 1."""
        fitted, samples = self._fitted(X)
        return np.asarray(fitted.predict_proba(samples).numpy())

    def score_samples(self, X: Any) -> FloatArray:
        """Return the log likelihood (nats), (N,), of samples (N, D)."""
        fitted, samples = self._fitted(X)
        return np.asarray(fitted.score_samples(samples).numpy())

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean log likelihood per sample (nats) of samples (N, D)."""
        return float(self.score_samples(X).mean())

    def bic(self, X: Any) -> float:
        """Return the Bayesian information criterion on samples (N, D); smaller is better.

        See Also
        --------
        december_plugin.evaluation.model_selection.bayesian_information_criterion
        """
        scores = self.score_samples(X)
        return bayesian_information_criterion(
            float(scores.mean()),
            n_neurons=len(scores),
            n_features=self.means_.shape[1],
            n_clusters=len(self.means_),
            weights=self.weights,
        )

    def aic(self, X: Any) -> float:
        """Return the Akaike information criterion on samples (N, D), ``-2 log L + 2 p``; smaller is better."""
        check_is_fitted(self)
        k, d = self.means_.shape
        return -2 * float(self.score_samples(X).sum()) + 2 * n_parameters(d, k, self.weights)

    def sample(self, n_samples: int = 1) -> tuple[FloatArray, npt.NDArray[np.int64]]:
        """Draw samples from the fitted mixture.

        Parameters
        ----------
        n_samples
            Number of samples N, at least 1.

        Returns
        -------
        X, y
            Samples (N, D) float64, and their clusters (N,) int64, in increasing order.
        """
        check_is_fitted(self)
        check_count("n_samples", n_samples)
        rng = check_random_state(self.random_state)
        counts = rng.multinomial(n_samples, self.weights_ / self.weights_.sum())
        y = np.repeat(np.arange(len(counts)), counts)
        # A t distribution is a normal one whose precision is drawn from a gamma distribution.
        precisions = rng.chisquare(self.dof, size=(n_samples, 1)) / self.dof
        normal = rng.standard_normal((n_samples, self.means_.shape[1])) * np.sqrt(self.scales_[y])
        return self.means_[y] + normal / np.sqrt(precisions), y

    @property
    def covariances_(self) -> FloatArray:
        """Variances of the clusters, (K, D)."""
        if not hasattr(self, "scales_"):
            raise AttributeError("covariances_ exists only after the mixture is fitted.")
        return np.asarray(self.scales_ * (self.dof / (self.dof - 2) if self.dof > 2 else math.inf))

    def _seed(self) -> int:
        generator = check_random_state(self.random_state)
        if isinstance(self.random_state, Integral):
            return int(self.random_state)
        return int(generator.randint(2**31 - 1))

    def _empty(self, n_features: int) -> student_t_mixture.StudentTMixture:
        shape = {name: getattr(self, name) for name in ("dof", "weights", "scale_bounds")}
        return student_t_mixture.StudentTMixture(self.n_components, n_features, **shape)

    def _fitted(self, X: Any) -> tuple[student_t_mixture.StudentTMixture, torch.Tensor]:
        """Return the mixture as it was fitted, and the samples as a tensor."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        fitted = self._empty(self.means_.shape[1])
        for name, values in (("centers", self.means_), ("scales", self.scales_), ("mixing_weights", self.weights_)):
            getattr(fitted, name).copy_(torch.from_numpy(values))
        return fitted, torch.tensor(X)
