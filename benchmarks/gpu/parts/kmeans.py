"""The k-means start on the device, compared with scikit-learn's from the same starts."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch
from sklearn.cluster import KMeans, kmeans_plusplus

from benchmarks.em_step import make_data
from benchmarks.gpu.rows import Row, Target
from benchmarks.gpu.timing import synchronize
from december_plugin.clustering.device_kmeans import DeviceKMeans

LIMIT_S = 40
SIZE = (54_569, 128, 100)  # neurons, features, clusters
TINY = (400, 8, 5)
SEEDS = (1, 2)  # a restart each; a training has 20
SAME = Target(at_most=1e-3, everywhere=True)


def measure(device: str, *, tiny: bool) -> Iterator[Row]:
    n, d, k = TINY if tiny else SIZE
    data, _ = make_data(n, d, k)
    vectors = torch.from_numpy(data).to(device)
    DeviceKMeans(vectors[:1000], 2).best([0], n_init=1)  # one-off costs are not counted
    size = f"{n:,} neurons, {d} features, {k} clusters"
    ours, theirs, above = [], [], []
    for seed in SEEDS:
        synchronize(device)
        began = time.perf_counter()
        clustering = DeviceKMeans(vectors, k)
        start = clustering.starts(clustering.draw([seed]))[0]
        run = clustering.runs(start[None])[0]
        synchronize(device)
        ours.append(time.perf_counter() - began)
        began = time.perf_counter()
        reference = KMeans(k, n_init=1, random_state=seed).fit(data)
        theirs.append(time.perf_counter() - began)
        above.append(abs(run.inertia / reference.inertia_ - 1))
    expected = kmeans_plusplus(data - data.mean(axis=0), k, random_state=np.random.RandomState(seed))[1]
    yield Row("centres drawn by k-means++ that are not scikit-learn's", int((start != expected).sum()), f"of {k}")
    # Both in float64 and from our start: the algorithm alone.
    precise = data.astype(np.float64)
    same = KMeans(k, n_init=1, init=precise[start]).fit(precise)
    moved = float(np.mean(same.labels_ != run.labels.cpu().numpy()))
    yield Row("neurons in another cluster than scikit-learn's, from one start", moved, "", SAME)
    yield Row("difference of the inertia from scikit-learn's, from one seed", max(above))
    threads = f"scikit-learn on {torch.get_num_threads()} thread(s): {min(theirs):.3g} s"
    yield Row(f"one restart, {size}", min(ours), "s", None, threads)
    yield Row("times faster than scikit-learn", min(theirs) / min(ours), "times")
