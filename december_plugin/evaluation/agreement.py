"""Agreement between partitions of the same neurons.

Five measures from one contingency table: the adjusted Rand index (the primary one), the Fowlkes-Mallows index,
homogeneity, completeness and the V-measure. They are the definitions of scikit-learn, one pass over the labels instead
of five. On top: identity of neurons across models, summaries over all pairs of seeds, agreement with known cell types,
and the mean and standard deviation over groups of different sizes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Hashable, Iterable, Mapping, Set
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from december_plugin.embeddings.neuron_ids import IntArray, NeuronIds, match_neurons
from december_plugin.errors import SettingsError

# An agreement whose p value is at most this is above its null: in every table, figure and sentence.
SIGNIFICANT = 0.05
MISSING_TYPES: tuple[Hashable, ...] = (-1, "")


@dataclass(frozen=True)
class Measures:
    """One number per measure of agreement; the names are the columns of the project's tables.

    Attributes
    ----------
    adjusted_rand_index
        Share of pairs of neurons on which both partitions agree, corrected for chance: 0 on average for independent
        partitions, 1 for equal ones (Hubert and Arabie 1985).
    fowlkes_mallows
        Geometric mean of the pairwise precision and recall (Fowlkes and Mallows 1983); not corrected for chance.
    homogeneity
        1 if every cluster of the second partition is contained in one cluster of the first (Rosenberg and Hirschberg
        2007).
    completeness
        1 if every cluster of the first partition is contained in one cluster of the second.
    v_measure
        Harmonic mean of the two; equal to the normalised mutual information with the arithmetic mean.
    """

    adjusted_rand_index: float
    fowlkes_mallows: float
    homogeneity: float
    completeness: float
    v_measure: float


MEASURES: tuple[str, ...] = tuple(field.name for field in fields(Measures))


@dataclass(frozen=True)
class PartitionAgreement(Measures):
    """The agreement of two partitions, and the number of neurons it was computed from.

    Attributes
    ----------
    n_neurons
        Neurons that both partitions assign to a cluster.
    """

    n_neurons: int

    @property
    def measures(self) -> tuple[float, ...]:
        """The five numbers in the order of :data:`MEASURES`."""
        return tuple(getattr(self, name) for name in MEASURES)


class SeedPair(NamedTuple):
    """Two seeds and the agreement of their partitions."""

    seed_a: Any
    seed_b: Any
    agreement: PartitionAgreement


@dataclass(frozen=True)
class SeedAgreement:
    """Agreement between all unordered pairs of seeds.

    Attributes
    ----------
    mean
        Mean over the pairs.
    sd
        Sample standard deviation over the pairs (divisor ``n_pairs - 1``); NaN for a single pair. It describes the
        spread: pairs that share a seed are not independent, so it gives no standard error.
    n_pairs
        Number of pairs.
    n_neurons
        Neurons compared; the smallest number if the pairs differ.
    pairs
        Every pair, in the order of the seeds given.
    """

    mean: Measures
    sd: Measures
    n_pairs: int
    n_neurons: int
    pairs: tuple[SeedPair, ...]


@dataclass(frozen=True)
class TypeAgreement:
    """Agreement with known types.

    Attributes
    ----------
    agreement
        Between the types (first partition) and the clusters (second), over the labelled neurons. Homogeneity is 1 if
        every cluster holds one type only.
    n_labelled
        Neurons with a known type.
    n_neurons
        Neurons of the assignment, labelled or not.
    """

    agreement: PartitionAgreement
    n_labelled: int
    n_neurons: int


@dataclass(frozen=True)
class _Partition:
    """Labels as codes from 0 to ``n_codes - 1`` (a code need not occur), and the identities of their neurons."""

    name: str
    codes: IntArray
    n_codes: int
    ids: NeuronIds | None
    no_cluster: int = -1  # the code of neurons without a cluster, which no neuron has if it is below 0

    def take(self, at: IntArray) -> _Partition:
        return replace(self, codes=self.codes[at], ids=None)


def compare_partitions(
    a: Any,
    b: Any,
    *,
    ids_a: Any = None,
    ids_b: Any = None,
    common_only: bool = False,
    no_cluster: Hashable | None = None,
) -> PartitionAgreement:
    """Return the five measures of agreement between two partitions of the same neurons.

    Parameters
    ----------
    a, b
        Labels, shape (N,): integers, strings, or any hashable values. The names of the clusters do not matter. For
        homogeneity and completeness ``a`` is the reference ("true") partition; the other measures are symmetric.
    ids_a, ids_b
        Identities of the neurons, in any form that :meth:`NeuronIds.of` takes. With them, the labels are matched by
        session and unit id; without them, they are compared by position.
    common_only
        Compare the neurons that both have, rather than raise, if they cover different neurons.
    no_cluster
        Label of neurons without a cluster, e.g. -1 for HDBSCAN's. The measures are over the neurons that have a cluster
        in both partitions, whose number is returned, and 0 if there is none. None: every label is a cluster.

    Returns
    -------
    PartitionAgreement
        Equal to scikit-learn's ``adjusted_rand_score``, ``fowlkes_mallows_score`` and
        ``homogeneity_completeness_v_measure``, degenerate cases included: two partitions into one cluster, or both into
        singletons, have an adjusted Rand index of 1; without a pair of neurons that share a cluster in both partitions
        the Fowlkes-Mallows index is 0; a partition without entropy is perfectly homogeneous (or complete).

    Raises
    ------
    SettingsError
        If there are no labels, their numbers differ, a label is missing (None or NaN), or the neurons differ.

    See Also
    --------
    agreement_across_seeds : The same for all pairs of seeds.
    agreement_with_types : Clusters against known types, some of which may be unknown.
    match_clusters : Gives both partitions the same numbers.

    References
    ----------
    Hubert L, Arabie P (1985). Comparing partitions. *Journal of Classification* 2, 193-218.
    https://doi.org/10.1007/BF01908075

    Fowlkes EB, Mallows CL (1983). A method for comparing two hierarchical clusterings. *Journal of the American
    Statistical Association* 78, 553-569. https://doi.org/10.1080/01621459.1983.10478008

    Rosenberg A, Hirschberg J (2007). V-measure: a conditional entropy-based external cluster evaluation measure.
    *EMNLP-CoNLL*, 410-420. https://aclanthology.org/D07-1043/

    Examples
    --------
    The names of the clusters do not matter:

    >>> from december_plugin import compare_partitions
    >>> compare_partitions([0, 0, 1, 1], ["b", "b", "a", "a"]).adjusted_rand_index
    1.0

    Splitting a cluster lowers completeness, but not homogeneity:

    >>> found = compare_partitions([0, 0, 1, 1], [0, 0, 1, 2])
    >>> round(found.adjusted_rand_index, 2), found.homogeneity, round(found.completeness, 2)
    (0.57, 1.0, 0.67)

    With identities, neurons are matched by session and unit id:

    >>> compare_partitions([0, 0, 1], [1, 0, 0], ids_a={"s": [1, 2, 3]}, ids_b={"s": [3, 2, 1]}).n_neurons
    3
    """
    first, second = (_encode(a, "a", ids_a, no_cluster), _encode(b, "b", ids_b, no_cluster))
    return _agreement(*_matched(first, second, common_only=common_only))


def agreement_across_seeds(
    labels: Mapping[Any, Any],
    *,
    ids: Mapping[Any, Any] | None = None,
    common_only: bool = False,
    no_cluster: Hashable | None = None,
) -> SeedAgreement:
    """Return mean, spread and number of the agreements of all unordered pairs of seeds.

    Parameters
    ----------
    labels
        Seed to labels (N,).
    ids
        Seed to identities, in any form that :meth:`NeuronIds.of` takes; None compares by position.
    common_only
        Compare the neurons that both seeds of a pair have, rather than raise, if they cover different neurons.
    no_cluster
        Label of neurons without a cluster, see :func:`compare_partitions`.

    Raises
    ------
    SettingsError
        If there are fewer than two seeds, a seed has no identities, or the neurons differ.

    See Also
    --------
    compare_partitions : The agreement of one pair.
    null_agreement : The agreement to expect without clusters.
    december_plugin.results.agreement_table : The agreement of the models in the database.

    Examples
    --------
    >>> from december_plugin.evaluation import agreement_across_seeds
    >>> found = agreement_across_seeds({1: [0, 0, 1, 1], 2: [1, 1, 0, 0], 3: [0, 0, 1, 2]})
    >>> found.n_pairs, round(found.mean.adjusted_rand_index, 2)
    (3, 0.71)
    """
    if len(labels) < 2:
        raise SettingsError(f"agreement across seeds needs at least two seeds; there is {len(labels)}.")
    if ids is not None and (missing := [seed for seed in labels if seed not in ids]):
        raise SettingsError(f"ids has no entry for seed {missing[0]!r}; give the identities of every seed.")
    partitions = {
        seed: _encode(values, f"seed {seed!r}", None if ids is None else ids[seed], no_cluster)
        for seed, values in labels.items()
    }
    pairs = tuple(
        SeedPair(a, b, _agreement(*_matched(partitions[a], partitions[b], common_only=common_only)))
        for a, b in itertools.combinations(labels, 2)
    )
    table = np.array([pair.agreement.measures for pair in pairs])
    return SeedAgreement(
        mean=_measures(table.mean(axis=0)),
        sd=_measures(table.std(axis=0, ddof=1) if len(pairs) > 1 else np.full(len(MEASURES), math.nan)),
        n_pairs=len(pairs),
        n_neurons=min(pair.agreement.n_neurons for pair in pairs),
        pairs=pairs,
    )


def agreement_with_types(
    labels: Any,
    types: Any,
    *,
    ids: Any = None,
    type_ids: Any = None,
    missing: Collection[Hashable] = MISSING_TYPES,
    no_cluster: Hashable | None = None,
) -> TypeAgreement:
    """Return the agreement of clusters with known cell types, over the neurons whose type is known.

    Parameters
    ----------
    labels
        Cluster of every neuron, (N,).
    types
        Known type of every neuron, (M,).
    ids, type_ids
        Identities that belong to ``labels`` and to ``types``. A neuron without an entry among the types counts as
        unlabelled; types of neurons that are not in the assignment are ignored. Without identities N must equal M.
    missing
        Values that mean "type unknown", in addition to None and NaN, which always do. By default -1 (the mark of pandas
        and scikit-learn) and the empty string.
    no_cluster
        Label of neurons without a cluster, see :func:`compare_partitions`.

    Raises
    ------
    SettingsError
        If no neuron has a known type, or none of the typed neurons is in the assignment.

    See Also
    --------
    compare_partitions : Two partitions of the same neurons.
    confusion_matrix : The counts by cluster and type.

    Examples
    --------
    >>> from december_plugin.evaluation import agreement_with_types
    >>> found = agreement_with_types([0, 0, 1, 1, 1], ["ON", "ON", "OFF", "OFF", None])
    >>> found.agreement.adjusted_rand_index, found.n_labelled, found.n_neurons
    (1.0, 4, 5)
    """
    clusters = _encode(labels, "labels", ids, no_cluster)
    n_neurons = len(clusters.codes)
    known = _as_array(types, "types")
    labelled = np.flatnonzero(~_is_missing(known, missing))
    if len(labelled) == 0:
        raise SettingsError(
            f"none of the {len(known)} types is known (None, NaN and {', '.join(map(repr, missing))} count as unknown)."
        )
    identities = None if type_ids is None else _ids_for(known, type_ids, "types").take(labelled)
    if identities is None and ids is None:
        _check_same_length("labels", n_neurons, "types", len(known))
        clusters = clusters.take(labelled)
    reference = _encode(known[labelled], "types", identities)
    reference, clusters = _matched(reference, clusters, common_only=True)
    return TypeAgreement(
        agreement=_agreement(reference, clusters), n_labelled=len(reference.codes), n_neurons=n_neurons
    )


def pool_mean_sd(means: npt.ArrayLike, sds: npt.ArrayLike, n: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return the weighted mean over groups and the standard deviation by the law of total variance.

    Parameters
    ----------
    means, sds
        Means and standard deviations of the groups, along the first axis.
    n
        Sizes of the groups, not negative, not all zero; the weights are ``n / sum(n)``.
    """
    means, sds, sizes = (np.asarray(values, dtype=np.float64) for values in (means, sds, n))
    if not (sizes >= 0).all() or not sizes.sum() > 0:
        raise SettingsError("the sizes of the groups must not be negative, and not all zero.")
    weights = sizes / sizes.sum()
    mean = np.tensordot(weights, means, axes=1)
    within = np.tensordot(weights, sds**2, axes=1)
    between = np.tensordot(weights, (means - mean) ** 2, axes=1)
    return mean, np.sqrt(within + between)


def _measures(values: Iterable[float]) -> Measures:
    return Measures(*(float(value) for value in values))


def _as_array(labels: Any, name: str) -> np.ndarray:
    if isinstance(labels, (str, bytes, Mapping, Set)) or not hasattr(labels, "__len__"):
        raise SettingsError(f"{name} is {type(labels).__name__}; it must be a sequence of labels, one per neuron.")
    # NumPy would turn [1, "1"] into two equal strings and a list of tuples into a table.
    array = np.asarray(labels) if hasattr(labels, "__array__") else np.fromiter(labels, dtype=object, count=len(labels))
    if array.ndim != 1:
        raise SettingsError(f"{name} has shape {array.shape}; it must be (N,), one label per neuron.")
    return array


def _is_missing(array: np.ndarray, values: Collection[Hashable]) -> npt.NDArray[np.bool_]:
    import pandas as pd

    marks = frozenset(values)
    try:
        marked = np.fromiter((value in marks for value in array.tolist()), dtype=bool, count=len(array))
    except TypeError as error:
        raise _not_a_label("types", error) from None
    return marked | np.asarray(pd.isna(array), dtype=bool)


def _not_a_label(name: str, error: TypeError) -> SettingsError:
    return SettingsError(f"{name} has a value that cannot be a label ({error}); labels must be hashable.")


def _encode(labels: Any, name: str, ids: Any, no_cluster: Hashable | None = None) -> _Partition:
    array = _as_array(labels, name)
    if len(array) == 0:
        raise SettingsError(f"{name} is empty; agreement needs at least one neuron.")
    identities = None if ids is None else _ids_for(array, ids, name)
    if array.dtype.kind in "biu" and array.dtype != np.uint64:
        low, high = int(array.min()), int(array.max())
        if high - low < 2 * len(array) + 1024:
            none = no_cluster - low if isinstance(no_cluster, (int, np.integer)) else -1
            return _Partition(name, array.astype(np.int64) - low, high - low + 1, identities, int(none))
    import pandas as pd

    try:
        codes, names = pd.factorize(array)
    except TypeError as error:
        raise _not_a_label(name, error) from None
    if n_missing := int((codes < 0).sum()):
        raise SettingsError(
            f"{name} has {n_missing} missing labels (None or NaN) of {len(array)}; a partition assigns every neuron."
        )
    at = [] if no_cluster is None else [code for code, label in enumerate(names) if label == no_cluster]
    return _Partition(name, codes.astype(np.int64), len(names), identities, *at)


def _ids_for(labels: np.ndarray, ids: Any, name: str) -> NeuronIds:
    identities = NeuronIds.of(ids)
    if len(labels) != len(identities):
        raise SettingsError(f"{name} has {len(labels)} labels, but identities of {len(identities)} neurons.")
    return identities


def _check_same_length(name_a: str, n_a: int, name_b: str, n_b: int) -> None:
    if n_a != n_b:
        raise SettingsError(
            f"{name_a} has {n_a} entries and {name_b} has {n_b}; they must belong to the same neurons. Pass the "
            "identities of both to match them by session and unit id."
        )


def _matched(a: _Partition, b: _Partition, *, common_only: bool) -> tuple[_Partition, _Partition]:
    """Bring the labels of the same neurons to the same positions."""
    if a.ids is None and b.ids is None:
        _check_same_length(a.name, len(a.codes), b.name, len(b.codes))
        return a, b
    if a.ids is None or b.ids is None:
        without = a.name if a.ids is None else b.name
        raise SettingsError(f"{without} has no identities, but what it is compared with has; give both, or neither.")
    at_a, at_b = match_neurons(a.ids, b.ids, common_only=common_only)
    return a.take(at_a), b.take(at_b)


def _contingency(a: _Partition, b: _Partition) -> tuple[IntArray, IntArray, IntArray]:
    """Return row, column and count of the cells of the contingency table that are not empty."""
    pair_codes = a.codes * b.n_codes + b.codes
    n_cells = a.n_codes * b.n_codes
    if n_cells <= 4 * len(pair_codes) + 65_536:
        table = np.bincount(pair_codes, minlength=n_cells)
        cells = np.flatnonzero(table)
        counts = table[cells]
    else:  # many small clusters: the table would be far larger than the data
        cells, counts = np.unique(pair_codes, return_counts=True)
    return cells // b.n_codes, cells % b.n_codes, counts


def _agreement(a: _Partition, b: _Partition) -> PartitionAgreement:
    has_cluster = (a.codes != a.no_cluster) & (b.codes != b.no_cluster)
    if not has_cluster.any():
        return PartitionAgreement(0.0, 0.0, 0.0, 0.0, 0.0, n_neurons=0)
    if not has_cluster.all():
        a, b = (each.take(np.flatnonzero(has_cluster)) for each in (a, b))
    rows, columns, counts = _contingency(a, b)
    n = len(a.codes)
    sizes_a = np.bincount(rows, weights=counts)
    sizes_b = np.bincount(columns, weights=counts)
    homogeneity, completeness, v_measure = _information(counts, sizes_a[rows], sizes_b[columns], sizes_a, sizes_b, n)
    # Numbers of ordered pairs of neurons, as Python integers: their products exceed 64 bits.
    together = int(counts @ counts) - n
    together_a, together_b = (int((sizes.astype(np.int64) ** 2).sum()) - n for sizes in (sizes_a, sizes_b))
    return PartitionAgreement(
        adjusted_rand_index=_adjusted_rand(together, together_a, together_b, n),
        fowlkes_mallows=math.sqrt(together / together_a) * math.sqrt(together / together_b) if together else 0.0,
        homogeneity=homogeneity,
        completeness=completeness,
        v_measure=v_measure,
        n_neurons=n,
    )


def _adjusted_rand(together: int, together_a: int, together_b: int, n: int) -> float:
    only_a, only_b = together_a - together, together_b - together
    if only_a == 0 and only_b == 0:
        return 1.0
    apart = n * (n - 1) - together - only_a - only_b
    expected = together_a * (only_a + apart) + together_b * (only_b + apart)
    return 2.0 * (together * apart - only_a * only_b) / expected


def _information(
    counts: IntArray, sizes_row: np.ndarray, sizes_column: np.ndarray, sizes_a: np.ndarray, sizes_b: np.ndarray, n: int
) -> tuple[float, float, float]:
    """Return homogeneity, completeness and V-measure (Rosenberg and Hirschberg 2007, equations 1 to 3)."""
    entropy_a, entropy_b = _entropy(sizes_a, n), _entropy(sizes_b, n)
    information = 0.0
    if entropy_a and entropy_b:
        information = max(0.0, float((counts / n) @ np.log((counts / sizes_row) * (n / sizes_column))))
    homogeneity = min(1.0, information / entropy_a) if entropy_a else 1.0
    completeness = min(1.0, information / entropy_b) if entropy_b else 1.0
    total = homogeneity + completeness
    return homogeneity, completeness, 2.0 * homogeneity * completeness / total if total else 0.0


def _entropy(sizes: np.ndarray, n: int) -> float:
    shares = sizes[sizes > 0] / n
    return 0.0 if len(shares) == 1 else float(-(shares @ np.log(shares)))
