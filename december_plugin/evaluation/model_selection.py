"""The number of clusters: criteria that each prefer some number K, or none.

Three criteria use the readout vectors of one model: the held-out log likelihood of the mixture, the Bayesian
information criterion and the silhouette. The fourth is the agreement between seeds
(:mod:`december_plugin.evaluation.agreement`) above its null (:mod:`december_plugin.evaluation.null`).
:func:`select_n_clusters` reads a K off a curve of any of them, and refuses where other K are as good within the error,
or the best are at the edge of what was tried: neither is a choice. :func:`agreed_selection` says whether several agree.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from december_plugin.clustering.methods import POST_HOC, GaussianMixtureSettings
from december_plugin.clustering.result import NO_CLUSTER
from december_plugin.errors import MisfitError, SettingsError, did_you_mean
from december_plugin.validation.checks import check_count

if TYPE_CHECKING:
    from torch import Tensor

N_SPLITS = 5
TEST_SHARE = 1 / 3
SILHOUETTE_NEURONS = 2000  # distances of all pairs: quadratic in the number of neurons
FEWEST_TRIED = 3  # numbers of clusters that a curve needs to have a maximum in its interior
FEWEST_CRITERIA = 2  # that must agree on a number of clusters
LIKELIHOOD_METHODS = tuple(kind for kind, method in POST_HOC.items() if method.has_likelihood)


@dataclass(frozen=True)
class Criterion:
    """A criterion for the number of clusters K, as tables, figures, page and exports call it.

    Attributes
    ----------
    name
        Its name in a column, e.g. that of the K that it selects.
    curve
        Stem of the columns ``_mean`` and ``_sd`` from which it is read.
    title
        Heading of a panel.
    phrase
        Its name in a sentence.
    short
        Heading of a column.
    value
        Label of the axis, including the unit.
    better
        "larger" or "smaller".
    of_one_model
        Whether it is computed from the readout vectors of one model (the table ``ClusterQuality``), so that its scale
        depends on them: it is compared along a curve, never between methods.
    needs_likelihood
        Whether only mixtures have it.
    """

    name: str
    curve: str
    title: str
    phrase: str
    short: str
    value: str
    better: str = "larger"
    of_one_model: bool = True
    needs_likelihood: bool = False

    @property
    def best(self) -> str:
        """Name of the aggregation that gives the best value of a curve: "max" or "min"."""
        return "max" if self.better == "larger" else "min"

    @property
    def direction(self) -> str:
        """What is better, in words."""
        return "more is better" if self.better == "larger" else "less is better"


AGREEMENT = Criterion(
    name="agreement",
    curve="above_null",
    title="Agreement above its null",
    phrase="the agreement above its null",
    short="agreement above its null",
    value="ARI above the null's mean",
    of_one_model=False,
)
HELD_OUT = Criterion(
    name="heldout_log_likelihood",
    curve="heldout_log_likelihood",
    title="Held-out likelihood",
    phrase="the held-out log likelihood",
    short="held-out likelihood",
    value="nat per neuron",
    needs_likelihood=True,
)
BIC = Criterion(
    name="bic",
    curve="bic",
    title="Bayesian information criterion",
    phrase="the BIC",
    short="BIC",
    value="BIC",
    better="smaller",
    needs_likelihood=True,
)
SILHOUETTE = Criterion(
    name="silhouette",
    curve="silhouette",
    title="Silhouette",
    phrase="the silhouette",
    short="silhouette",
    value="mean silhouette",
)
CRITERIA = (AGREEMENT, HELD_OUT, BIC, SILHOUETTE)
OF_ONE_MODEL = tuple(criterion for criterion in CRITERIA if criterion.of_one_model)


@dataclass(frozen=True)
class HeldOut:
    """Log likelihoods of held-out neurons.

    Attributes
    ----------
    mean
        Mean over splits of the mean log likelihood per held-out neuron (nats).
    standard_error
        Standard error of that mean: the standard deviation over splits (divisor n - 1) divided by the square root of
        their number. Splits share neurons, so it is somewhat too small.
    values
        One per split (nats).
    """

    mean: float
    standard_error: float
    values: tuple[float, ...]


def held_out_log_likelihood(
    w: npt.ArrayLike | Tensor,
    *,
    method: str,
    n_clusters: int,
    n_splits: int = N_SPLITS,
    test_share: float = TEST_SHARE,
    n_init: int = 1,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> HeldOut:
    """Fit a mixture to some of the neurons and compute its log likelihood on the others, for several random splits.

    The splits depend on the seed alone, so different K and methods are compared on the same neurons. By default each
    fit starts once, at the best of 20 k-means restarts ("t_mixture") or one of scikit-learn's ("gmm").

    Parameters
    ----------
    w
        Readout vectors (N, D), finite.
    method
        "gmm" or "t_mixture"; k-means has no likelihood.
    n_clusters
        Number of clusters K.
    n_splits
        Random splits, at least 2.
    test_share
        Share of the neurons that are held out, between 0 and 1. The default is that of the rotation paper (2,005 of
        6,005 neurons).
    n_init
        Starts of each fit, of which the most likely counts. A single start may miss a type where K is the number of
        types, and finds it where K is larger, so that the likelihood appears to rise beyond it.
    seed
        Seed of splits and fits, 0 to 2**32 - 1.
    settings
        Settings of the method, see :mod:`december_plugin.clustering.methods`; its ``seed`` and ``n_init`` are ignored.

    Raises
    ------
    SettingsError
        For a method without a likelihood, values that are not allowed, or more clusters than neurons to fit.
    EmbeddingError
        If the vectors are not finite, or fewer than K of a split's differ.

    See Also
    --------
    smallest_within_error : Chooses K where the likelihood reaches its plateau.
    bayesian_information_criterion : A criterion that needs no held-out neurons.

    References
    ----------
    Ustyuzhaninov I, Cadena SA, Froudarakis E, Fahey PG, Walker EY, Cobos E, Reimer J, Sinz FH, Tolias AS, Bethge M,
    Ecker AS (2020). Rotation-invariant clustering of neuronal responses in primary visual cortex. *ICLR*.
    https://iclr.cc/virtual/2020/poster/1570

    Examples
    --------
    >>> import numpy as np
    >>> from december_plugin.evaluation import held_out_log_likelihood
    >>> rng = np.random.default_rng(0)
    >>> readouts = np.concatenate([rng.normal(size=(60, 3)), rng.normal(size=(60, 3)) + 6])
    >>> one, two = (held_out_log_likelihood(readouts, method="t_mixture", n_clusters=k, n_splits=3) for k in (1, 2))
    >>> two.mean > one.mean + 1
    True
    """
    import torch

    from december_plugin.clustering.distances import as_vectors
    from december_plugin.clustering.kmeans import spawn_seeds

    if method not in LIKELIHOOD_METHODS:
        raise SettingsError(
            f"{method!r} has no likelihood. {did_you_mean(str(method), LIKELIHOOD_METHODS)}", setting="method"
        )
    vectors = as_vectors(w if isinstance(w, torch.Tensor) else np.asarray(w)).detach().double().cpu()
    if check_count("n_splits", n_splits) < 2:
        raise SettingsError("n_splits is 1, but must be at least 2.", setting="n_splits")
    if not 0 < test_share < 1:
        raise SettingsError(f"test_share is {test_share!r}, but must be between 0 and 1.", setting="test_share")
    used = {**POST_HOC[method].defaults, **(settings or {}), "n_init": check_count("n_init", n_init)}
    n = len(vectors)
    n_test = max(1, round(n * test_share))
    if check_count("n_clusters", n_clusters) > n - n_test:
        raise MisfitError(
            f"n_clusters is {n_clusters}, but a split leaves only {n - n_test} of {n} neurons to fit. Choose fewer "
            "clusters or a smaller test_share.",
            setting="n_clusters",
            others=["test_share"],
        )
    values = []
    for split_seed in spawn_seeds(seed, n_splits):
        order = torch.from_numpy(np.random.default_rng(split_seed).permutation(n))
        values.append(_score(vectors[order[n_test:]], vectors[order[:n_test]], method, n_clusters, used, split_seed))
    return HeldOut(
        float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(n_splits)), tuple(float(v) for v in values)
    )


def _score(train: Tensor, test: Tensor, method: str, n_clusters: int, settings: Mapping[str, Any], seed: int) -> float:
    from sklearn.exceptions import ConvergenceWarning

    from december_plugin.clustering.lean_sklearn import lean_sklearn

    with warnings.catch_warnings(), lean_sklearn():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return _SCORES[method](train, test, n_clusters, settings, seed)


def _score_gmm(train: Tensor, test: Tensor, n_clusters: int, settings: Mapping[str, Any], seed: int) -> float:
    from sklearn.mixture import GaussianMixture

    gaussian = GaussianMixture(
        n_clusters,
        covariance_type=GaussianMixtureSettings(covariance=settings["covariance"]).covariance_type,
        reg_covar=settings["reg_covar"],
        n_init=settings["n_init"],
        max_iter=settings["max_iter"],
        tol=settings["tol"],
        random_state=seed,
    )
    return float(gaussian.fit(train.numpy()).score(test.numpy()))


def _score_t_mixture(train: Tensor, test: Tensor, n_clusters: int, settings: Mapping[str, Any], seed: int) -> float:
    from december_plugin.clustering.student_t_mixture import StudentTMixture

    shape = {name: settings[name] for name in ("dof", "weights", "scale_bounds")}
    mixture = StudentTMixture(n_clusters, train.shape[1], **shape)
    mixture.fit(train, seed=seed, **{name: settings[name] for name in ("n_init", "max_iter", "tol")})
    return mixture.score(test)


_SCORES = {"gmm": _score_gmm, "t_mixture": _score_t_mixture}


def bayesian_information_criterion(
    log_likelihood: float,
    *,
    n_neurons: int,
    n_features: int,
    n_clusters: int,
    weights: str,
    covariance: str = "diagonal",
) -> float:
    """Return the Bayesian information criterion of a mixture (Schwarz 1978); smaller is better.

    ``-2 N L + p log N`` with the mean log likelihood ``L`` per neuron (nats) and ``p`` parameters, see
    :func:`n_parameters`. The degrees of freedom of a t mixture are given, not fitted.

    Parameters
    ----------
    log_likelihood
        Mean log likelihood per neuron of the fitted neurons (nats).
    n_neurons, n_features, n_clusters
        Numbers of neurons N, features D and clusters K.
    weights
        "uniform" or "learned".
    covariance
        "diagonal" or "spherical".

    See Also
    --------
    held_out_log_likelihood : A criterion that does not count parameters.
    december_plugin.clustering.StudentTMixture : The mixture, with its log likelihood.

    References
    ----------
    Schwarz G (1978). Estimating the dimension of a model. *Annals of Statistics* 6, 461-464.
    https://doi.org/10.1214/aos/1176344136

    Examples
    --------
    >>> import numpy as np
    >>> from december_plugin.clustering import cluster_readouts
    >>> from december_plugin.evaluation import bayesian_information_criterion
    >>> rng = np.random.default_rng(0)
    >>> readouts = np.concatenate([rng.normal(size=(60, 3)), rng.normal(size=(60, 3)) + 6])
    >>> def criterion(n_clusters):
    ...     found = cluster_readouts(readouts, method="t_mixture", n_clusters=n_clusters)
    ...     sizes = {"n_neurons": 120, "n_features": 3, "n_clusters": n_clusters, "weights": "uniform"}
    ...     return bayesian_information_criterion(found.log_likelihood, **sizes)
    >>> min((1, 2, 3), key=criterion)
    2
    """
    fitted = n_parameters(n_features, n_clusters, weights, covariance)
    return -2 * n_neurons * log_likelihood + fitted * math.log(n_neurons)


def n_parameters(n_features: int, n_clusters: int, weights: str, covariance: str = "diagonal") -> int:
    """Return the number of a mixture's parameters: ``K D`` centres, scales, and ``K - 1`` learned weights.

    There are ``K D`` scales, or ``K`` where covariances are spherical.
    """
    scales = n_clusters * (n_features if covariance == "diagonal" else 1)
    return n_clusters * n_features + scales + (n_clusters - 1 if weights == "learned" else 0)


def silhouette(
    w: npt.ArrayLike | Tensor, labels: npt.ArrayLike, *, most_neurons: int = SILHOUETTE_NEURONS, seed: int = 0
) -> float:
    """Return the mean silhouette (Rousseeuw 1987), -1 to 1, in Euclidean distances between readout vectors.

    Parameters
    ----------
    w
        Readout vectors (N, D).
    labels
        Clusters (N,); -1 for a neuron without one, which is left out.
    most_neurons
        If there are more neurons, this many are drawn, the same for every K and method.
    seed
        Seed of that draw.

    Returns
    -------
    float
        NaN if there are fewer than 2 clusters, or if every neuron has its own.
    """
    from sklearn.metrics import silhouette_score

    vectors, clusters = np.asarray(w, dtype=np.float64), np.asarray(labels)
    if (clusters == NO_CLUSTER).any():
        vectors, clusters = vectors[clusters != NO_CLUSTER], clusters[clusters != NO_CLUSTER]
    if len(vectors) > check_count("most_neurons", most_neurons):
        chosen = np.random.default_rng(seed).choice(len(vectors), most_neurons, replace=False)
        vectors, clusters = vectors[chosen], clusters[chosen]
    if not 2 <= len(np.unique(clusters)) < len(clusters):
        return math.nan
    return float(silhouette_score(vectors, clusters))


@dataclass(frozen=True)
class ClusterQuality:
    """The criteria for the number of clusters of one model; NaN where a clustering has none.

    Attributes
    ----------
    heldout_log_likelihood, heldout_log_likelihood_se
        Mean over splits, and its standard error (nats per held-out neuron).
    n_splits
        Number of splits, 0 without a likelihood.
    bic
        Bayesian information criterion of the fit.
    silhouette
        Mean silhouette, -1 to 1.
    """

    heldout_log_likelihood: float
    heldout_log_likelihood_se: float
    n_splits: int
    bic: float
    silhouette: float


def cluster_quality(
    vectors: npt.NDArray[Any],
    labels: npt.ArrayLike,
    *,
    method: str,
    n_clusters: int,
    settings: Mapping[str, Any],
    log_likelihood: float | None,
) -> ClusterQuality:
    """Return the criteria for the number of clusters of one clustering.

    Parameters
    ----------
    vectors
        The vectors that were clustered, (N, D).
    labels
        The clusters (N,).
    method, n_clusters, settings
        The method, one of :data:`~december_plugin.clustering.methods.POST_HOC`; K; and the settings of the fits to a
        part of the neurons.
    log_likelihood
        Mean log likelihood per neuron of the fit (nats), None if the method has none.
    """
    held_out, n_splits = HeldOut(math.nan, math.nan, ()), 0
    n_train = len(vectors) - max(1, round(len(vectors) * TEST_SHARE))
    if method in LIKELIHOOD_METHODS and n_clusters <= n_train:
        held_out = held_out_log_likelihood(vectors, method=method, n_clusters=n_clusters, settings=settings)
        n_splits = N_SPLITS
    bic = math.nan
    if log_likelihood is not None and math.isfinite(log_likelihood):
        bic = bayesian_information_criterion(
            float(log_likelihood),
            n_neurons=len(vectors),
            n_features=vectors.shape[1],
            n_clusters=n_clusters,
            weights="learned" if method == "gmm" else str(settings.get("weights", "uniform")),
            covariance=str(settings.get("covariance", "diagonal")),
        )
    return ClusterQuality(held_out.mean, held_out.standard_error, n_splits, bic, silhouette(vectors, labels))


@dataclass(frozen=True)
class Selection:
    """What a criterion says about K.

    Attributes
    ----------
    n_clusters
        The K it selects: the best one, if no other is as good within the error. None if it selects none.
    as_good
        The K, in order, that are as good as the best one within the error.
    why_not
        Why it selects no K, in words; "" if it selects one.
    is_inside
        Whether the K that are as good reach neither the smallest nor the largest K that was tried, so that the
        criterion narrows K down to one or to a range.
    """

    n_clusters: int | None
    as_good: tuple[int, ...]
    why_not: str = ""
    is_inside: bool = False


def select_n_clusters(
    tried: Sequence[int], values: Sequence[float], errors: Sequence[float], *, better: str = "larger"
) -> Selection:
    """Return the K that a curve selects, if any.

    Parameters
    ----------
    tried
        Numbers of clusters K.
    values
        The criterion at each; NaN if it is not known.
    errors
        Its uncertainty, e.g. one standard error. The error at the best K counts; NaN counts as 0.
    better
        "larger" or "smaller".

    Returns
    -------
    Selection
        A K is selected if it is the only one within the error of the best. Otherwise none is, and ``as_good`` is the
        range that cannot be distinguished. No K is selected, either, if fewer than three K are known, or if the K
        within the error of the best reach the smallest or largest K that was tried: the curve then still rises there,
        or is flat.
    """
    if better not in ("larger", "smaller"):
        raise SettingsError(f"better is {better!r}; it must be 'larger' or 'smaller'.", setting="better")
    sign = 1.0 if better == "larger" else -1.0
    known = sorted((int(k), sign * v, e) for k, v, e in zip(tried, values, errors, strict=True) if math.isfinite(v))
    if not known:
        return Selection(None, (), "is not computed")
    if len(known) < FEWEST_TRIED:
        return Selection(None, (), f"is computed for {len(known)} numbers of clusters, and needs {FEWEST_TRIED}")
    best = max(known, key=lambda entry: (entry[1], -entry[0]))
    error = best[2] if math.isfinite(best[2]) else 0.0
    as_good = tuple(k for k, value, _ in known if value >= best[1] - error)
    low, high = known[0][0], known[-1][0]
    for edge, which in ((low, "smallest"), (high, "largest")):
        if best[0] == edge:
            return Selection(None, as_good, f"is best at the {which} K that was tried, {edge}")
    if low in as_good or high in as_good:
        return Selection(
            None, as_good, f"cannot distinguish K = {format_range(as_good)}, up to the edge of what was tried"
        )
    if len(as_good) > 1:
        return Selection(None, as_good, f"cannot distinguish K = {format_range(as_good)}", is_inside=True)
    return Selection(best[0], as_good, is_inside=True)


def smallest_within_error(tried: Sequence[int], values: Sequence[float], errors: Sequence[float]) -> int | None:
    """Return the smallest K whose value is within the error of the largest one; None if no value is known.

    For a likelihood that rises to a plateau, where no K is best, this is where the plateau begins (the choice made for
    Ustyuzhaninov et al. 2020, section 5.2). Unlike :func:`select_n_clusters` it always gives an answer.

    Parameters
    ----------
    tried
        Numbers of clusters K.
    values
        The criterion at each, larger is better, e.g. the mean of :func:`held_out_log_likelihood`; NaN where it is not
        known.
    errors
        Its uncertainty, one standard error. The error at the best K counts; NaN counts as 0.

    See Also
    --------
    held_out_log_likelihood : The criterion whose plateau it finds.

    References
    ----------
    Ustyuzhaninov I, Cadena SA, Froudarakis E, Fahey PG, Walker EY, Cobos E, Reimer J, Sinz FH, Tolias AS, Bethge M,
    Ecker AS (2020). Rotation-invariant clustering of neuronal responses in primary visual cortex. *ICLR*.
    https://iclr.cc/virtual/2020/poster/1570

    Examples
    --------
    >>> from december_plugin.evaluation import smallest_within_error
    >>> smallest_within_error([5, 10, 15, 20], values=[-9.0, -7.2, -7.1, -7.0], errors=[0.3, 0.3, 0.3, 0.3])
    10
    """
    known = [(v, -int(k), e) for k, v, e in zip(tried, values, errors, strict=True) if math.isfinite(v)]
    if not known:
        return None
    best, _, error = max(known)
    least = best - error if math.isfinite(error) else best
    return min(-negative for value, negative, _ in known if value >= least)


def format_range(as_good: Sequence[int]) -> str:
    """Return a range of K in words: "5" or "3 to 8"."""
    return f"{as_good[0]}" if as_good[0] == as_good[-1] else f"{as_good[0]} to {as_good[-1]}"


def format_n_clusters(n_clusters: float, low: float, high: float) -> str:
    """Return a number of clusters with its uncertainty in words: "K = 5" or "K = 5 (4 to 6)"."""
    return f"K = {n_clusters:g}" if low == high else f"K = {n_clusters:g} ({low:g} to {high:g})"


@dataclass(frozen=True)
class AgreedSelection:
    """A number of clusters that criteria agree on.

    Attributes
    ----------
    n_clusters
        The K that most of them include.
    low, high
        Its uncertainty: the smallest and the largest K that one of them cannot exclude.
    criteria
        Their names.
    """

    n_clusters: int
    low: int
    high: int
    criteria: tuple[str, ...]


def agreed_selection(selections: Mapping[str, Selection], tried: Sequence[int]) -> AgreedSelection | None:
    """Return the K that at least two criteria agree on, and more than half of those that narrow K down; or None.

    A criterion narrows K down if it selects one, or if the K that it cannot distinguish are fewer than half of those
    that were tried, consecutive and in the interior of their range. A wider range is compatible with nearly everything,
    and two peaks with a gap between them are two answers: neither counts as a vote.

    Parameters
    ----------
    selections
        The result of each criterion, by its name.
    tried
        The K that were tried.
    """
    tried = sorted(set(tried))
    covered: dict[str, list[int]] = {}
    for name, selection in selections.items():
        if selection.is_inside:
            within = [k for k in tried if selection.as_good[0] <= k <= selection.as_good[-1]]
            if 2 * len(within) < len(tried) and set(within) == set(selection.as_good):
                covered[name] = within
    votes = {k: [name for name, within in covered.items() if k in within] for k in tried}
    # Of several K that equally many include, the one that more of them selected alone; then the smallest.
    n_clusters = max(
        tried, key=lambda k: (len(votes[k]), sum(selections[name].n_clusters == k for name in votes[k]), -k)
    )
    names = votes[n_clusters]
    if len(names) < FEWEST_CRITERIA or 2 * len(names) <= len(covered):
        return None
    everything = [k for name in names for k in covered[name]]
    return AgreedSelection(n_clusters, min(everything), max(everything), tuple(names))
