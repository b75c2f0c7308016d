"""Readout vectors without clusters, and the agreement between seeds that they give: the null of adjusted Rand indices.

Readouts of different seeds agree on clusters even if there are none: a neuron that is far out on the first principal
component in one seed is so in the others, and any clustering cuts that axis somewhere. Surrogates show how much
agreement this gives: vectors with the real ones' marginals, mean and covariance, within and across seeds, drawn for all
seeds of a configuration at once, but without clusters.

A draw starts from normal directions with the real directions' mean and covariance across all channels of all seeds. In
the method ``"elliptical"`` each row then gets the sizes (norms in every seed) of a randomly chosen real neuron, so that
neurons that are unreliable in all seeds, or strong in all, stay so: a continuum with heavy tails. ``"gaussian"`` omits
this step.

``"planar"`` starts from the whole cloud instead, in planes of two principal axes each, the widest two first: in every
plane each surrogate neuron has the distance from the centre of a randomly chosen real neuron, and a random angle. A
ring stays a ring, and a normal cloud stays normal; sizes are lost. ``"axial"`` does the same along each principal axis
separately, with a random sign, and preserves a cloud whose axes are sparse. ``"combined"`` draws a set of surrogates of
each of these three kinds every time and keeps the one whose seeds agree best, so that agreement must exceed what any of
these continua gives.

Surrogates have clusters, too, because any clustering finds some; but they lack deep valleys, with few neurons, between
them (:mod:`december_plugin.evaluation.valleys`). So valleys are compared as well as the agreement: seeds may agree on
parts of a continuum because of its shape, but the valleys between such parts are shallow, whatever the shape, unless
the continuum is dense in some places and sparse between them.

Two steps alternate from a start, as in the iterated surrogates of time series (IAAFT, Schreiber and Schmitz,
Physical Review Letters 77, 1996): the covariance is imposed by the nearest linear map, and the marginals by ranks.

What is preserved: the values of every channel, as a set, and with them its mean, variance and tails, exactly. The
correlations between channels, within a seed and across seeds, approximately; :attr:`Draw.correlation_error` says how
well. Nothing else: no clusters, and no shapes other than those above. A continuum of another shape can beat the null.
If all vectors of a seed have length 1, as in the spaces of directions, so do the surrogates', and the values of the
channels are then only close to the real ones.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from december_plugin.clustering.result import NO_CLUSTER
from december_plugin.errors import EmbeddingError, NoClustersError, SettingsError, did_you_mean
from december_plugin.evaluation.agreement import compare_partitions
from december_plugin.evaluation.valleys import valleys_between
from december_plugin.text.array_repr import ArrayRepr
from december_plugin.validation.checks import check_count, check_seed

SurrogateMethod = Literal["elliptical", "gaussian", "planar", "axial", "combined"]
SURROGATE_METHODS: tuple[str, ...] = get_args(SurrogateMethod)
# Methods that combine several kinds of draws, of which the best counts; every other method is one kind.
COMBINED = {"combined": ("elliptical", "planar", "axial")}
KINDS = tuple(method for method in SURROGATE_METHODS if method not in COMBINED)
DEFAULT_DRAWS = 20
MAX_ROUNDS = 30
ENOUGH = 0.02  # a round that lowers the error of the correlations by less than this share of it is the last
ON_SPHERE = 1e-5  # deviation of lengths from 1 that is rounding
ACCURATE = 0.2  # enough, too, is this share of the error that correlations of N neurons have by chance, 1 / sqrt(N)
BAND = (2.5, 97.5)  # percentiles

FloatArray = npt.NDArray[np.float64]
Clusterer = Callable[[FloatArray, int], npt.NDArray[np.int64]]
Embedder = Callable[[FloatArray, int], FloatArray]


@dataclass(frozen=True, eq=False, repr=False)
class Draw(ArrayRepr):
    """Surrogate readout vectors of all seeds.

    Attributes
    ----------
    readouts
        For every seed, (N, D) float64; row ``i`` is the same surrogate neuron in all seeds.
    correlation_error
        Root mean square difference between the correlations of the surrogates' channels and the real ones', over all
        pairs of channels, within and across seeds (dimensionless).
    largest_correlation_error
        The largest of these differences.
    """

    readouts: list[FloatArray]
    correlation_error: float
    largest_correlation_error: float


class SurrogateReadouts:
    """Draws surrogates of the readout vectors that several seeds have of the same neurons.

    Parameters
    ----------
    readouts
        For every seed the readout vectors (N, D), of the same neurons in the same order; D may differ.
    method
        "elliptical", "gaussian", "planar" or "axial", see above.
    seed
        Seed of the draws, 0 to 2**32 - 1.

    Raises
    ------
    SettingsError
        If there are no readouts, or for an unknown method.
    EmbeddingError
        If the vectors are not finite, are not matrices of the same number of rows, or there are fewer than 3 neurons.
    """

    def __init__(self, readouts: Sequence[npt.ArrayLike], *, method: str = "elliptical", seed: int = 0) -> None:
        if method not in KINDS:
            raise SettingsError(
                f"method is {method!r}, which is unknown. {did_you_mean(str(method), KINDS)}",
                setting="method",
            )
        matrices = _checked(readouts)
        self.method, self.seed = method, check_seed("seed", seed)
        self.widths = [matrix.shape[1] for matrix in matrices]
        stacked = np.concatenate(matrices, axis=1).T  # (P, N), P channels of all seeds
        self.n_neurons = stacked.shape[1]
        self.values = np.sort(stacked, axis=1)
        means = stacked.mean(axis=1, keepdims=True)
        spread = stacked.std(axis=1, keepdims=True)
        # A constant channel does not change; its mean may be off by rounding.
        self.varies = (self.values[:, 0] < self.values[:, -1]) & (spread[:, 0] > 0)
        self._means, self._spread = means[self.varies], spread[self.varies]
        self._targets = (self.values[self.varies] - self._means) / self._spread
        centered = (stacked[self.varies] - self._means) / self._spread
        self.correlations = centered @ centered.T / self.n_neurons
        self._axes, self._lengths = _principal(self.correlations, self.n_neurons)
        self._scores = self._axes.T @ centered / self._lengths[:, None]
        self.on_sphere = [_on_sphere(matrix) for matrix in matrices]
        self._directions, self._sizes = self._decomposed(stacked)
        self._direction_mean = self._directions.mean(axis=1, keepdims=True)
        deviations = self._directions - self._direction_mean
        self._direction_axes, self._direction_lengths = _principal(
            deviations @ deviations.T / self.n_neurons, self.n_neurons
        )

    def draw(self, number: int) -> Draw:
        """Return the surrogates with this number; the same number always gives the same ones."""
        rng = np.random.default_rng([self.seed, check_count("number", number + 1)])
        current, error = self._start(rng), math.inf
        best = current
        for _ in range(MAX_ROUNDS):
            current = _with_values(self._colored(current), self._targets)
            now = self._errors(current)[0]
            if now < error:
                best = current
            if now > (1 - ENOUGH) * error or now < ACCURATE / math.sqrt(self.n_neurons):
                break
            error = now
        readouts = self._split(best)
        if any(self.on_sphere):
            readouts = [_unit(own) if unit else own for own, unit in zip(readouts, self.on_sphere, strict=True)]
            best = self._standardised(np.concatenate(readouts, axis=1).T[self.varies])
        return Draw(readouts, *self._errors(best))

    def _decomposed(self, stacked: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return directions (V, N) of the channels that vary, of unit length in every seed, and sizes (S, N).

        Lengths are taken about the origin, to which the readout of an unreliable neuron shrinks, each channel in units
        of its root mean square.
        """
        scale = np.sqrt(np.mean(stacked**2, axis=1, keepdims=True))
        scaled = np.divide(stacked, scale, out=np.zeros_like(stacked), where=scale > 0)
        scaled = np.where(self.varies[:, None], scaled, 0.0)
        sizes = []
        for rows in self._blocks():
            length = np.sqrt((scaled[rows] ** 2).sum(axis=0))
            scaled[rows] = np.divide(scaled[rows], length, out=np.zeros_like(scaled[rows]), where=length > 0)
            sizes.append(length)
        return scaled[self.varies], np.stack(sizes)

    def _start(self, rng: np.random.Generator) -> FloatArray:
        if self.method == "gaussian":
            noise = rng.standard_normal((len(self._lengths), self.n_neurons))
            return (self._axes * self._lengths) @ noise
        if self.method == "planar":
            return (self._axes * self._lengths) @ _turned(self._scores, rng)
        if self.method == "axial":
            return (self._axes * self._lengths) @ _mirrored(self._scores, rng)
        noise = rng.standard_normal((len(self._direction_lengths), self.n_neurons))
        drawn = np.zeros((len(self.varies), self.n_neurons))
        drawn[self.varies] = self._direction_mean + (self._direction_axes * self._direction_lengths) @ noise
        sizes = self._sizes[:, rng.permutation(self.n_neurons)]
        for rows, size in zip(self._blocks(), sizes, strict=True):
            length = np.sqrt((drawn[rows] ** 2).sum(axis=0))
            drawn[rows] *= np.divide(size, length, out=np.zeros_like(size), where=length > 0)
        return drawn[self.varies]

    def _blocks(self) -> list[slice]:
        stops = list(itertools.accumulate(self.widths))
        return [slice(stop - width, stop) for stop, width in zip(stops, self.widths, strict=True)]

    def _colored(self, current: FloatArray) -> FloatArray:
        """Return the matrix nearest to ``current`` (V, N) whose covariance is exactly that of the real readouts.

        The orthogonal Procrustes problem (Schönemann 1966): with principal axes ``A`` (V, r) and standard deviations
        ``s`` along them it is ``A s U sqrt(N)``, where ``U`` (r, N) is the polar factor of ``s A' current``.
        """
        if not len(self._lengths):
            return current
        axes = self._axes * self._lengths
        scores = axes.T @ (current - current.mean(axis=1, keepdims=True))
        values, vectors = np.linalg.eigh(scores @ scores.T)
        # Axes with almost no variance keep almost none, rather than scaled-up rounding errors.
        inverse_root = (vectors / np.sqrt(np.maximum(values, 1e-13 * values[-1]))) @ vectors.T
        return np.asarray((axes @ inverse_root) @ scores * math.sqrt(self.n_neurons))

    def _errors(self, current: FloatArray) -> tuple[float, float]:
        """Return root mean square and largest error of the correlations of ``current``, which has the right values."""
        if len(current) < 2:
            return 0.0, 0.0
        errors = (current @ current.T / self.n_neurons - self.correlations)[np.triu_indices(len(current), 1)]
        return float(np.sqrt(np.mean(errors**2))), float(np.abs(errors).max())

    @staticmethod
    def _standardised(rows: FloatArray) -> FloatArray:
        centered = rows - rows.mean(axis=1, keepdims=True)
        spread = centered.std(axis=1, keepdims=True)
        return np.divide(centered, spread, out=np.zeros_like(centered), where=spread > 0)

    def _split(self, standardised: FloatArray) -> list[FloatArray]:
        full = self.values.copy()
        # The real values themselves, not the result of scaling them back and forth.
        full[self.varies] = _with_values(standardised, self.values[self.varies])
        return [np.ascontiguousarray(full[rows].T) for rows in self._blocks()]


@dataclass(frozen=True, eq=False, repr=False)
class NullAgreement(ArrayRepr):
    """Agreement between seeds on surrogates.

    Attributes
    ----------
    agreements
        Adjusted Rand index, (draws, pairs); pairs of seeds in the order of ``itertools.combinations``.
    correlation_error, largest_correlation_error
        Means over draws, see :class:`Draw`.
    valleys
        Between the clusters of every seed, (draws, seeds), see
        :func:`~december_plugin.evaluation.valleys.valleys_between`.
    """

    agreements: FloatArray
    correlation_error: float
    largest_correlation_error: float
    valleys: FloatArray


def null_agreement(
    readouts: Sequence[npt.ArrayLike],
    cluster: Clusterer | Sequence[Clusterer],
    *,
    n_draws: int,
    method: str = "elliptical",
    seed: int = 0,
    embed: Embedder | None = None,
) -> NullAgreement:
    """Cluster surrogates of every seed as the real readouts were clustered, and return how the seeds agree.

    Parameters
    ----------
    readouts
        For every seed the readout vectors (N, D) of the same neurons.
    cluster
        Returns the clusters (N,) of vectors (N, D) of the seed at a position: one function for all, or one for each
        seed. It should be the method that found the real clusters, with the same settings. Neurons without a cluster
        are -1, and not compared; if it raises a NoClustersError, none has one, and the agreement is 0.
    n_draws
        Number of surrogates of all seeds, at least 1; of each kind, where there are several.
    method
        As for :class:`SurrogateReadouts`, or "combined", which takes three times as long.
    seed
        Seed of the draws.
    embed
        Converts surrogates (N, D) of the seed at a position into the vectors that are clustered, and between which
        valleys are sought, just as the real readouts were converted; None: surrogates are clustered as they are.

    Raises
    ------
    SettingsError
        If there are fewer than two seeds, or a setting is not allowed.
    EmbeddingError
        As :class:`SurrogateReadouts`.

    See Also
    --------
    agreement_across_seeds : The agreement to compare with.
    december_plugin.answer.study_readouts : Clusters models and draws the null in one call.
    december_plugin.results.null_table : The null of models in the database.
    december_plugin.plots.null_figure : Draws it.

    References
    ----------
    Schreiber T, Schmitz A (1996). Improved surrogate data for nonlinearity tests. *Physical Review Letters* 77,
    635-638. https://doi.org/10.1103/PhysRevLett.77.635

    Phipson B, Smyth GK (2010). Permutation p-values should never be zero: calculating exact p-values when permutations
    are randomly drawn. *Statistical Applications in Genetics and Molecular Biology* 9, 39.
    https://doi.org/10.2202/1544-6115.1585

    Examples
    --------
    Two noisy copies of neurons in two groups agree better than their surrogates, which have no groups:

    >>> import numpy as np
    >>> from december_plugin import cluster_readouts, compare_partitions
    >>> from december_plugin.evaluation import null_agreement
    >>> rng = np.random.default_rng(0)
    >>> neurons = np.concatenate([rng.normal(size=(50, 3)), rng.normal(size=(50, 3)) + 6])
    >>> seeds = [neurons + rng.normal(size=neurons.shape) for _ in range(2)]
    >>> def cluster(vectors, at):
    ...     return cluster_readouts(vectors, method="kmeans", n_clusters=2).labels
    >>> found = compare_partitions(cluster(seeds[0], 0), cluster(seeds[1], 1)).adjusted_rand_index
    >>> null = null_agreement(seeds, cluster, n_draws=9)
    >>> null.agreements.shape, bool(found > null.agreements.max())
    ((9, 1), True)
    """
    if len(readouts) < 2:
        raise SettingsError(f"agreement between seeds needs at least two seeds; there is {len(readouts)}.")
    check_count("n_draws", n_draws)
    kinds = surrogates_of(readouts, method=method, seed=seed)
    found = [
        clustered_draws([surrogates.draw(number) for surrogates in kinds], cluster, embed) for number in range(n_draws)
    ]
    return NullAgreement(
        np.array([each.agreements for each in found]),
        float(np.mean([each.draw.correlation_error for each in found])),
        float(np.mean([each.draw.largest_correlation_error for each in found])),
        np.array([each.valleys for each in found]),
    )


def surrogates_of(
    readouts: Sequence[npt.ArrayLike], *, method: str = "elliptical", seed: int = 0
) -> list[SurrogateReadouts]:
    """Return the sources of a method's surrogates, one for every kind that it combines; errors as for that class."""
    return [SurrogateReadouts(readouts, method=kind, seed=seed) for kind in COMBINED.get(method, (method,))]


@dataclass(frozen=True, eq=False, repr=False)
class ClusteredDraw(ArrayRepr):
    """What the clusters of a surrogate of all seeds show.

    Attributes
    ----------
    agreements
        Adjusted Rand index of every pair of seeds, (pairs,), of the kind of surrogates on which they agree most.
    draw
        The surrogates of that kind.
    valleys
        Between the clusters of every seed, (S,), of the kind with the most distinct ones.
    """

    agreements: FloatArray
    draw: Draw
    valleys: FloatArray


def clustered_draws(
    draws: Sequence[Draw], cluster: Clusterer | Sequence[Clusterer], embed: Embedder | None = None
) -> ClusteredDraw:
    """Cluster the surrogates of one number, and return how the seeds agree on them, and how distinct clusters are.

    Parameters
    ----------
    draws
        One of each kind that :func:`surrogates_of` returned.
    cluster, embed
        As for :func:`null_agreement`.
    """
    clusterers = [cluster] * len(draws[0].readouts) if callable(cluster) else list(cluster)
    vectors = [draw.readouts if embed is None else [*map(embed, draw.readouts, itertools.count())] for draw in draws]
    labels = [_labels(own, clusterers) for own in vectors]
    agreements = [agreements_of(own) for own in labels]
    best = int(np.argmax([own.mean() for own in agreements]))
    valleys = [valleys_between(drawn, own) for drawn, own in zip(vectors, labels, strict=True)]
    return ClusteredDraw(agreements[best], draws[best], max(valleys, key=lambda own: float(own.mean())))


def _clustered(cluster: Clusterer, vectors: FloatArray, at: int) -> npt.NDArray[np.int64]:
    try:
        return cluster(vectors, at)
    except NoClustersError:  # of a surrogate: no cluster with which another seed could agree
        return np.full(len(vectors), NO_CLUSTER, dtype=np.int64)


def _labels(readouts: Sequence[FloatArray], clusterers: Sequence[Clusterer]) -> list[npt.NDArray[np.int64]]:
    drawn = zip(clusterers, readouts, strict=True)
    return [_clustered(own, vectors, at) for at, (own, vectors) in enumerate(drawn)]


def agreements_of(labels: Sequence[npt.NDArray[np.int64]]) -> FloatArray:
    """Return the adjusted Rand index of every pair of seeds, (pairs,), over the neurons that have a cluster in both."""
    pairs = itertools.combinations(labels, 2)
    return np.array([compare_partitions(a, b, no_cluster=NO_CLUSTER).adjusted_rand_index for a, b in pairs])


@dataclass(frozen=True)
class NullBand:
    """A number against its null: mean, standard deviation (divisor n - 1) and band of the draws, and a p value."""

    mean: float
    sd: float
    low: float
    high: float
    p_value: float


def null_band(draws: npt.ArrayLike, observed: float) -> NullBand:
    """Compare an observed value with draws from its null.

    Parameters
    ----------
    draws
        Values under the null, (draws,), at least one.
    observed
        The observed value; NaN gives a p value of NaN.

    Returns
    -------
    NullBand
        The band is between the 2.5 and 97.5 % quantiles. The p value, one-sided, is
        ``(1 + number of draws >= observed) / (1 + draws)`` (Phipson and Smyth 2010), so never 0.
    """
    values = np.asarray(draws, dtype=np.float64)
    low, high = np.percentile(values, BAND)
    as_large = int((values >= observed).sum())
    return NullBand(
        mean=float(values.mean()),
        sd=float(values.std(ddof=1)) if len(values) > 1 else math.nan,
        low=float(low),
        high=float(high),
        p_value=math.nan if math.isnan(observed) else (1 + as_large) / (1 + len(values)),
    )


def _checked(readouts: Sequence[npt.ArrayLike]) -> list[FloatArray]:
    if not len(readouts):
        raise SettingsError("there are no readouts to draw surrogates of; give those of at least one seed.")
    matrices = [np.asarray(each, dtype=np.float64) for each in readouts]
    shapes = [matrix.shape for matrix in matrices]
    if any(len(shape) != 2 or not shape[1] for shape in shapes) or len({shape[0] for shape in shapes}) != 1:
        raise EmbeddingError(
            f"the readouts have the shapes {', '.join(map(str, shapes))}; all must be (neurons, channels), of the "
            "same neurons."
        )
    if shapes[0][0] < 3:
        raise EmbeddingError(f"surrogates need at least 3 neurons; there are {shapes[0][0]}.")
    for at, matrix in enumerate(matrices):
        if not np.isfinite(matrix).all():
            raise EmbeddingError(f"the readouts of seed {at + 1} of {len(matrices)} hold NaN or infinite values.")
    return matrices


def _principal(covariance: FloatArray, n_neurons: int) -> tuple[FloatArray, FloatArray]:
    """Return the principal axes (P, r) of a covariance and the standard deviations along them (r,), r its rank."""
    values, vectors = np.linalg.eigh(covariance)
    rank = min(len(values), n_neurons - 1)  # more channels than neurons leave directions without variance
    kept = np.arange(len(values)) >= len(values) - rank
    kept &= values > 1e-10 * max(values[-1], 0.0) if len(values) else kept
    return vectors[:, kept], np.sqrt(values[kept])


def _with_values(current: FloatArray, values: FloatArray) -> FloatArray:
    """Return the sorted ``values`` (V, N) in the order of the ranks of ``current`` (V, N), channel by channel."""
    placed = np.empty_like(values)
    np.put_along_axis(placed, np.argsort(current, axis=1), values, axis=1)
    return placed


def _turned(scores: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return ``scores`` (r, N), axes ascending in width, with random angles in the planes of two axes, widest first.

    Each plane has the radii of its own neurons in another order. With an odd rank the remaining axis is mirrored.
    """
    widest_first = scores[::-1]
    paired = len(scores) // 2 * 2
    radii = rng.permuted(np.hypot(widest_first[:paired:2], widest_first[1:paired:2]), axis=1)
    angles = rng.uniform(0, 2 * np.pi, size=radii.shape)
    turned = _mirrored(widest_first, rng)
    turned[:paired:2], turned[1:paired:2] = radii * np.cos(angles), radii * np.sin(angles)
    return turned[::-1]


def _mirrored(scores: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return ``scores`` (r, N) with random signs, each axis in its own order."""
    return np.asarray(rng.permuted(np.abs(scores), axis=1) * rng.choice([-1.0, 1.0], size=scores.shape))


def _on_sphere(matrix: FloatArray) -> bool:
    """Whether all vectors have length 1, except for vectors of zeros, which have no direction."""
    lengths = np.linalg.norm(matrix, axis=1)
    return bool((lengths > 0).any() and np.all((lengths == 0) | (np.abs(lengths - 1) < ON_SPHERE)))


def _unit(matrix: FloatArray) -> FloatArray:
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    return np.divide(matrix, lengths, out=np.zeros_like(matrix), where=lengths > 0)
