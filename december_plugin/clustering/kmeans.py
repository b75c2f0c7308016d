"""k-means starts for the Student-t mixture, DECEMber and vanilla DEC."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, get_args

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from december_plugin.clustering.device_kmeans import DeviceKMeans
from december_plugin.clustering.distances import as_vectors, check_magnitude, working_dtype
from december_plugin.clustering.lean_sklearn import lean_sklearn, one_thread
from december_plugin.clustering.methods import KMEANS_RESTARTS
from december_plugin.errors import EmbeddingError, MisfitError
from december_plugin.validation.checks import check_choice, check_count, check_seed

LARGEST_FLOAT32 = 1e15  # sums of squares of larger float32 values overflow
DEVICE_NEURONS = 10_000  # fewer are clustered on the CPU even if they are on a GPU
# For more neurons, or more distances to centres, scikit-learn's successive restarts are as fast.
TOGETHER_NEURONS = 1_000
TOGETHER_DISTANCES = 8_000
VARIANCE_FLOOR = 1e-6  # added to the variance of a k-means cluster, which may have a single member
KMeansSeeds = Literal["spawned", "joint"]
KMEANS_SEEDS: tuple[str, ...] = get_args(KMeansSeeds)


def kmeans_start(
    w: Tensor | np.ndarray,
    n_clusters: int,
    *,
    seed: int,
    n_init: int = KMEANS_RESTARTS,
    seeds: str = "spawned",
    unbiased: bool = False,
) -> tuple[Tensor, Tensor]:
    """Centres and variances of the best of several k-means clusterings (paper, section 4).

    The clusterings are scikit-learn's. Each restart runs on one thread, and the restarts share torch's threads among
    them: the result does not depend on their number, as k-means' own sums over threads would. Two kinds of vectors are
    clustered differently, with the same result, by the same algorithm from the same starts (:mod:`.device_kmeans`):
    10,000 and more on a CUDA device are clustered there, and few of float64 (:func:`restarts_go_together`) on the CPU.

    Parameters
    ----------
    w
        Readout vectors (N, D).
    n_clusters
        Number of clusters ``K``, at most ``N``.
    seed
        Seed of the restarts, 0 to 2**32 - 1.
    n_init
        Number of restarts, at least 1; the one with the smallest inertia counts.
    seeds
        "spawned": each restart has its own seed. "joint": they are drawn one after another from one generator,
        as by scikit-learn's ``KMeans(n_init=n_init, random_state=seed)``.
    unbiased
        Whether variances have the divisor n - 1 (a single member has none) instead of n.

    Returns
    -------
    centers, variances
        Means of the clusters' members (K, D), and their variances plus 1e-6 (K, D), both float64 and on the device of
        ``w``.

    Raises
    ------
    SettingsError
        If a setting is not allowed, or there are more clusters than neurons.
    EmbeddingError
        If the vectors are not finite, or fewer than ``n_clusters`` of them differ.
    """
    w = as_vectors(w).detach()
    check_count("n_clusters", n_clusters)
    n = len(w)
    if n_clusters > n:
        raise MisfitError(
            f"n_clusters is {n_clusters}, but there are only {n} neurons. Choose n_clusters between 1 and {n}.",
            setting="n_clusters",
        )
    starts, each = spawn_seeds(seed, check_count("n_init", n_init)), 1
    if check_choice("seeds", seeds, KMEANS_SEEDS) == "joint":
        starts, each = [int(seed)], n_init
    labels = _different_clusters(w, n_clusters, starts, each)
    centers, variances = [], []
    for k in range(n_clusters):
        members = w[torch.from_numpy(labels == k).to(w.device)].double()
        centers.append(members.mean(dim=0))
        correction = 1 if unbiased and len(members) > 1 else 0
        variances.append(members.var(dim=0, correction=correction) + VARIANCE_FLOOR)
    return torch.stack(centers), torch.stack(variances)


def _different_clusters(w: Tensor, n_clusters: int, seeds: list[int], n_init: int) -> np.ndarray:
    """Labels (N,) of ``n_clusters`` clusters that all have members, or an EmbeddingError that says why not."""
    dtype = working_dtype(w) if check_magnitude(w) < LARGEST_FLOAT32 else torch.float64
    labels = _best_kmeans(w.to(dtype), n_clusters, seeds, n_init=n_init)
    if len(np.unique(labels)) < n_clusters and dtype == torch.float32:
        # Compared with a vector that is far away, the others are equal in float32.
        labels = _best_kmeans(w.double(), n_clusters, seeds, n_init=n_init)
    found = len(np.unique(labels))
    if found == n_clusters:
        return labels
    vectors = w.double().cpu().numpy()
    n_different = len(np.unique(vectors, axis=0))
    finds = (
        f"k-means finds only {found} different clusters among {len(w)} readout vectors, but n_clusters is {n_clusters}:"
    )
    if n_different < n_clusters:
        raise EmbeddingError(
            f"{finds} too many vectors are equal. Choose a smaller n_clusters, or begin the clustering later in the "
            "training, when the readouts have learned to differ."
        )
    norms = np.linalg.norm(vectors - np.median(vectors, axis=0), axis=1)
    raise EmbeddingError(
        f"{finds} {n_different} of them differ, but too little for the distance of row {int(norms.argmax())}, "
        f"which is {norms.max():.2g} from the median vector, where half of all vectors are within "
        f"{np.median(norms):.2g}. Leave out neurons that are so far from all others, or check whether the training "
        "diverged."
    )


def runs_on_device(w: Tensor) -> bool:
    """Whether vectors (N, D) are clustered on their device, and not by scikit-learn."""
    return w.device.type == "cuda" and len(w) >= DEVICE_NEURONS


def restarts_go_together(w: Tensor, n_clusters: int) -> bool:
    """Whether the restarts of vectors (N, D) on the CPU run together, rather than one by one by scikit-learn.

    In float32 they do not: scikit-learn rounds every step to float32, and occasionally a neuron's cluster or the best
    restart would differ.
    """
    few = len(w) <= TOGETHER_NEURONS and len(w) * n_clusters <= TOGETHER_DISTANCES
    return w.dtype == torch.float64 and few


def _best_kmeans(w: Tensor, n_clusters: int, seeds: list[int], *, n_init: int) -> np.ndarray:
    """Labels (N,) of the k-means with the smallest inertia, the first of equals; ``n_init`` restarts for each seed."""
    w = w if runs_on_device(w) else w.cpu()
    if runs_on_device(w) or restarts_go_together(w, n_clusters):
        return DeviceKMeans(w, n_clusters).best(seeds, n_init=n_init)
    vectors = w.numpy()

    def run(some: list[int]) -> list[KMeans]:
        with lean_sklearn():
            return [KMeans(n_clusters, n_init=n_init, random_state=seed).fit(vectors) for seed in some]

    with warnings.catch_warnings(), one_thread("blas"):
        # Fewer distinct vectors than clusters: the caller raises the error.
        warnings.simplefilter("ignore", ConvergenceWarning)
        n_threads = min(len(seeds), torch.get_num_threads())
        if n_threads == 1:
            runs = run(seeds)
        else:
            with ThreadPoolExecutor(n_threads) as pool:
                runs = [fitted for each in pool.map(run, ([seed] for seed in seeds)) for fitted in each]
    return min(runs, key=lambda fitted: fitted.inertia_).labels_


def spawn_seeds(seed: int, n: int) -> list[int]:
    """``n`` independent seeds from one."""
    return [int(value) for value in np.random.SeedSequence(check_seed("seed", seed)).generate_state(n)]
