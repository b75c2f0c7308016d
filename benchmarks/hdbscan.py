"""The cost of HDBSCAN of many neurons with our spanning tree, compared with scikit-learn's.

scikit-learn compares every two neurons, one pair after another; ours uses products of matrices
(`december_plugin.clustering.mutual_reachability`) and hands the tree to scikit-learn, which finds the clusters in it.
Both run on one thread, each in its own process; times are the processor's, and memory is the growth of the process. If
both run, the benchmark checks that they find the same clusters. The vectors are 20 clusters of unequal width, whose
principal components decay.

    python benchmarks/hdbscan.py --neurons 5000 20000 50000 --features 64 --most-for-scikit-learn 20000
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.cluster import HDBSCAN
from threadpoolctl import threadpool_limits

from december_plugin.clustering import post_hoc
from december_plugin.clustering.post_hoc import cluster_readouts, in_order_of_size

N_CLUSTERS = 20
MIN_CLUSTER_SIZE = 25

Labels = npt.NDArray[np.int64]


def make_vectors(n: int, d: int) -> npt.NDArray[np.float64]:
    rng = np.random.default_rng(0)
    clusters = rng.integers(0, N_CLUSTERS, n)
    centers, widths = rng.normal(size=(N_CLUSTERS, d)), rng.uniform(0.4, 0.9, size=(N_CLUSTERS, 1))
    return (centers[clusters] + widths[clusters] * rng.normal(size=(n, d))) / np.sqrt(np.arange(1, d + 1))


def by_scikit_learn(vectors: npt.NDArray[np.float64]) -> Labels:
    return in_order_of_size(HDBSCAN(min_cluster_size=MIN_CLUSTER_SIZE, copy=True).fit(vectors).labels_)


def by_our_tree(vectors: npt.NDArray[np.float64]) -> Labels:
    post_hoc.HDBSCAN_NEURONS = 0  # even for so few that they are left to scikit-learn
    return cluster_readouts(vectors, method="hdbscan", min_cluster_size=MIN_CLUSTER_SIZE).labels


CASES: dict[str, Callable[[npt.NDArray[np.float64]], Labels]] = {
    "scikit-learn": by_scikit_learn,
    "our tree": by_our_tree,
}


def measure(case: str, n: int, d: int) -> dict[str, Any]:
    """Seconds of the processor, GB of memory and labels of one case, in this process."""
    CASES[case](np.repeat(np.eye(4), 100, axis=0) + 0.1 * make_vectors(400, 4))
    vectors = make_vectors(n, d)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    labels = CASES[case](vectors)
    seconds = time.process_time() - start
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"seconds": seconds, "gb": grown / 1e6, "labels": labels.tolist()}


def measured(case: str, n: int, d: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--case", case, "--neurons", str(n), "--features", str(d)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neurons", type=int, nargs="+", default=[5000, 20_000, 50_000])
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--most-for-scikit-learn", type=int, default=20_000, help="larger sizes: only ours")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        with threadpool_limits(1):
            print(json.dumps(measure(args.case, args.neurons[0], args.features)))
        return 0
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"{args.features} features, one thread, seconds of the processor; load {load} (1, 5, 15 minutes)")
    print(f"{'neurons':>9} {'our tree':>10} {'':>9} {'scikit-learn':>14} {'':>9} {'scikit-learn/ours':>18}  clusters")
    for n in args.neurons:
        ours = measured("our tree", n, args.features)
        found = f"{max(ours['labels']) + 1}, {100 * np.mean(np.array(ours['labels']) < 0):.0f} % without one"
        line = f"{n:>9,} {ours['seconds']:>8.1f} s {ours['gb']:>6.2f} GB"
        if n > args.most_for_scikit_learn:
            print(f"{line} {'-':>14} {'':>9} {'-':>18}  {found}", flush=True)
            continue
        theirs = measured("scikit-learn", n, args.features)
        same = "the same" if theirs["labels"] == ours["labels"] else "others by scikit-learn"
        ratio = theirs["seconds"] / ours["seconds"]
        print(
            f"{line} {theirs['seconds']:>12.1f} s {theirs['gb']:>6.2f} GB {ratio:>18.1f}  {found}; {same}", flush=True
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
