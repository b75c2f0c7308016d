"""The cost of the agreement of one pair of partitions, compared with scikit-learn's five functions.

Two partitions of 54,569 neurons (the V1 data of the paper) that agree on half of them. ``compare_partitions`` computes
all five measures from one contingency table; scikit-learn builds one in each of ``adjusted_rand_score``,
``fowlkes_mallows_score``, ``homogeneity_score``, ``completeness_score`` and ``v_measure_score``. Measurements take
turns; times are medians.

    python benchmarks/agreement.py --repeats 20
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import sklearn
from sklearn import metrics

from december_plugin.embeddings.neuron_ids import NeuronIds
from december_plugin.evaluation.agreement import agreement_across_seeds, compare_partitions

CLUSTERS = (10, 50, 100)
PAIRS_TARGET = 1000
SECONDS_TARGET = 60.0
SCIKIT_LEARN = (
    metrics.adjusted_rand_score,
    metrics.fowlkes_mallows_score,
    metrics.homogeneity_score,
    metrics.completeness_score,
    metrics.v_measure_score,
)


def make_pair(n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    a = rng.integers(0, k, n)
    return a, np.where(rng.random(n) < 0.5, a, rng.integers(0, k, n))


def scikit_learn(a: np.ndarray, b: np.ndarray) -> list[float]:
    return [measure(a, b) for measure in SCIKIT_LEARN]


def median_seconds(calls: list[Callable[[], object]], repeats: int) -> list[float]:
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    for _ in range(repeats):
        for call, own in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            own.append(time.perf_counter() - start)
    return [statistics.median(own) for own in times]


def report_pairs(n: int, repeats: int) -> None:
    print(f"{'labels':<24}{'ours':>10}{'scikit-learn':>16}{'ratio':>9}{'pairs/s':>10}")
    cases = {f"int64, K = {k}": make_pair(n, k) for k in CLUSTERS}
    a, b = make_pair(n, 50)
    cases["int16, K = 50"] = (a.astype(np.int16), b.astype(np.int16))
    cases["text, K = 50"] = (np.char.add("type ", a.astype(str)), np.char.add("type ", b.astype(str)))
    cases["int64, all singletons"] = (np.arange(n), np.arange(n)[::-1])
    for name, (a, b) in cases.items():
        np.testing.assert_allclose(compare_partitions(a, b).measures, scikit_learn(a, b), atol=1e-12)
        ours, theirs = median_seconds([lambda: compare_partitions(a, b), lambda: scikit_learn(a, b)], repeats)  # noqa: B023
        print(f"{name:<24}{ours * 1e3:>7.2f} ms{theirs * 1e3:>13.2f} ms{theirs / ours:>8.0f}x{1 / ours:>10.0f}")


def report_seeds(n: int) -> bool:
    """Measure 1,000 pairs (46 seeds have 1,035), with the identities of their neurons checked and matched."""
    rng = np.random.default_rng(1)
    seeds = range(46)
    labels = {seed: make_pair(n, 50)[1] for seed in seeds}
    sessions = np.array_split(rng.permutation(n), 7)
    ids = dict.fromkeys(seeds, NeuronIds.of({f"session {i}": units for i, units in enumerate(sessions)}))
    start = time.perf_counter()
    summary = agreement_across_seeds(labels, ids=ids)
    seconds = (time.perf_counter() - start) * PAIRS_TARGET / summary.n_pairs
    print(f"\n{PAIRS_TARGET} pairs of seeds, neurons matched: {seconds:.2f} s")
    print(f"(to reach with the database: {SECONDS_TARGET:.0f} s)")
    return seconds < SECONDS_TARGET


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neurons", type=int, default=54_569)
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    print(f"{arguments.neurons} neurons, scikit-learn {sklearn.__version__}, numpy {np.__version__}\n")
    report_pairs(arguments.neurons, arguments.repeats)
    return 0 if report_seeds(arguments.neurons) else 1


if __name__ == "__main__":
    sys.exit(main())
