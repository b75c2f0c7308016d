"""Which clusters compute the same thing: correlations between the responses of their means, and blocks of clusters.

A core learns redundant features, so that clusters far from each other may predict the same responses (Ustyuzhaninov et
al. 2020, section 5.2). The mean of a cluster's readout vectors is treated as a neuron, whose responses are compared
with those of the other clusters' means. For linear responses that follows from the feature covariance alone,

    C_pq = m_p^T Sigma m_q / sqrt(m_p^T Sigma m_p  m_q^T Sigma m_q);

with an output nonlinearity it needs stimuli. With a rotation-equivariant core clusters may have different canonical
orientations: ``C_pq`` is then the largest over all shifts of ``m_q`` along the orientations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from december_plugin.clustering.result import NO_CLUSTER
from december_plugin.embeddings.space import checked_covariance
from december_plugin.errors import EmbeddingError, MisfitError, SettingsError
from december_plugin.evaluation.cluster_functions_settings import THRESHOLD
from december_plugin.text.array_repr import ArrayRepr
from december_plugin.validation.checks import check_integer, is_number

if TYPE_CHECKING:
    import torch
    from torch import nn

    from december_plugin.embeddings.functional import Received

Floats = npt.NDArray[np.float64]

POSITION = ((0.0, 0.0),)  # the middle of the core's output
BLOCK_NUMBERS = 1 << 22  # responses in float64 at a time: 32 MiB
CONSTANT = 1e-12  # a part of the largest variance below which a response does not vary
STIMULI_AT_ONCE = 32  # about as many as loaders' stimuli are read at a time
N_CHECKED = 2  # stimuli on which drives and output are compared with the model's own forward pass
TOLERANCE = 1e-3  # of the largest response: another output is off by much more
MERGE_COLUMNS = ("n_blocks", "correlation", "first", "second")


def cluster_means(vectors: npt.ArrayLike, labels: npt.ArrayLike) -> Floats:
    """Return the mean readout vector of every cluster.

    Parameters
    ----------
    vectors
        Readout vectors (N, D).
    labels
        Clusters (N,), integers from 0; -1 for a neuron without one, which is left out.

    Returns
    -------
    ndarray
        (K, D) float64, K one more than the largest label; zeros, which respond to nothing, for a cluster without
        neurons.

    See Also
    --------
    covariance_confusion : How differently the means respond.
    december_plugin.plots.cluster_centres_figure : Draws them.

    Examples
    --------
    >>> from december_plugin.evaluation import cluster_means
    >>> cluster_means([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]], [0, 0, 1]).tolist()
    [[2.0, 0.0], [0.0, 2.0]]
    """
    w, clusters = np.asarray(vectors, dtype=np.float64), np.asarray(labels)
    if w.ndim != 2 or clusters.shape != (len(w),):
        raise MisfitError(
            f"vectors have the shape {w.shape} and labels {clusters.shape}; they must be (neurons, features) and "
            "(neurons,), of the same neurons."
        )
    w, clusters = w[clusters != NO_CLUSTER], clusters[clusters != NO_CLUSTER]
    if not len(w):
        raise MisfitError("no neuron has a cluster, so there are no means to compare.")
    sizes = np.bincount(clusters)
    sums = np.zeros((len(sizes), w.shape[1]))
    np.add.at(sums, clusters, w)
    return np.asarray(sums / np.maximum(sizes, 1)[:, None])


def covariance_confusion(means: npt.ArrayLike, covariance: npt.ArrayLike, *, n_orientations: int = 1) -> Floats:
    """Return the correlations between the linear responses of cluster means, from the feature covariance.

    Parameters
    ----------
    means
        Cluster means (K, D), of :func:`cluster_means`.
    covariance
        Feature covariance ``Sigma`` (D, D) of the model.
    n_orientations
        Orientations of a rotation-equivariant core, of which D is a multiple; 1 for every other core.

    Returns
    -------
    ndarray
        (K, K) float64, symmetric, the mean of both directions; 1 on the diagonal. A cluster whose mean does not respond
        has correlations of 0, even with itself.

    Raises
    ------
    EmbeddingError, MisfitError
        If means or covariance are not finite, are of different numbers of features, or these are not a multiple of the
        orientations.

    See Also
    --------
    cluster_means : The means.
    cluster_blocks : Merges clusters that respond alike.
    december_plugin.embeddings.feature_covariance : The covariance.
    december_plugin.plots.cluster_confusion_figure : Draws the confusion.

    References
    ----------
    Ustyuzhaninov I, Cadena SA, Froudarakis E, Fahey PG, Walker EY, Cobos E, Reimer J, Sinz FH, Tolias AS, Bethge M,
    Ecker AS (2020). Rotation-invariant clustering of neuronal responses in primary visual cortex. *ICLR*.
    https://iclr.cc/virtual/2020/poster/1570

    Examples
    --------
    Features that are correlated over stimuli make clusters respond alike whose means have nothing in common:

    >>> from december_plugin.evaluation import covariance_confusion
    >>> means = [[1.0, 0.0], [0.0, 2.0]]
    >>> covariance_confusion(means, [[1.0, 0.9], [0.9, 1.0]]).round(2).tolist()
    [[1.0, 0.9], [0.9, 1.0]]
    """
    turned = _all_turns(means, n_orientations)
    sigma = checked_covariance(covariance, n_features=turned.shape[2])
    drives = turned @ sigma
    products = np.einsum("pd,kqd->kpq", turned[0], drives)
    variances = np.einsum("kqd,kqd->kq", turned, drives)
    return _best_correlations(products, variances)


def response_confusion(
    means: npt.ArrayLike,
    features: npt.ArrayLike | Iterable[npt.ArrayLike],
    *,
    n_orientations: int = 1,
    output: Callable[[Floats], npt.ArrayLike] | None = None,
    biases: npt.ArrayLike | None = None,
) -> Floats:
    """Return the correlations between the responses of cluster means to stimuli.

    Responses of all stimuli are never held together. Without an output nonlinearity it is what
    :func:`covariance_confusion` returns for the covariance of these features.

    Parameters
    ----------
    means
        Cluster means (K, D).
    features
        What a readout receives from the core, (stimuli, places, D) or (stimuli, D), as an array or in consecutive
        parts: :func:`received_at` yields them for a model. Responses are compared within each place.
    n_orientations
        As for :func:`covariance_confusion`.
    output
        Output nonlinearity, from drives to responses of the same shape; None for linear responses.
    biases
        Biases of the clusters, (K,), added to the drives; None for 0.

    Returns
    -------
    ndarray
        (K, K) float64, as for :func:`covariance_confusion`.

    Raises
    ------
    EmbeddingError, MisfitError
        If shapes do not fit, there are fewer than two stimuli, or responses are not finite.
    """
    turned = _all_turns(means, n_orientations)
    added = _checked_biases(biases, turned)
    sums = _ResponseSums(turned.shape[0], turned.shape[1])
    for part in _parts(features, turned):
        drives = np.einsum("spd,kqd->spkq", part, turned, optimize=True) + added
        sums.add(np.asarray(drives if output is None else output(drives), dtype=np.float64))
    return _best_correlations(*sums.covariances())


def received_at(
    model: Any, stimuli: Any, *, positions: npt.ArrayLike = POSITION, data_key: str | None = None
) -> Iterator[Floats]:
    """Yield what readouts of a model would receive from its core at some positions, a few stimuli at a time.

    Parameters
    ----------
    model
        Has ``core`` and ``readout``, data key to the session's readout; it runs in evaluation mode, and its mode is
        restored afterwards.
    stimuli
        (stimuli, channels, height, width), or (clips, channels, frames, height, width) of movies.
    positions
        (places, 2): x and y from -1 to 1 in the core's output.
    data_key
        Key of the readout that says at which scales maps are read; None for the first.

    Yields
    ------
    ndarray
        (stimuli, places, D) float64.

    Raises
    ------
    EmbeddingError
        If the core cannot take the stimuli, or features at other places than the neurons' are not known.
    """
    import torch

    from december_plugin.embeddings.batches import evaluating
    from december_plugin.embeddings.received_features import core_outputs, features_at

    places = torch.as_tensor(np.asarray(positions, dtype=np.float64))
    readout = model.readout[next(iter(model.readout)) if data_key is None else data_key]
    with evaluating(model), torch.no_grad():
        for maps in core_outputs(model, stimuli):
            yield features_at(readout, maps, places).double().cpu().numpy()


class StimulusConfusion(NamedTuple):
    """How clusters respond to the stimuli of a recording.

    Attributes
    ----------
    correlations
        (K, K) float64, as for :func:`covariance_confusion`.
    n_images
        Number of stimuli of all sessions: images, or frames of movies.
    """

    correlations: Floats
    n_images: int


def stimulus_confusion(
    model: nn.Module,
    batches: Any,
    means: npt.ArrayLike,
    *,
    biases: npt.ArrayLike | None = None,
    n_orientations: int = 1,
    seed: int = 0,
) -> StimulusConfusion:
    """Return the correlations between what a model predicts of cluster means for the stimuli of a recording.

    The stimuli, and the neurons in whose places the means read, are those from which
    :func:`~december_plugin.embeddings.functional.feature_covariance` takes the covariance with this seed, and the
    model's output nonlinearity is applied to the drives of the means. For a model without one, the result is that of
    :func:`covariance_confusion`.

    Parameters
    ----------
    model
        Has ``readout``, data key to the session's readout; it runs in evaluation mode, and its mode is restored
        afterwards.
    batches
        Data key to loader of one tier, or tier to data key to loader: then the training tier.
    means, n_orientations
        As for :func:`covariance_confusion`.
    biases
        As for :func:`response_confusion`.
    seed
        Seed of the samples of stimuli and neurons.

    Raises
    ------
    EmbeddingError
        If the class of a readout is unknown, its responses are not made of drives that other neurons could have, a
        session has no loader or fewer than two stimuli, or responses are not finite.
    MisfitError
        If shapes do not fit.
    """
    import torch

    from december_plugin.embeddings.batches import evaluating
    from december_plugin.embeddings.functional import MAX_NEURONS, N_IMAGES, chosen_neurons, received_from_core
    from december_plugin.embeddings.received_features import received_features

    turned = _all_turns(means, n_orientations)
    added = _checked_biases(biases, turned)
    n_places = max(1, BLOCK_NUMBERS // (STIMULI_AT_ONCE * turned.shape[0] * turned.shape[1]))
    sums: dict[str, list[_ResponseSums]] = {}
    with evaluating(model), torch.no_grad():
        chosen = chosen_neurons(model, MAX_NEURONS, seed)
        for received in received_from_core(model, batches, list(chosen), N_IMAGES, seed):
            places = chosen[received.data_key].to(received.core_output.device).split(n_places)
            if received.data_key not in sums:
                _check_output(model, received)
                sums[received.data_key] = [_ResponseSums(turned.shape[0], turned.shape[1]) for _ in places]
            readout: nn.Module = model.readout[received.data_key]  # type: ignore[index, assignment]
            for neurons, own in zip(places, sums[received.data_key], strict=True):
                features = received_features(readout, received.core_output, shift=received.shift, neurons=neurons)
                for part in _parts(features.double().cpu().numpy(), turned):
                    drives = np.einsum("spd,kqd->spkq", part, turned, optimize=True) + added
                    own.add(_after_the_readout(model, received, drives))
    every = [own.covariances() for parts in sums.values() for own in parts]
    products, variances = (sum(each) for each in zip(*every, strict=True))
    n_images = sum(parts[0].n_stimuli for parts in sums.values())
    return StimulusConfusion(_best_correlations(np.asarray(products), np.asarray(variances)), n_images)


def readout_biases(model: nn.Module) -> Floats:
    """Return the biases (N,) of all neurons of a model, sessions in its order; 0 of readouts without any."""
    from december_plugin.embeddings.readout_vectors import readout_vectors

    found = []
    for readout in model.readout.values():  # type: ignore[operator]
        bias = _bias_of(readout)
        n_neurons = len(readout_vectors(readout))
        found.append(np.zeros(n_neurons) if bias is None else bias.double().cpu().numpy())
    return np.concatenate(found)


def _bias_of(readout: nn.Module) -> Any:
    """Return the bias (n,) of a readout, or None."""
    import torch

    bias = getattr(readout, "bias", None)
    return bias.detach().flatten() if isinstance(bias, torch.Tensor) else None


def _after_the_readout(model: nn.Module, received: Received, drives: npt.NDArray[Any]) -> Floats:
    """Return a model's output for drives that replace those of its readout, an array of the same shape."""
    import torch

    from december_plugin.embeddings.batches import forward_replaced
    from december_plugin.embeddings.received_features import like_parameters

    given = like_parameters(model, torch.from_numpy(np.ascontiguousarray(drives))).flatten()

    def answer(core_output: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return given[None, None] if core_output.ndim == 5 else given[None]

    readout: nn.Module = model.readout[received.data_key]  # type: ignore[index, assignment]
    with forward_replaced(readout, answer):
        responses = _forward(model, received, 1)
    return responses.double().cpu().numpy().reshape(drives.shape)


def _forward(model: nn.Module, received: Received, n: int) -> torch.Tensor:
    """Return what a model responds to the first few of its stimuli."""
    import torch

    from december_plugin.embeddings.received_features import like_parameters

    assert received.inputs is not None
    extras = {
        name: value[:n]
        if isinstance(value, torch.Tensor) and value.ndim and len(value) == len(received.inputs)
        else value
        for name, value in received.extras.items()
    }
    given = {name: like_parameters(model, value) for name, value in extras.items()}
    found: torch.Tensor = model(like_parameters(model, received.inputs[:n]), data_key=received.data_key, **given)
    return found


def _check_output(model: nn.Module, received: Received) -> None:
    """Refuse a model whose responses do not follow from the drives of its neurons."""
    from december_plugin.embeddings.readout_vectors import readout_vectors
    from december_plugin.embeddings.received_features import check_drives, received_features

    readout: nn.Module = model.readout[received.data_key]  # type: ignore[index, assignment]
    few = received.core_output[:N_CHECKED]
    shift = None if received.shift is None else received.shift[:N_CHECKED]
    check_drives(readout, few, shift=shift, name=received.data_key)
    drives = (received_features(readout, few, shift=shift) * readout_vectors(readout)).sum(dim=2)
    bias = _bias_of(readout)
    drives = drives if bias is None else drives + bias
    expected = _forward(model, received, N_CHECKED).double().cpu().numpy().reshape(drives.shape)
    found = _after_the_readout(model, received, drives.double().cpu().numpy())
    if not np.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE * float(np.abs(expected).max(initial=0.0))):
        raise EmbeddingError(
            f"session {received.data_key!r}: {type(readout).__name__} does more to its responses than adding a bias, "
            "so the response of a cluster's mean is not known. Compare clusters by their linear responses "
            "(responses: linear)."
        )


class _ResponseSums:
    """Sums over stimuli of responses (stimuli, places, O, K), from which their covariances within places are computed.

    Responses are counted from their mean over the first stimuli, so that a large mean costs no digits.
    """

    def __init__(self, n_turns: int, n_clusters: int):
        self.n_stimuli = 0
        self._origin: Floats | None = None
        self._sums: Floats | None = None
        self._products = np.zeros((n_turns, n_clusters, n_clusters))
        self._squares = np.zeros((n_turns, n_clusters))

    def add(self, responses: Floats) -> None:
        if not np.isfinite(responses).all():
            raise EmbeddingError("the responses of cluster means hold NaN or infinite values.")
        if self._origin is None or self._sums is None:
            self._origin, self._sums = responses.mean(axis=0), np.zeros(responses.shape[1:])
        responses = responses - self._origin
        self.n_stimuli += len(responses)
        self._sums += responses.sum(axis=0)
        self._products += np.einsum("stp,stkq->kpq", responses[:, :, 0], responses, optimize=True)
        self._squares += np.einsum("stkq,stkq->kq", responses, responses)

    def covariances(self) -> tuple[Floats, Floats]:
        """Return covariances (O, K, K) of means with turned means, and variances (O, K), over places."""
        n = self.n_stimuli
        if n < 2 or self._sums is None:
            raise EmbeddingError(f"correlations need at least two stimuli; there are {n}.")
        mean = self._sums / n
        products = self._products - n * np.einsum("tp,tkq->kpq", mean[:, 0], mean)
        variances = self._squares - n * np.einsum("tkq,tkq->kq", mean, mean)
        return products / (n - 1), variances / (n - 1)


def _all_turns(means: npt.ArrayLike, n_orientations: int) -> Floats:
    """Return the means (O, K, D), shifted by every number of orientations."""
    m = np.asarray(means, dtype=np.float64)
    if m.ndim != 2 or not len(m) or not np.isfinite(m).all():
        raise EmbeddingError(f"cluster means have the shape {m.shape}; they must be (clusters, features) and finite.")
    if m.shape[1] % check_integer("n_orientations", n_orientations, minimum=1):
        raise MisfitError(
            f"n_orientations is {n_orientations}, but cluster means have {m.shape[1]} entries, which is not a multiple "
            "of it.",
            setting="n_orientations",
        )
    by_orientation = m.reshape(len(m), n_orientations, -1)
    return np.stack([np.roll(by_orientation, k, axis=1).reshape(m.shape) for k in range(n_orientations)])


def _checked_biases(biases: npt.ArrayLike | None, turned: Floats) -> Floats:
    added = np.zeros(turned.shape[1]) if biases is None else np.asarray(biases, dtype=np.float64)
    if added.shape != (turned.shape[1],):
        raise MisfitError(
            f"biases have the shape {added.shape}; there must be one for each of {turned.shape[1]} means."
        )
    return added


def _parts(features: Any, turned: Floats) -> Iterator[Floats]:
    """Yield features as (stimuli, places, D), few enough that the responses to them are not many."""
    for part in [features] if hasattr(features, "ndim") else features:
        received = np.asarray(part, dtype=np.float64)
        if received.ndim == 2:
            received = received[:, None]
        if received.ndim != 3 or received.shape[2] != turned.shape[2]:
            raise MisfitError(
                f"features have the shape {received.shape}, but cluster means have {turned.shape[2]} entries; they "
                "must be (stimuli, places, features)."
            )
        size = max(1, BLOCK_NUMBERS // (received.shape[1] * turned.shape[0] * turned.shape[1]))
        for start in range(0, len(received), size):
            yield received[start : start + size]


def _best_correlations(products: Floats, variances: Floats) -> Floats:
    """Return the largest of the correlations (O, K, K) with turned means, symmetrised."""
    own = variances[0]
    scale = np.sqrt(own[None, :, None] * variances[:, None, :])
    varies = scale > CONSTANT * variances.max(initial=0.0)
    correlations = np.divide(products, scale, out=np.zeros_like(products), where=varies)
    best = np.clip(correlations, -1, 1).max(axis=0)
    return np.asarray((best + best.T) / 2)


@dataclass(frozen=True, eq=False, repr=False)
class ClusterBlocks(ArrayRepr):
    """Clusters whose responses are correlated, and the tree by which they are merged.

    Attributes
    ----------
    labels
        (K,) int64: the block of every cluster, from 0 in the order of ``order``.
    order
        (K,) int64: clusters in the order of the tree's leaves, in which every block, and every block of any other
        threshold, is contiguous.
    threshold
        The mean correlation down to which blocks were merged.
    merges
        One row per merge, the highest correlation first: ``n_blocks`` that are left after it, the mean ``correlation``
        between the two blocks, and the clusters of the ``first`` and ``second``, tuples. The first rows down to the
        threshold made the blocks: undone from there upwards they are splits; those below would merge them further.
    """

    labels: npt.NDArray[np.int64]
    order: npt.NDArray[np.int64]
    threshold: float
    merges: pd.DataFrame

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return int(self.labels.max()) + 1

    def next_merges(self, n: int = 3) -> pd.DataFrame:
        """Return the next merges below the threshold, at most ``n`` (Figure C1 of the paper)."""
        return self.merges[self.merges["n_blocks"] < self.n_blocks].head(n)

    def last_splits(self, n: int = 3) -> pd.DataFrame:
        """Return the last merges above the threshold, to be undone one after another, at most ``n`` (Figure C2)."""
        return self.merges[self.merges["n_blocks"] >= self.n_blocks].iloc[::-1].head(n)


def cluster_blocks(confusion: npt.ArrayLike, *, threshold: float = THRESHOLD) -> ClusterBlocks:
    """Merge clusters into blocks while the mean correlation between two blocks is at least a threshold.

    Average linkage: the two blocks are merged whose clusters have the highest mean correlation over all pairs.

    Parameters
    ----------
    confusion
        Correlations (K, K) between the responses of clusters, symmetric.
    threshold
        Mean correlation, -1 to 1. The paper uses 0.5.

    Raises
    ------
    SettingsError
        If the threshold is not a correlation.
    MisfitError
        If the matrix is not one of correlations.

    See Also
    --------
    covariance_confusion : The correlations of clusters.
    december_plugin.results.cluster_confusion : Blocks of clusters in the database.

    References
    ----------
    Ustyuzhaninov I, Cadena SA, Froudarakis E, Fahey PG, Walker EY, Cobos E, Reimer J, Sinz FH, Tolias AS, Bethge M,
    Ecker AS (2020). Rotation-invariant clustering of neuronal responses in primary visual cortex. *ICLR*.
    https://iclr.cc/virtual/2020/poster/1570

    Examples
    --------
    >>> from december_plugin.evaluation import cluster_blocks
    >>> blocks = cluster_blocks([[1.0, 0.8, 0.1], [0.8, 1.0, 0.2], [0.1, 0.2, 1.0]])
    >>> blocks.labels.tolist(), blocks.n_blocks
    ([1, 1, 0], 2)
    """
    from scipy.cluster.hierarchy import average, leaves_list
    from scipy.spatial.distance import squareform

    if not is_number(threshold) or not -1 <= threshold <= 1:
        raise SettingsError(f"threshold is {threshold!r}, but must be a correlation from -1 to 1.", setting="threshold")
    c = np.asarray(confusion, dtype=np.float64)
    if c.ndim != 2 or len(c) != len(c.T) or not len(c) or not np.isfinite(c).all() or not np.allclose(c, c.T):
        raise MisfitError(
            f"the confusion of clusters has the shape {c.shape}; it must be (clusters, clusters), symmetric."
        )
    if len(c) == 1:
        no_merges = pd.DataFrame(columns=list(MERGE_COLUMNS))
        return ClusterBlocks(np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64), float(threshold), no_merges)
    distances = 1 - (c + c.T) / 2
    tree = average(squareform(distances, checks=False))
    order = leaves_list(tree).astype(np.int64)
    merges = _merges(tree, order)
    labels = _labels_above(merges, order, float(threshold))
    return ClusterBlocks(labels, order, float(threshold), merges)


def _merges(tree: Floats, order: Sequence[int] | npt.NDArray[np.int64]) -> pd.DataFrame:
    """Return the merges of a linkage matrix as rows."""
    n = len(tree) + 1
    place = {int(cluster): at for at, cluster in enumerate(order)}
    members: list[tuple[int, ...]] = [(cluster,) for cluster in range(n)]
    rows = []
    for step, (left, right, distance, _) in enumerate(tree):
        first, second = sorted((members[int(left)], members[int(right)]), key=lambda block: place[block[0]])
        rows.append((n - step - 1, 1 - float(distance), first, second))
        members.append(tuple(sorted((*first, *second), key=place.__getitem__)))
    return pd.DataFrame(rows, columns=list(MERGE_COLUMNS))


def _labels_above(merges: pd.DataFrame, order: npt.NDArray[np.int64], threshold: float) -> npt.NDArray[np.int64]:
    block = np.arange(len(order))
    for _, correlation, first, second in merges.itertuples(index=False):
        if correlation >= threshold - CONSTANT:
            block[[*first, *second]] = block[first[0]]
    labels = np.empty(len(order), dtype=np.int64)
    # Blocks are contiguous in the order of the leaves.
    labels[order] = np.cumsum(np.diff(block[order], prepend=block[order][0]) != 0)
    return labels
